"""The step of every series of a table: given by the user, or inferred from its times."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from moirai_moe_forecaster.data.clock import Clock
from moirai_moe_forecaster.data.rows import Rows
from moirai_moe_forecaster.errors import BadSeriesError, InvalidInputError

Whole = NDArray[np.int64]

DAY = 86_400_000_000
SHORTEST_MONTH = 28 * DAY
# share of steps without a row above which the step is no longer believed
MANY_GAPS = 0.5
# share of the weekdays of a span that need a row, for a series to go by business days
FEW_WEEKDAYS = 0.1
# how a step is counted: in equal ticks, in months from a day of the month or from the month's end;
# larger numbers are offsets of pandas, such as business days
TICKS, MONTHS, MONTH_ENDS, FIRST_OFFSET = range(4)
_MONTH_NAMES = {MONTHS: {1: "MS", 3: "QS", 12: "YS"}, MONTH_ENDS: {1: "ME", 3: "QE", 12: "YE"}}
# what pandas has renamed, as users go on writing it
_OLD_ALIASES = {"M": "ME", "Q": "QE", "Y": "YE", "A": "YE", "H": "h", "T": "min", "S": "s"}
_CALENDARS = (
    pd.offsets.BusinessDay(),
    pd.offsets.SemiMonthBegin(),
    pd.offsets.SemiMonthEnd(),
)


@dataclass(frozen=True, kw_only=True)
class Steps:
    """The steps of all series.

    Attributes
    ----------
    unit : ndarray of int64, (series,)
        One of those above.
    size : ndarray of int64, (series,)
        How many of the unit one step takes; 0 where a single row does not tell.
    wall : ndarray of bool, (series,)
        Whether the step is one of the clock on the wall, not of universal time.
    offsets : tuple of pandas offsets
        What `unit` - `FIRST_OFFSET` counts.
    """

    unit: Whole
    size: Whole
    wall: NDArray[np.bool_]
    offsets: tuple[Any, ...] = _CALENDARS

    def numbers(self, clock: Clock, series: Whole) -> Whole:
        """Times as numbers that the steps count: of the wall clock, or of universal time."""
        if clock.wall is None:
            return clock.numbers
        return np.where(self.wall[series], clock.wall, clock.numbers)

    def names(self, clock: Clock) -> list[str]:
        """Name of every series' step, an alias of pandas such as "h", "15min" or "MS"."""
        return [self.name(clock, series) for series in range(len(self.unit))]

    def name(self, clock: Clock, series: int) -> str:
        """Name the step of one series."""
        unit, count = int(self.unit[series]), int(self.size[series])
        if clock.kind != "datetime":
            return clock.frequency or str(count)
        if unit == TICKS:
            return tick_name(count)
        if unit >= FIRST_OFFSET:
            return str((self.offsets[unit - FIRST_OFFSET] * count).freqstr)
        names = _MONTH_NAMES[unit]
        return names.get(count, f"{count}{names[1]}")


def given_steps(rows: Rows, freq: Any) -> Steps:
    """Read the steps that a user gives.

    Parameters
    ----------
    rows : Rows
    freq : str, int or mapping from ids to these
        An alias of pandas, or an integer for integer times.

    Raises
    ------
    InvalidInputError
        If it is none of these, or lacks an id.
    """
    if isinstance(freq, list | tuple | set | np.ndarray | pd.Series | pd.Index):
        raise InvalidInputError(
            f"freq must be one frequency, or a dict from ids to these; got {type(freq).__name__}"
        )
    by_id = freq if isinstance(freq, Mapping) else dict.fromkeys(rows.ids, freq)
    if absent := [key for key in rows.ids if key not in by_id]:
        raise BadSeriesError(
            f"freq lacks the ids {absent[:5]}; give one frequency, or one for every id",
            dict.fromkeys(absent, "freq lacks it"),
        )
    offsets, known = _CALENDARS, {}
    for given in dict.fromkeys(by_id.values()):
        known[given], offsets = _read(given, rows.clock, offsets)
    pairs = np.array([known[by_id[key]] for key in rows.ids], dtype=np.int64).reshape(-1, 2)
    unit, size = pairs[:, 0], pairs[:, 1]
    # series of days or more go by the clock on the wall
    wall = (rows.clock.wall is not None) & ((unit != TICKS) | (size % DAY == 0))
    steps = Steps(unit=unit, size=size, wall=wall, offsets=offsets)
    ends = _all(_is_month_end(steps.numbers(rows.clock, rows.codes)), rows.starts)
    return replace(steps, unit=np.where((unit == MONTHS) & ends, MONTH_ENDS, unit))


