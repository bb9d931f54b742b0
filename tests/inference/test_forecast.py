from __future__ import annotations

import importlib.util
import pickle
from typing import Any

import numpy as np
import pytest
from scipy import stats

from moirai_moe_forecaster.errors import InvalidInputError
from moirai_moe_forecaster.inference.forecast import Forecast, Marginals
from moirai_moe_forecaster.inference.pipeline import MoiraiMoEPipeline
from moirai_moe_forecaster.inference.quantile_grid import NODE_LEVELS
from tiny_network import tiny_network

HORIZON = 7


def forecast_of(
    series: int,
    variates: int,
    *,
    single: bool = False,
    univariate: bool = False,
    horizon: int = HORIZON,
    num_samples: int = 100,
    ranks: np.ndarray | None = None,
    distribution: Any = stats.norm,
) -> Forecast:
    """Every step has the given distribution, its location and scale rising over steps."""
    step = np.arange(1, horizon + 1)[:, None]
    nodes = distribution.ppf(NODE_LEVELS)[:, None, None] * step + step
    rng = np.random.default_rng(0)
    shape = (series, variates)
    marginals = Marginals(
        np.broadcast_to(nodes, (series, len(NODE_LEVELS), horizon, variates)).astype(np.float32),
        np.broadcast_to(step, (series, horizon, variates)).astype(np.float32),
        np.repeat(rng.normal(size=shape)[:, None], horizon, 1),
        rng.uniform(1, 2, shape),
        ranks,
        rng.integers(-(2**63), 2**63, shape),
        np.zeros(shape, np.float32),
    )
    return Forecast(marginals, single=single, univariate=univariate, num_samples=num_samples)


@pytest.mark.parametrize("single", [True, False])
@pytest.mark.parametrize("univariate", [True, False])
def test_layout(single: bool, univariate: bool) -> None:
    series, variates = 1 if single else 5, 1 if univariate else 2
    forecast = forecast_of(series, variates, single=single, univariate=univariate, num_samples=9)
    first = () if single else (5,)
    last = () if univariate else (2,)
    plain = (*first, HORIZON, *last)
    assert len(forecast) == series
    assert forecast.horizon == HORIZON
    assert forecast.mean.shape == forecast.median.shape == plain
    assert forecast.quantile(0.3).shape == plain
    assert forecast.quantile(np.float32(0.3)).shape == plain
    assert forecast.quantile([0.3]).shape == (*first, 1, HORIZON, *last)
    assert forecast.quantile((0.1, 0.5, 0.9)).shape == (*first, 3, HORIZON, *last)
    assert forecast.quantile(np.array([0.1, 0.9])).shape == (*first, 2, HORIZON, *last)
    assert forecast.samples.shape == (*first, 9, HORIZON, *last)
    assert forecast.cdf(0.0).shape == forecast.cdf(np.zeros(plain)).shape == plain
    lower, upper = forecast.interval(0.8)
    assert lower.shape == upper.shape == plain


def test_quantiles_are_those_of_the_distribution_at_any_level() -> None:
    forecast = forecast_of(2, 3)
    levels = [0.0003, 0.001, 0.0123, 0.05, 0.1, 0.333, 0.5, 0.77, 0.9, 0.987, 0.9999]
    got = forecast.quantile(levels)
    step = np.arange(1, HORIZON + 1)[:, None]
    inner = stats.norm.ppf(levels)[:, None, None] * step + step
    scale, location = forecast._marginals.scale, forecast._marginals.location
    expected = inner * scale[:, None, None] + location[:, None]
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-5)


def test_stored_levels_are_returned_as_stored() -> None:
    forecast = forecast_of(1, 1, single=True, univariate=True, distribution=stats.expon)
    scale, location = forecast._marginals.scale, forecast._marginals.location
    expected = forecast._marginals.quantiles[0, :, :, 0] * scale + location[0, :, 0]
    np.testing.assert_allclose(forecast.quantile(NODE_LEVELS), expected, rtol=1e-6)
    assert len(NODE_LEVELS) <= 129


@pytest.mark.parametrize("distribution", [stats.norm, stats.t(2.1), stats.expon, stats.uniform])
def test_quantiles_do_not_cross_and_follow_the_order_of_the_levels(distribution: Any) -> None:
    forecast = forecast_of(1, 1, single=True, distribution=distribution)
    levels = np.sort(np.r_[np.geomspace(1e-9, 0.5, 400), 1 - np.geomspace(1e-9, 0.5, 400)])
    ascending = forecast.quantile(levels)
    assert (np.diff(ascending, axis=0) >= 0).all()
    shuffled = np.random.default_rng(0).permutation(len(levels))
    np.testing.assert_array_equal(forecast.quantile(levels[shuffled]), ascending[shuffled])
    np.testing.assert_array_equal(forecast.quantile([0.9, 0.9])[0], forecast.quantile(0.9))


