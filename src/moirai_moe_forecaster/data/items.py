"""Series as users pass them, split and named, whatever container holds them."""

from __future__ import annotations

import contextlib
import re
import warnings
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from moirai_moe_forecaster.data.numbers import Array, is_numeric, read_matrix, read_numbers
from moirai_moe_forecaster.errors import InvalidInputError

# a table is called wide if it has more variates than the first, and this many times the steps
FEW_VARIATES, WIDE = 3, 3
HOUR = 3_600_000_000  # in microseconds
MOST_REPEATED = 0.01
_TIME_NAMES = re.compile(
    r"years?|months?|quarters?|weeks?|days?|dates?|times?|timestamps?|ds|datetime|period",
    re.IGNORECASE,
)


@dataclass(frozen=True, kw_only=True)
class Item:
    """One series as it was passed, in the form that all kinds of data have in common.

    Attributes
    ----------
    name : hashable
        Of the Series, key of the instance, or position in the list.
    values : ndarray, (time, variate)
        NaN is missing.
    variates : list of hashable
        Names of the columns, or their positions.
    index : Index
        Of the rows; positions, where there was none.
    indexed : bool
        There was one.
    flat : bool
        It was one-dimensional.
    """

    name: Hashable
    values: Array
    variates: list[Hashable]
    index: pd.Index
    indexed: bool
    flat: bool

    @property
    def frame(self) -> pd.Series[float] | pd.DataFrame:
        """The same as pandas has it: a Series if it was one-dimensional."""
        if self.flat:
            return pd.Series(self.values[:, 0], index=self.index)
        return pd.DataFrame(self.values, index=self.index, columns=pd.Index(self.variates))


@dataclass(frozen=True, kw_only=True)
class Items:
    """Data split into series.

    Attributes
    ----------
    items : list of Item
    single : bool
        There is one, and it was by itself, not in a list or a panel.
    panel : bool
        An index said which series a row belongs to; items are named by their keys.
    places : list of int
        Where each item stands among all that were passed.
    bad : dict of int to (hashable, str)
        By place, name of what was left out, and why.
    """

    items: list[Item]
    single: bool = False
    panel: bool = False
    places: list[int]
    bad: dict[int, tuple[Hashable, str]]

    def __len__(self) -> int:
        """How many were passed."""
        return len(self.items) + len(self.bad)


def read_items(data: Any, what: str = "y", skipped: dict[Hashable, str] | None = None) -> Items:
    """Split data into series, whatever container holds them.

    Parameters
    ----------
    data : array, masked array, Series, DataFrame, TimeSeries of Darts, or list of these
        As `MoiraiMoEPipeline.predict` takes it.
    what : str, default="y"
        What the data are called in messages.
    skipped : dict, optional
        Takes up the names of series of several that cannot be read, and why, which are left out;
        without it they are errors.

    Raises
    ------
    InvalidInputError
        If there is no series, or one is empty, infinite, not numeric or of a wrong shape.
    """
    panel, single = is_panel(data), False
    if panel:
        parts = _instances(data, what)
    elif isinstance(data, list | tuple) and not _is_one_series(data):
        parts = [(i, partial(_item, i, part, f"{what}[{i}]")) for i, part in enumerate(data)]
    else:
        single = True
        name = data.name if isinstance(data, pd.Series) and data.name is not None else 0
        parts = [(name, partial(_item, name, data, what))]
    items: dict[int, Item] = {}
    bad: dict[int, tuple[Hashable, str]] = {}
    for place, (name, read) in enumerate(parts):
        with left_out(name, None if single else skipped):
            items[place] = read()
        if place not in items:
            bad[place] = name, (skipped or {})[name]
    if not items:
        raise InvalidInputError(f"{what} holds no series; expected at least one")
    result = Items(items=[*items.values()], single=single, panel=panel, places=[*items], bad=bad)
    if what == "y":
        _warn_of_wide(result.items)
    return result


