"""Pictures of what was copied and what was predicted: cycles, and forecasts with and without."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from moirai_moe_forecaster.errors import InvalidInputError
from moirai_moe_forecaster.inference.seasonality.periods import Period
from moirai_moe_forecaster.inference.seasons import PLAIN
from moirai_moe_forecaster.inference.view_weights import LONGEST_HISTORY
from moirai_moe_forecaster.inference.views import cycles_of
from moirai_moe_forecaster.plotting.forecast import plot_forecast
from moirai_moe_forecaster.plotting.points import axis, chosen_series, chosen_variate, points
from moirai_moe_forecaster.plotting.style import (
    COPIED,
    FUTURE,
    OTHER,
    PAST,
    TRUTH,
    new_grid,
    plot_line,
    shade,
    space_dates,
    tidy,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from moirai_moe_forecaster.inference.forecast import Forecast

Array = NDArray[np.float64]

SIZE = (11.0, 8.5)
REPETITIONS = 4
"""How many of the last ones lie below the next one."""
SHOWN = 2
"""Repetitions of the longest cycle in a picture's history."""


@dataclass(frozen=True, kw_only=True)
class SeasonParts:
    """One variate of one series, and what is drawn of it.

    Attributes
    ----------
    past : ndarray, (context,)
    truth : ndarray, (at most horizon,)
    forecast : tuple of ndarray, (horizon,)
        Median, lower and upper edge of the interval.
    weight : float
        Of the forecast without cycles.
    lengths : list of int
        Steps of the periods, the primary one first.
    cycles : ndarray, (context + horizon,)
        On the level of the series; NaN before what they are learnt from.
    repetition : ndarray, (longest period,)
        The next one, on the level of the series.
    """

    past: Array
    truth: Array
    forecast: tuple[Array, Array, Array]
    weight: float
    lengths: list[int]
    cycles: Array
    repetition: Array


def plot_seasons(
    forecast: Forecast,
    history: Any,
    *,
    plain: Forecast | None = None,
    axes: Sequence[Axes] | None = None,
    truth: Any = None,
    coverage: float = 0.8,
    series: int = 0,
    variate: int = 0,
    index: Any = None,
    max_history: int | None = None,
) -> list[Axes]:
    """Draw what a forecast copied from the past, and what it predicted.

    Three pictures of one variate of one series: its forecast beside the cycles that were carried
    on; the next repetition of the longest cycle over the last ones of the history; and what is
    left where the cycles are taken out, with the forecast of it.

    Parameters
    ----------
    forecast : Forecast
    history : array, Series, DataFrame or list of these
        What was given to `predict`: all of it, as cycles are learnt from more than the network
        reads. The effects of covariates are not taken out of it, as they are before a forecast.
    plain : Forecast, optional
        Of the same history and `random_state` with ``season_length=None``: it is drawn as well, and
        with it the forecast with cycles alone, which follows from both.
    axes : sequence of Axes, optional
        Three; by default on a new pyplot figure.
    truth : array, Series, DataFrame or list of these, optional
        What came after the history, at most as long as the horizon.
    coverage : float, default=0.8
        Of the interval.
    series, variate : int, default=0
        Which one of a batch, and which of its variates.
    index : array or Index, optional
        As for `plot_forecast`.
    max_history : int, optional
        Draw only so many of the last points of the history; by default two repetitions of the
        longest cycle, but at least two horizons.

    Returns
    -------
    list of Axes
        Forecast, cycle, rest.

    Raises
    ------
    InvalidInputError
        If nothing was found to repeat in the variate, or the data do not fit the forecast.
    MissingExtraError
        If matplotlib is not installed.

    Examples
    --------
    >>> forecast = pipeline.predict(y, 48, random_state=0)  # doctest: +SKIP
    >>> plain = pipeline.predict(y, 48, random_state=0, season_length=None)  # doctest: +SKIP
    >>> axes = plot_seasons(forecast, y, plain=plain)  # doctest: +SKIP
    """
    past, times = points(history, series, variate, "history")
    after, _ = points(truth, series, variate, "truth")
    parts = _parts(chosen_series(forecast, series), past, after, (series, variate), coverage)
    x = axis(times if index is None else index, len(past), forecast.horizon)
    drawn = new_grid(3, 1, SIZE) if axes is None else list(axes)
    if len(drawn) != 3:
        raise InvalidInputError(f"got {len(drawn)} axes; expected 3")
    usual = max(SHOWN * max(parts.lengths), 2 * forecast.horizon)
    first = max(len(past) - (usual if max_history is None else max_history), 0)
    plot_forecast(
        forecast,
        history,
        ax=drawn[0],
        truth=truth,
        coverages=(coverage,),
        series=series,
        variate=variate,
        index=x,
        max_history=len(past) - first,
        legend=False,
    )
    other = None if plain is None else chosen_variate(chosen_series(plain, series).median, variate)
    _plot_views(drawn[0], x[len(past) :], parts, other)
    _plot_repetition(drawn[1], parts)
    _plot_rest(drawn[2], x, parts, first)
    return drawn


