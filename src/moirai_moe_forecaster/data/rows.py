"""Rows of a long DataFrame: whose they are, when, and what they hold, checked and sorted."""

from __future__ import annotations

import warnings
from collections.abc import Hashable, Sequence
from decimal import Decimal
from numbers import Real
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from moirai_moe_forecaster.errors import InvalidInputError

Array = NDArray[np.float64]
Whole = NDArray[np.int64]


class Clock(NamedTuple):
    """Times as whole numbers.

    Attributes
    ----------
    kind : {"datetime", "period", "integer"}
        Microseconds of universal time (of the wall clock, where the times have no zone), ordinals
        of periods, or the numbers themselves.
    numbers : ndarray of int64, (row,)
    dtype : dtype
        Of the column.
    wall : ndarray of int64, (row,), optional
        Microseconds by the clock on the wall, where the times have a zone.
    """

    kind: Literal["datetime", "period", "integer"]
    numbers: Whole
    dtype: Any
    wall: Whole | None = None

    @property
    def period(self) -> int:
        """Ordinals from one period to the next; 0 of other times."""
        return int(self.dtype.freq.n) if self.kind == "period" else 0

    @property
    def frequency(self) -> str:
        """Alias of the frequency of periods; nothing of other times."""
        return str(self.dtype.freq.freqstr) if self.kind == "period" else ""

    def fits(self, other: Clock) -> bool:
        """Whether times of both mean the same: the same kind, with zones or without."""
        if self.kind != other.kind or (self.wall is None) != (other.wall is None):
            return False
        return self.kind != "period" or bool(self.dtype == other.dtype)

    def take(self, order: NDArray[np.intp]) -> Clock:
        """Return some of the times."""
        wall = None if self.wall is None else self.wall[order]
        return self._replace(numbers=self.numbers[order], wall=wall)

    def restore(self, numbers: Whole, wall: NDArray[np.bool_]) -> pd.Index:
        """Turn numbers into times of the column's type; `wall` says which are of the wall clock."""
        if self.kind == "integer":
            whole = pd.Index(numbers)
            limits = np.iinfo(getattr(self.dtype, "numpy_dtype", self.dtype))
            # a narrow type may not hold the times to come
            fits = ((limits.min <= numbers) & (numbers <= limits.max)).all()
            return whole.astype(self.dtype) if fits else whole
        if self.kind == "period":
            return pd.PeriodIndex(pd.arrays.PeriodArray(numbers, dtype=self.dtype))
        plain = pd.DatetimeIndex(numbers.view("M8[us]"))
        unit: Any = getattr(self.dtype, "unit", None) or np.datetime_data(self.dtype)[0]
        if self.wall is None:
            return plain.as_unit(unit)
        zone = self.dtype.tz
        times = pd.Series(plain.tz_localize("UTC").tz_convert(zone))
        if wall.any():
            # a day may begin in an hour that is skipped or comes twice
            first = np.ones(int(wall.sum()), dtype=bool)
            local = plain[wall].tz_localize(zone, ambiguous=first, nonexistent="shift_forward")
            times[wall] = local
        return pd.DatetimeIndex(times).as_unit(unit)


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

    Raises
    ------
    InvalidInputError
        If a column is missing, or a row has no id, no time, a time that another row of the same
        series has, or a value that is no finite number.
    """
    _check_columns(df, [id_column, timestamp_column, *value_columns], what)
    codes, ids = _codes(df, id_column, what)
    clock = read_clock(df[timestamp_column], what)
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
            f"two rows{_of(what)} have the same id and time: {rows.where(row)} and row "
            f"{plain(rows.labels[row + 1])!r}; keep one, or add them up"
        )
    return rows


def read_clock(column: pd.Series[Any], what: str) -> Clock:
    """Turn a column of times into whole numbers.

    Raises
    ------
    InvalidInputError
        Naming the first row whose time is missing or none.
    """
    if (missing := column.isna().to_numpy()).any():
        raise InvalidInputError(
            f"column {column.name!r}{_of(what)} has no time in {int(missing.sum())} rows, the "
            f"first of them row {plain(column.index[int(missing.argmax())])!r}; drop or complete "
            "them"
        )
    if isinstance(column.dtype, pd.PeriodDtype):
        return Clock("period", pd.PeriodIndex(column).asi8, column.dtype)
    if column.dtype.kind in "iu":
        if column.max() > np.iinfo(np.int64).max:
            raise InvalidInputError(
                f"column {column.name!r}{_of(what)} has times above {np.iinfo(np.int64).max}; "
                "subtract the first one"
            )
        return Clock("integer", column.to_numpy(dtype=np.int64), column.dtype)
    if column.dtype.kind != "M":
        column = _parsed(column, what)
    index = pd.DatetimeIndex(column)
    try:
        exact = pd.DatetimeIndex(index._data.as_unit("us", round_ok=False))  # type: ignore[attr-defined]
    except ValueError as error:
        raise InvalidInputError(
            f"column {column.name!r}{_of(what)} has times finer than a microsecond; round them"
        ) from error
    if exact.tz is None:
        return Clock("datetime", exact.asi8, index.dtype)
    return Clock("datetime", exact.asi8, index.dtype, exact.tz_localize(None).asi8)


def _parsed(column: pd.Series[Any], what: str) -> pd.Series[Any]:
    """Read text as times."""
    with warnings.catch_warnings():
        # that no format was found; the error says more
        warnings.simplefilter("ignore", UserWarning)
        return _read_text(column, what)


def _read_text(column: pd.Series[Any], what: str) -> pd.Series[Any]:
    name = column.name
    if column.dtype.kind not in "OU" and not isinstance(column.dtype, pd.StringDtype):
        raise InvalidInputError(
            f"column {name!r}{_of(what)} must hold times, periods or integers; its type is "
            f"{column.dtype}"
        )
    try:
        return pd.to_datetime(column)
    except (TypeError, ValueError) as error:
        bad = pd.to_datetime(column, errors="coerce", utc=True).isna().to_numpy()
        if not bad.any():
            raise InvalidInputError(
                f"column {name!r}{_of(what)} mixes time zones; convert it with "
                "pd.to_datetime(..., utc=True)"
            ) from error
        row = int(bad.argmax())
        raise InvalidInputError(
            f"column {name!r}{_of(what)} must hold times: row {plain(column.index[row])!r} holds "
            f"{column.iloc[row]!r}; correct it, or convert the column with pd.to_datetime"
        ) from error


def _check_columns(df: pd.DataFrame, columns: Sequence[Hashable | None], what: str) -> None:
    wanted = [column for column in columns if column is not None]
    if absent := [column for column in wanted if column not in df.columns]:
        raise InvalidInputError(
            f"there is no column {', '.join(map(repr, absent))}{_of(what)}; there are "
            f"{list(df.columns)}: name yours with id_column, timestamp_column and target_columns"
        )
    if not df.columns.is_unique:
        twice = df.columns[df.columns.duplicated()][0]
        raise InvalidInputError(f"two columns{_of(what)} are called {twice!r}; rename one")
    if len({*wanted}) < len(wanted):
        raise InvalidInputError(
            f"one column{_of(what)} was named for two purposes: {wanted}; name each once"
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
            f"column {id_column!r}{_of(what)} has no id in {int(missing.sum())} rows, the first of "
            f"them row {plain(df.index[int(missing.argmax())])!r}; drop or complete them"
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
                f"column {column.name!r}{_of(what)} must hold numbers: row "
                f"{plain(culprit.index[0])!r} holds {culprit.iloc[0]!r}; {fix} numbers"
            )
        values = column.astype(object).where(column.notna(), np.nan).to_numpy(dtype=np.float64)
    if (infinite := np.isinf(values)).any():
        row = column.index[int(infinite.argmax())]
        raise InvalidInputError(
            f"column {column.name!r}{_of(what)} is infinite in row {plain(row)!r}; use NaN for a "
            "missing value"
        )
    return values


def _of(what: str) -> str:
    """Say whose a column is, unless it is that of the history, which the user thinks of anyway."""
    return "" if what == "df" else f" of {what}"


def plain(value: Any) -> Any:
    """A number of numpy as Python writes it."""
    return value.item() if isinstance(value, np.generic) else value