def test_interval_is_central() -> None:
    forecast = forecast_of(2, 1)
    lower, upper = forecast.interval(0.8)
    np.testing.assert_allclose(lower, forecast.quantile(0.1), rtol=1e-12)
    np.testing.assert_allclose(upper, forecast.quantile(0.9), rtol=1e-12)
    np.testing.assert_array_equal(forecast.median, forecast.quantile(0.5))


@pytest.mark.parametrize(
    "levels",
    [0, 1, -0.1, 1.1, np.nan, [], [0.5, np.nan], [0.1, 1.0], [[0.5]], None, "high", 1j, True],
)
def test_levels_that_are_none_are_refused(levels: Any) -> None:
    forecast = forecast_of(1, 1)
    with pytest.raises(InvalidInputError, match="levels"):
        forecast.quantile(levels)


@pytest.mark.parametrize("coverage", [0, 1, -0.5, 1.5, np.nan, None, "wide", [0.5], [0.5, 0.8]])
def test_coverage_that_is_none_is_refused(coverage: Any) -> None:
    with pytest.raises(InvalidInputError):
        forecast_of(1, 1).interval(coverage)


@pytest.mark.parametrize("distribution", [stats.norm, stats.t(2.1), stats.expon])
def test_cdf_inverts_quantile(distribution: Any) -> None:
    forecast = forecast_of(2, 2, distribution=distribution)
    for level in (1e-6, 0.0001, 0.0042, 0.1, 0.25, 0.5, 0.9, 0.999, 0.9999, 0.999999):
        np.testing.assert_allclose(forecast.cdf(forecast.quantile(level)), level, rtol=1e-3)


def test_cdf_broadcasts_rises_and_is_nan_at_nan() -> None:
    forecast = forecast_of(2, 2)
    grid = [forecast.cdf(value) for value in (-np.inf, -1e9, -3.0, 0.0, 3.0, 1e9, np.inf)]
    assert (np.diff(grid, axis=0) >= 0).all()
    assert (grid[0] == 0).all()
    assert (grid[-1] == 1).all()
    per_variate = forecast.cdf([-2.0, 3.0])
    np.testing.assert_array_equal(per_variate[..., 1], forecast.cdf(3.0)[..., 1])
    with_missing = forecast.cdf(np.full((HORIZON, 1), [[np.nan]] + [[1.0]] * (HORIZON - 1)))
    assert np.isnan(with_missing).sum() == 4
    assert np.isnan(with_missing[:, 0]).all()


def test_cdf_steps_up_at_a_value_that_has_mass() -> None:
    """Quantiles 0 up to level 0.6, then 1: half-open steps, as of a count."""
    forecast = forecast_of(1, 1, single=True, univariate=True, distribution=stats.bernoulli(0.4))
    scale, location = forecast._marginals.scale[0, 0], forecast._marginals.location[0, 0, 0]
    zero, one = 1 * scale + location, 2 * scale + location
    assert forecast.cdf(zero + 1e-6)[0] == pytest.approx(0.6, abs=0.011)
    assert forecast.cdf(zero - 1e-3)[0] < 0.001
    assert forecast.cdf(one + 1e-3)[0] > 0.999


def test_samples_are_drawn_from_the_marginals() -> None:
    forecast = forecast_of(2, 2, num_samples=2000, distribution=stats.t(4))
    levels = np.stack([forecast.cdf(sample) for sample in forecast.samples.swapaxes(0, 1)])
    for step in levels.reshape(2000, -1).T:
        assert stats.kstest(step, "uniform").pvalue > 1e-3
    correlation = np.corrcoef(levels.reshape(2000, -1).T)
    assert np.abs(correlation - np.eye(len(correlation))).max() < 5 / np.sqrt(2000)


def test_samples_are_always_the_same_and_fewer_are_the_first_of_many() -> None:
    forecast = forecast_of(2, 2)
    np.testing.assert_array_equal(forecast.samples, forecast.samples)
    assert len(np.unique(forecast.samples)) == forecast.samples.size
    fewer = forecast_of(2, 2, num_samples=7)
    np.testing.assert_array_equal(fewer.samples, forecast.samples[:, :7])


@pytest.mark.parametrize("num_samples", [8, 100, 1000])
def test_samples_are_ranked_like_the_paths(num_samples: int) -> None:
    """Steps 0 and 1 move together, 2 against them, 3 alone."""
    paths = 200
    rng = np.random.default_rng(0)
    first, alone = rng.permutation(paths), rng.permutation(paths)
    ranks = np.stack([first, first, paths - 1 - first, alone], -1)[None, :, :, None]
    forecast = forecast_of(
        1,
        1,
        single=True,
        univariate=True,
        horizon=4,
        num_samples=num_samples,
        ranks=ranks.astype(np.uint16),
    )
    samples = forecast.samples
    assert samples.shape == (num_samples, 4)
    correlation = stats.spearmanr(samples).statistic
    assert correlation[0, 1] > 0.9
    assert correlation[0, 2] < -0.9
    if num_samples == 1000:
        assert abs(correlation[0, 3]) < 0.25
        for step in range(4):
            levels = [forecast.cdf(sample)[step] for sample in samples]
            assert stats.kstest(levels, "uniform").pvalue > 1e-3


