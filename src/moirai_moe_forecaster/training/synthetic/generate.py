"""Synthetic series to pretrain on: many simple worlds, each with its own random parameters.

A generator takes (count, length, generator) and returns float32 series of shape (count, length).
`synthesise` mixes them all; `coupled` builds multivariate systems from them. Time scales are in
steps and start at about ten, so that short crops of long series still show some structure.
"""

import torch

from moirai_moe_forecaster.training.synthetic.domains import (
    counts,
    epidemic,
    intermittent,
    national_accounts,
    occupancy,
    retail,
    seasonal,
    sensor,
    solar,
    tourism,
    trending,
    waveforms,
    working_week,
)
from moirai_moe_forecaster.training.synthetic.primitives import (
    Process,
    autoregression,
    chance,
    choose,
    clock,
    hold,
    log_uniform,
    mixture,
    normal,
    recursion,
    standardise,
    uniform,
)
from moirai_moe_forecaster.training.synthetic.statistical import (
    exponential_smoothing,
    gaussian_process,
    logistic_map,
    lorenz,
    mackey_glass,
    mean_reverting,
    oscillator,
    random_walk,
    regimes,
    seasonal_arima,
    volatility_clusters,
)
from moirai_moe_forecaster.training.synthetic.structural import seasonality, staircase

GENERATORS: dict[str, tuple[Process, float]] = {
    "gaussian_process": (gaussian_process, 3.0),
    "seasonal": (seasonal, 6.0),
    "working_week": (working_week, 2.5),
    "retail": (retail, 2.0),
    "tourism": (tourism, 2.5),
    "national_accounts": (national_accounts, 2.0),
    "trending": (trending, 2.0),
    "exponential_smoothing": (exponential_smoothing, 2.0),
    "seasonal_arima": (seasonal_arima, 2.0),
    "random_walk": (random_walk, 1.0),
    "mean_reverting": (mean_reverting, 1.0),
    "regimes": (regimes, 1.0),
    "volatility_clusters": (volatility_clusters, 1.0),
    "counts": (counts, 1.5),
    "intermittent": (intermittent, 1.0),
    "solar": (solar, 0.8),
    "occupancy": (occupancy, 0.7),
    "sensor": (sensor, 0.7),
    "waveforms": (waveforms, 0.7),
    "staircase": (staircase, 0.5),
    "logistic_map": (logistic_map, 0.2),
    "lorenz": (lorenz, 0.2),
    "mackey_glass": (mackey_glass, 0.2),
    "oscillator": (oscillator, 0.7),
    "epidemic": (epidemic, 0.7),
}
"""Every univariate generator and its weight in `synthesise`."""


def synthesise(count: int, length: int, generator: torch.Generator) -> torch.Tensor:
    """Draw a varied batch: each series comes from a generator picked by weight.

    Returns
    -------
    Tensor
        (count, length), finite, on the device of `generator`; scales differ widely.
    """
    return mixture(list(GENERATORS.values()), count, length, generator)


def promotions(count: int, length: int, generator: torch.Generator) -> torch.Tensor:
    """Zeros and ones: events that come at random and last a few steps."""
    duration = log_uniform(generator, count, 1, low=1, high=14)
    chosen = chance(generator, count, length, of=uniform(generator, count, 1, low=0.03, high=0.4))
    return hold(duration, chosen.float(), generator)


def holidays(count: int, length: int, generator: torch.Generator) -> torch.Tensor:
    """Zeros and ones: days that recur at one or more fixed places of a long cycle."""
    period = choose(generator, count, 1, among=[7, 12, 24, 30, 52, 168, 365])
    date = clock(count, length, generator) % period
    marked = chance(generator, count, 365, of=uniform(generator, count, 1, low=0.02, high=0.3))
    marked[:, 0] = True
    return marked.float().gather(1, date.long())


def temperature(count: int, length: int, generator: torch.Generator) -> torch.Tensor:
    """Weather: a season and slow random anomalies."""
    memory = log_uniform(generator, count, 1, low=1, high=100)
    anomaly = autoregression(memory, normal(generator, count, length))
    share = log_uniform(generator, count, 1, low=0.2, high=5)
    return seasonality(count, length, generator) + share * anomaly


LONGEST_DELAY = 48

DRIVERS: tuple[tuple[Process, float], ...] = (
    (promotions, 2.0),
    (holidays, 1.0),
    (temperature, 2.0),
    (staircase, 1.0),
    (mean_reverting, 1.0),
    (synthesise, 2.0),
)


def response(driver: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """What a driver does to its target: a curve of it, at once, after a delay, or with decay.

    Parameters
    ----------
    driver : Tensor
        (count, length), standardised.

    Returns
    -------
    Tensor
        (count, length), standardised.
    """
    count, length = driver.shape
    knee = uniform(generator, count, 1, low=-1, high=1)
    curves = torch.stack(
        [driver, driver, driver, torch.tanh(2 * driver), (driver - knee).relu(), driver.abs()]
    )
    kind = torch.randint(len(curves), (1, count, 1), generator=generator, device=driver.device)
    effect = curves.gather(0, kind.expand(1, count, length))[0]

    delay = log_uniform(generator, count, 1, low=1, high=LONGEST_DELAY).long()
    delay = delay * chance(generator, count, 1, of=0.3)
    source = (torch.arange(length, device=driver.device) - delay).clamp_min(0)
    memory = log_uniform(generator, count, 1, low=0.5, high=10)
    decay = torch.exp(-1 / memory) * chance(generator, count, 1, of=0.3)
    return standardise(recursion(decay, effect.gather(1, source)))


def coupled(count: int, variates: int, length: int, generator: torch.Generator) -> torch.Tensor:
    """Draw multivariate systems: variate 0 is the target, all later ones drive it.

    Drivers act at the same step, after a delay, or with decay; linearly or not; added, or
    multiplied for a third of the systems. Some drivers are irrelevant by chance, and the target
    has a life of its own that may be stronger or weaker than their joint effect. Nothing acts back
    on the drivers, so they can be given to a model as known in the future.

    Parameters
    ----------
    count, variates, length : int
        Number of systems, of variates (at least 2) and of steps.
    generator : torch.Generator
        Source of every random number; its device is that of the result.

    Returns
    -------
    Tensor
        (count, variates, length), finite.
    """
    if variates < 2:
        raise ValueError(f"variates is {variates}; a target and its drivers need at least 2.")
    extended = LONGEST_DELAY + length  # what acts with a delay has happened before the first step
    drivers = mixture(DRIVERS, count * (variates - 1), extended, generator)
    effects = response(standardise(drivers), generator).view(count, variates - 1, extended)
    weight = normal(generator, count, variates - 1, 1)
    weight = weight * chance(generator, count, variates - 1, 1, of=0.7)
    joint = (weight * effects).sum(1)[:, LONGEST_DELAY:]

    own = standardise(synthesise(count, length, generator))
    own = own * log_uniform(generator, count, 1, low=0.03, high=3)
    depth = log_uniform(generator, count, 1, low=0.2, high=1)
    product = torch.exp(depth * standardise(own + joint))
    target = torch.where(chance(generator, count, 1, of=0.33), product, own + joint)
    drivers = drivers.view(count, variates - 1, extended)[:, :, LONGEST_DELAY:]
    return torch.cat([target[:, None], drivers], dim=1)
