"""Simulators of what people measure: demand, traffic, sales, sunshine, epidemics, economies.

Each takes (count, length, generator) and draws its parameters anew for each of the series.
"""

import math

import torch

from moirai_moe_forecaster.training.synthetic.primitives import (
    autoregression,
    bounded,
    chance,
    choose,
    clock,
    hold,
    log_uniform,
    mixture,
    noise,
    normal,
    standardise,
    student,
    uniform,
)
from moirai_moe_forecaster.training.synthetic.statistical import mean_reverting
from moirai_moe_forecaster.training.synthetic.structural import cycle, phase_of, seasonality, trend


def trending(count: int, length: int, generator: torch.Generator) -> torch.Tensor:
    """Trend with little else, as in yearly data."""
    share = log_uniform(generator, count, 1, low=0.002, high=0.3)
    return trend(count, length, generator) + share * noise(count, length, generator)


def seasonal(count: int, length: int, generator: torch.Generator) -> torch.Tensor:
    """Trend, seasonality and noise, added, or multiplied for a third of the series."""
    slope = log_uniform(generator, count, 1, low=0.05, high=5)
    slope = slope * chance(generator, count, 1, of=0.7)
    error = log_uniform(generator, count, 1, low=0.02, high=2)
    total = (
        seasonality(count, length, generator)
        + slope * trend(count, length, generator)
        + error * noise(count, length, generator)
    )
    depth = log_uniform(generator, count, 1, low=0.1, high=0.9)
    product = torch.exp(depth * bounded(standardise(total)))
    return torch.where(chance(generator, count, 1, of=0.35), product, total)


def working_week(count: int, length: int, generator: torch.Generator) -> torch.Tensor:
    """Load, traffic, footfall: days have a shape, weekends and holidays another one.

    Returns
    -------
    Tensor
        (count, length), positive.
    """
    time = clock(count, length, generator)
    per_day = choose(generator, count, 1, among=[24, 24, 24, 48, 48, 96, 144, 288])
    hour = phase_of(time, per_day)
    date = (time / per_day).floor().long()
    weekday, day = date % 7, date - date[:, :1]
    days = int(day.max()) + 1
    holiday = chance(generator, count, days, of=0.02).gather(1, day)
    free = (weekday < choose(generator, count, 1, among=[1, 2, 2, 2])) | holiday

    alike = chance(generator, count, 1, of=0.5)
    working, resting = cycle(hour, generator), cycle(hour, generator)
    shape = torch.where(free & ~alike, resting, working)
    level = uniform(generator, count, 1, low=-1.5, high=0.3) * free
    level = level + 0.2 * normal(generator, count, 7).gather(1, weekday)
    memory = choose(generator, count, 1, among=[1, 3, 10])
    daily = autoregression(memory, normal(generator, count, days)).gather(1, day)
    yearly = cycle(phase_of(time, 365.25 * per_day), generator)
    slow = uniform(generator, count, 1, high=0.4) * daily
    slow = slow + uniform(generator, count, 1, high=0.4) * yearly
    error = log_uniform(generator, count, 1, low=0.01, high=0.6) * noise(count, length, generator)
    depth = uniform(generator, count, 1, low=0.1, high=0.8)
    return torch.exp(depth * bounded(shape + level + slow + error))


def retail(count: int, length: int, generator: torch.Generator) -> torch.Tensor:
    """Daily, weekly or monthly business: yearly spikes, month lengths, weekdays, slow growth.

    Returns
    -------
    Tensor
        (count, length), positive.
    """
    time = clock(count, length, generator)
    year = choose(generator, count, 1, among=[365.25, 365.25, 52.18, 12, 12])
    date = phase_of(time, year)
    centre = uniform(generator, count, 5, 1)
    width = log_uniform(generator, count, 5, 1, low=0.002, high=0.03)
    height = normal(generator, count, 5, 1) * chance(generator, count, 5, 1, of=0.5)
    distance = (date[:, None, :] - centre + 0.5) % 1 - 0.5
    spikes = (height * torch.exp(-0.5 * (distance / width).square())).sum(1)

    days = torch.tensor([31, 28.25, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31], device=date.device)
    month_length = torch.log(days / days.mean())[(date * 12 + 1e-3).floor().long() % 12]
    weekday = cycle(time % 7 / 7, generator)
    # Months and weeks have no weekdays; only months differ in length.
    weekday_effect = log_uniform(generator, count, 1, low=0.03, high=0.6) * (year > 100)
    yearly_effect = log_uniform(generator, count, 1, low=0.03, high=0.5)
    error = log_uniform(generator, count, 1, low=0.01, high=0.4)
    return torch.exp(
        bounded(
            spikes
            + month_length * (year == 12)
            + weekday_effect * weekday
            + yearly_effect * cycle(date, generator)
            + uniform(generator, count, 1) * trend(count, length, generator)
            + error * noise(count, length, generator)
        )
    )


