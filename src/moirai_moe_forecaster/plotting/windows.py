"""Backtests as pictures: a series, and over it what was forecast from several cutoffs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from moirai_moe_forecaster.errors import InvalidInputError
from moirai_moe_forecaster.plotting.forecast import HISTORY_PER_HORIZON, SHORTEST_HISTORY
from moirai_moe_forecaster.plotting.points import axis, chosen_series, chosen_variate, points
from moirai_moe_forecaster.plotting.style import (
    FUTURE,
    PAST,
    new_axes,
    plot_line,
    shade,
    space_dates,
    tidy,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from moirai_moe_forecaster.inference.forecast import Forecast


def plot_windows(
    forecast: Forecast,
    y: Any,
    cuts: Sequence[int],
    *,
    ax: Axes | None = None,
    coverage: float = 0.8,
    variate: int = 0,
    index: Any = None,
    max_history: int | None = None,
    title: str | None = None,
    legend: bool = True,
) -> Axes:
    """Draw one series and over it the forecasts of a backtest's windows.

    Parameters
    ----------
    forecast : Forecast
        Of a batch that holds the series' beginnings, ``[y[:cut] for cut in cuts]``.
    y : array, Series or DataFrame
        The whole series.
    cuts : sequence of int
        How many points each forecast had seen: ``n_train`` of `backtest`.
    ax : Axes, optional
        Where to draw; by default on a new pyplot figure.
    coverage : float, default=0.8
        Of the band.
    variate : int, default=0
    index : array or Index, optional
        Numbers or times of the points of y; by default its own index.
    max_history : int, optional
        Draw only so many points before the first cut; by default 8 horizons, but at least 100.
    title : str, optional
    legend : bool, default=True

    Returns
    -------
    Axes

    Raises
    ------
    InvalidInputError
        If there is not one forecast per cut, or a cut is not within the series.

    Examples
    --------
    >>> cuts = [108, 120, 132]
    >>> forecast = pipeline.predict([y[:cut] for cut in cuts], 12)  # doctest: +SKIP
    >>> axes = plot_windows(forecast, y, cuts)  # doctest: +SKIP
    """
    values, times = points(y, 0, variate, "y")
    if len(forecast) != len(cuts):
        raise InvalidInputError(f"{len(forecast)} forecasts for {len(cuts)} cuts; give one each")
    if outside := [cut for cut in cuts if not 0 < cut <= len(values)]:
        raise InvalidInputError(f"cut {outside[0]} is not within the {len(values)} points of y")
    horizon = forecast.horizon
    x = axis(times if index is None else index, len(values), horizon)
    ax = new_axes() if ax is None else ax
    shown = max(HISTORY_PER_HORIZON * horizon, SHORTEST_HISTORY)
    first = max(min(cuts) - (shown if max_history is None else max_history), 0)
    for number, cut in enumerate(cuts):
        window = chosen_series(forecast, number)
        ahead = x[cut : cut + horizon]
        lower, upper = (chosen_variate(edge, variate) for edge in window.interval(coverage))
        median = chosen_variate(window.median, variate)
        names = ("_", "_") if number else (f"{100 * coverage:g}% interval", "median")
        ax.fill_between(ahead, lower, upper, color=shade(1), linewidth=0, label=names[0])
        ax.plot(ahead, median, color=FUTURE, linewidth=1.8, label=names[1])
        ax.axvline(x[cut - 1], color=PAST, linewidth=0.6, linestyle=":")
    drawn = slice(first, len(values))
    plot_line(ax, x[drawn], values[drawn], color=PAST, linewidth=1.0, label="truth")
    tidy(ax, title, legend)
    if x.dtype.kind == "M":
        space_dates(ax)
    return ax
