"""What series are made of: seasonal patterns of real sampling frequencies, and trends."""

import math
from collections.abc import Callable

import torch

from moirai_moe_forecaster.training.synthetic.primitives import (
    Process,
    allot,
    autoregression,
    chance,
    choose,
    clock,
    hold,
    log_uniform,
    mixture,
    normal,
    standardise,
    uniform,
)

Shape = Callable[[torch.Tensor, torch.Generator], torch.Tensor]

CALENDARS: tuple[tuple[tuple[float, float, float], float], ...] = (
    ((4, 0, 0), 2.0),  # quarterly
    ((12, 0, 0), 3.0),  # monthly
    ((52.18, 0, 0), 1.0),  # weekly
    ((52, 13, 0), 0.5),
    ((7, 365.25, 30.44), 3.0),  # daily
    ((5, 21, 261), 0.5),  # business days
    ((4, 28, 1461), 0.4),  # every six hours
    ((8, 56, 2922), 0.4),  # every three hours
    ((24, 168, 8766), 4.0),  # hourly
    ((48, 336, 0), 2.0),  # half-hourly
    ((96, 672, 0), 1.5),  # every 15 minutes
    ((144, 1008, 0), 1.0),  # every 10 minutes
    ((288, 2016, 0), 1.0),  # every 5 minutes
    ((60, 1440, 10080), 0.7),  # every minute
    ((360, 8640, 0), 0.3),  # every ten seconds
    ((60, 3600, 0), 0.3),  # every second
)
"""Periods in steps, the ruling one first (0: none), and the weight of each sampling frequency."""


def draw_periods(count: int, generator: torch.Generator) -> torch.Tensor:
    """Draw one to three seasonal periods for each series.

    Returns
    -------
    Tensor
        (count, 3), in steps; 0 where there is none.
    """
    device = generator.device
    periods = torch.tensor([periods for periods, _ in CALENDARS], device=device)
    weights = torch.tensor([weight for _, weight in CALENDARS], device=device)
    drawn = periods[torch.multinomial(weights, count, replacement=True, generator=generator)]
    arbitrary = log_uniform(generator, count, 1, low=3, high=300)
    arbitrary = torch.where(chance(generator, count, 1, of=0.7), arbitrary.round(), arbitrary)
    arbitrary = arbitrary * torch.tensor([1.0, 0.0, 0.0], device=device)
    drawn = torch.where(chance(generator, count, 1, of=0.12), arbitrary, drawn)
    kept = uniform(generator, count, 3) < torch.tensor([1.0, 0.75, 0.3], device=device)
    # Now and then the long cycle of a calendar rules alone: a week without a daily rhythm.
    alone = chance(generator, count, 1, of=0.1) & (drawn[:, 1:2] > 0)
    second_only = torch.tensor([False, True, False], device=device)
    return drawn * torch.where(alone, second_only, kept)


def phase_of(time: torch.Tensor, period: torch.Tensor) -> torch.Tensor:
    """Fraction of the cycle that has passed.

    The remainder of whole time steps is exact, so a strict season repeats to the last bit.
    """
    return (time % period) / period


