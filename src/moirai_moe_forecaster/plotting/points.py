"""What a picture draws, out of what a user passes: points of one variate, and their times."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from moirai_moe_forecaster.data.items import read_items
from moirai_moe_forecaster.data.times import labels_after
from moirai_moe_forecaster.errors import InvalidInputError

if TYPE_CHECKING:
    from moirai_moe_forecaster.inference.forecast import Forecast


def chosen_series(forecast: Forecast, series: int) -> Forecast:
    """Pick one series of a batch; a forecast of a single series has only that one."""
    if not 0 <= series < len(forecast):
        raise InvalidInputError(f"series must be from 0 to {len(forecast) - 1}, got {series!r}")
    return forecast[series]


def chosen_variate(values: NDArray[np.float64], variate: int) -> NDArray[np.float64]:
    """Pick one variate of (horizon,) or (horizon, variate)."""
    table = values.reshape(len(values), -1)
    if not 0 <= variate < table.shape[1]:
        raise InvalidInputError(f"variate must be from 0 to {table.shape[1] - 1}, got {variate!r}")
    return table[:, variate]


def points(
    data: Any, series: int, variate: int, name: str
) -> tuple[NDArray[np.float64], Any | None]:
    """Pick the points of one variate of one series, and their index if they have one."""
    if data is None:
        return np.empty(0), None
    given = read_items(data, name)
    if given.single:
        series = 0
    if series >= len(given.items):
        raise InvalidInputError(
            f"{name} holds {len(given.items)} series; number {series} was chosen"
        )
    item = given.items[series]
    return chosen_variate(item.values, variate), item.index if item.indexed else None


def isolated(values: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Mark points between missing ones, of which a line shows nothing."""
    known = ~np.isnan(values)
    around = np.pad(known, 1)
    return known & ~around[:-2] & ~around[2:]


def axis(index: Any | None, past: int, horizon: int) -> NDArray[Any]:
    """Horizontal positions of history and horizon, numbers or times that matplotlib can draw."""
    if index is None:
        return np.arange(past + horizon)
    labels = pd.Index(index)
    if len(labels) == past and past:
        labels = labels.append(labels_after(labels, horizon))
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
