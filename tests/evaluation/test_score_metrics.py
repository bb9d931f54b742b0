"""Metrics agree with sums done by hand, with sktime's and with utilsforecast's."""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np
import pandas as pd
import pytest
from sktime.performance_metrics.forecasting import MeanAbsoluteScaledError, MeanSquaredScaledError
from sktime.performance_metrics.forecasting.probabilistic import PinballLoss

from moirai_moe_forecaster.errors import InvalidInputError
from moirai_moe_forecaster.evaluation.metrics import (
    CRPS_LEVELS,
    LEVELS,
    METRICS,
    Prediction,
    Terms,
    crps_of_quantiles,
    crps_of_samples,
    expand_metrics,
    geometric_mean,
    mase,
    needed_levels,
    score_terms,
    weighted_quantile_loss,
)

SEASON = 4


@pytest.fixture
def contexts() -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.normal(size=length).cumsum() for length in (30, 21, 12)]


@pytest.fixture
def labels() -> np.ndarray:
    return np.random.default_rng(1).normal(size=(3, 5))


@pytest.fixture
def prediction() -> Prediction:
    levels = needed_levels(METRICS, LEVELS, samples=False)
    draws = np.random.default_rng(2).normal(size=(3, 400, 5))
    quantiles = np.quantile(draws, levels, axis=1).swapaxes(0, 1)
    return Prediction.of(levels, quantiles, draws)


def test_scores_of_two_short_series_by_hand() -> None:
    # seasonal differences with lag 2: (2, 2), mean 2; and (1,), mean 1
    contexts = [np.array([1.0, 2.0, 3.0, 4.0]), np.array([5.0, 0.0, 6.0])]
    labels = np.array([[10.0, np.nan], [1.0, 3.0]])
    point = np.array([[8.0, 7.0], [2.0, 3.0]])
    # errors 2, -, 1, 0: scaled 1, -, 1, 0
    assert mase(labels, point, contexts, 2) == pytest.approx(2 / 3)
    quantiles = np.stack([point - 1, point + 1], axis=1)
    # level 0.25 at point - 1: 2 * (0.25 * 3, -, 0.75 * 0 at 1 <= 1, 0.25 * 1) = 1.5 + 0 + 0.5
    # level 0.75 at point + 1: 2 * (0.75 * 1, -, 0.25 * 2, 0.25 * 1) = 1.5 + 1 + 0.5
    assert weighted_quantile_loss(labels, quantiles, (0.25, 0.75)) == pytest.approx(2.5 / 14)
    terms = score_terms(
        labels,
        contexts,
        2,
        Prediction.of((0.25, 0.5, 0.75), np.stack([point - 1, point, point + 1], axis=1)),
        ("MAE", "RMSE", "RMSSE", "coverage_50"),
    )
    assert terms["MAE"].pooled() == pytest.approx(1)
    assert terms["RMSE"].pooled() == pytest.approx(np.sqrt(5 / 3))
    # squared seasonal differences 4 and 1: sqrt(4 / 4) and sqrt(0.5 / 1), averaged
    assert terms["RMSSE"].pooled() == pytest.approx((1 + np.sqrt(0.5)) / 2)
    # inside: 10 in (7, 9) no, 1 in (1, 3) yes, 3 in (2, 4) yes
    assert terms["coverage_50"].pooled() == pytest.approx(2 / 3)


def test_a_context_that_is_not_longer_than_a_season_is_scaled_by_steps() -> None:
    contexts = [np.array([1.0, 2.0, 4.0])]
    assert mase(np.array([[6.0]]), np.array([[3.0]]), contexts, 3) == pytest.approx(3 / 1.5)


def test_a_constant_series_counts_in_no_scaled_error() -> None:
    contexts = [np.ones(9), np.arange(9.0)]
    labels, point = np.full((2, 3), 4.0), np.full((2, 3), 2.0)
    assert mase(labels, point, contexts, 1) == pytest.approx(2)
    prediction = Prediction.of((0.5,), point[:, None])
    terms = score_terms(labels, contexts, 1, prediction, ("MASE", "RMSSE"))
    for score in terms.values():
        np.testing.assert_allclose(score.each(), [np.nan, 2])


