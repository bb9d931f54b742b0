"""Dates as tables have them in text: which form a column is written in, read and written again.

Every value of a column must have the same form. Full dates are read as datetimes. Months, quarters,
weeks, half years and years are read as the datetimes at which they begin, and times to come are
written as those of the column are.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import pandas as pd
from numpy.typing import NDArray

FIRST_YEAR, LAST_YEAR = 1700, 2200
# two digits of a year up to this one are of this century, as in POSIX
PIVOT = 68
# more years than these between years of two digits leave their centuries open
LONGEST_SHORT = 60
MONTHS = (
    *("january", "february", "march", "april", "may", "june", "july"),
    *("august", "september", "october", "november", "december"),
)
_NAME = "(?P<b>" + "|".join(f"{m[:3]}(?:{m[3:]})?" for m in MONTHS) + r"|sept)\.?"
_SEP = r"[-\s/.,_']*"
_YEAR = r"(?P<y>\d{4})"
_ANY_YEAR = r"(?P<y>\d{4}|\d{2})"
_DAY = r"(?P<d>\d{1,2})(?:st|nd|rd|th)?"
_WEEKDAY = r"(?:(?:mon|tue|wed|thu|fri|sat|sun)[a-z]*,?\s+)?"
_TIME = (
    r"(?:(?:T|\s+)(?P<H>\d{1,2})(?::(?P<M>\d{2}))?(?::(?P<S>\d{2})(?:[.,](?P<f>\d{1,9}))?)?"
    r"\s*(?P<p>[AP]M)?\s*(?P<z>Z|UTC|GMT|[+-]\d{2}(?::?\d{2})?)?)?"
)
_SECOND = r"(?P<S>\d{2})?"
_WEEK = r"(?:W|KW|wk|week)"
# the first pattern that fits the most values is that of the column
_PATTERNS: dict[str, list[str]] = {
    "dates": [
        rf"{_YEAR}(?P<s>[-/.])(?P<m>\d{{1,2}})(?P=s)(?P<d>\d{{1,2}}){_TIME}",
        rf"{_YEAR}(?P<m>\d{{2}})(?P<d>\d{{2}}){_TIME}",
        rf"{_YEAR}(?P<m>\d{{2}})(?P<d>\d{{2}})T?(?P<H>\d{{2}})(?:(?P<M>\d{{2}}){_SECOND})?(?P<z>Z)?",
        rf"(?P<one>\d{{1,2}})(?P<s>[-/.])(?P<two>\d{{1,2}})(?P=s){_ANY_YEAR}{_TIME}",
        rf"{_WEEKDAY}{_DAY}{_SEP}{_NAME}{_SEP}{_ANY_YEAR}{_TIME}",
        rf"{_WEEKDAY}{_NAME}{_SEP}{_DAY},?[-\s/.,]+{_YEAR}{_TIME}",
        rf"{_YEAR}{_SEP}{_NAME}{_SEP}{_DAY}{_TIME}",
        rf"{_YEAR}-?W(?P<w>\d{{2}})-?(?P<wd>[1-7])",
    ],
    "months": [
        rf"{_YEAR}[-/.\s_](?P<m>\d{{1,2}})",
        rf"{_YEAR}:(?P<m>\d{{2}})",
        rf"{_YEAR}(?P<m>\d{{2}})",
        rf"{_YEAR}[-/.:\s_]*M(?P<m>\d{{1,2}})",
        rf"M(?P<m>\d{{1,2}})[-/.:\s_]+{_YEAR}",
        rf"(?P<m>\d{{1,2}})[-/.\s_]{_YEAR}",
        rf"{_NAME}{_SEP}{_ANY_YEAR}",
        rf"{_YEAR}{_SEP}{_NAME}",
        r"(?P<one>\d{1,2})[-/](?P<two>\d{1,2})",
    ],
    "quarters": [
        rf"{_YEAR}[-/.:\s_]*Q(?P<q>[1-4])",
        rf"Q(?P<q>[1-4])[-/.:\s_']*{_ANY_YEAR}",
        rf"(?P<q>[1-4])Q[-/.:\s_']*{_ANY_YEAR}",
        rf"{_YEAR}[-/.:\s_]*(?P<q>[1-4])Q",
        rf"{_YEAR}:(?P<q>[1-4])",
    ],
    "weeks": [
        rf"{_YEAR}[-/.:\s_]*{_WEEK}[-\s]*(?P<w>\d{{1,2}})",
        rf"{_WEEK}[-\s]*(?P<w>\d{{1,2}})[-/.,:\s_]+{_YEAR}",
    ],
    "half years": [
        rf"{_YEAR}[-/.:\s_]*[HS](?P<h>[12])",
        rf"[HS](?P<h>[12])[-/.:\s_']*{_YEAR}",
    ],
    "years": [rf"(?:FY|CY)?\s?{_YEAR}"],
}
# kinds whose next times are written as the column is
PERIODS = ("months", "quarters", "weeks", "half years", "years")

Fields = dict[str, Any]


class DateError(ValueError):
    """Values that are no dates, which `bad` marks, or a column that may be read in several ways."""

    def __init__(self, message: str, bad: NDArray[np.bool_] | None = None) -> None:
        super().__init__(message)
        self.bad = bad


@dataclass(frozen=True, kw_only=True)
class TextForm:
    """How the times of a column are written.

    Attributes
    ----------
    kind : str
        "dates", "months", "quarters", "weeks", "half years" or "years".
    pattern : str
        Regular expression with a named group for each part.
    order : tuple of str
        What the groups "one" and "two" of numbers are, such as ``("d", "m")``.
    example : str
        The first value.
    padded : bool
        Whether numbers below ten have a zero in front.
    """

    kind: str
    pattern: str
    order: tuple[str, str] | None
    example: str
    padded: bool

    def read(self, values: Sequence[str]) -> tuple[NDArray[Any], NDArray[np.int64] | None]:
        """Return times of the wall clock, and their minutes from universal time, if they say so.

        Raises
        ------
        DateError
            At the first value that is not of this form, or no date.
        """
        try:
            return _times(_fields(values, self.pattern, self.order), values)
        except DateError as error:
            if error.args[0] or self.order is None:
                raise
            first = {"d": "the day", "m": "the month", "y": "the year"}[self.order[0]]
            raise DateError(f"is no date with {first} first", error.bad) from error

    def write(self, times: pd.DatetimeIndex) -> list[str]:
        """Write times as the column does, by replacing the parts of its first value."""
        # the form was told from this very value
        match = cast("re.Match[str]", re.fullmatch(self.pattern, self.example, re.IGNORECASE))
        renamed = dict(zip(("one", "two"), self.order or (), strict=False))
        groups = {renamed.get(k, k): match.span(k) for k in match.groupdict() if k != "s"}
        pieces: list[Any] = []
        end = 0
        for name, (start, stop) in sorted(groups.items(), key=lambda item: item[1]):
            pieces += [self.example[end:start], self._part(name, self.example[start:stop], times)]
            end = stop
        pieces.append(self.example[end:])
        return [
            "".join(parts) for parts in zip(*(_long(p, len(times)) for p in pieces), strict=True)
        ]

    def _part(self, name: str, example: str, times: pd.DatetimeIndex) -> list[str]:
        if name == "b":
            length = None if len(example) > 3 else 3
            if example.lower() == "sept":
                length = 4
            names = [MONTHS[month - 1][:length] for month in times.month]
            style = (
                str.upper if example.isupper() else str.lower if example.islower() else str.title
            )
            return [style(month) for month in names]
        calendar = times.isocalendar()
        numbers = {
            "y": calendar["year"] if self.kind == "weeks" else times.year,
            "m": times.month,
            "q": times.quarter,
            "h": (times.month - 1) // 6 + 1,
            "w": calendar["week"],
        }[name]
        if name == "y":
            return [str(year)[-len(example) :] for year in numbers]
        width = 2 if self.padded and name in "mw" else 1
        return [f"{number:0{width}d}" for number in numbers]


def find_form(values: Sequence[str], dayfirst: bool | None) -> TextForm:
    """Find the form that the values of a column are written in.

    Parameters
    ----------
    values : sequence of str
        Distinct ones, without spaces around.
    dayfirst : bool, optional
        Whether 01/02/2023 is the first of February. By default, dates with dots are, and others
        are if a number above 12 says so.

    Raises
    ------
    DateError
        If there is none, or more than one.
    """
    sample = list(values[:: max(len(values) // 200, 1)])
    fitting = {
        (kind, pattern): sum(bool(re.fullmatch(pattern, v, re.IGNORECASE)) for v in sample)
        for kind, patterns in _PATTERNS.items()
        for pattern in patterns
    }
    kind, pattern = max(fitting, key=lambda key: fitting[key])
    if not fitting[kind, pattern]:
        raise DateError("", np.ones(len(values), dtype=bool))
    fields = _fields(values, pattern, None)
    order = None
    if "one" in fields:
        order = (
            _month_and_year(fields)
            if kind == "months"
            else _day_and_month(fields, dayfirst, values)
        )
    if kind == "months" and "b" in fields:
        _check_no_days(fields, values[0])
    numbers = [fields[k] for k in ("one", "two", "m", "w") if k in fields]
    padded = any(part.str.startswith("0").any() for part in numbers) or not any(
        (part.str.len() == 1).any() for part in numbers
    )
    return TextForm(kind=kind, pattern=pattern, order=order, example=values[0], padded=padded)


def _fields(values: Sequence[str], pattern: str, order: tuple[str, str] | None) -> Fields:
    """Parts of all values by name, as text."""
    compiled = re.compile(pattern, re.IGNORECASE)
    matches = [compiled.fullmatch(value) for value in values]
    rows = [match.groups() for match in matches if match is not None]
    if len(rows) < len(matches):
        raise DateError("", np.array([match is None for match in matches]))
    names = sorted(compiled.groupindex, key=lambda name: compiled.groupindex[name])
    columns = [pd.Series(column, dtype=object) for column in zip(*rows, strict=True)]
    fields = dict(zip(names, columns, strict=True))
    for new, old in zip(order or (), ("one", "two"), strict=False):
        fields[new] = fields.pop(old)
    return fields


def _day_and_month(fields: Fields, dayfirst: bool | None, values: Sequence[str]) -> tuple[str, str]:
    one, two = (fields[k].astype(int).to_numpy() for k in ("one", "two"))
    short_year = (fields["y"].str.len() == 2).any()
    if dayfirst is None and (fields["s"] == ".").all():
        dayfirst = True
    if dayfirst is not None:
        return ("d", "m") if dayfirst else ("m", "d")
    day_first, month_first = (two <= 12).all(), (one <= 12).all()
    example = values[0]
    if short_year and day_first and (fields["y"].astype(int) <= 31).all():
        # 24/01/31 may be 31 January 2024
        raise DateError(
            f"{example!r} and the others may have the day, the month or the year first; write "
            "years with four digits or, if they are last, say dayfirst=True or dayfirst=False "
            "(--dayfirst or --no-dayfirst)"
        )
    if day_first and month_first:
        raise DateError(
            f"{example!r} and the others may have the day or the month first, as no number in "
            "these places is above 12; say which: dayfirst=True or dayfirst=False (--dayfirst "
            "or --no-dayfirst)"
        )
    if not day_first and not month_first:
        raise DateError(
            "some dates have a month above 12 if the day is first, and others if the month is, "
            f"such as {values[int((two > 12).argmax())]!r} and {values[int((one > 12).argmax())]!r}"
            "; write all in one order, or say dayfirst="
        )
    return ("d", "m") if day_first else ("m", "d")


def _month_and_year(fields: Fields) -> tuple[str, str]:
    """Which of two numbers is the month: the other is above 12 somewhere, or it is an error."""
    one, two = (fields[k].astype(int).to_numpy() for k in ("one", "two"))
    lengths = [(fields[k].str.len() == 2).all() for k in ("one", "two")]
    first, second = (bool(((part >= 1) & (part <= 12)).all()) for part in (one, two))
    if first and not second and lengths[1]:
        return "m", "y"
    if second and not first and lengths[0]:
        return "y", "m"
    raise DateError(
        "two numbers do not say which is the month and which the year or the day; write years "
        "with four digits"
    )


def _check_no_days(fields: Fields, example: str) -> None:
    """Refuse what may be days of one month, such as Jan-01 to Jan-31."""
    several = fields["y"].nunique() > 2 and fields["b"].nunique() == 1
    if several and ((fields["y"].str.len() == 2) & (fields["y"].astype(int) <= 31)).all():
        raise DateError(
            f"{example!r} and the others may be years or days of a month; write years with four "
            "digits"
        )


def _times(fields: Fields, values: Sequence[str]) -> tuple[NDArray[Any], NDArray[np.int64] | None]:
    def number(name: str, default: int = 0) -> NDArray[np.int64]:
        if name not in fields:
            return np.full(len(values), default)
        return fields[name].fillna(str(default)).astype(np.int64).to_numpy()

    year = number("y")
    short = (fields["y"].str.len() == 2).to_numpy()
    year = np.where(short, year + np.where(year <= PIVOT, 2000, 1900), year)
    if short.any() and np.ptp(year[short]) > LONGEST_SHORT:
        raise DateError(
            f"years of two digits from {year[short].min()} to {year[short].max()} may be of either "
            "century; write four digits"
        )
    month = number("m", 1)
    if "b" in fields:
        names = {name[:3]: place for place, name in enumerate(MONTHS, 1)}
        month = fields["b"].str.lower().str[:3].map(names).to_numpy(dtype=np.int64)
    if "q" in fields:
        month = 3 * number("q") - 2
    if "h" in fields:
        month = 6 * number("h") - 5
    days = _days(year, month, number("d", 1), values)
    if "w" in fields:
        days = _week_days(year, number("w"), number("wd", 1), values)
    if "H" not in fields:
        return days.astype("M8[us]"), None
    hour = number("H")
    if fields["p"].notna().any() if "p" in fields else False:
        late = fields["p"].str.upper().eq("PM").to_numpy()
        _check(fields["p"].notna().to_numpy() & (hour >= 1) & (hour <= 12), values)
        hour = hour % 12 + 12 * late
    minute, second = number("M"), number("S")
    _check((hour < 24) & (minute < 60) & (second < 60), values)
    micro = np.zeros(len(values), dtype=np.int64)
    if "f" in fields and fields["f"].notna().any():
        fraction = fields["f"].fillna("0").str.ljust(9, "0").astype(np.int64).to_numpy()
        _check(fraction % 1000 == 0, values, "is finer than a microsecond")
        micro = fraction // 1000
    ticks = ((hour * 60 + minute) * 60 + second) * 1_000_000 + micro
    return days.astype("M8[us]") + ticks.astype("m8[us]"), _offsets(fields, values)


def _days(
    year: NDArray[Any], month: NDArray[Any], day: NDArray[Any], values: Sequence[str]
) -> NDArray[Any]:
    _check((month >= 1) & (month <= 12) & (day >= 1) & (day <= 31), values)
    starts = ((year - 1970) * 12 + month - 1).astype("M8[M]")
    days = starts.astype("M8[D]") + (day - 1).astype("m8[D]")
    _check(days.astype("M8[M]") == starts, values)
    return days


def _week_days(
    year: NDArray[Any], week: NDArray[Any], day: NDArray[Any], values: Sequence[str]
) -> NDArray[Any]:
    """Days of ISO weeks, the first of which holds 4 January."""
    fourth = (((year - 1970) * 12).astype("M8[M]")).astype("M8[D]") + np.timedelta64(3, "D")
    monday = fourth - ((fourth.astype(np.int64) + 3) % 7).astype("m8[D]")
    days = monday + (7 * (week - 1) + day - 1).astype("m8[D]")
    thursday = days - (day - 4).astype("m8[D]")
    _check((week >= 1) & (thursday.astype("M8[Y]").astype(np.int64) + 1970 == year), values)
    return days


def _offsets(fields: Fields, values: Sequence[str]) -> NDArray[np.int64] | None:
    if "z" not in fields or fields["z"].isna().all():
        return None
    _check(fields["z"].notna().to_numpy(), values, "has no offset from UTC, and others have")
    zones = fields["z"].str.upper().replace(["Z", "UTC", "GMT"], "+00:00")
    digits = zones.str.replace(":", "").str.ljust(5, "0")
    minutes = digits.str[1:3].astype(np.int64) * 60 + digits.str[3:5].astype(np.int64)
    return (minutes * np.where(digits.str[0] == "-", -1, 1)).to_numpy()


def _check(fine: NDArray[np.bool_], values: Sequence[str], reason: str = "") -> None:
    if not fine.all():
        raise DateError(reason, ~fine)


def _long(piece: str | list[str], length: int) -> list[str]:
    return [piece] * length if isinstance(piece, str) else piece
