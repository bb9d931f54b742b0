"""The cycles of training windows: found on their prefixes, some lost and some wrong."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from moirai_moe_forecaster.inference.references import reference_cycles
from moirai_moe_forecaster.model.reference import Cycles
from moirai_moe_forecaster.training.data.corpus import Array, Integers

LOST_SHARE = 0.15
WRONG_SHARE = 0.05


def prefix_cycles(
    values: Tensor, ends: Integers, most: int, disturbances: NDArray[np.float64] | None
) -> Cycles:
    """Find the cycles of variates (variate, time), NaN where missing, before their `ends`.

    A network that never met a wrong period would trust all: `disturbances`, two uniform numbers
    (variate, 2), take the periods of some variates away and multiply those of others.
    """
    signals, starts = values.cpu().numpy(), np.zeros_like(ends)
    lost = np.zeros(len(ends), dtype=bool)
    if disturbances is not None:
        lost = disturbances[:, 0] < LOST_SHARE
        starts = _grid_starts(signals, ends)
    ranges = zip(signals, starts, np.where(lost, starts, ends), strict=True)
    cycles = reference_cycles((signal[start:end] for signal, start, end in ranges), most)
    if disturbances is not None:
        chance, factor = torch.from_numpy(disturbances).T[..., None]
        wrong = (cycles.length * (0.4 + 1.5 * factor)).round().long().clamp_min(2)
        wrong = torch.where(cycles.length > 0, wrong, 0)
        length = torch.where(chance < LOST_SHARE + WRONG_SHARE, wrong, cycles.length)
        cycles = cycles._replace(length=length)
    return Cycles(*(part.to(values.device) for part in cycles))


def _grid_starts(signals: Array, ends: Integers) -> Integers:
    """Drop up to an eighth of each prefix's first points, so that it has one of few lengths.

    The detector keeps what depends on the length alone.
    """
    first = np.isfinite(signals).argmax(1)
    length = np.maximum(ends - first, 1)
    step = 2 ** np.maximum(np.log2(length).astype(np.int64) - 3, 0)
    return np.where(ends > first, ends - length + length % step, ends)
