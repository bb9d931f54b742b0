"""Columns of times as whole numbers that can be counted, and whole numbers as times again."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from moirai_moe_forecaster.data.dates import (
    FIRST_YEAR,
    LAST_YEAR,
    PERIODS,
    DateError,
    TextForm,
    find_form,
)
from moirai_moe_forecaster.data.times import common_zone
from moirai_moe_forecaster.data.whole_dates import YEARS, WholeForm, find_whole_form, seem_dates
from moirai_moe_forecaster.errors import BadRowsError, InvalidInputError

Whole = NDArray[np.int64]
# whole numbers beyond are refused: their differences would not fit into 64 bits
LARGEST = 2**62
_YEAR_NAMES = re.compile(r"year|jahr|année|año|anno|date|time|period", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class Clock:
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
    zone : tzinfo, optional
    form : TextForm, WholeForm or "date", optional
        How datetimes are written in the column, where that is not as datetimes; "date" is for
        objects of the class.
    """

    kind: Literal["datetime", "period", "integer"]
    numbers: Whole
    dtype: Any
    wall: Whole | None = None
    zone: Any = None
    form: TextForm | WholeForm | Literal["date"] | None = None

    @property
    def period(self) -> int:
        """Ordinals from one period to the next; 0 of other times."""
        return int(self.dtype.freq.n) if self.kind == "period" else 0

    @property
    def frequency(self) -> str:
        """Alias of the frequency of periods; nothing of other times."""
        return str(self.dtype.freq.freqstr) if self.kind == "period" else ""

    @property
    def description(self) -> str:
        """What the column was taken for, in words."""
        if isinstance(self.form, WholeForm):
            return f"{self.form.name}, written as numbers"
        if isinstance(self.form, TextForm):
            order = {("d", "m"): ", day first", ("m", "d"): ", month first"}
            said = order.get(self.form.order, "") if self.form.order else ""
            return f"text of {self.form.kind}{said}"
        return {"integer": "whole numbers", "period": "periods"}.get(self.kind, "datetimes")

    def fits(self, other: Clock) -> bool:
        """Whether times of both mean the same: the same kind, with zones or without."""
        if self.kind != other.kind or (self.wall is None) != (other.wall is None):
            return False
        return self.kind != "period" or bool(self.dtype == other.dtype)

    def take(self, order: NDArray[np.intp]) -> Clock:
        """Return some of the times."""
        wall = None if self.wall is None else self.wall[order]
        return replace(self, numbers=self.numbers[order], wall=wall)

    def as_datetimes(self) -> Clock:
        """Return the same with times that are restored as datetimes, however they are written."""
        if self.form is None:
            return self
        return replace(self, form=None, dtype=np.dtype("M8[us]"))

    def restore(self, numbers: Whole, wall: NDArray[np.bool_]) -> pd.Index:
        """Turn numbers into times of the column's type; `wall` says which are of the wall clock."""
        if self.kind == "integer":
            return _narrowed(numbers, self.dtype)
        if self.kind == "period":
            return pd.PeriodIndex(pd.arrays.PeriodArray(numbers, dtype=self.dtype))
        plain = pd.DatetimeIndex(numbers.view("M8[us]"))
        if self.form == "date":
            return pd.Index(plain.date, dtype=object)
        if isinstance(self.form, WholeForm):
            return _narrowed(self.form.write(plain), self.dtype)
        if isinstance(self.form, TextForm) and self.form.kind in PERIODS:
            written = self.form.write(plain)
            known = isinstance(self.dtype, pd.StringDtype)
            return pd.Index(written, dtype=self.dtype if known else object)
        if isinstance(self.dtype, pd.ArrowDtype) and self.wall is None:
            return pd.Index(plain).astype(self.dtype)
        unit: Any = getattr(self.dtype, "unit", None)
        if unit is None:
            unit = np.datetime_data(self.dtype)[0] if self.dtype.kind == "M" else "us"
        if self.wall is None:
            return _in_unit(plain, unit)
        times = pd.Series(plain.tz_localize("UTC").tz_convert(self.zone))
        if wall.any():
            # a day may begin in an hour that is skipped or comes twice
            first = np.ones(int(wall.sum()), dtype=bool)
            local = plain[wall].tz_localize(self.zone, ambiguous=first, nonexistent="shift_forward")
            times[wall] = local
        return _in_unit(pd.DatetimeIndex(times), unit)