def _parts(
    forecast: Forecast, past: Array, truth: Array, place: tuple[int, int], coverage: float
) -> SeasonParts:
    """Look up what a forecast found in a variate, and learn its cycles again."""
    series, variate = place
    table = forecast.seasons
    table = table[table["variate"] == variate].dropna(subset="period")
    if table.empty:
        raise InvalidInputError(
            f"nothing was found to repeat in variate {variate} of series {series}; plot_forecast "
            "draws forecasts without cycles, and season_length names periods"
        )
    periods = [Period(*row) for row in zip(table["period"], table["strength"], strict=True)]
    lengths = [period.length for period in periods]
    if len(past) < 2 * lengths[0]:
        raise InvalidInputError(
            f"history has {len(past)} points, fewer than two periods of {lengths[0]}; pass what "
            "was given to predict"
        )
    values, longest = past[-LONGEST_HISTORY:], max(lengths)
    found = cycles_of(values, periods, max(forecast.horizon, longest))
    cycles, now = found.level + found.all, len(values)
    before = np.full(len(past) - now, np.nan)
    lines = (forecast.median, *forecast.interval(coverage))
    median, lower, upper = (chosen_variate(line, variate) for line in lines)
    return SeasonParts(
        past=past,
        truth=truth,
        forecast=(median, lower, upper),
        weight=float(table[PLAIN].iloc[0]),
        lengths=lengths,
        cycles=np.concatenate((before, cycles[: now + forecast.horizon])),
        repetition=cycles[now : now + longest],
    )


def _plot_views(ax: Axes, ahead: NDArray[Any], parts: SeasonParts, plain: Array | None) -> None:
    """Draw what was carried on, and what other views forecast, on the picture of the forecast."""
    copied, weight = parts.cycles[len(parts.past) :], parts.weight
    ax.plot(ahead, copied, color=COPIED, linewidth=1.2, label="cycles on the last level")
    if plain is not None:
        if len(plain) != len(ahead):
            raise InvalidInputError(f"plain has {len(plain)} steps; expected {len(ahead)}")
        ax.plot(ahead, plain, color=OTHER, linewidth=1.2, linestyle="--", label="plain")
        if 0 < weight < 1:
            # quantiles of a forecast are the weighted averages of those of its views
            cyclic = (parts.forecast[0] - weight * plain) / (1 - weight)
            ax.plot(ahead, cyclic, color=OTHER, linewidth=1.2, linestyle=":", label="with cycles")
    _finish(ax, f"Forecast: {weight:.0%} plain, {1 - weight:.0%} with cycles")


def _plot_repetition(ax: Axes, parts: SeasonParts) -> None:
    """Draw the next repetition of the longest cycle over the last ones."""
    longest = len(parts.repetition)
    steps = np.arange(1, longest + 1)
    count = min(len(parts.past) // longest, REPETITIONS)
    rows = parts.past[len(parts.past) - count * longest :].reshape(count, longest)
    for number, row in enumerate(rows):
        label = "_" if number else "last repetitions"
        plot_line(ax, steps, row, color=PAST, alpha=0.35, linewidth=0.8, label=label)
    ax.plot(steps, parts.repetition, color=COPIED, linewidth=1.8, label="next repetition")
    periods = " and ".join(str(length) for length in sorted(parts.lengths))
    ax.set_xlabel("steps from the beginning of a repetition")
    _finish(ax, f"Copied: cycles of {periods} steps")


def _plot_rest(ax: Axes, x: NDArray[Any], parts: SeasonParts, first: int) -> None:
    """Draw what is left without the cycles, and the forecast of it."""
    now = len(parts.past)
    ahead, cycles = x[now:], parts.cycles[now:]
    median, lower, upper = (line - cycles for line in parts.forecast)
    rest = parts.past[first:] - parts.cycles[first:now]
    plot_line(ax, x[first:now], rest, color=PAST, linewidth=1.2, label="history")
    ax.fill_between(ahead, lower, upper, color=shade(1), linewidth=0)
    ax.plot(ahead, median, color=FUTURE, linewidth=1.8, label="median")
    if count := len(parts.truth):
        left = parts.truth - cycles[:count]
        ax.plot(ahead[:count], left, color=TRUTH, linewidth=1.0, linestyle="--", label="truth")
    _finish(ax, "Predicted: what is left without the cycles")
    if x.dtype.kind == "M":
        space_dates(ax)


def _finish(ax: Axes, title: str) -> None:
    """Put the legend beside the picture: there is no room for so many lines in it."""
    tidy(ax, title, legend=False)
    ax.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
