"""One window of a backtest: what is seen of a series, and where it ends."""

from __future__ import annotations

from typing import NamedTuple

from moirai_moe_forecaster.data.series import Item


class Window(NamedTuple):
    """One series' context, `values[:cut]`, and the label behind it.

    Attributes
    ----------
    item : Item
    covariates : Item or None
    number : int
        0 is the oldest window.
    cut : int
    """

    item: Item
    covariates: Item | None
    number: int
    cut: int
