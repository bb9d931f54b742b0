"""Small multiples: one small picture per series of a batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from moirai_moe_forecaster.errors import InvalidInputError
from moirai_moe_forecaster.plotting.forecast import plot_forecast
from moirai_moe_forecaster.plotting.style import new_grid, shared_legend

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from moirai_moe_forecaster.inference.forecast import Forecast

SMALL = (4.2, 2.5)
MOST = 12


def plot_panel(
    forecast: Forecast,
    history: Any = None,
    *,
    axes: Sequence[Axes] | None = None,
    truth: Any = None,
    series: Sequence[int] | None = None,
    names: Sequence[object] | None = None,
    columns: int = 3,
    **options: Any,
) -> list[Axes]:
    """Draw several series of a batch beside each other.

    Parameters
    ----------
    forecast : Forecast
        Of a batch.
    history, truth : Series, DataFrame or list, optional
        As for `plot_forecast`: what was given to `predict`, and what came after it.
    axes : sequence of Axes, optional
        Where to draw, one for each series; by default on a new pyplot figure, which gets a legend.
    series : sequence of int, optional
        Which series; by default the first 12.
    names : sequence, optional
        Titles of all series of the batch; by default their numbers.
    columns : int, default=3
        Pictures in a row of the new figure.
    **options
        Of `plot_forecast`.

    Returns
    -------
    list of Axes
        One per series.

    Raises
    ------
    InvalidInputError
        If there are fewer axes or names than series, or as `plot_forecast` says.
    """
    chosen = range(min(len(forecast), MOST)) if series is None else series
    if names is not None and len(names) != len(forecast):
        raise InvalidInputError(f"names has {len(names)} entries; expected {len(forecast)}")
    if axes is None:
        across = min(columns, len(chosen))
        rows = -(-len(chosen) // across)
        drawn = new_grid(rows, across, (SMALL[0] * across, SMALL[1] * rows))
    else:
        drawn = list(axes)
    if len(drawn) < len(chosen):
        raise InvalidInputError(f"got {len(drawn)} axes for {len(chosen)} series")
    spare = drawn[len(chosen) :]
    for ax, number in zip(drawn, chosen, strict=False):
        plot_forecast(
            forecast,
            history,
            ax=ax,
            truth=truth,
            series=number,
            title=str(number if names is None else names[number]),
            **{"legend": False, **options},
        )
    if axes is None:
        for ax in spare:
            ax.set_visible(False)
        shared_legend(drawn)
    return drawn[: len(chosen)]