def _warn_of_wide(items: list[Item]) -> None:
    """Warn of a table that may be one of many series, one a row."""
    for item in items:
        time, variates = item.values.shape
        if variates > FEW_VARIATES and variates >= WIDE * time:
            warnings.warn(
                f"y has a table of {time} steps of {variates} variates: time goes down the rows, "
                "(time, variates). If each row is a series, pass a list of them, as list(y), or "
                "y.T if they are the variates of one",
                UserWarning,
                stacklevel=4,
            )
            return


def is_panel(data: Any) -> bool:
    """Whether the index says which series a row belongs to."""
    return isinstance(data, pd.Series | pd.DataFrame) and isinstance(data.index, pd.MultiIndex)


def match_items(data: Any, targets: Items, *, skip: bool = False) -> list[Item | str]:
    """Split covariates of a backtest, and bring them into the order of the series they belong to.

    Parameters
    ----------
    data : array, Series, DataFrame or list of these
    targets : Items
    skip : bool, default=False
        Whether series that do not fit are left to the caller.

    Returns
    -------
    list of Item or str
        A block for each of the targets' items, or why it has none.

    Raises
    ------
    InvalidInputError
        If they are not one block per series, as long as it and with the same times.
    """
    given = read_items(data, "X", {} if skip else None)
    if not given.panel and len(given) != len(targets):
        raise InvalidInputError(f"X has {len(given)} series, y has {len(targets)}; give one each")
    blocks = blocks_of(given, targets, "X")
    for place, (block, item) in enumerate(zip(blocks, targets.items, strict=True)):
        if isinstance(block, str) or not (misfit := _misfit(block, item)):
            continue
        if not skip:
            raise InvalidInputError(misfit)
        blocks[place] = misfit
    return blocks


def _misfit(block: Item, item: Item) -> str:
    """Why a block of covariates does not belong to a series, or nothing."""
    rows = len(item.values)
    if len(block.values) < rows:
        return (
            f"X of series {item.name!r} has {len(block.values)} rows; expected {rows}, "
            "one for each step of y"
        )
    same = block.index[:rows].equals(item.index)
    return "" if same else f"X of series {item.name!r} has other times than y"


def read_block(block: Item | str) -> Item:
    """Return a block of covariates, or raise what is wrong with it."""
    if isinstance(block, str):
        raise InvalidInputError(block)
    return block


def blocks_of(given: Items, targets: Items, what: str) -> list[Item | str]:
    """Blocks of covariates in the order of series, or why one cannot be read.

    Those of a panel belong to the instances of a panel by name, all others by their place.

    Raises
    ------
    InvalidInputError
        If an instance of the targets has no block.
    """
    if not (given.panel and targets.panel):
        by_place: dict[int, Item | str] = dict(zip(given.places, given.items, strict=True))
        by_place |= {place: reason for place, (_, reason) in given.bad.items()}
        return [by_place[place] for place in targets.places]
    by_name: dict[Hashable, Item | str] = {item.name: item for item in given.items}
    by_name |= dict(given.bad.values())
    if missing := [item.name for item in targets.items if item.name not in by_name]:
        raise InvalidInputError(f"{what} lacks the instances {missing[:5]} of y")
    return [by_name[item.name] for item in targets.items]


@contextlib.contextmanager
def left_out(name: Hashable, skipped: dict[Hashable, str] | None) -> Iterator[None]:
    """Note a series that cannot be read instead of raising, if there is where to."""
    try:
        yield
    except InvalidInputError as error:
        if skipped is None:
            raise
        skipped[name] = str(error)


