"""The windows at the end of every series that a backtest forecasts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from moirai_moe_forecaster.data.items import Item
from moirai_moe_forecaster.data.series import Array
from moirai_moe_forecaster.errors import InvalidInputError


@dataclass(frozen=True, kw_only=True)
class BacktestWindow:
    """One series up to a cutoff, and the label behind it.

    Attributes
    ----------
    item : Item
        All of the series.
    cut : int
        How many of its steps are seen.
    number : int, default=0
        Among the windows of the series; 0 is the oldest.
    covariates : Item, optional
        Known ahead, for every step of the series.
    """

    item: Item
    cut: int
    number: int = 0
    covariates: Item | None = None

    @property
    def context(self) -> Array:
        """What is seen, (time, variate)."""
        return self.item.values[: self.cut]

    def label(self, horizon: int) -> Array:
        """Return what came, (horizon, variate)."""
        return self.item.values[self.cut : self.cut + horizon]


def check_windows(item: Item, horizon: int, windows: int, step: int) -> None:
    """Check that a series has its windows.

    Raises
    ------
    InvalidInputError
        If it is too short, or holds no value before its first window.
    """
    needed = horizon + (windows - 1) * step + 1
    if len(item.values) < needed:
        raise InvalidInputError(
            f"series {item.name!r} has {len(item.values)} steps; {windows} windows of horizon "
            f"{horizon}, {step} steps apart, need at least {needed}: leave it out, or take "
            "fewer windows or a shorter horizon"
        )
    first = item.values[: len(item.values) - needed + 1]
    if (empty := np.isnan(first).all(0)).any():
        variate = item.variates[int(empty.argmax())]
        which = f" of variate {variate!r}" if len(item.variates) > 1 else ""
        raise InvalidInputError(
            f"series {item.name!r} has only missing values{which} before its first window, "
            f"{len(first)} steps; leave it out, or take fewer windows"
        )


def cut_windows(
    items: Sequence[Item],
    covariates: Sequence[Item] | None,
    horizon: int,
    windows: int,
    step: int,
) -> list[BacktestWindow]:
    """Cut all windows of the first series, then of the next.

    Parameters
    ----------
    items : sequence of Item
    covariates : sequence of Item, optional
        One for each item.
    horizon : int
        Steps of a label.
    windows : int
        For each series.
    step : int
        From one window to the next.
    """
    return [
        BacktestWindow(
            item=item,
            cut=len(item.values) - horizon - (windows - 1 - number) * step,
            number=number,
            covariates=None if covariates is None else covariates[index],
        )
        for index, item in enumerate(items)
        for number in range(windows)
    ]
