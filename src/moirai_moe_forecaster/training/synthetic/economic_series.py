"""What statistical offices publish: few points, strong growth, clean quarters and months.

Each takes (count, length, generator) and draws its parameters anew for each of the series.
"""

import torch

from moirai_moe_forecaster.training.synthetic.primitives import (
    autoregression,
    bounded,
    chance,
    choose,
    clock,
    log_uniform,
    noise,
    normal,
    standardise,
    student,
    uniform,
)
from moirai_moe_forecaster.training.synthetic.structural import cycle, phase_of
from moirai_moe_forecaster.training.synthetic.trends import trend


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
