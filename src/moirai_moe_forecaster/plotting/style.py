"""Colours, axes and dates that all pictures share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from moirai_moe_forecaster.errors import MissingExtraError
from moirai_moe_forecaster.plotting.points import isolated

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# colours of Okabe and Ito's palette, which colour-blind people tell apart; for print without colour
# the truth is dashed as well
PAST = "#222222"
FUTURE = (0.0, 0.447, 0.698)
TRUTH = "#D55E00"
COPIED = "#009E73"
OTHER = "#CC79A7"
GRID = "#DDDDDD"
BAND_STRENGTH = 0.22


def shade(depth: int) -> tuple[float, float, float]:
    """Colour of an interval inside others: opaque, so that the legend shows what is drawn."""
    white = (1 - BAND_STRENGTH) ** depth
    red, green, blue = (white + (1 - white) * part for part in FUTURE)
    return red, green, blue


def new_axes(size: tuple[float, float] = (9, 4)) -> Axes:
    """Axes of a new pyplot figure, of a size in inches."""
    axes: Axes = new_grid(1, 1, size)[0]
    return axes


def new_grid(rows: int, columns: int, size: tuple[float, float], **options: Any) -> list[Axes]:
    """All axes of a new pyplot figure, row by row."""
    try:
        from matplotlib import pyplot
    except ImportError as error:
        raise MissingExtraError("matplotlib", "plot", "drawing") from error
    _, axes = pyplot.subplots(
        rows, columns, figsize=size, layout="constrained", squeeze=False, **options
    )
    return list(axes.ravel())


def tidy(ax: Axes, title: str | None, legend: bool) -> None:
    """Leave a light grid, two edges, and a title and a legend where wanted."""
    ax.spines[["top", "right"]].set_visible(False)
    ax.grid(axis="y", color=GRID, linewidth=0.6)
    ax.set_axisbelow(True)
    ax.margins(x=0.01)
    if title is not None:
        ax.set_title(title, loc="left")
    if legend:
        ax.legend(loc="best", frameon=False)


def shared_legend(axes: Sequence[Axes]) -> None:
    """One legend above all pictures of a figure, as small ones have no room for it."""
    handles, labels = axes[0].get_legend_handles_labels()
    axes[0].figure.legend(
        handles, labels, loc="outside upper right", ncols=len(labels), frameon=False
    )


def plot_line(ax: Axes, x: NDArray[Any], values: NDArray[np.float64], **options: Any) -> None:
    """Draw values that may be missing: a line, and a dot where there is none to either side."""
    ax.plot(x, values, marker=".", markevery=isolated(values), **options)


def space_dates(ax: Axes) -> None:
    """Few enough dates that they do not run into each other in a small plot."""
    from matplotlib.dates import AutoDateLocator, ConciseDateFormatter

    inches = ax.get_window_extent().width / ax.figure.dpi
    locator = AutoDateLocator(minticks=3, maxticks=max(5, int(inches)))
    ax.xaxis.set_major_locator(locator)
    ax.xaxis.set_major_formatter(ConciseDateFormatter(locator))
