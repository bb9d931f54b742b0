"""Random building blocks of the synthetic series, drawn for many series at once.

Parameters that differ between series have shape (count, 1), processes (count, length). Every random
number comes from the generator that is passed in, on its device.
"""

import math
from collections.abc import Callable, Sequence

import torch

Process = Callable[[int, int, torch.Generator], torch.Tensor]


def uniform(
    generator: torch.Generator, *shape: int, low: float = 0.0, high: float = 1.0
) -> torch.Tensor:
    """Uniform numbers between `low` and `high`."""
    unit = torch.rand(shape, generator=generator, device=generator.device)
    return low + (high - low) * unit


def log_uniform(generator: torch.Generator, *shape: int, low: float, high: float) -> torch.Tensor:
    """Positive numbers whose logarithm is uniform: for scales of unknown order of magnitude."""
    return uniform(generator, *shape, low=math.log(low), high=math.log(high)).exp()


def normal(generator: torch.Generator, *shape: int) -> torch.Tensor:
    """Standard normal numbers."""
    return torch.randn(shape, generator=generator, device=generator.device)


def chance(generator: torch.Generator, *shape: int, of: float | torch.Tensor) -> torch.Tensor:
    """Booleans that are true with probability `of`."""
    return uniform(generator, *shape) < of


def choose(
    generator: torch.Generator, *shape: int, among: Sequence[float] | torch.Tensor
) -> torch.Tensor:
    """Independent picks from a list of numbers."""
    options = torch.as_tensor(among, dtype=torch.float32, device=generator.device)
    return options[torch.randint(len(options), shape, generator=generator, device=options.device)]


def student(generator: torch.Generator, freedom: torch.Tensor, *shape: int) -> torch.Tensor:
    """Student t numbers with any `freedom`, by Bailey's polar formula (Math. Comp. 62, 1994)."""
    # 1 - rand excludes zero, whose logarithm would be infinite.
    radius = torch.expm1(-2 / freedom * torch.log(1 - uniform(generator, *shape)))
    return (freedom * radius).sqrt() * torch.cos(2 * math.pi * uniform(generator, *shape))


def clock(count: int, length: int, generator: torch.Generator) -> torch.Tensor:
    """Time steps that start at a random origin, so that no cycle begins at its first phase.

    Returns
    -------
    Tensor
        (count, length), whole numbers as float32.
    """
    # Long enough for every season of a year of five-minute data, and exact in float32.
    origin = torch.randint(1_000_000, (count, 1), generator=generator, device=generator.device)
    return (origin + torch.arange(length, device=generator.device)).float()


def standardise(series: torch.Tensor) -> torch.Tensor:
    """Each series with mean zero and unit deviation; a constant one becomes zero."""
    centred = series - series.mean(-1, keepdim=True)
    return centred / centred.square().mean(-1, keepdim=True).sqrt().clamp_min(1e-6)


def bounded(series: torch.Tensor, limit: float = 3.0) -> torch.Tensor:
    """Squash softly into plus or minus `limit`: exponentials of spikes would dwarf all else."""
    return limit * torch.tanh(series / limit)


def previous(series: torch.Tensor) -> torch.Tensor:
    """The value one step earlier; zero before the first."""
    return torch.nn.functional.pad(series[:, :-1], (1, 0))


def recursion(
    coefficient: torch.Tensor, shocks: torch.Tensor, lag: torch.Tensor | int = 1
) -> torch.Tensor:
    """Solve ``x[t] = coefficient[t] * x[t - lag] + shocks[t]`` from a zero past.

    The affine maps are composed by doubling (Hillis and Steele, Comm. ACM 29, 1986): log2(length)
    vectorised passes in place of a loop over time.

    Parameters
    ----------
    coefficient : Tensor
        Broadcasts to (count, length); real or complex.
    shocks : Tensor
        (count, length).
    lag : Tensor or int
        (count, 1) whole numbers, at least 1.

    Returns
    -------
    Tensor
        (count, length).
    """
    length = shocks.shape[-1]
    time = torch.arange(length, device=shocks.device)
    state, gain = shocks, coefficient.expand(shocks.shape)
    reach = torch.as_tensor(lag, device=shocks.device)
    for _ in range((length - 1).bit_length()):
        source = (time - reach).expand(shocks.shape)
        gain = torch.where(source >= 0, gain, 0)
        source = source.clamp_min(0)
        state = state + gain * state.gather(-1, source)
        gain = gain * gain.gather(-1, source)
        reach = 2 * reach
    return state


def autoregression(memory: torch.Tensor, innovations: torch.Tensor) -> torch.Tensor:
    """Stationary AR(1) of unit variance that forgets over about `memory` steps.

    Parameters
    ----------
    memory : Tensor
        (count, 1), in steps.
    innovations : Tensor
        (count, length), of unit variance.

    Returns
    -------
    Tensor
        (count, length).
    """
    coefficient = torch.exp(-1 / memory)
    scale = (1 - coefficient.square()).sqrt().expand(innovations.shape).clone()
    scale[:, 0] = 1  # the first value is drawn from the stationary law, so no burn-in is needed
    return recursion(coefficient, scale * innovations)


def hold(segment: torch.Tensor, values: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Piecewise constant: keep a value for a geometric time of mean `segment` steps.

    Parameters
    ----------
    segment : Tensor
        Broadcasts to (count, length).
    values : Tensor
        (count, length), of which those at the random change points are kept.

    Returns
    -------
    Tensor
        (count, length).
    """
    time = torch.arange(values.shape[-1], device=values.device)
    change = chance(generator, *values.shape, of=1 / segment)
    latest = torch.where(change, time, 0).cummax(-1).values
    return values.gather(-1, latest)


def allot(weights: Sequence[float], count: int, generator: torch.Generator) -> list[torch.Tensor]:
    """Deal `count` rows out among kinds of the given weights: the row numbers of each kind."""
    shares = torch.tensor(weights, dtype=torch.float32, device=generator.device)
    kind = torch.multinomial(shares, count, replacement=True, generator=generator)
    return [(kind == k).nonzero().squeeze(1) for k in range(len(weights))]


def mixture(
    parts: Sequence[tuple[Process, float]], count: int, length: int, generator: torch.Generator
) -> torch.Tensor:
    """Series of which each comes from one of `parts`, (process, weight) pairs.

    Returns
    -------
    Tensor
        (count, length).
    """
    series = torch.empty(count, length, device=generator.device)
    rows_of_part = allot([weight for _, weight in parts], count, generator)
    for (process, _), rows in zip(parts, rows_of_part, strict=True):
        if len(rows):
            series[rows] = process(len(rows), length, generator)
    return series


def noise(count: int, length: int, generator: torch.Generator) -> torch.Tensor:
    """Noise of about unit scale: white or coloured, light or heavy tails, steady or changing."""
    shocks = normal(generator, count, length)
    freedom = log_uniform(generator, count, 1, low=3, high=20)
    heavy = chance(generator, count, 1, of=0.25)
    shocks = torch.where(heavy, student(generator, freedom, count, length), shocks)
    memory = log_uniform(generator, count, 1, low=0.5, high=30)
    coloured = chance(generator, count, 1, of=0.3)
    shocks = torch.where(coloured, autoregression(memory, shocks), shocks)
    slow = log_uniform(generator, count, 1, low=30, high=1000)
    volatility = torch.exp(0.6 * autoregression(slow, normal(generator, count, length)))
    return shocks * torch.where(chance(generator, count, 1, of=0.2), volatility, 1.0)
