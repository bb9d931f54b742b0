"""The cycles of training windows: found on their prefixes, some lost and some wrong."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from moirai_moe_forecaster.inference.cycles import find_cycles
from moirai_moe_forecaster.model.reference import Cycles
from moirai_moe_forecaster.training.corpus import Integers

LOST_SHARE = 0.15
WRONG_SHARE = 0.05


def prefix_cycles(
    values: Tensor, ends: Integers, most: int, disturbed: np.random.Generator | None
) -> Cycles:
    """Find the cycles of variates (variate, time), NaN where missing, before their `ends`.

    A network that never met a wrong period would trust all: `disturbed`, if there is any, takes all
    periods of some variates away and multiplies those of others.
    """
    signals = values.cpu().numpy()
    cycles = find_cycles((x[:end] for x, end in zip(signals, ends, strict=True)), most)
    if disturbed is not None:
        chance = torch.from_numpy(disturbed.random((len(ends), 1)))
        factor = torch.from_numpy(disturbed.uniform(0.4, 1.9, (len(ends), 1)))
        wrong = (cycles.length * factor).round().long().clamp_min(2) * (cycles.length > 0)
        length = torch.where(chance < LOST_SHARE + WRONG_SHARE, wrong, cycles.length)
        cycles = cycles._replace(length=torch.where(chance < LOST_SHARE, 0, length))
    return Cycles(*(part.to(values.device) for part in cycles))
