"""Dates written as whole numbers, such as 202301 or 20240131: told from counters, and written."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

Whole = NDArray[np.int64]

# narrower than what text may be: a number says less
FIRST_YEAR, LAST_YEAR = 1800, 2200
# share of numbers that may be no dates for the others to be: those are an error, not counters
MOST_WRONG = 0.05
# seconds since 1970 that are taken for times: 2000 to 2100
FIRST_SECOND, LAST_SECOND = 946_684_800, 4_102_444_800


@dataclass(frozen=True, kw_only=True)
class WholeForm:
    """How times are written as whole numbers.

    Attributes
    ----------
    name : str
        As messages have it.
    digits : tuple of int
        How many digits every number has.
    split : function
        From numbers to year, month, day and microseconds of the day, all of them counted as in a
        calendar; a number that is no date has month 0.
    join : function
        From a DatetimeIndex to numbers.
    """

    name: str
    digits: tuple[int, ...]
    split: Callable[[Whole], NDArray[Any]]
    join: Callable[[pd.DatetimeIndex], Any]

    def read(self, numbers: Whole) -> NDArray[Any]:
        """Times as datetime64[us]; NaT where a number is none."""
        return self.split(numbers)

    def write(self, times: pd.DatetimeIndex) -> Whole:
        """Times as numbers."""
        return np.asarray(self.join(times), dtype=np.int64)


def _calendar(
    year: Whole, month: Whole, day: Whole | int = 1, hour: Any = 0, minute: Any = 0, second: Any = 0
) -> NDArray[Any]:
    fine = (year >= FIRST_YEAR) & (year <= LAST_YEAR) & (month >= 1) & (month <= 12)
    starts = (np.where(fine, (year - 1970) * 12 + month - 1, 0)).astype("M8[M]")
    days = starts.astype("M8[D]") + (np.asarray(day) - 1).astype("m8[D]")
    fine = fine & (day >= 1) & (days.astype("M8[M]") == starts)
    fine = fine & (hour < 24) & (minute < 60) & (second < 60)
    ticks = (np.asarray(hour) * 60 + minute) * 60 + second
    times = days.astype("M8[us]") + ticks.astype("m8[s]")
    return np.where(fine, times, np.datetime64("NaT", "us"))


def _week(numbers: Whole) -> NDArray[Any]:
    year, week = numbers // 100, numbers % 100
    fourth = ((year - 1970) * 12).astype("M8[M]").astype("M8[D]") + np.timedelta64(3, "D")
    monday = fourth - ((fourth.astype(np.int64) + 3) % 7).astype("m8[D]")
    days = monday + (7 * (week - 1)).astype("m8[D]")
    own = (days + np.timedelta64(3, "D")).astype("M8[Y]").astype(np.int64) + 1970
    fine = (year >= FIRST_YEAR) & (year <= LAST_YEAR) & (week >= 1) & (own == year)
    return np.where(fine, days.astype("M8[us]"), np.datetime64("NaT", "us"))


def _day_of_year(numbers: Whole) -> NDArray[Any]:
    year, day = numbers // 1000, numbers % 1000
    starts = (year - 1970).astype("M8[Y]")
    days = starts.astype("M8[D]") + (day - 1).astype("m8[D]")
    fine = (year >= FIRST_YEAR) & (year <= LAST_YEAR) & (day >= 1)
    fine &= days.astype("M8[Y]") == starts
    return np.where(fine, days.astype("M8[us]"), np.datetime64("NaT", "us"))


def _epoch(unit: str) -> tuple[Callable[[Whole], NDArray[Any]], Callable[[pd.DatetimeIndex], Any]]:
    per_second = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}[unit]

    def read(numbers: Whole) -> NDArray[Any]:
        seconds = numbers // per_second
        fine = (seconds >= FIRST_SECOND) & (seconds <= LAST_SECOND)
        if unit == "ns":
            fine &= numbers % 1000 == 0
        times = numbers.astype(f"M8[{unit}]").astype("M8[us]")
        return np.where(fine, times, np.datetime64("NaT", "us"))

    return read, lambda t: t.as_unit(unit).to_numpy().astype(np.int64)


def _part(t: pd.DatetimeIndex, name: str) -> Whole:
    """A part of times in 64 bits, as pandas has them in 32."""
    return np.asarray(getattr(t, name), dtype=np.int64)


def _date(t: pd.DatetimeIndex) -> Any:
    return _part(t, "year") * 10_000 + _part(t, "month") * 100 + _part(t, "day")


def _iso(t: pd.DatetimeIndex) -> Any:
    calendar = t.isocalendar()
    return calendar["year"].to_numpy(np.int64) * 100 + calendar["week"].to_numpy(np.int64)


def _form(name: str, digits: int, split: Any, join: Any) -> WholeForm:
    return WholeForm(name=name, digits=(digits,), split=split, join=join)


# in this order, as 202301 to 202312 are months and not weeks
FORMS = (
    _form(
        "days as 20240131",
        8,
        lambda n: _calendar(n // 10_000, n // 100 % 100, n % 100),
        _date,
    ),
    _form(
        "months as 202401",
        6,
        lambda n: _calendar(n // 100, n % 100),
        lambda t: _part(t, "year") * 100 + _part(t, "month"),
    ),
    _form("weeks as 202401", 6, _week, _iso),
    _form(
        "quarters as 20241",
        5,
        lambda n: _calendar(n // 10, np.where(n % 10 <= 4, 3 * (n % 10) - 2, 0)),
        lambda t: _part(t, "year") * 10 + _part(t, "quarter"),
    ),
    _form(
        "days of the year as 2024031",
        7,
        _day_of_year,
        lambda t: _part(t, "year") * 1000 + _part(t, "dayofyear"),
    ),
    _form(
        "hours as 2024013123",
        10,
        lambda n: _calendar(n // 10**6, n // 10**4 % 100, n // 100 % 100, n % 100),
        lambda t: _date(t) * 100 + _part(t, "hour"),
    ),
    _form(
        "minutes as 202401312359",
        12,
        lambda n: _calendar(
            n // 10**8, n // 10**6 % 100, n // 10**4 % 100, n // 100 % 100, n % 100
        ),
        lambda t: _date(t) * 10**4 + _part(t, "hour") * 100 + _part(t, "minute"),
    ),
    _form(
        "seconds as 20240131235959",
        14,
        lambda n: _calendar(
            n // 10**10,
            n // 10**8 % 100,
            n // 10**6 % 100,
            n // 10**4 % 100,
            n // 100 % 100,
            n % 100,
        ),
        lambda t: (
            _date(t) * 10**6
            + _part(t, "hour") * 10**4
            + _part(t, "minute") * 100
            + _part(t, "second")
        ),
    ),
    *(
        WholeForm(
            name=f"{name} since 1970",
            digits=digits,
            split=_epoch(unit)[0],
            join=_epoch(unit)[1],
        )
        for name, unit, digits in (
            ("seconds", "s", (9, 10)),
            ("milliseconds", "ms", (12, 13)),
            ("microseconds", "us", (15, 16)),
            ("nanoseconds", "ns", (18, 19)),
        )
    ),
)
YEARS = _form(
    "years as 2024",
    4,
    lambda n: _calendar(n, np.ones_like(n)),
    lambda t: _part(t, "year"),
)


def find_whole_form(numbers: Whole) -> WholeForm | None:
    """Find the form in which all numbers are dates, or None: they are counters.

    Parameters
    ----------
    numbers : ndarray of int64
        Distinct ones, in any order.

    Notes
    -----
    Quarters as 20241 and days of the year are only seen where counters would leave gaps: in the
    change of years, or everything may be a number as well.
    """
    if not len(numbers) or numbers.min() <= 0:
        return None
    counts = {len(str(int(number))) for number in (numbers.min(), numbers.max())}
    forms = [form for form in FORMS if counts <= {*form.digits}]
    for most in (0.0, MOST_WRONG * len(numbers)):
        for form in forms:
            times = form.read(numbers)
            none = np.isnat(times)
            if none.sum() <= most and not (form.digits == (5,) and _one_year(times[~none])):
                return form
    return None


def _one_year(times: NDArray[Any]) -> bool:
    years = times.astype("M8[Y]")
    return bool((years == years[0]).all())


def seem_dates(numbers: Whole) -> str | None:
    """Name a form that these numbers seem to be dates in, but may as well not be.

    Returns
    -------
    str or None
        Such as "yymmdd".
    """
    distinct = np.unique(numbers)
    if len(distinct) < 3 or distinct[0] <= 0:
        return None
    digits = len(str(int(distinct[0]))), len(str(int(distinct[-1])))
    for name, (least, most, read) in _SEEMING.items():
        if digits[0] < least or digits[1] > most:
            continue
        times = np.sort(read(distinct))
        if np.isnat(times).any():
            continue
        if name != "yymm":
            return name
        # 2001 to 2012 are rather years, unless they jump where years of months do
        steps = {len(np.unique(np.diff(n))) for n in (times.astype("M8[M]"), distinct)}
        years = distinct[0] >= FIRST_YEAR and distinct[-1] <= LAST_YEAR
        if not years or len(np.unique(np.diff(times.astype("M8[M]")))) < max(steps):
            return name
    return None


def _century(year: Whole) -> Whole:
    return year + np.where(year <= 68, 2000, 1900)


_SEEMING: dict[str, tuple[int, int, Callable[[Whole], NDArray[Any]]]] = {
    "yymm": (3, 4, lambda n: _calendar(_century(n // 100), n % 100)),
    "yymmdd": (5, 6, lambda n: _calendar(_century(n // 10_000), n // 100 % 100, n % 100)),
    "ddmmyyyy": (7, 8, lambda n: _calendar(n % 10_000, n // 10_000 % 100, n // 10**6)),
    "mmddyyyy": (7, 8, lambda n: _calendar(n % 10_000, n // 10**6, n // 10_000 % 100)),
}