def rate(count: int, length: int, generator: torch.Generator) -> torch.Tensor:
    """Positive rate around one that follows trend and season, or stays constant."""
    strength = uniform(generator, count, 1) * chance(generator, count, 1, of=0.8)
    season = seasonality(count, length, generator) * uniform(generator, count, 1)
    slope = trend(count, length, generator) * uniform(generator, count, 1)
    return torch.exp(strength * bounded(season + slope))


def counts(count: int, length: int, generator: torch.Generator) -> torch.Tensor:
    """Poisson, negative binomial and zero-inflated counts: non-negative whole numbers."""
    mean = rate(count, length, generator) * log_uniform(generator, count, 1, low=0.2, high=300)
    # A Gamma rate with half-integer shape, a sum of squared normals, gives a negative binomial.
    degrees = choose(generator, count, 1, 1, among=[1, 2, 4, 8])
    squares = normal(generator, count, 8, length).square()
    used = torch.arange(8, device=generator.device)[:, None] < degrees
    dispersion = (squares * used).sum(1) / degrees[:, 0]
    mean = torch.where(chance(generator, count, 1, of=0.5), dispersion * mean, mean)
    absent = uniform(generator, count, 1, high=0.6) * chance(generator, count, 1, of=0.3)
    present = chance(generator, count, length, of=1 - absent)
    return torch.poisson(mean, generator=generator) * present


def intermittent(count: int, length: int, generator: torch.Generator) -> torch.Tensor:
    """Sporadic demand (Croston, 1972): rare occasions, positive whole sizes, zero in between."""
    occasion = rate(count, length, generator)
    occasion = occasion * log_uniform(generator, count, 1, low=0.03, high=0.7)
    happens = chance(generator, count, length, of=occasion)
    size = log_uniform(generator, count, 1, low=0.05, high=30)
    spread = uniform(generator, count, 1, high=0.8) * normal(generator, count, length)
    return happens * (1 + torch.poisson(size * spread.exp(), generator=generator))


def solar(count: int, length: int, generator: torch.Generator) -> torch.Tensor:
    """Sunshine: a bell by day under passing clouds, exactly zero at night, seasonal day length."""
    time = clock(count, length, generator)
    per_day = choose(generator, count, 1, among=[24, 24, 48, 96, 144, 288])
    year = torch.cos(2 * math.pi * phase_of(time, 365.25 * per_day))
    latitude = uniform(generator, count, 1, high=0.5)
    height = torch.cos(2 * math.pi * phase_of(time, per_day)) + latitude * year
    bell = height.clamp_min(0) ** uniform(generator, count, 1, low=0.7, high=2)
    weather = autoregression(
        per_day * log_uniform(generator, count, 1, low=0.3, high=3),
        normal(generator, count, length),
    )
    passing = autoregression(per_day / 20, normal(generator, count, length))
    variability = uniform(generator, count, 1, high=2)
    clearness = uniform(generator, count, 1, low=-1, high=3) + variability * (weather + passing)
    return bell * torch.sigmoid(clearness)


def occupancy(count: int, length: int, generator: torch.Generator) -> torch.Tensor:
    """Machines and rooms: on or off by schedule or by chance, with a load while on."""
    segment = log_uniform(generator, count, 1, low=3, high=100)
    urge = hold(segment, normal(generator, count, length), generator)
    schedule = seasonality(count, length, generator) * uniform(generator, count, 1, high=3)
    on = urge + schedule > uniform(generator, count, 1, low=-1, high=1.5)
    load = hold(segment, uniform(generator, count, length), generator)
    load = 1 + uniform(generator, count, 1) * load
    error = log_uniform(generator, count, 1, low=0.001, high=0.2) * normal(generator, count, length)
    return on * (load + error)


def sensor(count: int, length: int, generator: torch.Generator) -> torch.Tensor:
    """Instruments: readings that saturate, are rounded, or are held until they change."""
    signals = ((seasonal, 2.0), (mean_reverting, 1.0))
    signal = standardise(mixture(signals, count, length, generator))
    low = uniform(generator, count, 1, low=-3, high=-0.3)
    high = uniform(generator, count, 1, low=0.3, high=3)
    clipped = signal.clamp(low, high)
    step = log_uniform(generator, count, 1, low=0.05, high=1)
    rounded = (signal / step).round() * step
    stale = hold(log_uniform(generator, count, 1, low=2, high=20), signal, generator)
    kind = choose(generator, count, 1, among=[0, 1, 2])
    return torch.where(kind == 0, clipped, torch.where(kind == 1, rounded, stale))


