"""Closed forms of the piecewise normal curve, against draws from it and known distributions."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from moirai_moe_forecaster.inference import marginal
from moirai_moe_forecaster.inference.quantile_grid import NODE_LEVELS, NODE_SCORES

RNG = np.random.default_rng(0)
ROUGH = np.sort(RNG.normal(size=(4, len(NODE_LEVELS))) * np.array([[1], [5], [100], [0.01]]), -1)
SCORES = RNG.normal(size=400_000)


def draws(nodes: np.ndarray) -> np.ndarray:
    return marginal.value_at(np.broadcast_to(nodes, (len(SCORES), len(nodes))), SCORES)


@pytest.mark.parametrize("nodes", ROUGH)
def test_moments_and_energies_are_those_of_draws(nodes: np.ndarray) -> None:
    drawn = draws(nodes)
    spread = drawn.std()
    assert marginal.mean(nodes) == pytest.approx(drawn.mean(), abs=0.01 * spread)
    assert marginal.variance(nodes) == pytest.approx(drawn.var(), rel=0.02)
    distance = np.abs(drawn[::2] - drawn[1::2]).mean()
    assert marginal.self_energy(nodes) == pytest.approx(distance, rel=0.02)
    for x in (nodes[0] - spread, nodes[3], 0.3 * spread, nodes[-1] + spread):
        to_x = np.abs(drawn - x).mean()
        assert marginal.energy(nodes, np.array(x)) == pytest.approx(to_x, rel=0.02)
        below = marginal.normal_cdf(marginal.score_at(nodes, np.array(x)))
        assert below == pytest.approx((drawn <= x).mean(), abs=0.005)


def test_a_normal_distribution_is_exact() -> None:
    nodes, known = 2 + 3 * NODE_SCORES, stats.norm(2, 3)
    x = np.array([-20.0, -1.0, 2.0, 4.5, 30.0])
    rows = np.broadcast_to(nodes, (5, len(nodes)))
    np.testing.assert_allclose(marginal.density(rows, x), known.pdf(x), rtol=1e-9)
    np.testing.assert_allclose(
        marginal.normal_cdf(marginal.score_at(rows, x)), known.cdf(x), rtol=1e-9, atol=1e-15
    )
    assert marginal.mean(nodes) == pytest.approx(2)
    assert marginal.variance(nodes) == pytest.approx(9)
    assert marginal.self_energy(nodes) == pytest.approx(6 / np.sqrt(np.pi))
    assert marginal.density_norm(nodes, 2) == pytest.approx(1 / (6 * np.sqrt(np.pi)))
    levels = np.array([1e-6, 0.0003, 0.4, 0.99999])
    np.testing.assert_allclose(marginal.quantiles(nodes, levels), known.ppf(levels), rtol=1e-9)


def test_density_integrates_to_the_distribution_function() -> None:
    nodes = ROUGH[1]
    x = np.linspace(nodes[0] - 1, nodes[-1] + 1, 400_001)
    # the curve has 128 pieces, whose heights differ
    rows = np.broadcast_to(nodes, (len(x), len(nodes)))
    area = marginal.density(rows, x).sum() * (x[1] - x[0])
    level = marginal.normal_cdf(marginal.score_at(rows[:2], x[[0, -1]]))
    assert area == pytest.approx(level[1] - level[0], abs=0.002)


def test_values_and_scores_are_inverse() -> None:
    scores = np.array([-6.0, -1.2, 0.0, 0.31, 5.5])
    rows = np.broadcast_to(np.exp(NODE_SCORES), (5, len(NODE_LEVELS)))
    np.testing.assert_allclose(marginal.score_at(rows, marginal.value_at(rows, scores)), scores)


def test_one_certain_value() -> None:
    certain = np.full((3, len(NODE_LEVELS)), 5.0)
    x = np.array([4.0, 5.0, 7.0])
    np.testing.assert_array_equal(marginal.normal_cdf(marginal.score_at(certain, x)), [0, 1, 1])
    np.testing.assert_allclose(marginal.energy(certain, x), [1, 0, 2], atol=1e-12)
    np.testing.assert_allclose(marginal.variance(certain), 0, atol=1e-12)
    np.testing.assert_array_equal(marginal.density(certain, x), [0, np.inf, 0])
    np.testing.assert_allclose(marginal.quantiles(certain[0], np.array([0.0, 0.2, 1.0])), 5)
    assert np.isnan(marginal.score_at(certain[:1], np.array([np.nan]))).all()
