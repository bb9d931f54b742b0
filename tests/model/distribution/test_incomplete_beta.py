from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import special

from moirai_moe_forecaster.model.distribution.negative_binomial import incomplete_beta

SMALL = np.array([1e-3, 0.05, 0.5, 1.0, 2.5, 10.0])
LARGE = np.array([30.0, 100.0, 1000.0])
X = np.array([0.0, 1e-6, 0.01, 0.2, 0.5, 0.77, 0.99, 0.99999, 1.0])


def grid(*axes: np.ndarray) -> list[np.ndarray]:
    return [axis.ravel() for axis in np.meshgrid(*axes, indexing="ij")]


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-9), (torch.float32, 2e-6)])
def test_small_parameters(dtype: torch.dtype, tolerance: float) -> None:
    a, b, x = grid(SMALL, SMALL, X)
    # the argument as the type under test can hold it
    x = torch.tensor(x, dtype=dtype).double().numpy()
    got = incomplete_beta(*(torch.tensor(part, dtype=dtype) for part in (a, b, x)))
    np.testing.assert_allclose(got, special.betainc(a, b, x), atol=2 * tolerance)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-7), (torch.float32, 1e-3)])
def test_large_parameters_around_their_mean(dtype: torch.dtype, tolerance: float) -> None:
    a, b, score = grid(np.r_[SMALL, LARGE], LARGE, np.array([-4.0, -1, 0, 0.5, 3]))
    mean, deviation = a / (a + b), np.sqrt(a * b / (a + b + 1)) / (a + b)
    x = torch.tensor((mean + score * deviation).clip(0, 1), dtype=dtype)
    for one, other, at in ((a, b, x), (b, a, 1 - x)):
        got = incomplete_beta(torch.tensor(one, dtype=dtype), torch.tensor(other, dtype=dtype), at)
        expected = special.betainc(one, other, at.double().numpy())
        np.testing.assert_allclose(got, expected, atol=tolerance)


def test_it_is_a_distribution_function_in_x() -> None:
    x = torch.linspace(0, 1, 501)
    for a, b in ((0.3, 0.4), (0.3, 20.0), (20.0, 0.3), (50.0, 60.0)):
        value = incomplete_beta(torch.tensor(a), torch.tensor(b), x)
        assert value[0] == 0
        assert value[-1] == 1
        assert (value.diff() >= -1e-6).all()


def test_symmetry() -> None:
    a, b, x = (torch.tensor(part) for part in grid(SMALL, SMALL, X[1:-1]))
    total = incomplete_beta(a, b, x) + incomplete_beta(b, a, 1 - x)
    torch.testing.assert_close(total, torch.ones_like(total), atol=1e-9, rtol=0)


def test_parameters_broadcast() -> None:
    got = incomplete_beta(torch.ones(3, 1), torch.full((4,), 2.0), torch.tensor(0.5))
    assert got.shape == (3, 4)
    torch.testing.assert_close(got, torch.full((3, 4), 0.75))
