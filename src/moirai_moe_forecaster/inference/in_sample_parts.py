"""First parts of contexts: what in-sample forecasts learn from the values before them.

Every position has a first part, which ends before it. What covariates explain and the cycles are
learnt from that, and continued. Where a first part repeats itself, the positions that share it are
forecast in two views, as they are and without their cycles. Each counts by its loss at the
positions before, which are one step ahead too and learn from a shorter first part.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from moirai_moe_forecaster.data.series import Array, Series
from moirai_moe_forecaster.inference.quantile_grid import NODE_LEVELS
from moirai_moe_forecaster.inference.regression import explained
from moirai_moe_forecaster.inference.seasons import SeasonLength
from moirai_moe_forecaster.inference.view_weights import periods_of
from moirai_moe_forecaster.inference.views import cycles_of

Positions = NDArray[np.intp]

MORE_OBSERVED = 4
MORE_SPREAD = 2
"""When a first part no longer stands for what lies before a position."""
LEAST = 0.1
"""Strength of a cycle that one step ahead is not worth a second view; walks may seem to have it."""
PRIOR = 0.5
"""What a view without cycles of full strength counts relative to the plain one, untried."""
POWER = 8.0
"""How losses count: weights are proportional to their power -`POWER`, ..."""
FEW = 16
"""... of which half is left where the loss is a mean of so few points."""
MANY = 128
WINDOWS = 16
PHASES = (0, 5, 10, 15)
"""Of `MANY` positions or more, which in every `WINDOWS` the views are tried on.

