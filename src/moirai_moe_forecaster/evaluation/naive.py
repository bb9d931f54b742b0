"""The seasonal naive forecast, which all other scores are held against."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def seasonal_naive(context: Array, horizon: int, seasonality: int) -> Array:
    """Repeat the last season; a missing value is filled from the season before it.

    A context shorter than a season repeats its last value.
    """
    season = seasonality if len(context) >= seasonality else 1
    filled = context.copy()
    for position in np.flatnonzero(np.isnan(filled)):
        if position >= season:
            filled[position] = filled[position - season]
    return np.resize(filled[-season:], horizon)
