"""Data to backtest on, split into series that know their names and times."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from moirai_moe_forecaster.errors import InvalidInputError

Array = NDArray[np.float64]


class Item(NamedTuple):
    """One series.

    Attributes
    ----------
    name : hashable
        Of the Series, key of the instance, or position in the list.
    values : ndarray, (time, variate)
    variates : list of hashable
        Names of the columns, or their positions.
    frame : Series or DataFrame
        The same, as pandas has it, with the times as its only index.
    """

    name: Hashable
    values: Array
    variates: list[Hashable]
    frame: pd.Series[float] | pd.DataFrame


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


def read_items(data: Any, what: str = "y") -> list[Item]:
    """Split what `MoiraiMoEPipeline.predict` takes as `y` into series.

    Raises
    ------
    InvalidInputError
        If there is no series, or one is empty, infinite, not numeric or of a wrong shape.
    """
    if is_panel(data):
        levels: Any = list(range(data.index.nlevels - 1))
        groups = data.groupby(level=levels if len(levels) > 1 else 0, sort=False)
        items = [
            _item(key, part.droplevel(levels), f"{what}, series {key!r}") for key, part in groups
        ]
    elif isinstance(data, list | tuple) and not _is_numbers(data):
        items = [_item(index, part, f"{what}[{index}]") for index, part in enumerate(data)]
    else:
        named = isinstance(data, pd.Series) and data.name is not None
        items = [_item(data.name if named else 0, data, what)]
    if not items:
        raise InvalidInputError(f"{what} holds no series; give at least one")
    return items


def is_panel(data: Any) -> bool:
    """Whether the index says which series a row belongs to."""
    return isinstance(data, pd.Series | pd.DataFrame) and isinstance(data.index, pd.MultiIndex)


def match_items(data: Any, items: Sequence[Item]) -> list[Item]:
    """Split covariates, and bring them into the order of the series they belong to.

    Raises
    ------
    InvalidInputError
        If they are not one block per series, as long as it and with the same times.
    """
    given = read_items(data, "X")
    if is_panel(data):
        found = {item.name: item for item in given}
        if absent := [item.name for item in items if item.name not in found]:
            raise InvalidInputError(f"X lacks the series {absent[:5]} of y")
        given = [found[item.name] for item in items]
    if len(given) != len(items):
        raise InvalidInputError(
            f"X has {len(given)} series, y has {len(items)}; give one block each"
        )
    for block, item in zip(given, items, strict=True):
        rows = len(item.values)
        if len(block.values) < rows:
            raise InvalidInputError(
                f"X of series {item.name!r} has {len(block.values)} rows; expected {rows}, "
                "one for each step of y"
            )
        if not block.frame.index[:rows].equals(item.frame.index):
            raise InvalidInputError(f"X of series {item.name!r} has other times than y")
    return given


def _item(name: Hashable, data: Any, what: str) -> Item:
    try:
        array = np.asarray(data, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InvalidInputError(f"{what} must hold numbers: {error}") from error
    if array.ndim not in (1, 2) or array.size == 0:
        raise InvalidInputError(
            f"{what} has shape {array.shape}; expected (time,) or (time, variates), and some rows"
        )
    if np.isinf(array).any():
        raise InvalidInputError(f"{what} holds an infinite value; use NaN for a missing one")
    frame: pd.Series[float] | pd.DataFrame
    if isinstance(data, pd.Series | pd.DataFrame):
        frame = data.astype(np.float64)
    else:
        frame = pd.Series(array) if array.ndim == 1 else pd.DataFrame(array)
    columns: list[Hashable] = [0]
    if isinstance(frame, pd.DataFrame):
        columns = list(frame.columns)
    return Item(name, array.reshape(len(array), -1), columns, frame)


def _is_numbers(data: Sequence[Any]) -> bool:
    """Tell one series written as a list of numbers from a list of series."""
    return bool(data) and not any(hasattr(entry, "__len__") for entry in data)