def _read(
    freq: Any, clock: Clock, offsets: tuple[Any, ...]
) -> tuple[tuple[int, int], tuple[Any, ...]]:
    """Unit and size of a frequency, and the offsets known after it."""
    if clock.kind != "datetime":
        if isinstance(freq, int | np.integer) and not isinstance(freq, bool) and freq > 0:
            return (TICKS, int(freq)), offsets
        raise InvalidInputError(
            f"freq must be a positive integer, as times are {clock.kind}s; got {freq!r}"
        )
    offset = _offset(freq)
    kind = type(offset).__name__
    days = {"Day": 1, "Week": 7}.get(kind)
    if offset.n < 1:
        raise InvalidInputError(f"freq must be a step forward such as 'h' or 'D'; got {freq!r}")
    if days or isinstance(offset, pd.offsets.Tick):
        length = days * DAY * offset.n if days else pd.Timedelta(offset) // pd.Timedelta("1us")
        if length < 1:
            raise InvalidInputError(
                f"freq must be a microsecond or longer, such as 'h' or 'D'; got {freq!r}"
            )
        return (TICKS, int(length)), offsets
    for name, months in {"Month": 1, "Quarter": 3, "Year": 12}.items():
        if kind in (f"{name}Begin", f"{name}End"):
            return (MONTHS, months * offset.n), offsets
    if offset.base not in offsets:
        offsets = (*offsets, offset.base)
    return (FIRST_OFFSET + offsets.index(offset.base), offset.n), offsets


def _offset(freq: Any) -> Any:
    try:
        offset = pd.tseries.frequencies.to_offset(_OLD_ALIASES.get(freq, freq))
        if offset is None:
            raise ValueError("no frequency")
    except (TypeError, ValueError) as error:
        raise InvalidInputError(
            f"freq must be an alias of pandas such as 'h', '15min', 'D' or 'MS'; got {freq!r}"
        ) from error
    return offset


def inferred_steps(rows: Rows) -> Steps:
    """Infer the largest step that all times of each series fit.

    Raises
    ------
    InvalidInputError
        If a series of a single row has nothing to take its step from.
    """
    clock = rows.clock
    if clock.kind != "datetime":
        size = _gcd(_differences(clock.numbers, rows.starts), rows.starts)
        size = np.full_like(size, clock.period) if clock.period else size
        steps = Steps(unit=np.zeros_like(size), size=size, wall=np.zeros(len(size), dtype=bool))
        return _adopted(steps, rows)
    unit, size = _infer(clock.numbers, rows)
    wall = np.zeros(len(unit), dtype=bool)
    if clock.wall is not None:
        wall_unit, wall_size = _infer(clock.wall, rows)
        # steps of hours may be equal on the wall only: every six hours from midnight
        regular = _smallest(_differences(clock.wall, rows.starts), rows.starts) > 0
        longer = (wall_unit == TICKS) & (unit == TICKS) & (wall_size > size)
        days = (wall_size % DAY == 0) & (wall_size > 0)
        wall = (wall_unit != TICKS) | (regular & (days | longer))
        unit, size = np.where(wall, wall_unit, unit), np.where(wall, wall_size, size)
    steps = Steps(unit=unit, size=size, wall=wall)
    return _adopted(_with_calendars(steps, rows), rows)


