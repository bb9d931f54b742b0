"""Whether forecasts mean what they say: coverage of intervals, and where true values fall."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from moirai_moe_forecaster.errors import InvalidInputError
from moirai_moe_forecaster.plotting.style import FUTURE, PAST, new_axes, shade, tidy

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from moirai_moe_forecaster.inference.forecast import Forecast

SQUARE = (4.5, 4.5)
COVERAGES = tuple(percent / 100 for percent in range(5, 100, 5))


def plot_coverage(
    forecast: Forecast,
    truth: ArrayLike,
    *,
    ax: Axes | None = None,
    coverages: Sequence[float] = COVERAGES,
    label: str | None = None,
    title: str | None = "Coverage of central intervals",
) -> Axes:
    """Draw the share of true values inside of intervals against the intervals' coverage.

    On the diagonal, intervals are as wide as they should be; below it they are too narrow.

    Parameters
    ----------
    forecast : Forecast
    truth : array
        Of the shape of ``forecast.median``; NaN is left out.
    ax : Axes, optional
        Where to draw; by default on a new pyplot figure.
    coverages : sequence of float, default=(0.05, 0.1, ..., 0.95)
    label : str, optional
        Name in the legend, to tell several forecasts on the same axes apart.
    title : str, optional

    Returns
    -------
    Axes

    Raises
    ------
    InvalidInputError
        If the shapes differ, or no true value is known.
    """
    actual, known = _truth(forecast, truth)
    shares = []
    for coverage in coverages:
        lower, upper = forecast.interval(coverage)
        shares.append(((lower <= actual) & (actual <= upper))[known].mean())
    first = ax is None or not ax.lines
    ax = new_axes(SQUARE) if ax is None else ax
    if first:
        ax.plot([0, 1], [0, 1], color=PAST, linewidth=0.8, linestyle="--")
    color = FUTURE if first else None
    ax.plot(coverages, shares, color=color, marker="o", markersize=3.5, label=label)
    ax.set(xlabel="coverage asked for", ylabel="share of values inside", aspect="equal")
    tidy(ax, title, legend=label is not None)
    ax.set(xlim=(0, 1), ylim=(0, 1))
    return ax


def plot_pit(
    forecast: Forecast,
    truth: ArrayLike,
    *,
    ax: Axes | None = None,
    bins: int = 10,
    title: str | None = "Where true values fall in their forecasts",
) -> Axes:
    """Draw a histogram of the probability integral transform, ``forecast.cdf(truth)``.

    It is flat if forecasts are calibrated, a valley if they are too narrow, a hill if they are too
    wide, and falls or rises if they are too high or too low.

    Parameters
    ----------
    forecast : Forecast
    truth : array
        Of the shape of ``forecast.median``; NaN is left out.
    ax : Axes, optional
        Where to draw; by default on a new pyplot figure.
    bins : int, default=10
    title : str, optional

    Returns
    -------
    Axes

    Raises
    ------
    InvalidInputError
        If the shapes differ, or no true value is known.
    """
    actual, known = _truth(forecast, truth)
    levels = forecast.cdf(actual)[known]
    ax = new_axes((6, 3.5)) if ax is None else ax
    edges = np.linspace(0, 1, bins + 1)
    density, _ = np.histogram(levels, edges, density=True)
    ax.bar(edges[:-1], density, 1 / bins, align="edge", color=shade(2), edgecolor="white")
    ax.axhline(1, color=PAST, linewidth=0.8, linestyle="--")
    ax.set(xlabel="level of the true value in its forecast", ylabel="density")
    tidy(ax, title, legend=False)
    return ax


def _truth(forecast: Forecast, truth: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    actual = np.asarray(truth, dtype=np.float64)
    expected = forecast.median.shape
    if actual.shape != expected:
        raise InvalidInputError(f"truth has shape {actual.shape}; expected {expected}")
    known = ~np.isnan(actual) & ~np.isnan(forecast.median)
    if not known.any():
        raise InvalidInputError("truth holds only missing values; give at least one")
    return actual, known