def _narrowed(numbers: Whole, dtype: Any) -> pd.Index:
    """Numbers in the type of the column, if it can hold them: a narrow one may not."""
    whole = pd.Index(numbers)
    if dtype.kind == "f" or dtype.kind not in "iu":
        return whole.astype(dtype) if dtype.kind == "f" else whole
    limits = np.iinfo(getattr(dtype, "numpy_dtype", dtype))
    fits = ((limits.min <= numbers) & (numbers <= limits.max)).all()
    return whole.astype(dtype) if fits else whole


def _in_unit(times: pd.DatetimeIndex, unit: Any) -> pd.DatetimeIndex:
    """Times in the unit of the column, if it can hold them: years far ahead need a coarse one."""
    try:
        return times.as_unit(unit)
    except pd.errors.OutOfBoundsDatetime:
        return times


def read_clock(
    column: pd.Series[Any],
    what: str,
    *,
    freq: Any = None,
    dayfirst: bool | None = None,
    like: Clock | None = None,
) -> Clock:
    """Turn a column of times into whole numbers.

    Parameters
    ----------
    column : Series
    what : str
        What the table is called in messages.
    freq : str, int or mapping of these, optional
        Whole numbers are counters if it is one, and years may be dates if it is an alias.
    dayfirst : bool, optional
        Whether text such as 01/02/2023 has the day first.
    like : Clock, optional
        Of a table that this one goes on from: text and numbers are read as they were there.

    Raises
    ------
    InvalidInputError
        Naming the first row whose time is missing or none, or what to do if it may be several.
    """
    said = f"column {column.name!r}{of_table(what)}"
    if (missing := column.isna().to_numpy()).any():
        raise BadRowsError(
            f"{said} has no time in {int(missing.sum())} rows, the first of them row "
            f"{plain(column.index[int(missing.argmax())])!r}; drop or complete them",
            missing,
            "a row has no time",
        )
    column = _plain_column(column)
    if isinstance(column.dtype, pd.PeriodDtype):
        return Clock(kind="period", numbers=pd.PeriodIndex(column).asi8, dtype=column.dtype)
    if column.dtype.kind in "iuf":
        return _of_numbers(column, said, freq, like)
    if column.dtype.kind == "M":
        return _of_datetimes(pd.DatetimeIndex(column), column.dtype, said)
    if pd.api.types.infer_dtype(column, skipna=False) in ("date", "datetime", "datetime64"):
        return _of_objects(column, said)
    if column.dtype.kind not in "OU" and not isinstance(column.dtype, pd.StringDtype):
        raise InvalidInputError(
            f"{said} must hold times, periods or integers; its type is {column.dtype}"
        )
    return _of_text(column, said, dayfirst, like)


def seems_times(column: pd.Series[Any]) -> bool:
    """Whether a column holds times for all one can tell, and not other values.

    Whole numbers are times if they are dates by the calendar, such as 20240131, or years in a
    column that is called so.
    """
    column = _plain_column(column.dropna())
    if column.empty or column.dtype.kind == "b":
        return False
    if column.dtype.kind == "M" or isinstance(column.dtype, pd.PeriodDtype):
        return True
    if column.dtype.kind in "iu":
        numbers = pd.unique(column.to_numpy(dtype=np.int64))
        if _YEAR_NAMES.search(str(column.name)):
            return bool(numbers.min() >= FIRST_YEAR and numbers.max() <= LAST_YEAR)
        form = find_whole_form(numbers)
        return form is not None and "since 1970" not in form.name
    if pd.api.types.infer_dtype(column, skipna=False) in ("date", "datetime"):
        return True
    texts = pd.unique(column)
    if not all(isinstance(text, str) for text in texts):
        return False
    values = [text.strip() for text in texts]
    if all(value.isdecimal() for value in values):
        return len(max(values, key=len)) < 19 and seems_times(
            pd.Series([int(value) for value in values], name=column.name)
        )
    try:
        find_form(values, None).read(values)
    except DateError as error:
        return error.bad is None  # times, but which is not clear
    return True


