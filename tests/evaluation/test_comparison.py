"""The paired bootstrap says how sure a difference is."""

from __future__ import annotations

from dataclasses import astuple

import numpy as np
import pytest

from benchmark_sets.results import compare_models, evaluate_sets
from benchmark_sets.tasks import Task
from moirai_moe_forecaster.errors import InvalidInputError
from moirai_moe_forecaster.evaluation import Terms, backtest, compare_backtests, paired_bootstrap
from moirai_moe_forecaster.evaluation.comparison import frame_terms
from moirai_moe_forecaster.evaluation.forecasters import naive_quantiles


def errors(values: np.ndarray) -> Terms:
    return Terms(numerator=values, denominator=np.ones(len(values)))


def test_the_ratio_is_the_geometric_mean_over_sets() -> None:
    first = [errors(np.array([1.0, 3.0])), errors(np.array([5.0]))]
    second = [errors(np.array([2.0, 2.0])), errors(np.array([20.0]))]
    comparison = paired_bootstrap(first, second)
    assert comparison.ratio == pytest.approx(np.sqrt(1.0 * 0.25))
    assert (comparison.sets, comparison.series) == (2, 3)


def test_a_forecaster_against_itself_is_even() -> None:
    terms = [errors(np.random.default_rng(0).exponential(size=40))]
    comparison = paired_bootstrap(terms, terms)
    assert (comparison.ratio, comparison.lower, comparison.upper) == (1, 1, 1)


def test_pairing_takes_out_what_is_common_to_both() -> None:
    rng = np.random.default_rng(0)
    hard = rng.lognormal(sigma=2, size=50)
    noise = rng.normal(1, 0.02, size=50)
    first, second = [errors(0.9 * hard * noise)], [errors(hard)]
    paired = paired_bootstrap(first, second)
    assert 0.88 < paired.lower < paired.ratio < paired.upper < 0.92
    assert paired.probability == 1
    shuffled = paired_bootstrap(first, [errors(rng.permutation(hard))])
    assert shuffled.lower < 0.5
    assert shuffled.upper > 1.5


def test_the_interval_covers_the_truth_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    inside = 0
    for number in range(100):
        first, second = rng.gamma(4, 0.2, size=60), rng.gamma(4, 0.25, size=60)
        comparison = paired_bootstrap(
            [errors(first)], [errors(second)], resamples=300, confidence=0.8, random_state=number
        )
        inside += comparison.lower <= 0.8 <= comparison.upper
    assert 68 <= inside <= 90


def test_one_series_has_no_spread() -> None:
    comparison = paired_bootstrap([errors(np.array([1.0]))], [errors(np.array([4.0]))])
    assert comparison.lower == comparison.upper == pytest.approx(0.25)


def test_different_series_cannot_be_paired() -> None:
    with pytest.raises(InvalidInputError, match="same sets and series"):
        paired_bootstrap([errors(np.ones(3))], [errors(np.ones(4))])
    with pytest.raises(InvalidInputError, match="above 0"):
        paired_bootstrap([errors(np.zeros(3))], [errors(np.ones(3))])


def test_models_and_backtests_are_compared_alike() -> None:
    rng = np.random.default_rng(0)
    series = [rng.normal(size=50).cumsum() + 20 for _ in range(5)]

    def last(contexts: list, horizon: int, seasonality: int, levels: tuple) -> np.ndarray:
        point = np.array([context[-1] for context in contexts])
        return np.tile(point[:, None, None], (1, len(levels), horizon))

    frames = [
        backtest(function, series, horizon=4, metrics=("MASE", "WQL", "RMSE"), seasonality=7)
        for function in (last, naive_quantiles)
    ]
    task = Task("walks", 7, [s[:-4] for s in series], np.stack([s[-4:] for s in series]))
    results = evaluate_sets([task], {"last": last})
    for metric in ("MASE", "WQL", "RMSE"):
        ours = compare_backtests(*frames, metric)
        assert ours.ratio == pytest.approx(results[1].score(metric) / results[0].score(metric))
        alike = compare_models(results, "last", "seasonal-naive", metric)
        np.testing.assert_allclose(astuple(ours), astuple(alike))
        assert frame_terms(frames[0], metric).pooled() == pytest.approx(results[1].score(metric))


def test_backtests_of_other_windows_cannot_be_compared() -> None:
    y = np.random.default_rng(0).normal(size=40)
    one, two = (backtest(naive_quantiles, y, horizon=2, windows=n) for n in (1, 2))
    with pytest.raises(InvalidInputError, match="same windows"):
        compare_backtests(one, two)
    with pytest.raises(InvalidInputError, match="has no columns"):
        compare_backtests(one, one, "CRPS")
    with pytest.raises(InvalidInputError, match="metric must be one of"):
        compare_backtests(one, one, "coverage_80")