def _instances(
    data: pd.Series[Any] | pd.DataFrame, what: str
) -> list[tuple[Hashable, Callable[[], Item]]]:
    """Keys of a panel in the order in which they first appear, and how to read each series."""
    levels = list(range(data.index.nlevels - 1))
    codes = data.groupby(level=levels, sort=False).ngroup().to_numpy()
    if (codes < 0).any():
        raise InvalidInputError(
            f"a label of an instance of {what} is missing, in row {int((codes < 0).argmax())}; "
            "complete or drop it"
        )
    order = codes.argsort(kind="stable")
    starts = np.flatnonzero(np.diff(codes[order], prepend=-1))
    index: Any = data.index
    keys = index[order[starts]].droplevel(-1)
    times = index.get_level_values(-1)
    columns: list[Hashable] = [*data.columns] if isinstance(data, pd.DataFrame) else [0]
    # all at once where possible, as a panel may have many series
    values = read_numbers(data) if is_numeric(data) else None

    def instance(number: int, places: NDArray[np.intp]) -> Item:
        _check_order(times[places], f"{what}[{number}]")
        part = data.iloc[places] if values is None else values[places]
        return Item(
            name=keys[number],
            values=read_matrix(part, f"{what}[{number}]"),
            variates=columns,
            index=times[places],
            indexed=True,
            flat=data.ndim == 1,
        )

    groups = np.split(order, starts[1:]) if len(order) else []
    return [
        (keys[number], partial(instance, number, places)) for number, places in enumerate(groups)
    ]


def _item(name: Hashable, data: Any, what: str) -> Item:
    data = _without_darts(data)
    _check_no_times(data, what)
    values = read_matrix(data, what)
    variates: list[Hashable] = [*range(values.shape[1])]
    if isinstance(data, pd.Series | pd.DataFrame):
        _check_order(data.index, what)
    if isinstance(data, pd.DataFrame):
        variates = list(data.columns)
    index = data.index if isinstance(data, pd.Series | pd.DataFrame) else None
    return Item(
        name=name,
        values=values,
        variates=variates,
        index=pd.RangeIndex(len(values)) if index is None else index,
        indexed=index is not None,
        flat=np.ndim(data) == 1,
    )


def _check_order(index: pd.Index, what: str) -> None:
    """Refuse times that do not ascend: steps are read in the order of rows.

    Clocks that go back in autumn may repeat an hour now and then.
    """
    if isinstance(index, pd.DatetimeIndex):
        steps, back = np.diff(index.as_unit("us").asi8), HOUR
    elif isinstance(index, pd.PeriodIndex):
        steps, back = np.diff(index.asi8), 0
    else:
        return
    repeated = int((steps <= 0).sum())
    if repeated and (steps.min() < -back or repeated > 1 + len(index) * MOST_REPEATED):
        reason = "differ" if index.is_monotonic_increasing else "ascend"
        raise InvalidInputError(
            f"the times of {what} do not {reason}, but its rows are read in their order: sort them "
            "with sort_index(), and keep one row a time"
        )


def _check_no_times(data: Any, what: str) -> None:
    """Refuse a column of years or the like that would be forecast as a variate."""
    if not isinstance(data, pd.DataFrame) or not isinstance(data.index, pd.RangeIndex):
        return
    for place, name in enumerate(data.columns):
        column = data.iloc[:, place]
        if not _TIME_NAMES.fullmatch(str(name)):
            continue
        if column.dtype.kind in "M" or isinstance(column.dtype, pd.PeriodDtype | pd.StringDtype):
            counts = True
        else:
            steps = np.diff(column) if column.dtype.kind in "iuf" else np.zeros(1)
            counts = len(steps) > 1 and bool((steps == steps[0]).all() and steps[0] > 0)
        if counts:
            raise InvalidInputError(
                f"column {name!r} of {what} seems to hold the times of its rows, and would be "
                f"forecast as a variate: make it the index, y.set_index({name!r}), or drop it; "
                "predict_df takes tables with a column of times"
            )


def _without_darts(data: Any) -> Any:
    """Turn a TimeSeries of Darts, whose library need not be imported, into what pandas has."""
    if not type(data).__module__.startswith("darts."):
        return data
    return data.to_series() if data.n_components == 1 else data.to_dataframe()


def _is_one_series(data: Sequence[Any]) -> bool:
    """Tell one series written as a list of numbers from a list of series."""
    return bool(data) and all(_is_scalar(item) for item in data)


def _is_scalar(item: Any) -> bool:
    return isinstance(item, str) or not hasattr(item, "__len__")