def test_samples_of_the_highest_rank_are_finite() -> None:
    """A level close to 1 must not be rounded to 1."""
    paths = 60_000
    ranks = np.full((1, paths, 4, 1), paths - 1, dtype=np.uint16)
    forecast = forecast_of(1, 1, horizon=4, num_samples=paths, ranks=ranks)
    assert np.isfinite(forecast.samples).all()


def test_one_series_of_a_batch_is_its_part() -> None:
    ranks = np.random.default_rng(0).integers(0, 50, (5, 50, HORIZON, 2)).astype(np.uint16)
    batch = forecast_of(5, 2, ranks=ranks)
    for index in (0, 3, -1, np.int64(2)):
        one = batch[index]
        assert len(one) == 1
        np.testing.assert_array_equal(one.mean, batch.mean[index])
        np.testing.assert_array_equal(one.quantile([0.2, 0.7]), batch.quantile([0.2, 0.7])[index])
        np.testing.assert_array_equal(one.samples, batch.samples[index])
        np.testing.assert_array_equal(one.cdf(1.0), batch.cdf(1.0)[index])
    assert len(list(batch)) == 5
    for beyond in (5, -6):
        with pytest.raises(IndexError):
            batch[beyond]


def test_variates_that_a_series_does_not_have_are_nan_and_dropped_with_the_batch() -> None:
    marginals = forecast_of(2, 3)._marginals
    for array in (marginals.quantiles, marginals.mean, marginals.location, marginals.scale):
        array[0, ..., 1:] = np.nan
    ragged = Forecast(marginals, single=False, univariate=False, num_samples=6)
    for result in (ragged.mean, ragged.quantile(0.3), ragged.samples, ragged.cdf(0.0)):
        assert np.isnan(result[0, ..., 1:]).all()
        assert np.isfinite(result[0, ..., :1]).all()
        assert np.isfinite(result[1]).all()
    assert ragged[0].mean.shape == (HORIZON, 1)
    assert ragged[0].samples.shape == (6, HORIZON, 1)
    assert ragged[1].mean.shape == (HORIZON, 3)
    np.testing.assert_array_equal(ragged[0].samples, ragged.samples[0, ..., :1])


def test_a_forecast_survives_pickling() -> None:
    forecast = forecast_of(2, 2)
    again = pickle.loads(pickle.dumps(forecast))
    np.testing.assert_array_equal(forecast.quantile([0.1, 0.9]), again.quantile([0.1, 0.9]))
    np.testing.assert_array_equal(forecast.samples, again.samples)


def test_results_are_the_callers_to_change() -> None:
    forecast = forecast_of(1, 1, single=True, univariate=True)
    before = forecast.quantile(0.5)
    for result in (forecast.mean, forecast.median, forecast.quantile(0.5), forecast.samples):
        result[:] = 0.0
    np.testing.assert_array_equal(forecast.quantile(0.5), before)


@pytest.mark.skipif(
    importlib.util.find_spec("moirai_moe_forecaster.plotting") is None
    or importlib.util.find_spec("matplotlib") is None,
    reason="needs the plot extra",
)
def test_plot_draws_the_median() -> None:
    import matplotlib

    matplotlib.use("Agg")
    forecast = forecast_of(1, 1, single=True, univariate=True)
    axes = forecast.plot(np.arange(20.0))
    drawn = [np.asarray(line.get_ydata()) for line in axes.lines]
    assert any(
        len(line) >= HORIZON and np.allclose(line[-HORIZON:], forecast.median) for line in drawn
    )


@pytest.mark.parametrize("horizon", [40, 100])
def test_a_series_taken_out_of_a_batch_keeps_its_samples(horizon: int) -> None:
    network = tiny_network(output_patches=4, dependence_share=0.5, dependence_decay=0.9)
    walks = list(np.random.default_rng(0).normal(size=(3, 60)).cumsum(1))
    batch = MoiraiMoEPipeline(network).predict(walks, horizon, random_state=0)
    np.testing.assert_array_equal(batch[1].samples, batch.samples[1])


@pytest.mark.parametrize("horizon", [48, 150])
def test_sums_over_the_horizon_are_wider_where_points_depend_on_each_other(horizon: int) -> None:
    walk = np.random.default_rng(0).normal(size=100).cumsum()
    spread = []
    for share in (0.0, 0.9):
        network = tiny_network(output_patches=4, dependence_share=share, dependence_decay=0.95)
        forecast = MoiraiMoEPipeline(network).predict(
            walk, horizon, num_paths=300, num_samples=300, random_state=0
        )
        spread.append(np.subtract(*np.quantile(forecast.samples[:, :48].sum(1), [0.9, 0.1])))
        level = np.stack([forecast.cdf(sample) for sample in forecast.samples])
        assert np.abs(np.quantile(level, [0.1, 0.5, 0.9]) - [0.1, 0.5, 0.9]).max() < 0.03
    assert spread[1] > 2 * spread[0]
