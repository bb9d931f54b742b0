"""Classical peers give the quantiles that statsforecast's intervals have."""

from __future__ import annotations

import numpy as np
import pytest

from benchmark_sets.results import evaluate_sets
from benchmark_sets.tasks import Task
from moirai_moe_forecaster.errors import InvalidInputError
from moirai_moe_forecaster.evaluation import seasonal_naive
from moirai_moe_forecaster.evaluation.metrics import LEVELS
from moirai_moe_forecaster.evaluation.peers import PEERS, Peer, fill

models = pytest.importorskip(
    "statsforecast.models", reason="statsforecast, of the extra stats, is not installed"
)


@pytest.fixture
def context() -> np.ndarray:
    rng = np.random.default_rng(0)
    steps = np.arange(60)
    return 20 + 0.2 * steps + 3 * np.sin(steps * np.pi / 2) + rng.normal(size=60)


@pytest.mark.parametrize("name", PEERS)
def test_quantiles_are_the_edges_of_its_intervals(name: str, context: np.ndarray) -> None:
    levels = (0.025, 0.1, 0.5, 0.9, 0.975)
    quantiles = Peer(name)([context], 8, 4, levels)
    assert quantiles.shape == (1, 5, 8)
    expected = getattr(models, name)(season_length=4).forecast(y=context, h=8, level=[80, 95])
    for row, key in zip(quantiles[0], ("lo-95", "lo-80", "mean", "hi-80", "hi-95"), strict=True):
        np.testing.assert_allclose(row, expected[key], rtol=1e-5)
    assert (np.diff(quantiles[0], axis=0) >= 0).all()


def test_missing_values_are_interpolated(context: np.ndarray) -> None:
    holes = np.array([np.nan, 1.0, np.nan, np.nan, 4.0, np.nan])
    np.testing.assert_array_equal(fill(holes), [1, 1, 2, 3, 4, 4])
    line = np.arange(40.0)
    with_holes = line.copy()
    with_holes[[7, 20, 21]] = np.nan
    theta = Peer("AutoTheta")
    np.testing.assert_allclose(
        theta([with_holes], 3, 1, LEVELS), theta([line], 3, 1, LEVELS), rtol=1e-6
    )


@pytest.mark.parametrize("name", PEERS)
def test_seasonal_naive_stands_in_where_there_is_too_little(name: str) -> None:
    short = [np.array([3.0]), np.array([1.0, 2.0])]
    quantiles = Peer(name)(short, 3, 4, LEVELS)
    for context, forecast in zip(short, quantiles, strict=True):
        np.testing.assert_allclose(forecast, np.tile(seasonal_naive(context, 3, 4), (9, 1)))


def test_the_global_random_state_is_left_alone(context: np.ndarray) -> None:
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    Peer("AutoTheta")([context], 4, 4, LEVELS)
    np.testing.assert_array_equal(before, np.random.get_state()[1])  # noqa: NPY002


def test_an_unknown_peer_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="choose from AutoETS, AutoTheta"):
        Peer("AutoARIMA")


def test_peers_are_evaluated_like_any_forecaster(context: np.ndarray) -> None:
    task = Task("one", 4, [context[:-8]], context[None, -8:])
    results = evaluate_sets([task], {"AutoTheta": Peer("AutoTheta")})
    assert results[1].score("WQL") < results[0].score("WQL")
    assert results[1].seconds > 0