def waveforms(count: int, length: int, generator: torch.Generator) -> torch.Tensor:
    """Laboratory signals: one strict cycle of any shape and period, with little or no noise."""
    period = log_uniform(generator, count, 1, low=3, high=400)
    period = torch.where(chance(generator, count, 1, of=0.7), period.round(), period)
    wave = cycle(phase_of(clock(count, length, generator), period), generator)
    share = log_uniform(generator, count, 1, low=0.01, high=0.5)
    share = share * chance(generator, count, 1, of=0.6)
    return wave + share * normal(generator, count, length)


def epidemic(count: int, length: int, generator: torch.Generator) -> torch.Tensor:
    """Waves that rise and fall exponentially, new or cumulative, with a weekly rhythm for some.

    Returns
    -------
    Tensor
        (count, length), non-negative.
    """
    waves = 8
    rise = log_uniform(generator, count, waves, 1, low=2, high=max(length, 40) / 20)
    fall = rise * log_uniform(generator, count, waves, 1, low=0.7, high=4)
    height = log_uniform(generator, count, waves, 1, low=0.03, high=3)
    centre = uniform(generator, count, waves, 1, low=-0.1, high=1.1) * length
    distance = torch.arange(length, device=generator.device) - centre
    before = torch.exp((-distance / rise).clamp_max(40))
    after = torch.exp((distance / fall).clamp_max(40))
    background = log_uniform(generator, count, 1, low=1e-4, high=0.1)
    cases = background + (height / (before + after)).sum(1)
    week = clock(count, length, generator) % 7 / 7
    reporting = uniform(generator, count, 1, high=0.6) * cycle(week, generator)
    reporting = reporting * chance(generator, count, 1, of=0.4)
    error = uniform(generator, count, 1, high=0.3) * normal(generator, count, length)
    cases = cases * torch.exp(reporting + error)
    return torch.where(chance(generator, count, 1, of=0.25), cases.cumsum(1), cases)


def national_accounts(count: int, length: int, generator: torch.Generator) -> torch.Tensor:
    """Yearly, quarterly and monthly aggregates: compound growth whose rate comes in cycles.

    The logarithm grows by a constant rate, a persistent deviation from it (booms and recessions)
    and shocks with heavy tails (breaks); most series grow. Half of them have a season of four or
    twelve steps, which is weak beside the growth.

    Returns
    -------
    Tensor
        (count, length), positive.
    """
    growth_rate = 1 + normal(generator, count, 1)
    cycle_length = log_uniform(generator, count, 1, low=2, high=40)
    boom = autoregression(cycle_length, normal(generator, count, length))
    shock = student(generator, log_uniform(generator, count, 1, low=2.5, high=30), count, length)
    swing = log_uniform(generator, count, 1, low=0.05, high=3)
    jolt = log_uniform(generator, count, 1, low=0.02, high=3)
    path = standardise(torch.cumsum(growth_rate + swing * boom + jolt * shock, dim=1))

    period = choose(generator, count, 1, among=[1, 1, 1, 4, 4, 12])
    part = (clock(count, length, generator) % period).long()
    season = normal(generator, count, 12).gather(1, part) * (period > 1)
    strength = log_uniform(generator, count, 1, low=0.01, high=0.3)
    error = log_uniform(generator, count, 1, low=0.0005, high=0.05)
    depth = log_uniform(generator, count, 1, low=0.03, high=1.5)
    return torch.exp(
        bounded(depth * path, 4) + strength * season + error * normal(generator, count, length)
    )


def tourism(count: int, length: int, generator: torch.Generator) -> torch.Tensor:
    """Strong clean seasons times a trend: visitors, harvests, energy, hard to beat by a cycle ago.

    The depth of the season changes slowly over many cycles, and for some series one shape of the
    year gives way to another.

    Returns
    -------
    Tensor
        (count, length), positive.
    """
    period = choose(generator, count, 1, among=[4, 4, 4, 12, 12, 12, 12, 7, 24, 52])
    phase = phase_of(clock(count, length, generator), period)
    shape, later_shape = cycle(phase, generator), cycle(phase, generator)
    memory = period * log_uniform(generator, count, 1, low=10, high=100)
    drift = autoregression(memory, normal(generator, count, length))
    changing = uniform(generator, count, 1, high=0.4) * chance(generator, count, 1, of=0.4)
    season = torch.lerp(shape, later_shape, changing * torch.sigmoid(2 * drift.flip(-1)))
    amplitude = torch.exp(uniform(generator, count, 1, high=0.4) * drift)
    depth = log_uniform(generator, count, 1, low=0.1, high=0.8)
    slope = log_uniform(generator, count, 1, low=0.1, high=1.5) * trend(count, length, generator)
    error = log_uniform(generator, count, 1, low=0.01, high=0.3) * noise(count, length, generator)
    return torch.exp(depth * bounded(slope + amplitude * season + error, 5))
