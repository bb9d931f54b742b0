"""The shape of a cycle: what it adds to the level of a series at every phase, and how surely.

A shape is an exponentially weighted mean over repetitions, so that the latest count most. How fast
older ones are forgotten, and how much of the mean is believed, is decided by what would have
forecast the later repetitions best from those before them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from moirai_moe_forecaster.data.series import Array

Mask = NDArray[np.bool_]

FORGETTING: Array = np.array([0.6, 0.3, 0.12, 0.05])
"""Weights of the latest repetition among which is chosen."""
MOST_REPETITIONS = 60
LARGEST_DEVIATION = 6
"""In units of the ninth decile of all deviations: beyond lie outliers."""
RECENT = 0.9
"""How much less an error counts with every repetition that it is older."""
SLOPE_REPETITIONS = 12
"""Late repetitions that tell the slope within them."""
FULLY_BELIEVED = 0.8
"""Share of a shape that has come true from which on all of it is believed."""
OLDER = 0.9
"""How much less a deviation counts with every repetition that it is older."""
LEAST_SPREAD = 0.1
"""What is added to the spread of every phase, as a share of the usual one."""


SMOOTHER = 0.75
"""How much less a shorter cycle must go up and down to be taken for a longer one."""


@dataclass(frozen=True, kw_only=True)
class ContinuedCycles:
    """All cycles of a series, continued.

    Attributes
    ----------
    first, all : ndarray, (time + ahead,)
        The first cycle, and the sum of all, without the level of the series.
    level : float
        Of what the cycles leave.
    spread : ndarray, (time + ahead,)
        How far the series lies from its level and cycles at each phase of the first, relative to
        the root mean square over the phases.
    several : bool
        Whether there are others beside the first.
    """

    first: Array
    all: Array
    level: float
    spread: Array
    several: bool


def find_cycles(
    values: Array, lengths: Sequence[int], ahead: int, shares: Sequence[float] | None = None
) -> ContinuedCycles:
    """Continue the cycles of a series, one within the other.

    Parameters
    ----------
    values : ndarray, (time,)
        NaN is missing.
    lengths : sequence of int
        Steps of each cycle, at least one; every cycle is learnt from what those before it leave.
    ahead : int
        Steps beyond the end.
    shares : sequence of float, optional
        How much of each cycle is taken, 0 to 1; by default all.
    """
    time = len(values)
    phases = np.arange(-time, ahead)
    parts = np.zeros((len(lengths), time + ahead))
    # squares of it neither overflow nor vanish; a power of two changes no digit
    _, exponent = np.frexp(np.nanmax(np.abs(values), initial=0.0))
    residual = np.ldexp(values, -exponent)
    for part, length, share in zip(parts, lengths, shares or np.ones(len(lengths)), strict=True):
        part[:] = share * cycle_shape(residual, length, ahead)[phases % length]
        residual = residual - part[:time]
    level, spread = _level_and_spread(residual, lengths[0])
    first, total, level = (np.ldexp(part, exponent) for part in (parts[0], parts.sum(0), level))
    spread = spread[phases % lengths[0]]
    return ContinuedCycles(
        first=first, all=total, level=float(level), spread=spread, several=len(lengths) > 1
    )


def cycle_shape(values: Array, length: int, ahead: int = 1) -> Array:
    """One repetition (phase,) of a cycle, around 0, from the step after the end of a series on.

    Parameters
    ----------
    values : ndarray, (time,)
    length : int
    ahead : int, default=1
        Steps for which it is to serve: the middle of them is what it is chosen for.

    Returns
    -------
    ndarray, (length,)
        0 where fewer than two repetitions are known.
    """
    rows = _repetitions(values, length)
    if len(rows) < 2:
        return np.zeros(length)
    rows = _without_outliers(deviations(rows))
    count = len(rows)
    seen = ~np.isnan(rows)
    filled = np.where(seen, rows, 0.0)
    # what every repetition would have been forecast as, and last the one that is to come
    forecasts = _forecasts(filled, seen)
    later = min(ahead // (2 * length), count // 4)
    first = max(1 + later, count - max(2, count // 2))
    recent = np.where(seen[first:], RECENT ** np.arange(count - first)[::-1, None], 0.0)
    made = forecasts[:, first - later : count - later]
    best = int((np.abs(filled[first:] - made) * recent).sum((1, 2)).argmin())
    believed = _share(filled[first:], made[best], recent)
    shape = forecasts[best, count]
    ever = seen.sum(0) > 0
    if ever.any() and not ever.all():
        shape = _completed(shape, ever)
    return min(believed / FULLY_BELIEVED, 1.0) * (shape - shape.mean())


def _completed(shape: Array, ever: Mask) -> Array:
    """Complete a shape (phase,) where some phases were never observed.

    Where every second value is missing, a cycle of 7 fits the others exactly as well as one of 14,
    of which no odd phase is known. If a shorter cycle holds the same known phases in an order in
    which they are smoother, it is meant; else the shape goes straight from one to the next.
    """
    phase, length = np.arange(len(shape)), len(shape)
    known = phase[ever]
    best, least = length, SMOOTHER * _roughness(shape[ever])
    for shorter in range(len(known), length // 2 + 1):
        if length % shorter or len(np.unique(known % shorter)) < len(known):
            continue
        rough = _roughness(shape[known[np.argsort(known % shorter)]])
        if rough < least:
            best, least = shorter, rough
    own = known % best
    order = np.argsort(own)
    return np.interp(phase % best, own[order], shape[known[order]], period=best)


def _roughness(shape: Array) -> float:
    """How far a shape goes up and down, all around."""
    return float(np.abs(np.diff(shape, append=shape[:1])).sum())


def deviations(rows: Array) -> Array:
    """Deviations (repetition, phase) of a series from its level and its slope.

    The level of a repetition is its median, less that of the cycle at the phases that are known of
    it; the slope is the median of those between all pairs of late levels (Theil and Sen).
    """
    known = ~np.isnan(rows)
    rows = rows[known.any(1)]
    length = rows.shape[1]
    if len(rows) < 2:
        return np.zeros((len(rows), length))
    levels = _medians(rows)
    if not known.all():
        usual = np.nan_to_num(_medians((rows - levels[:, None]).T))
        levels = _medians(rows - usual)
    late = levels[-SLOPE_REPETITIONS:]
    earlier, later = np.triu_indices(len(late), 1)
    slope = np.median((late[later] - late[earlier]) / (later - earlier)) / length
    line = levels[:, None] + slope * (np.arange(length) - (length - 1) / 2)
    return rows - line


def _medians(rows: Array) -> Array:
    """Median of what is known of each row; NaN where nothing is."""
    known = ~np.isnan(rows)
    if known.all():
        # np.median of as few costs five times as much
        ordered, length = np.sort(rows, 1), rows.shape[1]
        return (ordered[:, (length - 1) // 2] + ordered[:, length // 2]) / 2
    medians = np.full(len(rows), np.nan)
    some = known.any(1)
    medians[some] = np.nanmedian(rows[some], 1)
    return medians


def _repetitions(values: Array, length: int) -> Array:
    """Last whole repetitions (repetition, phase) of a series."""
    count = min(len(values) // length, MOST_REPETITIONS)
    return values[len(values) - count * length :].reshape(count, length)


def _without_outliers(rows: Array) -> Array:
    sizes = np.abs(rows[~np.isnan(rows)])
    if not len(sizes):
        return rows
    rank = int(0.9 * (len(sizes) - 1))
    limit = LARGEST_DEVIATION * np.partition(sizes, rank)[rank]
    return rows.clip(-limit, limit) if limit > 0 else rows


def _forecasts(filled: Array, seen: Array) -> Array:
    """Weighted means of the repetitions before each, (forgetting, 1 + repetition, phase).

    0 where none is known.
    """
    weights = _memories(len(filled))
    total = weights @ filled
    # also where all are seen: a sum in another order has other last bits, and these seed paths
    known = weights @ seen
    return np.where(known > 0, total / np.where(known > 0, known, 1.0), 0.0)


@lru_cache(maxsize=MOST_REPETITIONS + 1)
def _memories(count: int) -> Array:
    """What earlier repetitions count for each, (forgetting, 1 + repetition, repetition)."""
    age = np.arange(count + 1)[:, None] - 1 - np.arange(count)
    kept = (1 - FORGETTING)[:, None, None] ** np.maximum(age, 0)
    return np.where(age >= 0, kept, 0.0)


def _share(actual: Array, forecast: Array, weights: Array) -> float:
    """Share of a forecast, 0 to 1, that would have come closest."""
    size = float((weights * forecast**2).sum())
    return float(np.clip((weights * actual * forecast).sum() / size, 0, 1)) if size > 0 else 0.0


def _level_and_spread(values: Array, length: int) -> tuple[float, Array]:
    """Level of a series without its cycles, and its relative spread (phase,) around it."""
    rows = _repetitions(values, length)
    rows = rows[(~np.isnan(rows)).any(1)]
    if not len(rows):
        return 0.0, np.ones(length)
    levels = _medians(rows)
    weights = OLDER ** np.arange(len(rows))[::-1]
    level = float(weights @ levels / weights.sum())
    sizes = np.abs(rows - levels[:, None])
    seen = ~np.isnan(sizes)
    known = weights @ seen.astype(np.float64)
    spread = weights @ np.where(seen, sizes, 0.0) / np.where(known > 0, known, 1.0)
    usual = spread[known > 0].mean()
    if not usual > 0:
        return level, np.ones(length)
    relative = np.where(known > 0, spread / usual, 1.0)
    # what equal spreads would seem to differ by, as means of so many normal deviations
    chance = (np.pi / 2 - 1) * (weights**2).sum() / weights.sum() ** 2
    believed = max(1 - chance / max(relative.var(), 1e-300), 0.0)
    relative = 1 + LEAST_SPREAD + believed * (relative - 1)
    return level, relative / np.sqrt((relative**2).mean())
