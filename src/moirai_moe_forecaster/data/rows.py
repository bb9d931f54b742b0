"""Rows of a long DataFrame: whose they are, when, and what they hold, checked and sorted."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from numbers import Real
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from moirai_moe_forecaster.data.categories import Categories, read_categories
from moirai_moe_forecaster.data.clock import Clock, of_table, plain, read_clock
from moirai_moe_forecaster.errors import BadRowsError, BadSeriesError, InvalidInputError

Array = NDArray[np.float64]
Whole = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Rows:
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
        Those of a covariate of categories may be several.
    categories : dict from hashable to Categories
        By the columns that are such covariates.
    labels : Index
        Of the rows in the frame.
    """

    ids: pd.Index
    codes: Whole
    clock: Clock
    starts: Whole
    ends: Whole
    values: Array
    categories: dict[Hashable, Categories]
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

    def width(self, columns: Sequence[Hashable]) -> int:
        """Columns of `values` that some columns of the frame have become."""
        return sum(self.categories[c].width if c in self.categories else 1 for c in columns)

    def bad(self, series: NDArray[np.bool_], message: str, reason: str) -> BadSeriesError:
        """Return an error about some series; `reason` is the message without a series' name."""
        return BadSeriesError(message, dict.fromkeys(self.ids[series], reason))


def read_rows(
    df: pd.DataFrame,
    id_column: Hashable | None,
    timestamp_column: Hashable,
    target_columns: Sequence[Hashable],
    covariates: Sequence[Hashable] = (),
    what: str = "df",
    *,
    freq: Any = None,
    dayfirst: bool | None = None,
    like: Rows | None = None,
) -> Rows:
    """Check and sort the rows of a long DataFrame.

    Parameters
    ----------
    df : DataFrame
    id_column : hashable or None
        None if all rows are of one series.
    timestamp_column : hashable
    target_columns, covariates : sequence of hashable
        What `Rows.values` holds, in this order. Targets are numbers, covariates may be categories.
    what : str, default="df"
        What the frame is called in messages.
    freq, dayfirst
        As `read_clock` takes them.
    like : Rows, optional
        Of a history that these go on from: times and categories are as they are there.

    Raises
    ------
    InvalidInputError
        If a column is missing, or a row has no id.
    BadSeriesError
        If a row has no time, a time that another row of the same series has, or a value that is no
        finite number.
    """
    check_columns(df, [id_column, timestamp_column, *target_columns, *covariates], what)
    if df.empty:
        raise InvalidInputError(f"{what} has no rows; give at least one")
    codes, ids = _codes(df, id_column, what)
    known = None if like is None else like.clock
    categories = {} if like is None else like.categories
    parts = []
    try:
        clock = read_clock(df[timestamp_column], what, freq=freq, dayfirst=dayfirst, like=known)
        for column in (*target_columns, *covariates):
            found = categories.get(column)
            if found is None and like is None and column not in target_columns:
                found = read_categories(df[column])
            if found is None:
                parts.append(_numbers(df[column], what)[:, None])
            else:
                categories = {**categories, column: found}
                parts.append(found.encode(df[column]))
    except BadRowsError as error:
        if id_column is None:
            raise
        bad = ids[np.unique(codes[error.rows])]
        raise BadSeriesError(str(error), dict.fromkeys(bad, error.reason)) from error
    values = np.concatenate(parts, axis=1) if parts else np.empty((len(df), 0))
    order = np.lexsort((clock.numbers, codes))
    codes = codes[order]
    starts = np.flatnonzero(np.diff(codes, prepend=-1))
    rows = Rows(
        ids=ids,
        codes=codes,
        clock=clock.take(order),
        starts=starts,
        ends=np.append(starts[1:], len(codes)),
        values=values[order],
        categories=categories,
        labels=df.index[order],
    )
    _check_times(rows, id_column, what)
    return rows


def _check_times(rows: Rows, id_column: Hashable | None, what: str) -> None:
    twice = (np.diff(rows.clock.numbers) == 0) & (np.diff(rows.codes) == 0)
    if not twice.any():
        return
    row = int(twice.argmax())
    bad = np.zeros(len(rows.starts), dtype=bool)
    bad[rows.codes[1:][twice]] = True
    raise rows.bad(
        bad,
        f"two rows{of_table(what)} have the same id and time: {rows.where(row)} and row "
        f"{plain(rows.labels[row + 1])!r}; keep one, or add them up"
        + ("" if id_column is not None else ", or name the column of ids"),
        "two rows have the same time",
    )


def check_columns(df: pd.DataFrame, columns: Sequence[Hashable | None], what: str = "df") -> None:
    """Check that a frame has columns, each of them once and named once; None is none."""
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
        known = column.notna().to_numpy()
        strange = known & ~np.array([isinstance(x, Real | Decimal) for x in column], dtype=bool)
        if strange.any():
            # one value that is no number makes text of all others of a file
            texts = column.astype(object).where(strange, 0)
            none = strange & pd.to_numeric(texts, errors="coerce").isna().to_numpy()
            culprit = int((none if none.any() else strange).argmax())
            fix = "correct it, or encode categories as" if none.any() else "convert the column to"
            raise BadRowsError(
                f"column {column.name!r}{of_table(what)} must hold numbers: row "
                f"{plain(column.index[culprit])!r} holds {column.iloc[culprit]!r}; {fix} numbers",
                none if none.any() else strange,
                f"column {column.name!r} holds what is no number",
            )
        values = column.astype(object).where(known, np.nan).to_numpy(dtype=np.float64)
    if (infinite := np.isinf(values)).any():
        row = column.index[int(infinite.argmax())]
        raise BadRowsError(
            f"column {column.name!r}{of_table(what)} is infinite in row {plain(row)!r}; use NaN "
            "for a missing value",
            infinite,
            f"column {column.name!r} is infinite",
        )
    return values
