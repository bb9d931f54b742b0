from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from moirai_moe_forecaster.model.tokens import fit_normaliser

RULES: list[Any] = ["relative", "absolute"]


def values_and_mask(*shape: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    values = 5 + 3 * torch.randn(*shape, generator=generator, dtype=torch.float64)
    return values, torch.rand(*shape, generator=generator) < 0.7


@pytest.mark.parametrize("rule", RULES)
def test_location_and_scale_are_those_of_the_observed_values(rule: Any) -> None:
    values, observed = values_and_mask(3, 2, 50)
    normaliser = fit_normaliser(values, observed, rule)
    for index in np.ndindex(3, 2):
        seen = values[index][observed[index]].numpy()
        variance = seen.var(ddof=1) + (1e-5 if rule == "absolute" else 0)
        assert float(normaliser.location[index]) == pytest.approx(seen.mean(), rel=1e-12)
        assert float(normaliser.scale[index]) == pytest.approx(np.sqrt(variance), rel=1e-12)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("junk", [1e30, -7.0, float("nan"), float("inf")])
def test_what_stands_at_missing_points_does_not_matter(rule: Any, junk: float) -> None:
    values, observed = values_and_mask(4, 30)
    expected = fit_normaliser(values, observed, rule)
    got = fit_normaliser(torch.where(observed, values, junk), observed, rule)
    for one, other in zip(got, expected, strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("rule", RULES)
def test_restore_undoes_standardise(rule: Any) -> None:
    values, observed = values_and_mask(4, 30)
    normaliser = fit_normaliser(values, observed, rule)
    torch.testing.assert_close(normaliser.restore(normaliser.standardise(values)), values)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("factor", [2.0**-40, 2.0**-3, 2.0**30])
@pytest.mark.parametrize("kind", ["random", "constant", "one point", "nearly constant"])
def test_relative_scale_is_equivariant(kind: str, factor: float, dtype: torch.dtype) -> None:
    values = torch.randn(1, 20, generator=torch.Generator().manual_seed(0)).to(dtype)
    if kind == "constant":
        values = torch.full((1, 20), 0.1, dtype=dtype)
    elif kind == "one point":
        values = values[:, :1]
    elif kind == "nearly constant":
        values = 1 + 1e-3 * values
    observed = torch.ones_like(values, dtype=torch.bool)
    plain = fit_normaliser(values, observed, "relative")
    scaled = fit_normaliser(values * factor, observed, "relative")
    torch.testing.assert_close(scaled.location, plain.location * factor)
    torch.testing.assert_close(scaled.scale, plain.scale * factor)
    assert float(plain.scale) > 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("level", [0.1, -3.3, 1e9, 1e-9])
def test_a_constant_is_scaled_by_a_share_of_its_level(level: float, dtype: torch.dtype) -> None:
    """Rounding in its mean must not be taken for variation."""
    values = torch.full((1, 1000), level, dtype=dtype)
    normaliser = fit_normaliser(values, torch.ones_like(values, dtype=torch.bool), "relative")
    assert float(normaliser.scale) == pytest.approx(1e-3 * abs(level), rel=1e-4)
    assert float(normaliser.standardise(values).abs().max()) < 0.01


@pytest.mark.parametrize(("rule", "scale"), [("relative", 1.0), ("absolute", np.sqrt(1e-5))])
@pytest.mark.parametrize("kind", ["zeros", "nothing observed"])
def test_without_a_level_the_scale_is_fixed(rule: Any, scale: float, kind: str) -> None:
    values = torch.zeros(1, 5) if kind == "zeros" else torch.full((1, 5), 9.0)
    observed = torch.full((1, 5), kind == "zeros")
    normaliser = fit_normaliser(values, observed, rule)
    assert float(normaliser.location) == 0
    assert float(normaliser.scale) == pytest.approx(scale)


def test_two_passes_keep_the_digits_of_a_small_variation_at_a_high_level() -> None:
    noise = torch.randn(1, 500, generator=torch.Generator().manual_seed(0))
    values = 1e4 + noise
    normaliser = fit_normaliser(values, torch.ones_like(values, dtype=torch.bool), "relative")
    assert float(normaliser.scale) == pytest.approx(float(values.double().std()), rel=1e-3)


@pytest.mark.parametrize("factor", [1e-300, 1e-200, 1e200, 1e300])
def test_extreme_values_neither_overflow_nor_vanish(factor: float) -> None:
    values, observed = values_and_mask(1, 50)
    plain = fit_normaliser(values, observed, "relative")
    scaled = fit_normaliser(values * factor, observed, "relative")
    torch.testing.assert_close(scaled.scale / factor, plain.scale)
    torch.testing.assert_close(scaled.location / factor, plain.location)
