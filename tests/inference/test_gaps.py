"""Gaps are filled where that helps, and what is missing at the end is forecast."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from moirai_moe_forecaster import MoiraiMoEPipeline
from moirai_moe_forecaster.data.series import Series
from moirai_moe_forecaster.inference.gaps import SHORT, fill_gaps, gap_at_end
from moirai_moe_forecaster.inference.seasonality.cycles import cycle_shape
from moirai_moe_forecaster.inference.seasonality.periods import Period
from moirai_moe_forecaster.inference.seasons import PLAIN
from moirai_moe_forecaster.inference.views import make_views
from tiny_network import tiny_network

NAN = np.nan
CONTEXT, HORIZON = 300, 24


@pytest.fixture(scope="module")
def pipeline() -> MoiraiMoEPipeline:
    return MoiraiMoEPipeline.from_pretrained(device="cpu")


def seasonal(count: int = 4, seed: int = 0) -> np.ndarray:
    """Cycles of 7, 12 and 24 under noise: (series, context + horizon)."""
    rng, time = np.random.default_rng(seed), np.arange(CONTEXT + HORIZON)
    waves = [np.sin(2 * np.pi * time / p + k) for k in range(count) for p in (7, 12, 24)]
    return 50 + 10 * np.array(waves) + rng.normal(size=(3 * count, len(time)))


def test_short_gaps_become_lines() -> None:
    values = np.array([NAN, 1, NAN, NAN, 4, NAN, 8, NAN])
    np.testing.assert_array_equal(fill_gaps(values), [NAN, 1, 2, 3, 4, 6, 8, NAN])


def test_long_gaps_stay_missing() -> None:
    values = np.arange(40.0)
    values[10 : 10 + SHORT] = NAN
    values[20 : 21 + SHORT] = NAN
    filled = fill_gaps(values)
    np.testing.assert_array_equal(filled[:20], np.arange(20.0))
    assert np.isnan(filled[20 : 21 + SHORT]).all()


def test_a_few_holes_stay_as_they_are() -> None:
    values = np.arange(100.0)
    values[[20, 40, 60, 80]] = NAN
    assert fill_gaps(values) is values
    values[90] = NAN
    np.testing.assert_array_equal(fill_gaps(values), np.arange(100.0))


def test_cycles_run_on_through_gaps_of_two_sevenths_of_them() -> None:
    time = np.arange(240)
    values = 5 + np.sin(time * 2 * np.pi / 40)
    holes = values.copy()
    holes[60:71] = NAN
    holes[92:103] = NAN
    holes[120:132] = NAN
    series = Series(holes[None], np.empty((0, 240)), np.empty((0, 240)))
    (view,) = make_views(series, [[Period(40, 1.0)]], [PLAIN], 10, fill=True)
    np.testing.assert_allclose(view.series.target[0, :120], values[:120], atol=1e-6)
    assert np.isnan(view.series.target[0, 120:132]).all()


def test_phases_that_are_never_observed_lie_between_known_ones() -> None:
    """Of a cycle of 14 every odd phase is missing, unless it is one of 7."""
    time = np.arange(14 * 12)
    for period in (7, 14):
        values = np.sin(time * 2 * np.pi / period)
        values[time % 2 == 1] = NAN
        expected = np.sin(time[:14] * 2 * np.pi / period)
        np.testing.assert_allclose(cycle_shape(values, 14), expected, atol=0.12)


def test_only_what_all_variates_and_past_covariates_lack_is_forecast() -> None:
    target = np.array([[1.0, 2, 3, NAN, NAN], [1, 2, 3, 4, NAN]])
    none, known = np.empty((0, 5)), np.arange(5.0)[None]
    assert gap_at_end(Series(target, none, none)) == 1
    assert gap_at_end(Series(target[:1], none, none)) == 2
    assert gap_at_end(Series(target, known, none)) == 0


def test_a_gap_at_the_end_is_a_longer_horizon() -> None:
    network = tiny_network(output_patches=2, fill_gaps=True)
    tiny = MoiraiMoEPipeline(network)
    y = np.random.default_rng(0).normal(size=100).cumsum()
    late = np.append(y, [NAN] * 5)
    whole = tiny.predict(y, 45, random_state=0)
    batch = tiny.predict([late, y, late[:-2]], 40, random_state=0)
    np.testing.assert_allclose(batch[0].mean, whole.mean[5:], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(batch[1].mean, whole.mean[:40], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(batch[2].mean, whole.mean[3:43], rtol=1e-5, atol=1e-5)
    assert batch.samples.shape == (3, 100, 40)


def test_networks_without_the_convention_read_the_mask() -> None:
    y = np.random.default_rng(0).normal(size=100).cumsum()
    y[10:80:10] = NAN
    filled = pd.Series(y).interpolate().to_numpy()
    for fill in (True, False):
        tiny = MoiraiMoEPipeline(tiny_network(fill_gaps=fill))
        same = tiny.predict(y, 8, random_state=0).mean == tiny.predict(filled, 8).mean
        assert same.all() == fill


@pytest.mark.parametrize(
    ("name", "least", "most"),
    [("tenth", 0.65, 0.9), ("third", 0.65, 0.9), ("second", 0.65, 0.9), ("weekends", 0.6, 0.9)],
)
def test_no_worse_than_the_mask_or_lines(
    pipeline: MoiraiMoEPipeline, name: str, least: float, most: float
) -> None:
    rng, time = np.random.default_rng(1), np.arange(CONTEXT)
    gap = {
        "tenth": rng.random(CONTEXT) < 0.1,
        "third": rng.random(CONTEXT) < 0.3,
        "second": time % 2 == 1,
        "weekends": time % 7 >= 5,
    }[name]
    y = seasonal()
    context = [np.where(gap, NAN, row[:CONTEXT]) for row in y]
    lines = [pd.Series(row).interpolate(limit_direction="both").to_numpy() for row in context]
    network = MoiraiMoEPipeline.from_pretrained(device="cpu").network
    network.config = replace(network.config, fill_gaps=False)
    masked = MoiraiMoEPipeline(network).predict(context, HORIZON, random_state=0)
    label = y[:, CONTEXT:]

    forecast = pipeline.predict(context, HORIZON, random_state=0)
    error, by_mask, by_lines = (
        np.abs(each.median - label).mean()
        for each in (forecast, masked, pipeline.predict(lines, HORIZON, random_state=0))
    )
    assert error <= min(by_mask, by_lines)
    lower, upper = forecast.interval(0.8)
    assert least <= ((label >= lower) & (label <= upper)).mean() <= most


@pytest.mark.parametrize("order", [slice(None), slice(None, None, -1)])
def test_a_gap_before_the_horizon_needs_paths_that_other_series_do_not(
    pipeline: MoiraiMoEPipeline, order: slice
) -> None:
    """One pass reaches 64 steps."""
    cut, whole = (np.array(row) for row in seasonal(1)[:2])
    cut[-40:] = NAN
    options = {"num_paths": 8, "num_samples": 5, "random_state": 0}
    batch = [cut[:, None], np.stack([whole, whole], 1)][order]
    together = pipeline.predict(batch, 30, **options)
    for index, series in enumerate(batch):
        alone = pipeline.predict([series], 30, **options)[0]
        np.testing.assert_allclose(together[index].median, alone.median, rtol=1e-4)
        np.testing.assert_allclose(together[index].samples, alone.samples, rtol=1e-4)