def test_a_label_on_an_edge_is_inside_its_interval() -> None:
    labels = np.array([[0.5, 1.0, 2.0, 3.0, 3.5, np.nan]])
    quantiles = np.repeat([[[1.0], [2.0], [3.0]]], 6, axis=2)
    prediction = Prediction.of((0.1, 0.5, 0.9), quantiles)
    terms = score_terms(labels, [], 1, prediction, ("coverage_80",))["coverage_80"]
    assert (terms.numerator[0], terms.denominator[0]) == (3, 5)


def test_scaled_errors_agree_with_sktime(
    contexts: list[np.ndarray], labels: np.ndarray, prediction: Prediction
) -> None:
    terms = score_terms(labels, contexts, SEASON, prediction, ("MASE", "RMSSE"))
    for name, theirs in (
        ("MASE", MeanAbsoluteScaledError(sp=SEASON)),
        ("RMSSE", MeanSquaredScaledError(sp=SEASON, square_root=True)),
    ):
        expected = [
            theirs(labels[i], prediction.point[i], y_train=contexts[i]) for i in range(len(labels))
        ]
        np.testing.assert_allclose(terms[name].each(), expected)
        if name == "RMSSE":
            assert terms[name].pooled() == pytest.approx(np.mean(expected))


def test_pinball_agrees_with_sktime(labels: np.ndarray, prediction: Prediction) -> None:
    terms = score_terms(labels, [], SEASON, prediction, ("WQL",))["WQL"]
    columns = pd.MultiIndex.from_product([["y"], LEVELS])
    for index, row in enumerate(labels):
        table = pd.DataFrame(prediction.at(LEVELS)[index].T, columns=columns)
        theirs = PinballLoss()(pd.DataFrame({"y": row}), table)
        assert terms.each()[index] == pytest.approx(2 * theirs / np.abs(row).mean())


def test_metrics_agree_with_utilsforecast(
    contexts: list[np.ndarray], labels: np.ndarray, prediction: Prediction
) -> None:
    losses = pytest.importorskip(
        "utilsforecast.losses", reason="utilsforecast, of the extra stats, is not installed"
    )
    steps = range(labels.shape[1])
    frame = pd.DataFrame(
        [
            {"unique_id": i, "ds": 100 + t, "y": labels[i, t], "m": prediction.point[i, t]}
            for i in range(len(labels))
            for t in steps
        ]
    )
    for level in LEVELS:
        frame[f"q{level}"] = prediction.at([level])[:, 0].ravel()
    frame["m-lo-80"], frame["m-hi-80"] = frame["q0.1"], frame["q0.9"]
    train = pd.DataFrame(
        [
            {"unique_id": i, "ds": t, "y": value}
            for i, context in enumerate(contexts)
            for t, value in enumerate(context)
        ]
    )
    terms = score_terms(
        labels, contexts, SEASON, prediction, ("MASE", "RMSSE", "MAE", "RMSE", "coverage_80")
    )
    quantile_columns = {"m": [f"q{level}" for level in LEVELS]}
    theirs = {
        "MASE": losses.mase(frame, ["m"], SEASON, train),
        "RMSSE": losses.rmsse(frame, ["m"], SEASON, train),
        "MAE": losses.mae(frame, ["m"]),
        "RMSE": losses.rmse(frame, ["m"]),
        "coverage_80": losses.coverage(frame, ["m"], level=80),
    }
    for name, table in theirs.items():
        np.testing.assert_allclose(terms[name].each(), table["m"], err_msg=name)
    # theirs is undoubled, and of each series by itself
    loss = losses.mqloss(frame, quantile_columns, np.array(LEVELS))["m"]
    expected = 2 * loss.mean() / np.abs(labels).mean()
    ours = weighted_quantile_loss(labels, prediction.at(LEVELS))
    assert ours == pytest.approx(expected)


