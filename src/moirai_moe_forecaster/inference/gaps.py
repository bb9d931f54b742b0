"""Missing values: gaps inside a series are filled, and those at its end are forecast.

A network reads smooth curves better than a mask of many holes; a few holes are no trouble. What is
filled is a straight line between the neighbours of a gap, over which the series' own cycles run on.
Where no cycle is known only short gaps are filled; the others stay missing, and so do those in
which more than two sevenths of the longest cycle, a weekend, is missing.
Nothing is made up at the end of a series: forecasts begin after the last observed step, and what
they say of the steps up to the end is left out.
"""

from __future__ import annotations

import numpy as np

from moirai_moe_forecaster.data.series import Array, Series

SHORT = 6
"""In points: gaps that a line fills well without a cycle."""
WORTHWHILE = 0.05
"""Share of a series from which on gaps are filled."""
LONGEST_END = 32
"""In points: the longest gap at the end of a series that is forecast."""


def fill_gaps(values: Array, cycle: Array | None = None, longest: int = SHORT) -> Array:
    """Fill the gaps between observed values of a series (time,), if they are many.

    Parameters
    ----------
    values : ndarray, (time,)
        NaN is missing.
    cycle : ndarray, (time,), optional
        What repeats in the series.
    longest : int
        Points of the longest gap that is filled.
    """
    seen = np.flatnonzero(~np.isnan(values))
    if len(seen) in (0, len(values)):
        return values
    time = np.arange(len(values))
    rest = values if cycle is None else values - cycle
    line = np.interp(time, seen, rest[seen])
    if cycle is not None:
        line += cycle
    before = np.searchsorted(seen, time)
    inside = (before > 0) & (before < len(seen))
    last = len(seen) - 1
    gap = seen[before.clip(max=last)] - seen[(before - 1).clip(0)] - 1
    filled = np.isnan(values) & inside & (gap <= longest)
    return np.where(filled, line, values) if filled.mean() >= WORTHWHILE else values


def gap_at_end(series: Series) -> int:
    """Steps at the end of a series that are to be forecast, as no variate is observed there.

    None where a past covariate still is.
    """
    seen = np.flatnonzero((~np.isnan(series.target)).any(0))
    start = int(seen[-1]) + 1
    steps = series.target.shape[1] - start
    known = ~np.isnan(series.past[:, start:]).all()
    return 0 if steps > LONGEST_END or known else steps


def without_end(series: Series, steps: int) -> Series:
    """Leave out the last steps of a context, for a horizon that is so much longer."""
    end = series.target.shape[1] - steps
    return series._replace(target=series.target[:, :end], past=series.past[:, :end])
