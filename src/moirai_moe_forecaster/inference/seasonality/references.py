"""The cycles of many signals, in the form in which the network's references are made of them."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch

from moirai_moe_forecaster.data.series import Array
from moirai_moe_forecaster.inference.seasonality.periods import find_all_periods
from moirai_moe_forecaster.model.reference import Cycles


def reference_cycles(signals: Iterable[Array], most: int) -> Cycles:
    """Find up to `most` periods of every signal (time,), NaN where missing."""
    found = find_all_periods(signals, most)
    length = np.zeros((len(found), most), dtype=np.int64)
    strength = np.zeros((len(found), most), dtype=np.float32)
    for row, periods in enumerate(found):
        for column, period in enumerate(periods[:most]):
            length[row, column], strength[row, column] = round(period.length), period.strength
    return Cycles(torch.from_numpy(length), torch.from_numpy(strength))
