"""The cycles of training windows: found on their prefixes, some lost and some wrong."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from moirai_moe_forecaster.inference.references import reference_cycles
from moirai_moe_forecaster.model.reference import Cycles
from moirai_moe_forecaster.training.corpus import Integers

LOST_SHARE = 0.15
WRONG_SHARE = 0.05


def prefix_cycles(
    values: Tensor, ends: Integers, most: int, disturbances: NDArray[np.float64] | None
) -> Cycles:
    """Find the cycles of variates (variate, time), NaN where missing, before their `ends`.

    A network that never met a wrong period would trust all: `disturbances`, two uniform numbers
    (variate, 2), take the periods of some variates away and multiply those of others.
    """
    signals = values.cpu().numpy()
    cycles = reference_cycles((x[:end] for x, end in zip(signals, ends, strict=True)), most)
    if disturbances is not None:
        chance, factor = torch.from_numpy(disturbances).T[..., None]
        wrong = (cycles.length * (0.4 + 1.5 * factor)).round().long().clamp_min(2)
        length = torch.where(chance < LOST_SHARE + WRONG_SHARE, wrong, cycles.length)
        length = torch.where((chance < LOST_SHARE) | (cycles.length == 0), 0, length)
        cycles = cycles._replace(length=length)
    return Cycles(*(part.to(values.device) for part in cycles))
