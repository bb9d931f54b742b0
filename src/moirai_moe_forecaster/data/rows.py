"""Rows of a long DataFrame: whose they are, when, and what they hold, checked and sorted."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from decimal import Decimal
from numbers import Real
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from moirai_moe_forecaster.data.clock import Clock, of_table, plain, read_clock
from moirai_moe_forecaster.errors import InvalidInputError

Array = NDArray[np.float64]
Whole = NDArray[np.int64]


class Rows(NamedTuple):
    """Rows sorted by series, in the order in which these first appear, then by time.

    Attributes
    ----------
    ids : Index
        Of every series; of one series without a column of ids, `[None]`.
    codes : ndarray of int64, (row,)
        Number of the series of each row.
    clock : Clock
    starts, ends : ndarray of int64, (series,)
    values : ndarray, (row, column)
    labels : Index
        Of the rows in the frame.
    """

    ids: pd.Index
    codes: Whole
    clock: Clock
    starts: Whole
    ends: Whole
    values: Array
    labels: pd.Index

    def name(self, series: int) -> str:
        """Name a series in a message."""
        key = self.ids[series]
        return "the series" if key is None else f"id {plain(key)!r}"

    def where(self, row: int) -> str:
        """Name a row in a message: its label, id and time."""
        time = self.clock.take(np.array([row])).restore(
            self.clock.numbers[[row]], np.zeros(1, dtype=bool)
        )[0]
        return f"row {plain(self.labels[row])!r} ({self.name(self.codes[row])}, {time})"


def read_rows(
    df: pd.DataFrame,
    id_column: Hashable | None,
    timestamp_column: Hashable,
    value_columns: Sequence[Hashable],
    what: str = "df",
    *,
    freq: Any = None,
    dayfirst: bool | None = None,
    like: Clock | None = None,
) -> Rows:
    """Check and sort the rows of a long DataFrame.

    Parameters
    ----------
    df : DataFrame
    id_column : hashable or None
        None if all rows are of one series.
    timestamp_column : hashable
    value_columns : sequence of hashable
        What `Rows.values` holds, in this order.
    what : str, default="df"
        What the frame is called in messages.
    freq, dayfirst, like
        As `read_clock` takes them.

    Raises
    ------
    InvalidInputError
        If a column is missing, or a row has no id, no time, a time that another row of the same
        series has, or a value that is no finite number.
    """
    _check_columns(df, [id_column, timestamp_column, *value_columns], what)
    codes, ids = _codes(df, id_column, what)
    clock = read_clock(df[timestamp_column], what, freq=freq, dayfirst=dayfirst, like=like)
    values = np.empty((len(df), len(value_columns)))
    for position, column in enumerate(value_columns):
        values[:, position] = _numbers(df[column], what)
    order = np.lexsort((clock.numbers, codes))
    codes = codes[order]
    starts = np.flatnonzero(np.diff(codes, prepend=-1))
    ends = np.append(starts[1:], len(codes))
    rows = Rows(ids, codes, clock.take(order), starts, ends, values[order], df.index[order])
    twice = (np.diff(rows.clock.numbers) == 0) & (np.diff(codes) == 0)
    if twice.any():
        row = int(twice.argmax())
        raise InvalidInputError(
            f"two rows{of_table(what)} have the same id and time: {rows.where(row)} and row "
            f"{plain(rows.labels[row + 1])!r}; keep one, or add them up"
            + ("" if id_column is not None else ", or name the column of ids")
        )
    return rows


def _check_columns(df: pd.DataFrame, columns: Sequence[Hashable | None], what: str) -> None:
    wanted = [column for column in columns if column is not None]
    if absent := [column for column in wanted if column not in df.columns]:
        raise InvalidInputError(
            f"there is no column {', '.join(map(repr, absent))}{of_table(what)}; there are "
            f"{list(df.columns)}: name yours with id_column, timestamp_column and target_columns"
        )
    if not df.columns.is_unique:
        twice = df.columns[df.columns.duplicated()][0]
        raise InvalidInputError(f"two columns{of_table(what)} are called {twice!r}; rename one")
    if len({*wanted}) < len(wanted):
        raise InvalidInputError(
            f"one column{of_table(what)} was named for two purposes: {wanted}; name each once"
        )
    if df.empty:
        raise InvalidInputError(f"{what} has no rows; give at least one")


def _codes(df: pd.DataFrame, id_column: Hashable | None, what: str) -> tuple[Whole, pd.Index]:
    """Number the series in the order in which they first appear."""
    if id_column is None:
        return np.zeros(len(df), dtype=np.int64), pd.Index([None], dtype=object)
    codes, ids = pd.factorize(df[id_column])
    if (missing := codes < 0).any():
        raise InvalidInputError(
            f"column {id_column!r}{of_table(what)} has no id in {int(missing.sum())} rows, the "
            f"first of them row {plain(df.index[int(missing.argmax())])!r}; drop or complete them"
        )
    return codes.astype(np.int64), pd.Index(ids, tupleize_cols=False)


def _numbers(column: pd.Series[Any], what: str) -> Array:
    """Real numbers of a column; missing ones become NaN."""
    if column.dtype.kind in "biuf":
        values = column.to_numpy(dtype=np.float64, na_value=np.nan)
    else:
        known = column[column.notna()].astype(object)
        strange = known[[not isinstance(x, Real | Decimal) for x in known]]
        if len(strange):
            # one value that is no number makes text of all others of a file
            none = pd.to_numeric(strange, errors="coerce").isna()
            culprit = strange[none] if none.any() else strange
            fix = "correct it, or encode categories as" if none.any() else "convert the column to"
            raise InvalidInputError(
                f"column {column.name!r}{of_table(what)} must hold numbers: row "
                f"{plain(culprit.index[0])!r} holds {culprit.iloc[0]!r}; {fix} numbers"
            )
        values = column.astype(object).where(column.notna(), np.nan).to_numpy(dtype=np.float64)
    if (infinite := np.isinf(values)).any():
        row = column.index[int(infinite.argmax())]
        raise InvalidInputError(
            f"column {column.name!r}{of_table(what)} is infinite in row {plain(row)!r}; use NaN "
            "for a missing value"
        )
    return values