def test_crps_of_samples_is_the_mean_distance_less_half_the_spread() -> None:
    rng = np.random.default_rng(0)
    labels, samples = rng.normal(size=(2, 3)), rng.normal(size=(2, 7, 3))
    pairs = np.abs(samples[:, :, None] - samples[:, None]).mean((1, 2))
    expected = np.abs(samples - labels[:, None]).mean(1) - pairs / 2
    np.testing.assert_allclose(crps_of_samples(labels, samples), expected)


def test_both_crps_approach_the_exact_one_of_a_normal_distribution() -> None:
    labels, mean, deviation = np.array([[-1.5, 0.2, 3.0]]), 0.5, 2.0
    normal, standard = NormalDist(mean, deviation), NormalDist()
    # Gneiting and Raftery 2007, equation 5 with its sign turned
    exact = [
        deviation * (z * (2 * standard.cdf(z) - 1) + 2 * standard.pdf(z) - 1 / math.sqrt(math.pi))
        for z in (labels[0] - mean) / deviation
    ]
    draws = normal.samples(60_000, seed=0)
    samples = np.array(draws).reshape(1, -1, 3)
    quantiles = np.array([[[normal.inv_cdf(level)] * 3 for level in CRPS_LEVELS]])
    np.testing.assert_allclose(crps_of_samples(labels, samples)[0], exact, rtol=0.02)
    np.testing.assert_allclose(crps_of_quantiles(labels, quantiles)[0], exact, rtol=0.01)


def test_the_crps_of_a_point_is_its_absolute_error(labels: np.ndarray) -> None:
    point = labels + 1.5
    for values in (
        crps_of_samples(labels, np.repeat(point[:, None], 9, axis=1)),
        crps_of_quantiles(labels, np.repeat(point[:, None], len(CRPS_LEVELS), axis=1)),
    ):
        np.testing.assert_allclose(values, 1.5)


def test_missing_labels_change_nothing_but_themselves(
    contexts: list[np.ndarray], labels: np.ndarray, prediction: Prediction
) -> None:
    holes = labels.copy()
    holes[:, -2:] = np.nan
    assert prediction.samples is not None
    cut = Prediction(
        levels=prediction.levels,
        quantiles=prediction.quantiles[..., :-2],
        point=prediction.point[:, :-2],
        samples=prediction.samples[..., :-2],
    )
    with_holes = score_terms(holes, contexts, SEASON, prediction)
    for name, terms in score_terms(labels[:, :-2], contexts, SEASON, cut).items():
        assert with_holes[name].pooled() == pytest.approx(terms.pooled()), name


def test_terms_are_pooled_weighted_and_summed_by_group() -> None:
    terms = Terms(numerator=np.array([1.0, 2.0, 6.0]), denominator=np.array([1.0, 1.0, 2.0]))
    assert terms.pooled() == 9 / 4
    assert terms.pooled(np.array([2, 0, 1])) == 8 / 4
    summed = terms.summed(np.array([0, 1, 0]))
    np.testing.assert_array_equal(summed.each(), [7 / 3, 2])
    assert summed.pooled() == terms.pooled()
    assert np.isnan(Terms(numerator=np.zeros(2), denominator=np.zeros(2)).pooled())


def test_names_of_metrics_are_checked_and_coverage_stands_for_three() -> None:
    assert expand_metrics("MASE") == ("MASE",)
    assert expand_metrics(["coverage", "coverage_80", "coverage_99"]) == (
        "coverage_50",
        "coverage_80",
        "coverage_95",
        "coverage_99",
    )
    for wrong in ("mase", "coverage_", "coverage_100", "coverage_0"):
        with pytest.raises(InvalidInputError, match="unknown metric"):
            expand_metrics([wrong])
    with pytest.raises(InvalidInputError, match="empty"):
        expand_metrics([])


def test_the_levels_of_a_coverage_are_found() -> None:
    levels = needed_levels(("coverage_95", "CRPS"), (0.3,), samples=True)
    np.testing.assert_allclose(levels, (0.025, 0.3, 0.5, 0.975))
    assert set(CRPS_LEVELS) < set(needed_levels(("CRPS",), LEVELS, samples=False))


def test_geometric_mean() -> None:
    assert geometric_mean([0.5, 2, 8]) == pytest.approx(2)
