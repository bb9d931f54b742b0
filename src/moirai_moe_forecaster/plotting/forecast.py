"""Pictures of forecasts: history, median and nested intervals."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from moirai_moe_forecaster.errors import InvalidInputError
from moirai_moe_forecaster.plotting.points import (
    axis,
    chosen_series,
    chosen_variate,
    isolated,
    points,
)
from moirai_moe_forecaster.plotting.style import (
    FUTURE,
    PAST,
    TRUTH,
    new_axes,
    plot_line,
    shade,
    space_dates,
    tidy,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from moirai_moe_forecaster.inference.forecast import Forecast

HISTORY_PER_HORIZON = 8
SHORTEST_HISTORY = 100
FEW_POINTS = 60


def plot_forecast(
    forecast: Forecast,
    history: Any = None,
    *,
    ax: Axes | None = None,
    truth: Any = None,
    coverages: Sequence[float] = (0.5, 0.8),
    samples: int = 0,
    series: int = 0,
    variate: int = 0,
    index: Any = None,
    max_history: int | None = None,
    title: str | None = None,
    legend: bool = True,
) -> Axes:
    """Draw one variate of one series: history, truth, median and nested central intervals.

    Parameters
    ----------
    forecast : Forecast
    history : array, Series, DataFrame or list of these, optional
        What was given to `predict`; with a time index, that is the horizontal axis.
    ax : Axes, optional
        Where to draw; by default on a new pyplot figure.
    truth : array, Series, DataFrame or list of these, optional
        What came after the history, at most as long as the horizon.
    coverages : sequence of float, default=(0.5, 0.8)
        Of the intervals, each in (0, 1).
    samples : int, default=0
        How many of the forecast's trajectories to draw as thin lines.
    series, variate : int, default=0
        Which one of a batch, and which of its variates.
    index : array or Index, optional
        Numbers or times of the points of the history and then of the horizon. By default, the
        history's own index, continued; without one, points are counted from 0.
    max_history : int, optional
        Draw only so many of the last points of the history; by default 8 horizons, but at least
        100 points.
    title : str, optional
    legend : bool, default=True

    Returns
    -------
    Axes

    Raises
    ------
    InvalidInputError
        If the data do not fit the forecast or each other; the message says how.
    MissingExtraError
        If matplotlib is not installed.

    Examples
    --------
    >>> axes = plot_forecast(forecast, y, truth=y_test, title="Sales")  # doctest: +SKIP
    """
    chosen = chosen_series(forecast, series)
    past, times = points(history, series, variate, "history")
    after, _ = points(truth, series, variate, "truth")
    if len(after) > forecast.horizon:
        raise InvalidInputError(f"truth has {len(after)} points, the horizon {forecast.horizon}")
    x = axis(times if index is None else index, len(past), forecast.horizon)
    ahead = x[len(past) :]
    ax = new_axes() if ax is None else ax
    most = max(HISTORY_PER_HORIZON * forecast.horizon, SHORTEST_HISTORY)
    first = max(len(past) - (most if max_history is None else max_history), 0)
    if len(past):
        shown = slice(first, len(past))
        plot_line(ax, x[shown], past[shown], color=PAST, linewidth=1.2, label="history")
    for depth, coverage in enumerate(sorted(coverages, reverse=True), start=1):
        lower, upper = (chosen_variate(edge, variate) for edge in chosen.interval(coverage))
        label = f"{100 * coverage:g}% interval"
        ax.fill_between(ahead, lower, upper, color=shade(depth), linewidth=0, label=label)
    for number, path in enumerate(chosen.samples[:samples] if samples else ()):
        label = "_" if number else "samples"
        path = chosen_variate(path, variate)
        ax.plot(ahead, path, color=FUTURE, alpha=0.6, linewidth=0.5, label=label)
    ax.plot(
        ahead, chosen_variate(chosen.median, variate), color=FUTURE, linewidth=1.8, label="median"
    )
    if len(after):
        marks = None if forecast.horizon <= FEW_POINTS else isolated(after)
        ax.plot(
            ahead[: len(after)],
            after,
            color=TRUTH,
            linewidth=1.0,
            linestyle="--",
            marker="o",
            markersize=3,
            markevery=marks,
            label="truth",
        )
    tidy(ax, title, legend)
    if x.dtype.kind == "M":
        space_dates(ax)
    return ax
