"""Pictures of forecasts: history, median and nested intervals."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from moirai_moe_forecaster.errors import InvalidInputError, MissingExtraError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from moirai_moe_forecaster.inference.forecast import Forecast

# blue and vermilion of Okabe and Ito's palette, which colour-blind people tell apart; for print
# without colour the truth is dashed as well
PAST = "#222222"
FUTURE = (0.0, 0.447, 0.698)
TRUTH = "#D55E00"
BAND_STRENGTH = 0.22

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
    chosen = _chosen(forecast, series)
    past, times = _points(history, series, variate, "history")
    after, _ = _points(truth, series, variate, "truth")
    if len(after) > forecast.horizon:
        raise InvalidInputError(f"truth has {len(after)} points, the horizon {forecast.horizon}")
    x = _axis(times if index is None else index, len(past), forecast.horizon)
    ahead = x[len(past) :]
    ax = _new_axes() if ax is None else ax
    shown = max(HISTORY_PER_HORIZON * forecast.horizon, SHORTEST_HISTORY)
    first = max(len(past) - (shown if max_history is None else max_history), 0)
    if len(past):
        ax.plot(x[first : len(past)], past[first:], color=PAST, linewidth=1.2, label="history")
    for depth, coverage in enumerate(sorted(coverages, reverse=True), start=1):
        lower, upper = (_variate(edge, variate) for edge in chosen.interval(coverage))
        label = f"{100 * coverage:g}% interval"
        ax.fill_between(ahead, lower, upper, color=_shade(depth), linewidth=0, label=label)
    ax.plot(ahead, _variate(chosen.median, variate), color=FUTURE, linewidth=1.8, label="median")
    if len(after):
        marker = "o" if forecast.horizon <= FEW_POINTS else None
        ax.plot(
            ahead[: len(after)],
            after,
            color=TRUTH,
            linewidth=1.0,
            linestyle="--",
            marker=marker,
            markersize=3,
            label="truth",
        )
    _tidy(ax, title, legend)
    if x.dtype.kind == "M":
        _space_dates(ax)
    return ax


def _shade(depth: int) -> tuple[float, ...]:
    """Colour of an interval inside others: opaque, so that the legend shows what is drawn."""
    white = (1 - BAND_STRENGTH) ** depth
    return tuple(white + (1 - white) * part for part in FUTURE)


def _chosen(forecast: Forecast, series: int) -> Forecast:
    """Pick one series of a batch; a forecast of a single series has only that one."""
    if not 0 <= series < len(forecast):
        raise InvalidInputError(f"series must be from 0 to {len(forecast) - 1}, got {series!r}")
    return forecast[series]


def _variate(values: NDArray[np.float64], variate: int) -> NDArray[np.float64]:
    """Pick one variate of (horizon,) or (horizon, variate)."""
    table = values.reshape(len(values), -1)
    if not 0 <= variate < table.shape[1]:
        raise InvalidInputError(f"variate must be from 0 to {table.shape[1] - 1}, got {variate!r}")
    return table[:, variate]


def _points(
    data: Any, series: int, variate: int, name: str
) -> tuple[NDArray[np.float64], Any | None]:
    """Pick the points of one variate of one series, and their index if they have one."""
    if data is None:
        return np.empty(0), None
    if getattr(getattr(data, "index", None), "nlevels", 1) > 1:
        levels = list(range(data.index.nlevels - 1))
        data = [group.droplevel(levels) for _, group in data.groupby(level=levels, sort=False)]
    if isinstance(data, (list, tuple)) and len(data) and np.ndim(data[0]):
        if series >= len(data):
            raise InvalidInputError(f"{name} holds {len(data)} series; number {series} was chosen")
        data = data[series]
    if np.ndim(data) not in (1, 2):
        raise InvalidInputError(
            f"{name} has {np.ndim(data)} dimensions; expected (time,) or (time, variates)"
        )
    values = _variate(np.asarray(data, dtype=np.float64), variate)
    return values, getattr(data, "index", None) if hasattr(data, "iloc") else None


def _axis(index: Any | None, past: int, horizon: int) -> NDArray[Any]:
    """Horizontal positions of history and horizon, numbers or times that matplotlib can draw."""
    import pandas as pd

    if index is None:
        return np.arange(past + horizon)
    labels = pd.Index(index)
    if len(labels) == past and past:
        labels = labels.append(_continued(labels, horizon))
    if len(labels) != past + horizon:
        raise InvalidInputError(
            f"index has {len(labels)} entries; expected {past} for the history and {horizon} for "
            "the horizon"
        )
    if isinstance(labels, pd.PeriodIndex):
        labels = labels.to_timestamp()
    if isinstance(labels, pd.DatetimeIndex):
        labels = labels.tz_localize(None)
    positions: NDArray[Any] = labels.to_numpy()
    return positions


def _continued(index: Any, steps: int) -> Any:
    """Labels of the steps after an index."""
    import pandas as pd

    if isinstance(index, pd.PeriodIndex):
        return pd.period_range(index[-1] + 1, periods=steps)
    if isinstance(index, pd.DatetimeIndex):
        freq = index.freq or (pd.infer_freq(index) if len(index) > 2 else None)
        if freq is None:
            raise InvalidInputError(
                "the history's times have no regular frequency, so that it is not known which come "
                "next: pass the times of history and horizon as `index`"
            )
        return pd.date_range(index[-1], periods=steps + 1, freq=freq)[1:]
    if index.dtype.kind not in "iuf":
        return pd.RangeIndex(len(index), len(index) + steps)
    step = index[-1] - index[-2] if len(index) > 1 else 1
    return pd.Index(index[-1] + step * np.arange(1, steps + 1))


def _new_axes() -> Axes:
    try:
        from matplotlib import pyplot
    except ImportError as error:
        raise MissingExtraError("matplotlib", "plot", "drawing a forecast") from error
    axes: Axes = pyplot.subplots(figsize=(9, 4), layout="constrained")[1]
    return axes


def _tidy(ax: Axes, title: str | None, legend: bool) -> None:
    ax.spines[["top", "right"]].set_visible(False)
    ax.grid(axis="y", color="#DDDDDD", linewidth=0.6)
    ax.set_axisbelow(True)
    ax.margins(x=0.01)
    if title is not None:
        ax.set_title(title, loc="left")
    if legend:
        ax.legend(loc="best", frameon=False)


def _space_dates(ax: Axes) -> None:
    """Few enough dates that they do not run into each other in a small plot."""
    from matplotlib.dates import AutoDateLocator, ConciseDateFormatter

    inches = ax.get_window_extent().width / ax.figure.dpi
    locator = AutoDateLocator(minticks=3, maxticks=max(5, int(inches)))
    ax.xaxis.set_major_locator(locator)
    ax.xaxis.set_major_formatter(ConciseDateFormatter(locator))
