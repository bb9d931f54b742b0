"""Constants forecast themselves, and demand without order its own distribution."""

from __future__ import annotations

import numpy as np
import pytest

from moirai_moe_forecaster import MoiraiMoEPipeline
from moirai_moe_forecaster.inference.own_distribution import disorder, is_lumpy
from tiny_network import tiny_network


@pytest.fixture(scope="module")
def pipeline() -> MoiraiMoEPipeline:
    return MoiraiMoEPipeline.from_pretrained(device="cpu")


@pytest.mark.parametrize("value", [1e-6, 7.0, -1000.0, 5e-324, 1e-310, 1e308, -1.7e308])
def test_a_constant_forecasts_itself(pipeline: MoiraiMoEPipeline, value: float) -> None:
    lengths = (1, 2, 129, 1000)
    forecast = pipeline.predict([np.full(n, value) for n in lengths], 70, random_state=0)
    assert (forecast.mean == value).all()
    assert (forecast.median == value).all()
    everything = forecast.quantile([1e-4, 0.1, 0.5, 0.9, 0.9999])
    assert np.isfinite(everything).all()
    assert np.isfinite(forecast.samples).all()
    assert (np.diff(everything, axis=1) >= 0).all()


def test_zeros_have_no_unit(pipeline: MoiraiMoEPipeline) -> None:
    forecast = pipeline.predict([np.zeros(n) for n in (1, 5, 129, 1000)], 70, random_state=0)
    for values in (forecast.mean, forecast.quantile([0.01, 0.99]), forecast.samples):
        assert (values == 0).all()


def test_the_fewer_equal_values_the_wider(pipeline: MoiraiMoEPipeline) -> None:
    forecast = pipeline.predict([np.full(n, 7.0) for n in (1, 2, 10, 1000)], 5, random_state=0)
    lower, upper = forecast.interval(0.8)
    expected = 2 * 1.2815516 * 7 / np.array([2, 3, 11, 1001])
    np.testing.assert_allclose(upper - lower, np.repeat(expected[:, None], 5, 1), rtol=1e-5)


def test_a_constant_beside_another_variate(pipeline: MoiraiMoEPipeline) -> None:
    rng = np.random.default_rng(0)
    y = np.stack((rng.normal(size=150).cumsum(), np.full(150, 1e308)), 1)
    y[5, 1] = np.nan
    forecast = pipeline.predict(y, 20, random_state=0)
    assert (forecast.mean[:, 1] == 1e308).all()
    assert np.isfinite(forecast.quantile([0.1, 0.9])).all()
    assert np.ptp(forecast.quantile([0.1, 0.9])[..., 0]) > 0


def lumpy(share: float, count: int, time: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return (rng.random((count, time)) < share) * rng.geometric(0.25, (count, time)).astype(float)


def test_lumpy_demand_keeps_its_mean_and_upper_tail(pipeline: MoiraiMoEPipeline) -> None:
    y = lumpy(0.15, 16, 400)
    forecast = pipeline.predict([*y], 14, random_state=0)
    assert forecast.mean.mean() == pytest.approx(y.mean(), rel=0.05)
    expected = np.quantile(y, 0.99, axis=1).mean()
    assert forecast.quantile(0.99).mean() == pytest.approx(expected, rel=0.1)


def test_order_is_told_from_disorder() -> None:
    y = lumpy(0.2, 50, 300)
    assert np.mean([disorder(row) for row in y]) > 0.75
    rare = np.where(np.arange(300) < 150, 0, lumpy(0.5, 50, 300))
    assert np.mean([disorder(row) for row in rare]) < 0.01
    bursts = np.repeat(lumpy(0.2, 50, 75), 4, axis=1)
    assert np.mean([disorder(row) for row in bursts]) < 0.01
    y[:, ::3] = np.nan
    assert np.mean([disorder(row) for row in y]) > 0.75


def test_only_lumpy_series_are_moved() -> None:
    rng = np.random.default_rng(0)
    assert is_lumpy(lumpy(0.3, 1, 100)[0])
    assert not is_lumpy(lumpy(0.3, 1, 20)[0])
    assert not is_lumpy(rng.poisson(3, 100).astype(float))


def test_networks_without_the_convention_forecast_constants_as_anything_else() -> None:
    forecast = MoiraiMoEPipeline(tiny_network()).predict(np.full(50, 7.0), 5, random_state=0)
    assert (forecast.mean != 7).all()
