"""Heat maps of expert allocation: the figure of the paper (arXiv 2410.10469, section 4.3)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from moirai_moe_forecaster.errors import InvalidInputError
from moirai_moe_forecaster.plotting.style import new_axes, new_grid

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from moirai_moe_forecaster.reports.routing import RoutingReport

COLOURS = "Blues"
MOST_NUMBERS = 120
INCHES_PER_EXPERT, INCHES_PER_GROUP = 0.42, 0.4


def plot_load(
    report: RoutingReport,
    layer: int,
    by: str | None = None,
    *,
    ax: Axes | None = None,
    largest: float | None = None,
    title: str | None = None,
) -> Axes:
    """Draw one layer's expert allocation: a row per group, a column per expert.

    Parameters
    ----------
    report : RoutingReport
    layer : int
        From 0.
    by : str, optional
        Column of the report's tokens that makes the rows; None draws one row of all tokens.
    ax : Axes, optional
        Where to draw; by default on a new pyplot figure.
    largest : float, optional
        Share of the darkest colour; by default the largest one drawn.
    title : str, optional
        By default the number of the layer.

    Returns
    -------
    Axes

    Raises
    ------
    InvalidInputError
        If there is no such layer or column.
    """
    if not 0 <= layer < report.num_layers:
        raise InvalidInputError(f"layer must be from 0 to {report.num_layers - 1}, got {layer!r}")
    table = report.load(by)
    rows = table[table["layer"] == layer]
    groups = ["all"] if by is None else list(rows[by].unique())
    shares = rows["share"].to_numpy().reshape(len(groups), report.num_experts)
    size = (2 + INCHES_PER_EXPERT * report.num_experts, 1.2 + INCHES_PER_GROUP * len(groups))
    ax = new_axes(size) if ax is None else ax
    top = float(shares.max()) if largest is None else largest
    ax.imshow(shares, cmap=COLOURS, vmin=0, vmax=top, aspect="auto")
    if shares.size <= MOST_NUMBERS:
        for (row, expert), share in np.ndenumerate(shares):
            color = "white" if share > 0.6 * top else "black"
            text = f"{100 * share:.0f}"
            ax.text(expert, row, text, color=color, ha="center", va="center", fontsize=7)
    ax.set_yticks(range(len(groups)), [str(group) for group in groups])
    ax.set_xticks(range(0, report.num_experts, 1 if report.num_experts <= 16 else 4))
    ax.set_xlabel("expert")
    ax.spines[:].set_visible(False)
    ax.tick_params(length=0)
    name = f"layer {layer + 1} of {report.num_layers}: % of choices"
    ax.set_title(name if title is None else title, loc="left", fontsize=10)
    return ax


def plot_routing(
    report: RoutingReport,
    by: str | None = None,
    *,
    layers: Sequence[int] | None = None,
    axes: Sequence[Axes] | None = None,
) -> list[Axes]:
    """Draw the allocation of several layers beside each other, in the same colours.

    Parameters
    ----------
    report : RoutingReport
    by : str, optional
        As for `plot_load`.
    layers : sequence of int, optional
        By default the first, the middle and the last.
    axes : sequence of Axes, optional
        Where to draw, one for each layer; by default on a new pyplot figure.

    Returns
    -------
    list of Axes
        One per layer.

    Raises
    ------
    InvalidInputError
        If there is no such layer or column, or the axes are too few.
    """
    last = report.num_layers - 1
    chosen = sorted({0, last // 2, last}) if layers is None else list(layers)
    table = report.load(by)
    if axes is None:
        groups = 1 if by is None else table[by].nunique()
        wide = 1.2 + INCHES_PER_EXPERT * report.num_experts
        drawn = new_grid(
            1, len(chosen), (wide * len(chosen), 1.2 + INCHES_PER_GROUP * groups), sharey=True
        )
    else:
        drawn = list(axes)
    if len(drawn) < len(chosen):
        raise InvalidInputError(f"got {len(drawn)} axes for {len(chosen)} layers")
    drawn = drawn[: len(chosen)]
    largest = float(table.loc[table["layer"].isin(chosen), "share"].max())
    for ax, layer in zip(drawn, chosen, strict=True):
        plot_load(report, layer, by, ax=ax, largest=largest)
    return drawn