def _plain_column(column: pd.Series[Any]) -> pd.Series[Any]:
    """Undo categories, Arrow's dates and objects of one kind, which only wrap times."""
    if isinstance(column.dtype, pd.CategoricalDtype):
        column = column.astype(column.cat.categories.dtype)
    if column.dtype == object:
        kind = pd.api.types.infer_dtype(column, skipna=False)
        if kind in ("integer", "floating", "period"):
            return (
                column.infer_objects()
                if kind != "period"
                else pd.Series(pd.PeriodIndex(column), index=column.index, name=column.name)
            )
    return column


def _of_numbers(column: pd.Series[Any], said: str, freq: Any, like: Clock | None) -> Clock:
    if column.dtype.kind == "f" and not (column % 1 == 0).all():
        raise InvalidInputError(
            f"{said} must hold times, periods or integers; its type is {column.dtype} and row "
            f"{plain(column.index[int((column % 1 != 0).to_numpy().argmax())])!r} has a fraction"
        )
    if float(column.max()) > LARGEST or float(column.min()) < -LARGEST:
        raise InvalidInputError(
            f"{said} has times above {LARGEST} or below {-LARGEST}; subtract the first one"
        )
    numbers = column.to_numpy(dtype=np.int64)
    counter = Clock(kind="integer", numbers=numbers, dtype=column.dtype)
    if like is not None:
        form = like.form if isinstance(like.form, WholeForm) else None
    elif _is_counted(freq):
        form = None
    else:
        form = find_whole_form(pd.unique(numbers))
        years = numbers.min() >= FIRST_YEAR and numbers.max() <= LAST_YEAR
        if form is None and freq is not None and years:
            form = YEARS
        if form is None and (seeming := seem_dates(pd.unique(numbers))):
            raise InvalidInputError(
                f"{said} holds numbers such as {numbers[0]} that seem to be dates written as "
                f"{seeming}; convert them with pd.to_datetime, or give freq, such as freq=1, if "
                "they are counters"
            )
    if form is None:
        return counter
    times = form.read(numbers)
    if (bad := np.isnat(times)).any():
        row = int(bad.argmax())
        raise BadRowsError(
            f"{said} must hold {form.name}: row {plain(column.index[row])!r} holds "
            f"{plain(column.iloc[row])!r}; correct it, or give freq, such as freq=1, if these are "
            "counters",
            bad,
            f"{column.name!r} holds what is no time",
        )
    return Clock(kind="datetime", numbers=times.view(np.int64), dtype=column.dtype, form=form)


def _is_counted(freq: Any) -> bool:
    given = list(freq.values()) if isinstance(freq, Mapping) else [freq]
    return any(isinstance(one, int | np.integer) for one in given)


def _of_datetimes(index: pd.DatetimeIndex, dtype: Any, said: str) -> Clock:
    try:
        exact = pd.DatetimeIndex(index._data.as_unit("us", round_ok=False))  # type: ignore[attr-defined]
    except ValueError as error:
        raise InvalidInputError(f"{said} has times finer than a microsecond; round them") from error
    if exact.tz is None:
        return Clock(kind="datetime", numbers=exact.asi8, dtype=dtype)
    wall = exact.tz_localize(None).asi8
    return Clock(kind="datetime", numbers=exact.asi8, dtype=dtype, wall=wall, zone=exact.tz)