def _infer(numbers: Whole, rows: Rows) -> tuple[Whole, Whole]:
    """Units and sizes by rules that can be checked for all series at once; 0 of single rows."""
    starts = rows.starts
    differences = _differences(numbers, starts)
    size = _gcd(differences, starts)
    month = month_of(numbers)
    months = _gcd(_differences(month, starts), starts)
    ends = _all(_is_month_end(numbers), starts) & _same(numbers % DAY, starts)
    begins = _same(numbers - month_start(month), starts)
    calendar = (_smallest(differences, starts) >= SHORTEST_MONTH) & (months > 0)
    unit = np.where(calendar & ends, MONTH_ENDS, np.where(calendar & begins, MONTHS, TICKS))
    size = np.where(unit == TICKS, size, months)
    day = numbers // DAY + 3  # from a Monday
    weekdays = _all(day % 7 < 5, starts) & ~_same(day // 7, starts)
    weeks = (day[rows.ends - 1] - day[starts]) / 7
    often = rows.ends - starts > FEW_WEEKDAYS * 5 * weeks
    business = weekdays & often & (size == DAY)
    # the first and the fifteenth, or the fifteenth and the last
    first = numbers - month_start(month) < DAY
    middle = (numbers - month_start(month)) // DAY == 14
    halves = (unit == TICKS) & _same(numbers % DAY, starts) & (size > 0)
    halves &= (rows.ends - starts > 2) & (_smallest(differences, starts) >= 13 * DAY)
    begin = halves & _all(first | middle, starts)
    end = halves & _all(middle | _is_month_end(numbers), starts)
    for number, found in enumerate((business & ~begin & ~end, begin, end)):
        unit = np.where(found, FIRST_OFFSET + number, unit)
        size = np.where(found, 1, size)
    return unit, size


def _with_calendars(steps: Steps, rows: Rows) -> Steps:
    """Leave equal ticks, where most of them would be empty, to what pandas can infer."""
    numbers = steps.numbers(rows.clock, rows.codes)
    points = (numbers[rows.ends - 1] - numbers[rows.starts]) // steps.size.clip(1) + 1
    empty = (steps.unit == TICKS) & (rows.ends - rows.starts < (1 - MANY_GAPS) * points)
    unit, size, offsets = steps.unit.copy(), steps.size.copy(), steps.offsets
    for series in np.flatnonzero(empty):
        own = numbers[rows.starts[series] : rows.ends[series]]
        alias = pd.infer_freq(pd.DatetimeIndex(own.view("M8[us]"))) if len(own) > 2 else None
        if alias is not None:
            (unit[series], size[series]), offsets = _read(alias, rows.clock, offsets)
    return replace(steps, unit=unit, size=size, offsets=offsets)


def _adopted(steps: Steps, rows: Rows) -> Steps:
    """Give series of a single row the step of all others, if these have the same one."""
    alone = steps.size == 0
    if not alone.any():
        return steps
    unit, size = steps.unit[~alone], steps.size[~alone]
    others = {*zip(unit.tolist(), size.tolist(), strict=True)}
    if len(others) != 1:
        reason = "has a single row, from which no frequency can be inferred"
        raise rows.bad(
            alone,
            f"{rows.name(int(alone.argmax()))} {reason}; give freq, or leave the id out",
            reason,
        )
    ((one_unit, one_size),) = others
    return replace(
        steps,
        unit=np.where(alone, one_unit, steps.unit),
        size=np.where(alone, one_size, steps.size),
        wall=np.where(alone, steps.wall[~alone].any(), steps.wall),
    )


def tick_name(count: int) -> str:
    """Alias of a number of microseconds."""
    days, rest = divmod(count, DAY)
    if not rest:
        return {1: "D", 7: "W"}.get(days, f"{days}D")
    return str(pd.tseries.frequencies.to_offset(pd.Timedelta(int(count), unit="us")).freqstr)


def month_of(numbers: Whole) -> Whole:
    """Months since 1970 of microseconds."""
    months: Whole = numbers.view("M8[us]").astype("M8[M]").astype(np.int64)
    return months


def month_start(months: Whole) -> Whole:
    """Microseconds at which months since 1970 begin."""
    starts: Whole = months.astype("M8[M]").astype("M8[us]").astype(np.int64)
    return starts


def _is_month_end(numbers: Whole) -> NDArray[np.bool_]:
    return month_of(numbers + DAY) != month_of(numbers)


def _differences(numbers: Whole, starts: Whole) -> Whole:
    """Differences to the row before, 0 in a series' first row."""
    differences = np.diff(numbers, prepend=numbers[:1])
    differences[starts] = 0
    return differences


def _gcd(differences: Whole, starts: Whole) -> Whole:
    return np.gcd.reduceat(differences, starts)


def _smallest(differences: Whole, starts: Whole) -> Whole:
    """Smallest difference of each series, leaving out the 0 of its first row."""
    positive = differences.copy()
    positive[starts] = np.iinfo(np.int64).max
    return np.minimum.reduceat(positive, starts)


def _same(values: Whole, starts: Whole) -> NDArray[np.bool_]:
    return np.minimum.reduceat(values, starts) == np.maximum.reduceat(values, starts)


def _all(values: NDArray[np.bool_], starts: Whole) -> NDArray[np.bool_]:
    return np.logical_and.reduceat(values, starts)