These lie in few windows, so that the forecast of a single position does not cost a pass over all;
and at no common distance, so that they meet most phases of a cycle.
"""


class Part(NamedTuple):
    """How positions are forecast that share a first part.

    Attributes
    ----------
    effects : list of ndarray, (variate, context + 1)
        What each view takes out of the context: what covariates explain and, in a second view if
        any variate has them, the cycles.
    strengths : ndarray, (variate,)
        Of the first cycle, beyond `LEAST`; 0 where there is none.
    trials : list of int
        Positions before, at which both views are tried; empty if the second could not be.
    """

    effects: list[Array]
    strengths: Array
    trials: list[int]


def first_parts(series: Series) -> Positions:
    """How many points each position's first part has at least: (context + 1,).

    A first part serves until it is half of what lies before a position, or tells too little of
    that: until a variate has more than `MORE_OBSERVED` times as many values there, or varies
    `MORE_SPREAD` times as much.
    """
    context = series.target.shape[1]
    variates = np.full((len(series.target) + len(series.past), context), np.nan)
    variates[: len(series.target)] = series.target
    variates[len(series.target) :, : series.past.shape[1]] = series.past
    count, spread = _observed_before(variates)
    parts = np.zeros(context + 1, dtype=np.intp)
    part = 1
    while part <= context:
        outgrown = count[:, part:] > MORE_OBSERVED * count[:, [part]]
        outgrown |= spread[:, part:] > MORE_SPREAD * spread[:, [part]]
        ends = np.flatnonzero(outgrown.any(0))
        length = min(part, int(ends[0])) if len(ends) else part
        parts[part : part + length] = part
        part += length
    return parts


def _observed_before(variates: Array) -> tuple[Array, Array]:
    """How many values lie before each position, and their standard deviation: (variate, 1 + time).

    Sums from the left, so that no later value changes the least of an earlier result.
    """
    seen = ~np.isnan(variates)
    origin = np.take_along_axis(variates, seen.argmax(1)[:, None], 1)
    # values near the limits of their type may overflow, and are then told apart by count alone
    with np.errstate(over="ignore", invalid="ignore"):
        centred = np.where(seen, variates - origin, 0.0)
        count, total, squares = (
            np.pad(terms.cumsum(1), ((0, 0), (1, 0))) for terms in (seen, centred, centred**2)
        )
        least = np.maximum(count, 1)
        return count, np.sqrt(np.maximum(squares / least - (total / least) ** 2, 0.0))


def make_parts(
    history: Series,
    first: Positions,
    positions: Positions,
    season_length: SeasonLength,
    *,
    regress: bool,
) -> dict[int, Part]:
    """Learn what the forecasts of some positions take out of a context.

    Parameters
    ----------
    history : Series
        The context, and earlier values that only cycles are learnt from.
    first : ndarray of int, (context + 1,)
        Length of the first part of each position.
    positions : ndarray of int
    season_length : "auto", None or tuple of int
        Whether periods are found, left out, or named.
    regress : bool
        Whether known-future covariates act through a regression.

    Returns
    -------
    dict of int to Part
        By the length of the first part; with those of positions at which views are tried.
    """
    context = history.last(len(first) - 1)

    @functools.cache
    def learnt(length: int) -> Part:
        return _learn(history, context, length, season_length, regress)

    parts: dict[int, Part] = {}
    for length in np.unique(first[positions]).tolist():
        before = int(first[length - 1])
        parts[length] = learnt(length)
        if before and len(learnt(length).effects) == 2 == len(learnt(before).effects):
            parts.setdefault(before, learnt(before))
            parts[length] = learnt(length)._replace(trials=_some(before, length))
    return parts


def _some(start: int, end: int) -> list[int]:
    """Positions from `start` to before `end`; of many, those at `PHASES`."""
    every = range(start, end)
    if len(every) < MANY:
        return list(every)
    return [position for position in every if (position - start) % WINDOWS in PHASES]


def _learn(
    history: Series, context: Series, length: int, season_length: SeasonLength, regress: bool
) -> Part:
    """Learn from the first points of a context and what lies before it."""
    effect = _explained(context, length, regress)
    ahead = effect.shape[1] - length
    values = history.target[:, : history.target.shape[1] + 1 - ahead].copy()
    values[:, -length:] -= effect[:, :length]
    found = periods_of(values, season_length)
    strengths = np.array([periods[0].strength if periods else 0.0 for periods in found])
    strengths = np.maximum(strengths - LEAST, 0.0) / (1 - LEAST)
    if not strengths.any():
        return Part([effect], strengths, [])
    cyclic = effect.copy()
    for variate in np.flatnonzero(strengths):
        cycles = cycles_of(values[variate], found[variate], ahead)
        cyclic[variate] += cycles.all[-effect.shape[1] :]
    return Part([effect, cyclic], strengths, [])


def _explained(series: Series, part: int, regress: bool) -> Array:
    """What covariates explain of a whole series, learnt from its first part."""
    context = series.target.shape[1]
    effect = np.zeros((len(series.target), context + 1))
    if regress and len(series.future):
        first = series._replace(target=series.target[:, :part])
        known = explained(first, part)[:, : context + 1]
        effect[:, : known.shape[1]] = known
    return effect


def second_weight(part: Part, nodes: Array, values: Array) -> Array:
    """How much the view without cycles counts for each variate, from 0 to 1.

    Parameters
    ----------
    part : Part
        With both views.
    nodes : ndarray, (view, trial, variate, node)
        Forecasts at the positions of `Part.trials`.
    values : ndarray, (trial, variate)
        What came; NaN is missing.
    """
    seen = ~np.isnan(values)
    misses = np.where(seen, values, 0.0)[..., None] - nodes
    losses = np.maximum(NODE_LEVELS * misses, (NODE_LEVELS - 1) * misses)
    plain, cyclic = np.where(seen, losses.mean(-1), 0.0).sum(1)
    tried = (plain > 0) & (cyclic > 0) & np.isfinite(plain + cyclic)
    count = seen.sum(0)
    gain = np.log(plain, where=tried, out=np.zeros(len(plain)))
    gain -= np.log(cyclic, where=tried, out=np.zeros(len(plain)))
    odds = PRIOR * part.strengths * np.exp((POWER * count / (count + FEW) * gain).clip(-99, 99))
    return odds / (1 + odds)
