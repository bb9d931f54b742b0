"""Each generator gives finite, reproducible series with the property that it is named for."""

from collections.abc import Callable, Sequence
from functools import partial

import pytest
import torch

from moirai_moe_forecaster.training.synthetic import (
    domains,
    generate,
    statistical,
    structural,
)
from moirai_moe_forecaster.training.synthetic.primitives import Process, standardise

NATURAL_LAGS = (4, 5, 7, 12, 24, 30, 48, 52, 60, 96, 144, 168, 288, 336, 365)

every_generator = pytest.mark.parametrize("name", list(generate.GENERATORS))


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def draw(process: Process, count: int = 100, length: int = 1500, seed: int = 0) -> torch.Tensor:
    return process(count, length, seeded(seed))


def autocorrelation(series: torch.Tensor, lag: int) -> torch.Tensor:
    centred = series - series.mean(1, keepdim=True)
    product = (centred[:, lag:] * centred[:, :-lag]).mean(1)
    return product / centred.square().mean(1).clamp_min(1e-9)


def seasonal_strength(series: torch.Tensor, lags: Sequence[int] = NATURAL_LAGS) -> torch.Tensor:
    """How much better than half a cycle away a series is known from one cycle away."""
    contrast = [
        autocorrelation(series, lag) - autocorrelation(series, max(lag // 2, 1)) for lag in lags
    ]
    return torch.stack(contrast).amax(0)


def kurtosis(series: torch.Tensor) -> torch.Tensor:
    return standardise(series).pow(4).mean(1)


def explained(target: torch.Tensor, *causes: torch.Tensor) -> torch.Tensor:
    """Coefficient of determination of a linear regression in each row."""
    design = torch.stack([torch.ones_like(target), *causes], dim=2).double()
    wanted = target.double()[:, :, None]
    solution = torch.linalg.lstsq(design, wanted, driver="gelsd").solution
    residual = wanted - design @ solution
    total = (wanted - wanted.mean(1, keepdim=True)).square().sum((1, 2))
    return 1 - residual.square().sum((1, 2)) / total.clamp_min(1e-12)


# What holds for all of them


@every_generator
@pytest.mark.parametrize("length", [1, 20, 700])
def test_shape_type_and_finiteness(name: str, length: int) -> None:
    series = draw(generate.GENERATORS[name][0], count=40, length=length)
    assert series.shape == (40, length)
    assert series.dtype == torch.float32
    assert series.isfinite().all()


@every_generator
def test_the_generator_decides_everything(name: str) -> None:
    process = generate.GENERATORS[name][0]
    before = torch.get_rng_state()
    first, again, other = (draw(process, count=8, length=200, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(torch.get_rng_state(), before), "the global random state was used"


@every_generator
def test_series_of_a_batch_differ(name: str) -> None:
    series = standardise(draw(generate.GENERATORS[name][0], count=12, length=300))
    distance = torch.cdist(series, series) + torch.eye(12)
    constant = series.abs().sum(1) == 0
    assert distance[~constant][:, ~constant].min() > 1e-3


@pytest.mark.gpu
@every_generator
def test_the_device_is_that_of_the_generator(name: str) -> None:
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    generator = torch.Generator("cuda").manual_seed(0)
    series = generate.GENERATORS[name][0](8, 200, generator)
    assert series.device.type == "cuda"
    assert series.isfinite().all()


EVERYTHING: dict[str, Callable[[torch.Generator], torch.Tensor]] = {
    **{name: partial(process, 12, 60) for name, (process, _) in generate.GENERATORS.items()},
    **{process.__name__: partial(process, 12, 60) for process, _ in generate.DRIVERS},
    "coupled": partial(generate.coupled, 6, 3, 60),
}


@pytest.mark.parametrize("name", list(EVERYTHING))
def test_nothing_is_made_on_a_default_device(name: str) -> None:
    # A tensor made without saying where would be without values here, and spoil the series, as it
    # would be on the CPU beside a generator of a GPU.
    with torch.device("meta"):
        series = EVERYTHING[name](seeded())
    assert series.device.type == "cpu"
    assert series.isfinite().all()


def test_synthesise_is_varied_and_reproducible() -> None:
    series = draw(generate.synthesise, count=300, length=600)
    assert series.shape == (300, 600)
    assert series.isfinite().all()
    assert torch.equal(series, draw(generate.synthesise, count=300, length=600))
    standard = standardise(series)
    memory = autocorrelation(series, 1)
    assert memory.quantile(0.1) < 0.3, "no noisy series"
    assert memory.quantile(0.9) > 0.98, "no smooth series"
    assert 0.25 < (seasonal_strength(series) > 0.4).float().mean() < 0.8
    assert (standard.amax(1) > 5).any(), "no spikes"
    whole = (series == series.round()).all(1) & (series >= 0).all(1)
    assert 0.02 < whole.float().mean() < 0.25


def test_synthesise_of_a_single_series() -> None:
    assert draw(generate.synthesise, count=1, length=50).shape == (1, 50)


# Textbook models


def test_gaussian_processes_are_smooth_periodic_or_both() -> None:
    series = draw(statistical.gaussian_process, count=200)
    assert kurtosis(series).median() == pytest.approx(3, abs=0.8)
    assert (seasonal_strength(series) > 0.5).float().mean() > 0.25
    assert (autocorrelation(series, 1) > 0.95).float().mean() > 0.15


def test_exponential_smoothing_has_levels_and_seasons() -> None:
    series = draw(statistical.exponential_smoothing, count=200)
    positive = (series > 0).all(1)
    assert 0.25 < positive.float().mean() < 0.8, "the multiplicative models are positive"
    assert (seasonal_strength(series) > 0.5).float().mean() > 0.2
    late_level = series[:, -200:].mean(1) - series[:, :200].mean(1)
    assert (late_level.abs() > series.diff(dim=1).std(1)).float().mean() > 0.3


def test_seasonal_arima_has_seasonal_and_integrated_series() -> None:
    series = draw(statistical.seasonal_arima, count=200)
    lags = (4, 7, 12, 24, 48, 52, 96)
    differences = series.diff(dim=1)
    best = torch.stack([autocorrelation(differences, lag) for lag in lags]).amax(0)
    assert (best > 0.5).float().mean() > 0.3
    assert (autocorrelation(series, 1) > 0.95).float().mean() > 0.2


def test_random_walks_wander_and_mean_reversion_returns() -> None:
    def spread_ratio(series: torch.Tensor) -> torch.Tensor:
        near = series[:, 10:] - series[:, :-10]
        far = series[:, 1000:] - series[:, :-1000]
        return far.square().mean(1) / near.square().mean(1)

    walks = draw(statistical.random_walk)
    returning = draw(statistical.mean_reverting)
    assert spread_ratio(walks).median() > 30
    assert spread_ratio(returning).median() < 8


def test_random_walks_have_light_and_heavy_tails() -> None:
    steps = kurtosis(draw(statistical.random_walk).diff(dim=1))
    assert steps.quantile(0.1) < 4
    assert steps.quantile(0.8) > 10


def test_regimes_change_level_and_variance() -> None:
    series = draw(statistical.regimes)
    spells = series.unfold(1, 50, 50)
    deviation = spells.std(2)
    unrest = deviation.quantile(0.9, dim=1) / deviation.quantile(0.1, dim=1)
    assert unrest.median() > 2.5
    assert (spells.mean(2).std(1) / deviation.median(1).values > 1).float().mean() > 0.3


def test_volatility_clusters_while_returns_stay_uncorrelated() -> None:
    series = draw(statistical.volatility_clusters, count=200)
    prices = (series > 0).all(1)
    assert 0.3 < prices.float().mean() < 0.7
    returns = torch.where(prices[:, None], series.clamp_min(1e-9).log(), series.cumsum(1))
    returns = returns.diff(dim=1)
    assert autocorrelation(returns, 1).mean() == pytest.approx(0, abs=0.03)
    assert autocorrelation(returns.square(), 1).mean() > 0.1
    assert kurtosis(returns).mean() > 3.5


def test_oscillators_have_one_frequency() -> None:
    series = draw(statistical.oscillator)
    power = torch.fft.rfft(standardise(series)).abs().square()
    share = power.topk(12, dim=1).values.sum(1) / power.sum(1)
    assert share.median() > 0.6


def test_logistic_map_is_a_parabola_of_its_past() -> None:
    series = draw(statistical.logistic_map)
    past, present = series[:, :-1], series[:, 1:]
    fit = explained(present, past, past.square())
    assert fit.median() > 0.7
    assert (autocorrelation(series, 1) < 0).float().mean() > 0.8


@pytest.mark.parametrize("process", [statistical.lorenz, statistical.mackey_glass])
def test_chaotic_flows_are_smooth_bounded_and_never_settle(process: Process) -> None:
    series = draw(process, count=20)
    assert (autocorrelation(series, 1) > 0.9).all()
    assert standardise(series).abs().max() < 12
    assert (series[:, -400:].std(1) > 0.05 * series.std(1)).all()


def test_lorenz_visits_both_lobes_at_the_classical_size() -> None:
    # z of the Lorenz system is positive, x and y change sign; x stays within about 20.
    series = draw(statistical.lorenz, count=60, length=3000)[:, 1000:]
    upright = series.amin(1) > 0
    assert 0.15 < upright.float().mean() < 0.55
    lobes = series[~upright]
    assert (lobes.amin(1) < -5).float().mean() > 0.9
    assert (lobes.amax(1) > 5).float().mean() > 0.9
    assert series.abs().max() < 70


def test_mackey_glass_obeys_its_delay_equation() -> None:
    series = draw(statistical.mackey_glass, count=30, length=400).double()
    feedback = series[:, 30:] - 0.9 * series[:, 29:-1]
    power = torch.linspace(8, 11, 31, dtype=torch.float64)[:, None, None]
    errors = []
    for delay in range(10, 30):
        past = series[:, 30 - delay : -delay]
        errors.append((0.2 * past / (1 + past**power) - feedback).abs().amax(2))
    assert torch.stack(errors).amin((0, 1)).max() < 0.01


# Trends and everyday series


def test_lines_bend_rarely() -> None:
    bends = draw(structural.piecewise_trend).double().diff(n=2, dim=1).abs() > 1e-3
    assert bends.float().mean(1).median() < 0.05


def test_growth_saturates() -> None:
    series = standardise(draw(structural.growth))
    steps = series.diff(dim=1).abs()
    busiest = steps.topk(steps.shape[1] // 4, dim=1).values.sum(1) / steps.sum(1)
    assert busiest.median() > 0.6


def test_exponential_trends_are_positive_and_change_by_factors() -> None:
    series = draw(structural.exponential_trend)
    assert (series > 0).all()
    assert (series.amax(1) / series.amin(1)).median() > 5


@pytest.mark.parametrize("process", [process for process, _ in structural.TRENDS])
def test_trends_are_persistent(process: Process) -> None:
    assert autocorrelation(draw(process), 1).median() > 0.95


def test_trending_series_are_mostly_trend_even_in_short_crops() -> None:
    series = draw(domains.trending, length=2048)
    assert autocorrelation(series, 1).median() > 0.95
    crops = series[:, 500:560]
    line = torch.arange(60.0).expand(len(crops), -1)
    assert (explained(crops, line) > 0.7).float().mean() > 0.2


def test_most_seasonal_series_repeat_under_their_noise() -> None:
    series = draw(domains.seasonal, count=300, length=2048)
    strength = seasonal_strength(series.diff(dim=1))
    assert (strength > 0.3).float().mean() > 0.35
    assert (strength > 0.9).float().mean() > 0.08, "no strong seasons"
    assert (strength < 0.3).float().mean() > 0.1, "no weak seasons"


def test_working_weeks_repeat_daily_and_weekly() -> None:
    series = draw(domains.working_week, count=200, length=2048)
    assert (series > 0).all()
    assert (seasonal_strength(series, (24, 48, 96, 144, 288)) > 0.4).float().mean() > 0.5
    weekly = autocorrelation(series, 168) - autocorrelation(series, 144)
    assert (weekly > 0.05).float().mean() > 0.2


def seasonal_naive_error(series: torch.Tensor, lag: int) -> torch.Tensor:
    """Mean absolute change over a cycle, relative to that over one step."""
    cycle_ago = (series[:, lag:] - series[:, :-lag]).abs().mean(1)
    return cycle_ago / series.diff(dim=1).abs().mean(1)


def test_tourism_is_clean_and_hard_to_beat_by_the_value_a_cycle_ago() -> None:
    series = draw(domains.tourism, count=200, length=600)
    assert (series > 0).all()
    logarithm = series.log()
    best = torch.stack([seasonal_naive_error(logarithm, lag) for lag in (4, 7, 12, 24, 52)]).amin(0)
    assert best.median() < 0.5
    assert best.quantile(0.1) < 0.2


def test_tourism_seasons_change_their_depth_slowly() -> None:
    steps = draw(domains.tourism, count=100, length=2080).log().diff(dim=1)
    depth = steps.unfold(1, 104, 104).std(2)
    near, far = ((depth[:, k:] / depth[:, :-k]).log().abs().mean() for k in (1, 8))
    assert far > 0.14
    assert near < 0.7 * far


def test_national_accounts_grow_even_over_few_points() -> None:
    series = draw(domains.national_accounts, count=300, length=48)
    assert (series > 0).all()
    logarithm = series.log()
    line = torch.arange(48.0).expand(300, -1)
    assert (explained(logarithm, line) > 0.8).float().mean() > 0.4
    assert 0.65 < (logarithm[:, -1] > logarithm[:, 0]).float().mean() < 0.97
    growth = (logarithm[:, -1] - logarithm[:, 0]).abs().exp()
    assert growth.quantile(0.3) < 1.5
    assert growth.quantile(0.8) > 3, "no exponential growth"


def test_some_national_accounts_have_quarters_or_months() -> None:
    steps = draw(domains.national_accounts, count=300, length=120).log().diff(dim=1)
    strength = seasonal_strength(steps, (4, 12))
    assert 0.1 < (strength > 0.5).float().mean() < 0.5


def test_temperatures_have_a_season_and_persistent_anomalies() -> None:
    series = draw(generate.temperature, count=200)
    assert (seasonal_strength(series) > 0.4).float().mean() > 0.3
    assert (autocorrelation(series, 1) > 0.8).float().mean() > 0.4


def test_retail_is_positive_with_yearly_or_weekly_rhythm() -> None:
    series = draw(domains.retail, count=200)
    assert (series > 0).all()
    assert (seasonal_strength(series.log(), (7, 12, 52, 365)) > 0.2).float().mean() > 0.4


@pytest.mark.parametrize("process", [domains.counts, domains.intermittent])
def test_counts_are_non_negative_whole_numbers(process: Process) -> None:
    series = draw(process)
    assert (series >= 0).all()
    assert torch.equal(series, series.round())


def test_counts_are_dispersed_as_poisson_or_more() -> None:
    series = draw(domains.counts, count=200)
    # Neighbours share nearly the same rate, so their difference shows the dispersion alone.
    variance = series.diff(dim=1).square().mean(1) / 2
    dispersion = variance / series.mean(1)
    assert dispersion.quantile(0.02) > 0.8
    assert dispersion.quantile(0.2) < 1.5
    assert dispersion.quantile(0.8) > 4


def test_intermittent_demand_is_mostly_absent() -> None:
    absent = (draw(domains.intermittent) == 0).float().mean(1)
    assert absent.median() > 0.6
    assert absent.min() < 0.5


def test_the_sun_does_not_shine_at_night() -> None:
    series = draw(domains.solar, length=2048)
    night = series == 0
    assert (series >= 0).all()
    assert 0.3 < night.float().mean() < 0.7
    # The same hour is dark again after a day, whatever the clouds do by day.
    per_day = (24, 48, 96, 144, 288)
    repeats = torch.stack([autocorrelation(night.float(), lag) for lag in per_day]).amax(0)
    assert repeats.median() > 0.9


def test_occupancy_is_on_or_off() -> None:
    series = draw(domains.occupancy)
    assert (((series == 0) | (series > 0.1)).float().mean(1)).min() > 0.99
    assert 0.2 < (series == 0).float().mean() < 0.8


def test_sensors_repeat_values() -> None:
    series = draw(domains.sensor)
    distinct = torch.tensor([len(row.unique()) for row in series]) / series.shape[1]
    assert distinct.median() < 0.7


def test_staircases_rarely_change() -> None:
    changes = (draw(structural.staircase).diff(dim=1) != 0).float().mean(1)
    assert changes.median() < 0.1


def test_noiseless_waveforms_repeat_exactly() -> None:
    series = draw(domains.waveforms, count=60)
    error = [(series[:, lag:] - series[:, :-lag]).abs().amax(1) for lag in range(3, 400)]
    assert (torch.stack(error).amin(0) < 1e-4).float().mean() > 0.2


def test_epidemics_come_in_waves_or_accumulate() -> None:
    series = draw(domains.epidemic)
    assert (series > 0).all()
    cumulative = (series.diff(dim=1) >= 0).all(1)
    assert 0.1 < cumulative.float().mean() < 0.45
    waves = series[~cumulative]
    assert (waves.amax(1) / waves.median(1).values).median() > 3


# Multivariate systems


def test_coupled_shape_determinism_and_finiteness() -> None:
    before = torch.get_rng_state()
    system = generate.coupled(12, 3, 200, seeded())
    assert system.shape == (12, 3, 200)
    assert system.isfinite().all()
    assert torch.equal(system, generate.coupled(12, 3, 200, seeded()))
    assert not torch.equal(system, generate.coupled(12, 3, 200, seeded(1)))
    assert torch.equal(torch.get_rng_state(), before)


def test_coupled_needs_a_driver() -> None:
    with pytest.raises(ValueError, match="at least 2"):
        generate.coupled(3, 1, 100, seeded())


def test_drivers_explain_their_target_at_once_and_with_delay() -> None:
    target, driver = generate.coupled(300, 2, 600, seeded()).unbind(1)
    stranger = driver.roll(1, 0)
    at_once = explained(target, driver)
    assert (at_once > 0.5).float().mean() > 0.12
    assert (at_once < 0.05).float().mean() > 0.2, "no irrelevant drivers"
    assert at_once.mean() > explained(target, stranger).mean() + 0.1

    lags = range(25)
    correlation = torch.stack(
        [
            (standardise(target[:, 48:]) * standardise(driver[:, 48 - k : 600 - k])).mean(1).abs()
            for k in lags
        ]
    )
    best, delay = correlation.max(0)
    assert ((best > 0.5) & (delay > 1)).float().mean() > 0.03, "no delayed effects"
    assert ((best > 0.5) & (delay == 0)).float().mean() > 0.1, "no effects at the same step"


@pytest.mark.parametrize("process", [generate.promotions, generate.holidays])
def test_event_drivers_are_zero_or_one(process: Process) -> None:
    series = draw(process)
    assert ((series == 0) | (series == 1)).all()
    assert 0.02 < series.mean() < 0.4
