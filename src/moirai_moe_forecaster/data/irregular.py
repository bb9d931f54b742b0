"""What to say of times that are nearly regular: which step they keep, and which row breaks it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from moirai_moe_forecaster.data.rows import Rows
from moirai_moe_forecaster.data.steps import (
    DAY,
    SHORTEST_MONTH,
    Steps,
    month_of,
    month_start,
    tick_name,
)

Whole = NDArray[np.int64]

# fewer rows show no step that others could break
FEWEST = 4
# share of rows on a grid from which on the others are exceptions to it
MOST_ROWS = 0.6


def what_breaks(steps: Steps, rows: Rows, series: int) -> str:
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
