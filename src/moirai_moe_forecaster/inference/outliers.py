"""Typing errors: single values that are so far from all others that they cannot be meant.

They count as missing. What is real comes again: a value is judged by the third largest deviation of
its series, so that promotions, storms and rare demand, of which there are three or more, are kept
whatever their size. Where more than half of a series are zeros and nothing else tells a unit,
nothing is judged.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from moirai_moe_forecaster.data.series import Array, Series

FEWEST = 12
"""Observed values from which on any is judged."""
RANK = 3
"""Which of the largest deviations from the median is taken for the largest that is real."""
FAR = 15.0
"""How many times as far from the median a typing error is, at least."""


def without_outliers(series: Series) -> Series:
    """Take implausible values of the targets for missing ones.

    Parameters
    ----------
    series : Series

    Returns
    -------
    Series
        The same one where there are none.
    """
    bad = [implausible(values) for values in series.target]
    if not any(mask.any() for mask in bad):
        return series
    return series._replace(target=np.where(bad, np.nan, series.target))


def implausible(values: Array) -> NDArray[np.bool_]:
    """Which values of a series (time,) are typing errors; at most two are."""
    seen = values[~np.isnan(values)]
    count = len(seen)
    if count < FEWEST:
        return np.zeros(len(values), dtype=bool)
    # half of each, as the sum of two of the largest numbers is none
    middle = 2 * np.median(seen / 2)
    with np.errstate(over="ignore"):
        largest = np.partition(np.abs(seen - middle), count - RANK)[count - RANK]
        # of a constant with one exception, the level is the only unit
        limit = FAR * (largest if largest > 0 else abs(middle))
        far: NDArray[np.bool_] = np.abs(values - middle) > (limit if limit > 0 else np.inf)
    return far
