"""A typing error does not count; what is real does."""

from __future__ import annotations

import numpy as np
import pytest

from moirai_moe_forecaster import MoiraiMoEPipeline
from moirai_moe_forecaster.data.series import Series
from moirai_moe_forecaster.inference.outliers import implausible, without_outliers
from tiny_network import tiny_network

TIME = np.arange(240)


def clean(seed: int = 2) -> np.ndarray:
    noise = np.random.default_rng(seed).normal(size=264)
    return 10 + np.sin(np.arange(264) * 2 * np.pi / 24) + 0.1 * noise


@pytest.mark.parametrize("factor", [100.0, -1e3, 1e8, 1e300])
def test_one_or_two_errors_are_found(factor: float) -> None:
    y = clean()[:240]
    y[[7, 239]] *= [factor, 1e4]
    np.testing.assert_array_equal(np.flatnonzero(implausible(y)), [7, 239])


def test_of_a_constant_its_level_is_the_unit() -> None:
    y = np.full(50, 10.0)
    y[20] = 1000
    np.testing.assert_array_equal(np.flatnonzero(implausible(y)), [20])


def test_what_comes_again_is_real() -> None:
    rng = np.random.default_rng(0)
    promotions = 100 + rng.normal(size=240)
    promotions[[20, 90, 200]] *= 10
    demand = np.zeros(240)
    demand[[3, 77]] = 40
    rain = rng.gamma(0.2, 10, size=240)
    storms = np.exp(rng.normal(size=240))
    risen = np.where(TIME < 237, 1.0, 500.0) + 0.01 * rng.normal(size=240)
    for real in (promotions, demand, rain, storms, risen, np.exp(TIME / 20), np.zeros(30)):
        assert not implausible(real).any()


def test_too_few_values_are_not_judged() -> None:
    y = clean()[:11]
    y[5] = 1e6
    assert not implausible(y).any()


def test_units_and_missing_values_change_nothing() -> None:
    y = clean()[:240]
    y[50] = 1e5
    y[60:70] = np.nan
    expected = implausible(y)
    for unit in (1e-300, -7.0, 1e300):
        np.testing.assert_array_equal(implausible(unit * y), expected)
    series = Series(np.stack((y, clean()[:240])), np.empty((0, 240)), np.empty((0, 240)))
    found = without_outliers(series).target
    np.testing.assert_array_equal(np.isnan(found[0]), np.isnan(y) | expected)
    np.testing.assert_array_equal(found[1], clean()[:240])


@pytest.mark.parametrize("where", [3, 120, 239])
def test_the_forecast_is_nearly_that_of_the_clean_series(where: int) -> None:
    pipeline = MoiraiMoEPipeline.from_pretrained(device="cpu")
    y = clean()
    wrong = []
    for factor in (1.0, 10.0, 1e3, 1e8):
        context = y[:240].copy()
        context[where] *= factor
        wrong.append(context)
    errors = np.abs(pipeline.predict(wrong, 24, random_state=0).median - y[240:]).mean(1)
    assert (errors <= 1.5 * errors[0]).all()


def test_networks_without_the_convention_read_all() -> None:
    y = np.append(clean()[:100], [1e6])
    for drop in (True, False):
        tiny = MoiraiMoEPipeline(tiny_network(drop_outliers=drop))
        spread = np.ptp(tiny.predict(y, 8, random_state=0).quantile([0.1, 0.9]))
        assert (spread < 1e3) == drop
