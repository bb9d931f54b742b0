"""Trends: what remains of a series when seasons and noise are taken away."""

import torch

from moirai_moe_forecaster.training.synthetic.primitives import (
    Process,
    autoregression,
    chance,
    clock,
    hold,
    log_uniform,
    mixture,
    normal,
    standardise,
    uniform,
)
from moirai_moe_forecaster.training.synthetic.structural import phase_of


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
