from __future__ import annotations

import pytest
import torch
from scipy import stats

from moirai_moe_forecaster.inference.dependence import (
    LARGEST_SHARE,
    Dependence,
    Shares,
    dependent,
    growth,
)
from moirai_moe_forecaster.model.distribution.components import StudentT
from moirai_moe_forecaster.model.distribution.mixture import Mixture


def mixture_of(scale: torch.Tensor) -> Mixture:
    """One Student's t of these scales (..., patch, patch_size) and any middles."""
    loc = torch.randn(scale.shape, generator=torch.Generator().manual_seed(0))
    student = StudentT(*(part[None] for part in (torch.full_like(scale, 9.0), loc, scale)))
    return Mixture(torch.zeros(1, 1, *scale.shape), (student,))


@pytest.mark.parametrize(("share", "decay"), [(0.7, 0.9), (0.95, 0.99), (0.5, 0.0)])
def test_dependent_numbers_are_uniform_and_correlate_as_stated(share: float, decay: float) -> None:
    numbers = torch.rand(40_000, 24, generator=torch.Generator().manual_seed(0)).clamp_min(1e-7)
    got = dependent(numbers, Shares(torch.full((40_000,), share)), decay)
    assert ((got > 0) & (got < 1)).all()
    assert stats.kstest(got[:, 5].numpy(), "uniform").pvalue > 1e-4
    scores = torch.special.ndtri(got.double())
    for lag in (1, 2, 10):
        correlation = torch.corrcoef(torch.stack((scores[:, 3], scores[:, 3 + lag])))[0, 1]
        assert float(correlation) == pytest.approx(share * decay**lag, abs=0.02)


def test_every_series_has_its_own_share() -> None:
    numbers = torch.rand(2, 5000, 8, generator=torch.Generator().manual_seed(0)).clamp_min(1e-7)
    share = torch.tensor([[0.0], [0.9]]).expand(2, 5000)
    both = dependent(numbers, Shares(share), 0.9)
    torch.testing.assert_close(both[1], dependent(numbers[1], Shares(share[1]), 0.9))
    independent, strong = torch.special.ndtri(both.double()).mean(-1).std(-1).tolist()
    assert independent == pytest.approx(8**-0.5, abs=0.02)
    assert strong > 0.7


def test_the_first_number_decides_most_of_the_sum() -> None:
    numbers = torch.full((2, 64), 0.5)
    numbers[1, 0] = 0.99
    level, raised = torch.special.ndtri(
        dependent(numbers, Shares(torch.full((2,), 0.9)), 0.98)
    ).sum(-1)
    assert abs(float(raised - level)) > 64


def test_growth_is_that_of_the_width_over_the_points() -> None:
    flat = torch.full((3, 1, 2, 4, 16), 0.3)
    assert float(growth(mixture_of(flat)).abs().max()) < 1e-5
    widening = torch.linspace(0, 0.7, 64).view(4, 16).exp().expand_as(flat)
    grown = growth(mixture_of(widening))
    assert grown.shape == (3, 1, 2)
    assert float(grown[0, 0, 0]) == pytest.approx(0.7 * (55.5 - 3.5) / 63, abs=1e-3)
    torch.testing.assert_close(growth(mixture_of(widening.flip(-1, -2))), grown, atol=0.1, rtol=0)
    assert float(growth(mixture_of(widening**9)).max()) == 1


def test_the_share_rises_with_growth_up_to_a_limit() -> None:
    widening = torch.linspace(0, 0.7, 16).exp().view(1, 16)
    mixture = mixture_of(widening)
    rate = float(growth(mixture))
    assert float(
        Dependence(share=0.1, growth=0.5, decay=0.9).shares(mixture).steady
    ) == pytest.approx(0.1 + 0.5 * rate)
    assert float(
        Dependence(share=0.9, growth=0.9, decay=0.9).shares(mixture).steady
    ) == pytest.approx(LARGEST_SHARE)
    assert not Dependence(share=0.0, growth=0.0, decay=0.9).exists


def test_points_of_a_walk_inherit_what_came_before() -> None:
    numbers = torch.rand(40_000, 48, generator=torch.Generator().manual_seed(0)).clamp_min(1e-7)
    shares = Shares(torch.full((40_000,), 0.1), torch.full((40_000,), 0.8))
    got = dependent(numbers, shares, 0.9)
    assert got.shape == (40_000, 24)
    assert stats.kstest(got[:, 5].numpy(), "uniform").pvalue > 1e-4
    scores = torch.special.ndtri(got.double())
    for early, late in ((1, 2), (4, 16), (20, 24)):
        pair = torch.stack((scores[:, early - 1], scores[:, late - 1]))
        expected = 0.1 * 0.9 ** (late - early) + 0.8 * (early / late) ** 0.5
        assert float(torch.corrcoef(pair)[0, 1]) == pytest.approx(expected, abs=0.02)


def test_only_what_grows_fast_is_like_a_walk() -> None:
    dependence = Dependence(share=0.1, growth=0.45, decay=0.98, walk=0.97)
    flat, widening = torch.ones(1, 1, 64), torch.linspace(0, 2, 64).exp().view(1, 1, 64)
    steady, walk = dependence.shares(mixture_of(flat))
    assert (float(steady), float(walk)) == pytest.approx((0.1, 0.0), abs=1e-5)
    steady, walk = dependence.shares(mixture_of(widening))
    assert (float(steady), float(walk)) == pytest.approx((0.0, 0.97), abs=1e-5)
