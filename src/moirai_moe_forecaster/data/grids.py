"""The regular grid of times behind every series of a long DataFrame, for all series at once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from moirai_moe_forecaster.data.rows import Clock, Rows
from moirai_moe_forecaster.errors import InvalidInputError

Whole = NDArray[np.int64]

DAY = 86_400_000_000
SHORTEST_MONTH = 28 * DAY
MOST_GAPS = 0.9
MANY_GAPS = 0.5
MOST_STEPS = 10**8
# how a step is counted: in equal ticks, in months from a day of the month or from the month's end;
# larger numbers are offsets of pandas, such as business days
TICKS, MONTHS, MONTH_ENDS, FIRST_OFFSET = range(4)
_MONTH_NAMES = {MONTHS: {1: "MS", 3: "QS", 12: "YS"}, MONTH_ENDS: {1: "ME", 3: "QE", 12: "YE"}}


class Step(NamedTuple):
    """The steps of all series: a unit of the above, and how many of it one step takes."""

    unit: Whole
    size: Whole


class Grids:
    """Grids of all series: positions of times, times of positions.

    Parameters
    ----------
    rows : Rows
        Sorted by series, then time.
    freq : str, int or mapping from ids to these, optional
        Steps instead of inferred ones: an alias of pandas, or an integer for integer times.
    ahead : int
        Steps after the last row at which times will be asked for.

    Attributes
    ----------
    positions : ndarray of int64, (row,)
        Step of each row, from 0 at the first of its series.
    lengths : ndarray of int64, (series,)
        Steps from a series' first to its last row.

    Raises
    ------
    InvalidInputError
        If a series has no regular frequency, or a row is off the grid of the one given.
    """

    def __init__(self, rows: Rows, freq: Any, ahead: int) -> None:
        self._clock = rows.clock
        self._offsets: list[Any] = []
        self._nodes: dict[int, Whole] = {}
        self._wall = np.zeros(len(rows.starts), dtype=bool)
        self._step = self._steps(rows, freq)
        numbers = self._numbers(rows.clock, rows.codes)
        self._first = numbers[rows.starts]
        self._make_nodes(numbers, ahead)
        self.positions = self.locate(rows.codes, rows.clock)
        self._check(rows)
        self.lengths = self.positions[rows.ends - 1] + 1

    @property
    def frequencies(self) -> list[str]:
        """Name of every series' frequency, an alias of pandas such as "h", "15min" or "MS"."""
        return [self._name(*pair) for pair in zip(*self._step, strict=True)]

    def locate(self, series: Whole, clock: Clock) -> Whole:
        """Positions of times of some series; -1 before the first and off the grid."""
        numbers = self._numbers(clock, series)
        unit, count = self._step.unit[series], self._step.size[series]
        first = self._first[series]
        steps, fits = numbers - first, np.ones(len(numbers), dtype=bool)
        months = (unit == MONTHS) | (unit == MONTH_ENDS)
        if months.any():
            now, then = _month(numbers[months]), _month(first[months])
            steps[months] = now - then
            same = self._in_month(numbers[months], unit[months]) == self._in_month(
                first[months], unit[months]
            )
            fits[months] = same
        for number, nodes in self._nodes.items():
            own = unit == number
            days = numbers[own] // DAY * DAY
            index = np.searchsorted(nodes, days).clip(max=len(nodes) - 1)
            start = np.searchsorted(nodes, first[own] // DAY * DAY)
            steps[own] = index - start
            fits[own] = (nodes[index] == days) & ((numbers - first)[own] % DAY == 0)
        fits &= (steps >= 0) & (steps % count == 0)
        return np.where(fits, steps // count, -1)

    def times(self, series: Whole, positions: Whole) -> pd.Index:
        """Times of positions of some series, of the type that the column has."""
        unit, first = self._step.unit[series], self._first[series]
        ahead = positions * self._step.size[series]
        numbers = first + ahead
        for number in (MONTHS, MONTH_ENDS):
            own = unit == number
            start = _month_start(_month(first[own]) + ahead[own] + (number == MONTH_ENDS))
            numbers[own] = start + self._in_month(first[own], unit[own])
        for number, nodes in self._nodes.items():
            own = unit == number
            start = np.searchsorted(nodes, first[own] // DAY * DAY)
            numbers[own] = nodes[start + ahead[own]] + first[own] % DAY
        return self._clock.restore(numbers, self._wall[series])

    def _numbers(self, clock: Clock, series: Whole) -> Whole:
        """Times as numbers: of wall clocks for series that go by days, else of universal time."""
        if clock.wall is None:
            return clock.numbers
        return np.where(self._wall[series], clock.wall, clock.numbers)

    @staticmethod
    def _in_month(numbers: Whole, unit: Whole) -> Whole:
        """How far a time is from its month's start or, negative, from its end."""
        return numbers - _month_start(_month(numbers) + (unit == MONTH_ENDS))

    def _steps(self, rows: Rows, freq: Any) -> Step:
        if freq is None:
            return self._infer(rows)
        if isinstance(freq, list | tuple | set | np.ndarray | pd.Series | pd.Index):
            raise InvalidInputError(
                "freq must be one frequency, or a dict from ids to these; got "
                f"{type(freq).__name__}"
            )
        by_id = freq if isinstance(freq, Mapping) else dict.fromkeys(rows.ids, freq)
        if absent := [key for key in rows.ids if key not in by_id]:
            raise InvalidInputError(
                f"freq lacks the ids {absent[:5]}; give one frequency, or one for every id"
            )
        known = {given: self._read(given) for given in set(by_id.values())}
        pairs = np.array([known[by_id[key]] for key in rows.ids], dtype=np.int64)
        unit, count = pairs[:, 0], pairs[:, 1]
        # series of days or more go by the clock on the wall
        self._wall = (rows.clock.wall is not None) & ((unit != TICKS) | (count % DAY == 0))
        ends = _all(_is_month_end(self._numbers(rows.clock, rows.codes)), rows.starts)
        return Step(np.where((unit == MONTHS) & ends, MONTH_ENDS, unit), count)

    def _read(self, freq: Any) -> tuple[int, int]:
        """Unit and count of a frequency that a user gives."""
        if self._clock.kind != "datetime":
            if isinstance(freq, int | np.integer) and not isinstance(freq, bool) and freq > 0:
                return TICKS, int(freq)
            raise InvalidInputError(
                f"freq must be a positive integer, as times are {self._clock.kind}s; got {freq!r}"
            )
        try:
            offset: Any = pd.tseries.frequencies.to_offset(freq)
            if offset is None:
                raise ValueError("no frequency")
        except (TypeError, ValueError) as error:
            raise InvalidInputError(
                f"freq must be an alias of pandas such as 'h', '15min', 'D' or 'MS'; got {freq!r}"
            ) from error
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
            return TICKS, int(length)
        months = {"Month": 1, "Quarter": 3, "Year": 12}
        for name, size in months.items():
            if kind in (f"{name}Begin", f"{name}End"):
                return MONTHS, size * offset.n
        return self._offset(offset.base), offset.n

    def _offset(self, offset: Any) -> int:
        """Return the number of a unit that only pandas knows."""
        if offset not in self._offsets:
            self._offsets.append(offset)
        return FIRST_OFFSET + self._offsets.index(offset)

    def _infer(self, rows: Rows) -> Step:
        if self._clock.kind != "datetime":
            count = _gcd(_differences(rows.clock.numbers, rows.starts), rows.starts)
            count = np.full_like(count, rows.clock.period) if rows.clock.period else count
            step = Step(np.zeros_like(count), count)
            return self._adopted(self._with_few_gaps(step, rows), rows)
        step = self._infer_datetimes(rows.clock.numbers, rows)
        if rows.clock.wall is not None:
            wall = self._infer_datetimes(rows.clock.wall, rows)
            # steps of hours may be equal on the wall only: every six hours from midnight
            regular = _smallest(_differences(rows.clock.wall, rows.starts), rows.starts) > 0
            longer = (wall.unit == TICKS) & (step.unit == TICKS) & (wall.size > step.size)
            days = (wall.size % DAY == 0) & (wall.size > 0)
            self._wall = (wall.unit != TICKS) | (regular & (days | longer))
            step = Step(*(np.where(self._wall, *pair) for pair in zip(wall, step, strict=True)))
        return self._adopted(self._with_few_gaps(step, rows), rows)

    def _infer_datetimes(self, numbers: Whole, rows: Rows) -> Step:
        """Steps by the rules that can be checked for all series at once; count 0 of single rows."""
        starts = rows.starts
        differences = _differences(numbers, starts)
        count = _gcd(differences, starts)
        month = _month(numbers)
        months = _gcd(_differences(month, starts), starts)
        ends = _all(_is_month_end(numbers), starts) & _same(numbers % DAY, starts)
        begins = _same(numbers - _month_start(month), starts)
        calendar = (_smallest(differences, starts) >= SHORTEST_MONTH) & (months > 0)
        unit = np.where(calendar & ends, MONTH_ENDS, np.where(calendar & begins, MONTHS, TICKS))
        count = np.where(unit == TICKS, count, months)
        day = numbers // DAY + 3  # from a Monday
        weekdays = _all(day % 7 < 5, starts) & ~_same(day // 7, starts)
        weeks = (day[rows.ends - 1] - day[starts]) / 7
        often = rows.ends - starts > (1 - MOST_GAPS) * 5 * weeks
        if (business := weekdays & often & (count == DAY)).any():
            unit = np.where(business, self._offset(pd.offsets.BusinessDay()), unit)
            count = np.where(business, 1, count)
        return Step(unit, count)

    def _with_few_gaps(self, step: Step, rows: Rows) -> Step:
        """Leave equal ticks where many of them would be empty to what pandas can infer."""
        numbers = self._numbers(rows.clock, rows.codes)
        span = numbers[rows.ends - 1] - numbers[rows.starts]
        points = span // step.size.clip(1) + 1
        full = (rows.ends - rows.starts) / points
        for series in np.flatnonzero((step.unit == TICKS) & (full < 1 - MANY_GAPS)):
            own = numbers[rows.starts[series] : rows.ends[series]]
            alias = None
            if self._clock.kind == "datetime" and len(own) > 2:
                alias = pd.infer_freq(pd.DatetimeIndex(own.view("M8[us]")))
            if alias is not None:
                step.unit[series], step.size[series] = self._read(alias)
            elif full[series] < 1 - MOST_GAPS and not self._clock.period:
                tick = self._name(TICKS, int(step.size[series]))
                raise InvalidInputError(
                    f"the times of {rows.name(int(series))} have no regular frequency: the largest "
                    f"step that all fit is {tick!r}, which leaves {points[series] - len(own)} of "
                    f"{points[series]} steps empty; give freq, or round or resample the times"
                )
        return step

    def _adopted(self, step: Step, rows: Rows) -> Step:
        """Give series of a single row the step of all others, if these have the same one."""
        alone = step.size == 0
        if not alone.any():
            return step
        others = {*zip(step.unit[~alone].tolist(), step.size[~alone].tolist(), strict=True)}
        if len(others) != 1:
            raise InvalidInputError(
                f"{rows.name(int(alone.argmax()))} has a single row, from which no frequency can "
                "be inferred; give freq, or leave the id out"
            )
        ((unit, count),) = others
        self._wall = np.where(alone, self._wall[~alone].any(), self._wall)
        return Step(np.where(alone, unit, step.unit), np.where(alone, count, step.size))

    def _make_nodes(self, numbers: Whole, ahead: int) -> None:
        """Lay out the grids that only pandas knows, once for all series that share one."""
        low, high = (pd.Timestamp(int(n) // DAY * DAY, unit="us") for n in _range(numbers))
        for index, offset in enumerate(self._offsets):
            own = self._step.unit == FIRST_OFFSET + index
            if not own.any():
                continue
            more = int(self._step.size[own].max()) * (ahead + 1)
            nodes = pd.date_range(offset.rollback(low), high, freq=offset)
            later = pd.date_range(nodes[-1], periods=more + 1, freq=offset)[1:]
            whole = pd.DatetimeIndex(nodes.append(later)).as_unit("us")
            self._nodes[FIRST_OFFSET + index] = whole.to_numpy().view(np.int64)

    def _check(self, rows: Rows) -> None:
        if (off := self.positions < 0).any():
            row = int(off.argmax())
            name = self.frequencies[rows.codes[row]]
            raise InvalidInputError(
                f"{rows.where(row)} is off the grid of frequency {name!r} that begins with the "
                "first row of its series; leave freq out, give another, or round the times"
            )
        lengths = self.positions[rows.ends - 1] + 1
        if lengths.sum() > max(MOST_STEPS, len(rows.codes) / (1 - MOST_GAPS)):
            series = int(lengths.argmax())
            raise InvalidInputError(
                f"{rows.name(series)} would have {lengths[series]} steps of frequency "
                f"{self.frequencies[series]!r} for {rows.ends[series] - rows.starts[series]} rows; "
                "give a longer freq, or round or resample the times"
            )

    def _name(self, unit: int, count: int) -> str:
        if self._clock.kind != "datetime":
            return self._clock.frequency or str(count)
        if unit == TICKS:
            return _tick_name(count)
        if unit >= FIRST_OFFSET:
            return str((self._offsets[unit - FIRST_OFFSET] * int(count)).freqstr)
        names = _MONTH_NAMES[unit]
        return names.get(int(count), f"{count}{names[1]}")


def _tick_name(count: int) -> str:
    days, rest = divmod(count, DAY)
    if not rest:
        return {1: "D", 7: "W"}.get(days, f"{days}D")
    return str(pd.tseries.frequencies.to_offset(pd.Timedelta(int(count), unit="us")).freqstr)


def _month(numbers: Whole) -> Whole:
    months: Whole = numbers.view("M8[us]").astype("M8[M]").astype(np.int64)
    return months


def _month_start(months: Whole) -> Whole:
    starts: Whole = months.astype("M8[M]").astype("M8[us]").astype(np.int64)
    return starts


def _is_month_end(numbers: Whole) -> NDArray[np.bool_]:
    return _month(numbers + DAY) != _month(numbers)


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


def _range(numbers: Whole) -> tuple[int, int]:
    return int(numbers.min()), int(numbers.max())
