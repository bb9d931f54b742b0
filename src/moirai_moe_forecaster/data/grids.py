"""The regular grid of times behind every series of a table, for all series at once."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from moirai_moe_forecaster.data.clock import Clock
from moirai_moe_forecaster.data.rows import Rows
from moirai_moe_forecaster.data.steps import (
    DAY,
    FIRST_OFFSET,
    MANY_GAPS,
    MONTH_ENDS,
    MONTHS,
    SHORTEST_MONTH,
    Steps,
    given_steps,
    inferred_steps,
    month_of,
    month_start,
    tick_name,
)

Whole = NDArray[np.int64]

# share of steps without a row above which a user should know
SOME_GAPS = 0.1
MOST_STEPS = 10**8
# fewer rows show no step that others could break
FEWEST = 4
# share of rows on a grid from which on the others are exceptions to it
MOST_ROWS = 0.6


@dataclass(frozen=True, kw_only=True)
class Grids:
    """Grids of all series: positions of times, times of positions.

    Attributes
    ----------
    clock : Clock
        Of the rows.
    steps : Steps
    first : ndarray of int64, (series,)
        Where each grid begins.
    nodes : dict from unit to ndarray of int64
        Days of the calendars that only pandas knows.
    positions : ndarray of int64, (row,)
        Step of each row, from 0 at the first of its series.
    lengths : ndarray of int64, (series,)
        Steps from a series' first to its last row.
    """

    clock: Clock
    steps: Steps
    first: Whole
    nodes: dict[int, Whole]
    positions: Whole
    lengths: Whole

    @property
    def frequencies(self) -> list[str]:
        """Name of every series' frequency, an alias of pandas such as "h", "15min" or "MS"."""
        return self.steps.names(self.clock)

    def as_datetimes(self) -> Grids:
        """Return the same with times that are datetimes, however the column writes them."""
        return replace(self, clock=self.clock.as_datetimes())

    def locate(self, series: Whole, clock: Clock) -> Whole:
        """Positions of times of some series; -1 before the first and off the grid."""
        return locate(self.steps, self.first, self.nodes, series, clock)

    def times(self, series: Whole, positions: Whole) -> pd.Index:
        """Times of positions of some series, of the type that the column has."""
        unit, first = self.steps.unit[series], self.first[series]
        ahead = positions * self.steps.size[series]
        numbers = first + ahead
        for number in (MONTHS, MONTH_ENDS):
            own = unit == number
            start = month_start(month_of(first[own]) + ahead[own] + (number == MONTH_ENDS))
            numbers[own] = start + _in_month(first[own], unit[own])
        for number, nodes in self.nodes.items():
            own = unit == number
            start = np.searchsorted(nodes, first[own] // DAY * DAY)
            numbers[own] = nodes[start + ahead[own]] + first[own] % DAY
        return self.clock.restore(numbers, self.steps.wall[series])


def make_grids(rows: Rows, freq: Any, ahead: int) -> Grids:
    """Lay a grid under the times of every series.

    Parameters
    ----------
    rows : Rows
        Sorted by series, then time.
    freq : str, int or mapping from ids to these, optional
        Steps instead of inferred ones: an alias of pandas, or an integer for integer times.
    ahead : int
        Steps after the last row at which times will be asked for.

    Raises
    ------
    InvalidInputError
        If a row is off the grid of the step given, or, where none is given, a series has no
        regular step or most steps have no row.
    """
    steps = inferred_steps(rows) if freq is None else given_steps(rows, freq)
    numbers = steps.numbers(rows.clock, rows.codes)
    first = numbers[rows.starts]
    nodes = _nodes(steps, numbers, ahead)
    positions = locate(steps, first, nodes, rows.codes, rows.clock)
    lengths = positions[rows.ends - 1] + 1
    grids = Grids(
        clock=rows.clock,
        steps=steps,
        first=first,
        nodes=nodes,
        positions=positions,
        lengths=lengths,
    )
    _check_rows(grids, rows)
    if freq is None:
        _check_gaps(grids, rows)
    _check_size(grids, rows)
    _check_range(grids, rows, ahead)
    return grids


def locate(
    steps: Steps, first: Whole, nodes: dict[int, Whole], series: Whole, clock: Clock
) -> Whole:
    """Positions of times on the grids of some series; -1 before the first and off the grid."""
    numbers = steps.numbers(clock, series)
    unit, size = steps.unit[series], steps.size[series]
    first = first[series]
    counts, fits = numbers - first, np.ones(len(numbers), dtype=bool)
    months = (unit == MONTHS) | (unit == MONTH_ENDS)
    if months.any():
        counts[months] = month_of(numbers[months]) - month_of(first[months])
        fits[months] = _in_month(numbers[months], unit[months]) == _in_month(
            first[months], unit[months]
        )
    for number, days in nodes.items():
        own = unit == number
        day = numbers[own] // DAY * DAY
        index = np.searchsorted(days, day).clip(max=len(days) - 1)
        counts[own] = index - np.searchsorted(days, first[own] // DAY * DAY)
        fits[own] = (days[index] == day) & ((numbers - first)[own] % DAY == 0)
    fits &= (counts >= 0) & (counts % size == 0)
    return np.where(fits, counts // size, -1)


def _in_month(numbers: Whole, unit: Whole) -> Whole:
    """How far a time is from its month's start or, negative, from its end."""
    return numbers - month_start(month_of(numbers) + (unit == MONTH_ENDS))


def _nodes(steps: Steps, numbers: Whole, ahead: int) -> dict[int, Whole]:
    """Lay out the grids that only pandas knows, once for all series that share one."""
    limits = (int(numbers.min()), int(numbers.max()))
    nodes: dict[int, Whole] = {}
    for number in np.unique(steps.unit[steps.unit >= FIRST_OFFSET]).tolist():
        offset = steps.offsets[number - FIRST_OFFSET]
        low, high = (pd.Timestamp(n // DAY * DAY, unit="us") for n in limits)
        more = int(steps.size[steps.unit == number].max()) * (ahead + 1)
        days = pd.date_range(offset.rollback(low), high, freq=offset)
        later = pd.date_range(days[-1], periods=more + 1, freq=offset)[1:]
        whole = pd.DatetimeIndex(days.append(later)).as_unit("us")
        nodes[number] = whole.to_numpy().view(np.int64)
    return nodes


def _check_rows(grids: Grids, rows: Rows) -> None:
    if (off := grids.positions < 0).any():
        row = int(off.argmax())
        name = grids.steps.name(rows.clock, int(rows.codes[row]))
        bad = np.zeros(len(rows.starts), dtype=bool)
        bad[rows.codes[off]] = True
        raise rows.bad(
            bad,
            f"{rows.where(row)} is off the grid of frequency {name!r} that begins with the "
            "first row of its series; leave freq out, give another, or round the times",
            f"is off the grid of frequency {name!r}",
        )


def _check_gaps(grids: Grids, rows: Rows) -> None:
    """Refuse inferred steps most of which have no row, and warn of some."""
    counts = rows.ends - rows.starts
    empty = 1 - counts / grids.lengths
    many = empty > (1.0 if rows.clock.period else MANY_GAPS)
    if not (some := empty > SOME_GAPS).any():
        return
    series = int(np.where(many, empty, 0).argmax() if many.any() else empty.argmax())
    name = grids.steps.name(rows.clock, series)
    gaps = f"{grids.lengths[series] - counts[series]} of {grids.lengths[series]} steps"
    reason = "" if rows.clock.period else _what_breaks(grids.steps, rows, series)
    if many.any():
        raise rows.bad(
            many,
            f"the times of {rows.name(series)} have no regular frequency: the largest step that "
            f"all fit is {name!r}, which leaves {gaps} empty{reason and '; ' + reason}; correct, "
            "round or resample the times, or give freq if they are meant so",
            "has times without a regular frequency",
        )
    said = f"more than {SOME_GAPS:.0%} of the steps have no row"
    if len(some) > 1:
        said = (
            f"{int(some.sum())} of {len(some)} series have no row in more than {SOME_GAPS:.0%} of "
            f"their steps, most of them {rows.name(series)}"
        )
    # stacklevel: the caller of predict_df, read_panel or the like cannot be told from here
    warnings.warn(
        f"{said}: at frequency {name!r}, {gaps} are missing{reason and '; ' + reason}; give freq "
        "if that is right",
        UserWarning,
        stacklevel=4,
    )


def _check_size(grids: Grids, rows: Rows) -> None:
    if grids.lengths.sum() > max(MOST_STEPS, 2 * len(rows.codes)):
        series = int(grids.lengths.argmax())
        raise rows.bad(
            np.arange(len(grids.lengths)) == series,
            f"{rows.name(series)} would have {grids.lengths[series]} steps of frequency "
            f"{grids.steps.name(rows.clock, series)!r} for "
            f"{rows.ends[series] - rows.starts[series]} rows; "
            "give a longer freq, or round or resample the times",
            "would have too many steps",
        )


def _check_range(grids: Grids, rows: Rows, ahead: int) -> None:
    """Refuse whole numbers that would not fit into 64 bits ahead."""
    if rows.clock.kind != "integer":
        return
    # in floating point, as the very product may overflow; a factor of two is left below
    last = grids.first.astype(float) + (grids.lengths + ahead) * grids.steps.size.astype(float)
    if (last > 2.0**62).any():
        raise rows.bad(
            last > 2.0**62,
            f"the times to come of {rows.name(int(last.argmax()))} do not fit into 64 bits; "
            "subtract the first time from all",
            "has times that do not fit into 64 bits",
        )


def _what_breaks(steps: Steps, rows: Rows, series: int) -> str:
    """Name the step that most rows of a series keep, and the first row that does not; or nothing.

    A grid of ticks is that of the most frequent difference and its most frequent phase. Where
    differences are those of months, it is the most frequent distance from the month's start or end.
    """
    own = slice(int(rows.starts[series]), int(rows.ends[series]))
    numbers = steps.numbers(rows.clock, rows.codes)[own]
    if len(numbers) < FEWEST:
        return ""
    size = _mode(np.diff(numbers))
    grids = [(_tick(rows, size), numbers % size)]
    if rows.clock.kind == "datetime" and size >= SHORTEST_MONTH:
        months = month_of(numbers)
        every = _mode(np.diff(months))
        if every > 0:
            name = {1: "months", 3: "quarters", 12: "years"}.get(every, f"{every} months")
            grids = [
                (name, numbers - month_start(months)),
                (name, numbers - month_start(months + 1)),
            ]
    name, phase = max(grids, key=lambda grid: int((grid[1] == _mode(grid[1])).sum()))
    breaks = np.flatnonzero(phase != _mode(phase))
    if len(breaks) > (1 - MOST_ROWS) * len(numbers):
        first = int((np.diff(numbers) != size).argmax()) + 1
        return (
            f"rows most often go by {_tick(rows, size)}, but {rows.where(own.start + first)} does "
            "not follow the one before so"
        )
    if not len(breaks):
        return ""
    count = "one" if len(breaks) == 1 else f"{len(breaks)}, the first of them"
    where = rows.where(own.start + int(breaks[0]))
    return f"{len(numbers) - len(breaks)} rows go by {name}, and {count} does not: {where}"


def _tick(rows: Rows, size: int) -> str:
    if rows.clock.kind != "datetime":
        return f"steps of {size}"
    return {DAY: "days", 7 * DAY: "weeks"}.get(size, f"steps of {tick_name(size)!r}")


def _mode(values: Whole) -> int:
    distinct, counts = np.unique(values, return_counts=True)
    return int(distinct[counts.argmax()])