def _of_objects(column: pd.Series[Any], said: str) -> Clock:
    """Read dates and datetimes of the standard library."""
    try:
        index = pd.DatetimeIndex(pd.to_datetime(column))
    except (TypeError, ValueError) as error:
        raise InvalidInputError(
            f"{said} mixes time zones; convert it with pd.to_datetime(..., utc=True)"
        ) from error
    clock = _of_datetimes(index, index.dtype, said)
    dates = pd.api.types.infer_dtype(column, skipna=False) == "date"
    if isinstance(column.dtype, pd.ArrowDtype):
        return replace(clock, dtype=column.dtype)
    return replace(clock, form="date") if dates else clock


def _of_text(column: pd.Series[Any], said: str, dayfirst: bool | None, like: Clock | None) -> Clock:
    codes, distinct = pd.factorize(column)
    texts: list[Any] = [*distinct]

    def refuse(bad: NDArray[np.bool_], reason: str) -> BadRowsError:
        rows = bad[codes]
        row = int(rows.argmax())
        more = f", which {reason}" if reason else ""
        return BadRowsError(
            f"{said} must hold times: row {plain(column.index[row])!r} holds "
            f"{column.iloc[row]!r}{more}; correct it, or convert the column with pd.to_datetime",
            rows,
            f"{column.name!r} holds what is no time",
        )

    strange = np.array([not isinstance(text, str) for text in texts], dtype=bool)
    if strange.any():
        raise refuse(strange, "is no text as others are")
    known = like.form if like is not None and isinstance(like.form, TextForm) else None
    if known is None and (fast := _iso(distinct)) is not None:
        return Clock(kind="datetime", numbers=fast.asi8[codes], dtype=fast.dtype)
    values = [text.strip() for text in texts]
    try:
        form = known or find_form(values, dayfirst)
        wall, offsets = form.read(values)
    except DateError as error:
        if error.bad is None:
            raise InvalidInputError(f"{said} cannot be read: {error}") from error
        raise refuse(error.bad, str(error)) from error
    years = wall.astype("M8[Y]").astype(np.int64) + 1970
    if (far := (years < FIRST_YEAR) | (years > LAST_YEAR)).any():
        raise refuse(far, f"would be before {FIRST_YEAR} or after {LAST_YEAR}")
    dtype = column.dtype if form.kind in PERIODS else np.dtype("M8[us]")
    local = wall.view(np.int64)
    if offsets is None:
        return Clock(kind="datetime", numbers=local[codes], dtype=dtype, form=form)
    universal = local - offsets * 60_000_000
    zone = common_zone(universal, offsets)
    if zone is None:
        raise InvalidInputError(
            f"{said} has several offsets from UTC that belong to no one time zone; convert it "
            "with pd.to_datetime(..., utc=True), and with tz_convert to its zone"
        )
    return Clock(
        kind="datetime",
        numbers=universal[codes],
        dtype=dtype,
        wall=local[codes],
        zone=zone,
        form=form,
    )


def _iso(values: Any) -> pd.DatetimeIndex | None:
    """Read dates as 2024-01-31, with times or without, quickly; None if they are of other forms."""
    texts = pd.Series(values, dtype=object)
    fits = texts.str.match(r"\d{4}-\d{2}-\d{2}(?:$|[T ]\d{2}:\d{2})")
    if not fits.all():
        return None
    try:
        index = pd.DatetimeIndex(pd.to_datetime(texts, format="ISO8601"))
    except ValueError:
        return None
    years = index.year
    if index.tz is not None or not ((years >= FIRST_YEAR) & (years <= LAST_YEAR)).all():
        return None
    try:
        return pd.DatetimeIndex(index._data.as_unit("us", round_ok=False))  # type: ignore[attr-defined]
    except ValueError:
        return None


def of_table(what: str) -> str:
    """Say whose a column is, unless it is that of the history, which the user thinks of anyway."""
    return "" if what == "df" else f" of {what}"


def plain(value: Any) -> Any:
    """A number of numpy as Python writes it."""
    return value.item() if isinstance(value, np.generic) else value
