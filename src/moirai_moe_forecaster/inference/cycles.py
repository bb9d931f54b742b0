"""The shape of a cycle: what it adds to the level of a series at every phase, and how surely.

A shape is an exponentially weighted mean over repetitions, so that the latest count most. How fast
older ones are forgotten, and how much of the mean is believed, is decided by what would have
forecast the later repetitions best from those before them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from moirai_moe_forecaster.inference.series import Array

FORGETTING: Array = np.array([0.7, 0.45, 0.25, 0.12, 0.06])
"""Weights of the latest repetition among which is chosen."""
MOST_REPETITIONS = 60
LARGEST_DEVIATION = 6
"""In units of the ninth decile of all deviations: beyond lie outliers."""
RECENT = 0.8
"""How much less an error counts with every repetition that it is older."""
FULLY_BELIEVED = 0.8
"""Share of a shape that has come true from which on all of it is believed."""
OLDER = 0.9
"""How much less a deviation counts with every repetition that it is older."""
LEAST_SPREAD = 0.1
"""What is added to the spread of every phase, as a share of the usual one."""


class Cycle(NamedTuple):
    """One repetition of a cycle, from the step after the end of its series on.

    Attributes
    ----------
    shape : ndarray, (phase,)
        Around 0.
    level : float
        Of the series, over the repetitions that the shape is a mean of.
    """

    shape: Array
    level: float


class Cycles(NamedTuple):
    """All cycles of a series, continued.

    Attributes
    ----------
    first, all : ndarray, (time + ahead,)
        The first cycle, and the sum of all, without the level of the series.
    level : float
    spread : ndarray, (time + ahead,)
        How far the series lies from level and cycles at the same phase of the first, relative to
        the root mean square over the phases.
    """

    first: Array
    all: Array
    level: float
    spread: Array


def find_cycles(values: Array, lengths: Sequence[int], ahead: int) -> Cycles:
    """Continue the cycles of a series, one within the other.

    Parameters
    ----------
    values : ndarray, (time,)
        NaN is missing.
    lengths : sequence of int
        Steps of each cycle, at least one; every cycle is learnt from what those before it leave.
    ahead : int
        Steps beyond the end.
    """
    time = len(values)
    phases = np.arange(-time, ahead)
    parts = np.zeros((len(lengths), time + ahead))
    rest, level = values, 0.0
    for number, length in enumerate(lengths):
        cycle = fit_cycle(rest, length)
        parts[number] = cycle.shape[phases % length]
        rest = rest - parts[number, :time]
        level = cycle.level if number == 0 else level
    spread = _spread(rest - level, lengths[0])[phases % lengths[0]]
    return Cycles(parts[0], parts.sum(0), level, spread)


def fit_cycle(values: Array, length: int) -> Cycle:
    """Learn one cycle of a series (time,); without two repetitions its shape is 0."""
    rows = _repetitions(values, length)
    count = len(rows)
    if count < 2 or not np.isfinite(rows).any():
        return Cycle(np.zeros(length), 0.0)
    line = level_line(rows)
    deviations = _without_outliers(rows - line)
    seen = ~np.isnan(deviations)
    filled = np.where(seen, deviations, 0.0)
    # what every repetition would have been forecast as, and last the one that is to come
    forecasts = np.stack([_forecasts(filled, seen, weight) for weight in FORGETTING])
    first = max(1, count - max(2, count // 2))
    recent = RECENT ** np.arange(count - first)[::-1, None] * seen[first:]
    errors = np.abs(filled[first:] - forecasts[:, first:count]) * recent
    best = int(errors.sum((1, 2)).argmin())
    believed = _share(filled[first:], forecasts[best, first:count], np.asarray(recent))
    shape = forecasts[best, count]
    age = np.arange(count)[::-1]
    weights = (1 - FORGETTING[best]) ** age * seen.any(1)
    level = float(weights @ line.mean(1) / weights.sum())
    return Cycle(min(believed / FULLY_BELIEVED, 1.0) * (shape - shape.mean()), level)


def level_line(rows: Array) -> Array:
    """Level (repetition, phase) of a series: lines between the means of its repetitions.

    Before the first and after the last mean the outermost lines go on.
    """
    count, length = rows.shape
    known = (~np.isnan(rows)).sum(1)
    used = np.flatnonzero(known)
    means = np.nansum(rows[used], 1) / known[used]
    if len(used) < 2:
        return np.full(rows.shape, means[0] if len(used) else 0.0)
    middle = used * length + (length - 1) / 2
    steps = np.arange(count * length)
    piece = (np.searchsorted(middle, steps) - 1).clip(0, len(used) - 2)
    slopes = np.diff(means) / np.diff(middle)
    line: Array = means[piece] + slopes[piece] * (steps - middle[piece])
    return line.reshape(rows.shape)


def _repetitions(values: Array, length: int) -> Array:
    """Last whole repetitions (repetition, phase) of a series."""
    count = min(len(values) // length, MOST_REPETITIONS)
    return values[len(values) - count * length :].reshape(count, length)


def _without_outliers(rows: Array) -> Array:
    sizes = np.abs(rows[~np.isnan(rows)])
    rank = int(0.9 * (len(sizes) - 1))
    limit = LARGEST_DEVIATION * np.partition(sizes, rank)[rank]
    return rows.clip(-limit, limit) if limit > 0 else rows


def _forecasts(filled: Array, seen: Array, weight: float) -> Array:
    """Weighted means (1 + repetition, phase) of the repetitions before each; 0 if none is known."""
    count = len(filled)
    age = np.arange(count + 1)[:, None] - 1 - np.arange(count)
    weights = np.where(age >= 0, (1 - weight) ** np.maximum(age, 0), 0.0)
    total, known = weights @ filled, weights @ seen
    return np.where(known > 0, total / np.where(known > 0, known, 1.0), 0.0)


def _share(actual: Array, forecast: Array, weights: Array) -> float:
    """Share of a forecast, 0 to 1, that would have come closest."""
    size = float((weights * forecast**2).sum())
    return float(np.clip((weights * actual * forecast).sum() / size, 0, 1)) if size > 0 else 0.0


def _spread(deviations: Array, length: int) -> Array:
    """Mean distance from 0 (phase,) in late repetitions, relative to its root mean square."""
    rows = _repetitions(deviations, length)
    weights = OLDER ** np.arange(len(rows))[::-1, None] * ~np.isnan(rows)
    known = weights.sum(0)
    if not known.any():
        return np.ones(length)
    spread = (weights * np.abs(np.nan_to_num(rows))).sum(0) / np.maximum(known, 1e-12)
    usual = spread[known > 0].mean()
    spread = np.where(known > 0, spread, usual) + LEAST_SPREAD * usual
    return spread / np.sqrt((spread**2).mean()) if usual > 0 else np.ones(length)