def harmonics(phase: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Smooth cycle: a Fourier series whose amplitudes decay."""
    count = len(phase)
    order = torch.arange(1, 9, device=phase.device)
    highest = choose(generator, count, 1, among=[1, 1, 2, 3, 5, 8])
    decay = uniform(generator, count, 1, low=0.3, high=2)
    amplitude = normal(generator, count, 8) * order**-decay * (order <= highest)
    start = uniform(generator, count, 8)
    angle = order[:, None] * phase[:, None, :] + start[:, :, None]
    return torch.einsum("nh,nht->nt", amplitude, torch.cos(2 * math.pi * angle))


def peaks(phase: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """One to three bumps in a cycle, from broad humps to spikes: rush hours, paydays."""
    count = len(phase)
    concentration = log_uniform(generator, count, 3, low=1, high=300)[:, :, None]
    centre = uniform(generator, count, 3)[:, :, None]
    height = torch.where(chance(generator, count, 3, of=0.85), 1.0, -1.0)
    height = height * uniform(generator, count, 3, low=0.3, high=1)
    number = choose(generator, count, 1, among=[1, 2, 2, 3])
    height = height * (torch.arange(3, device=phase.device) < number)
    angle = torch.cos(2 * math.pi * (phase[:, None, :] - centre))
    return torch.einsum("nh,nht->nt", height, torch.exp(concentration * (angle - 1)))


def plateau(phase: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """High for a part of the cycle and low for the rest: business hours, weekends."""
    count = len(phase)
    half_width = uniform(generator, count, 1, low=0.08, high=0.4)
    steepness = log_uniform(generator, count, 1, low=3, high=300)
    angle = torch.cos(2 * math.pi * (phase - uniform(generator, count, 1)))
    return torch.sigmoid(steepness * (angle - torch.cos(2 * math.pi * half_width)))


def table(phase: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Unrelated levels of equal parts of the cycle: weekday, month and hour effects."""
    count = len(phase)
    slots = choose(generator, count, 1, among=[4, 5, 7, 7, 12, 12, 24, 24, 52, 96])
    levels = normal(generator, count, 96)
    levels = torch.where(chance(generator, count, 1, of=0.3), levels.exp(), levels)
    # The slack keeps a phase that rounds to just below a slot's edge in its slot.
    return levels.gather(1, ((phase * slots + 1e-3).floor() % slots).long())


def ramp(phase: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Linear rise and fall, from a triangle to a sawtooth."""
    count = len(phase)
    rise = uniform(generator, count, 1, low=0.02, high=0.98)
    phase = (phase + uniform(generator, count, 1)) % 1
    return torch.minimum(phase / rise, (1 - phase) / (1 - rise))


SHAPES: tuple[tuple[Shape, float], ...] = (
    (harmonics, 4.0),
    (peaks, 2.0),
    (plateau, 1.0),
    (table, 2.0),
    (ramp, 0.5),
)


def cycle(phase: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Draw a shape for each series and evaluate it.

    Parameters
    ----------
    phase : Tensor
        (count, length), between 0 and 1.

    Returns
    -------
    Tensor
        (count, length), standardised over time.
    """
    series = torch.empty_like(phase)
    rows_of_shape = allot([weight for _, weight in SHAPES], len(phase), generator)
    for (shape, _), rows in zip(SHAPES, rows_of_shape, strict=True):
        if len(rows):
            series[rows] = shape(phase[rows], generator)
    return standardise(series)


def cycle_of_present(
    time: torch.Tensor, period: torch.Tensor, generator: torch.Generator
) -> torch.Tensor:
    """Draw a cycle for the series that have this period, zero for those whose period is zero.

    Parameters
    ----------
    time : Tensor
        (count, length).
    period : Tensor
        (count, 1), in steps.

    Returns
    -------
    Tensor
        (count, length).
    """
    series = torch.zeros_like(time)
    rows = (period[:, 0] > 0).nonzero().squeeze(1)
    if len(rows):
        series[rows] = cycle(phase_of(time[rows], period[rows]), generator)
    return series


def seasonality(
    count: int, length: int, generator: torch.Generator, strict: float = 0.6
) -> torch.Tensor:
    """Seasonal component with the periods of a random sampling frequency.

    Cycles of several periods add up or, for some series, the slow one modulates the fast one
    (weekday by hour). A share `strict` of the series repeats exactly; in the rest the amplitude
    drifts and one shape slowly gives way to another.

    Returns
    -------
    Tensor
        (count, length), standardised over time.
    """
    time = clock(count, length, generator)
    periods = draw_periods(count, generator)
    share = log_uniform(generator, count, 3, low=0.3, high=1.5)
    fast, slow, slowest = (
        share[:, k : k + 1] * cycle_of_present(time, periods[:, k : k + 1], generator)
        for k in range(3)
    )
    interacting = chance(generator, count, 1, of=0.35)
    season = slow + slowest + fast * torch.where(interacting, torch.exp(slow), 1.0)

    evolving = chance(generator, count, 1, of=1 - strict)
    memory = log_uniform(generator, count, 1, low=200, high=5000)
    drift = autoregression(memory, normal(generator, count, length))
    gain = torch.exp(uniform(generator, count, 1, high=0.7) * drift)
    replacement = cycle_of_present(time, periods.amax(1, keepdim=True) * evolving, generator)
    progress = torch.sigmoid(2 * drift.flip(-1))
    evolved = gain * torch.lerp(season, replacement, progress)
    return standardise(torch.where(evolving, evolved, season))


def piecewise_trend(count: int, length: int, generator: torch.Generator) -> torch.Tensor:
    """Lines whose slope changes now and then, around a common slope."""
    segment = log_uniform(generator, count, 1, low=15, high=2 * max(length, 16))
    slope = hold(segment, normal(generator, count, length), generator)
    common = uniform(generator, count, 1, high=2) * normal(generator, count, 1)
    return torch.cumsum(slope + common, dim=1) / segment


def growth(count: int, length: int, generator: torch.Generator) -> torch.Tensor:
    """Successive waves of logistic or Gompertz growth or decline: products, populations."""
    waves = 4
    width = log_uniform(generator, count, waves, 1, low=4, high=max(length, 16) / 3)
    centre = uniform(generator, count, waves, 1, low=-0.1, high=1.1) * length
    gain = normal(generator, count, waves, 1) + uniform(generator, count, 1, 1, low=-1, high=2)
    progress = (torch.arange(length, device=generator.device) - centre) / width
    logistic = torch.sigmoid(progress)
    gompertz = torch.exp(-torch.exp(-progress.clamp_min(-20)))
    symmetric = chance(generator, count, waves, 1, of=0.6)
    return (gain * torch.where(symmetric, logistic, gompertz)).sum(1)


def exponential_trend(count: int, length: int, generator: torch.Generator) -> torch.Tensor:
    """Compound growth or decay, at a rate that changes now and then."""
    rate = standardise(piecewise_trend(count, length, generator))
    return torch.exp(uniform(generator, count, 1, low=0.3, high=2) * rate)


def drifting_walk(count: int, length: int, generator: torch.Generator) -> torch.Tensor:
    """Random walk with drift, from nearly straight to aimless, with a damped local slope."""
    drift = normal(generator, count, 1) * log_uniform(generator, count, 1, low=0.02, high=3)
    slope = uniform(generator, count, 1) * autoregression(
        log_uniform(generator, count, 1, low=2, high=200), normal(generator, count, length)
    )
    return torch.cumsum(drift + slope + normal(generator, count, length), dim=1)


def wandering_level(count: int, length: int, generator: torch.Generator) -> torch.Tensor:
    """Slow excursions that return to the mean."""
    memory = log_uniform(generator, count, 1, low=20, high=1000)
    return autoregression(memory, normal(generator, count, length))


def staircase(count: int, length: int, generator: torch.Generator) -> torch.Tensor:
    """Step functions: tariffs, policy rates, stocks that run down between refills."""
    segment = log_uniform(generator, count, 1, low=4, high=max(length, 16) / 2)
    fresh = normal(generator, count, length)
    walk = fresh.cumsum(1) / segment.sqrt()
    stock = -3 * phase_of(clock(count, length, generator), segment)
    level = torch.where(chance(generator, count, 1, of=0.5), walk, fresh)
    steps = hold(segment, level, generator)
    return steps + torch.where(chance(generator, count, 1, of=0.25), stock, 0.0)


TRENDS: tuple[tuple[Process, float], ...] = (
    (piecewise_trend, 3.0),
    (growth, 1.5),
    (exponential_trend, 1.0),
    (drifting_walk, 2.0),
    (wandering_level, 1.0),
    (staircase, 0.5),
)


def trend(count: int, length: int, generator: torch.Generator) -> torch.Tensor:
    """Trend of any kind.

    Returns
    -------
    Tensor
        (count, length), standardised over time.
    """
    return standardise(mixture(TRENDS, count, length, generator))
