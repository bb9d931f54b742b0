"""Masked location and scale of a context, the normaliser of the network's input."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from moirai_moe_forecaster.config import ScaleRule

OFFICIAL_EPSILON = 1e-5
RELATIVE_FLOOR = 1e-3


class Normaliser(NamedTuple):
    """Location and scale, (..., 1) each, of values (..., time)."""

    location: Tensor
    scale: Tensor

    def standardise(self, values: Tensor) -> Tensor:
        """Map raw values to the network's units."""
        return (values - self.location) / self.scale

    def restore(self, values: Tensor) -> Tensor:
        """Map the network's units back to raw values."""
        return values * self.scale + self.location


def fit_normaliser(values: Tensor, observed: Tensor, rule: ScaleRule) -> Normaliser:
    """Estimate mean and standard deviation over the observed values, in two passes.

    Parameters
    ----------
    values : Tensor, (..., time)
    observed : Tensor of bool, (..., time)
    rule : {"relative", "absolute"}
        "absolute" is the official ``sqrt(var + 1e-5)``. "relative" takes the standard deviation
        itself and, where the values do not vary, a thousandth of their level (1 if that is 0): the
        forecasts of a rescaled series are then the rescaled forecasts.

    Returns
    -------
    Normaliser
        With no observed value: location 0, and the scale of a constant.
    """
    values = torch.where(observed, values, 0.0)
    magnitude = values.abs().amax(-1, keepdim=True)
    # in a unit of the size of the values, whose squares neither overflow nor vanish
    exponent = torch.frexp(magnitude).exponent
    unit = torch.ldexp(torch.ones_like(magnitude), exponent)
    values = values / unit
    count = observed.sum(-1, keepdim=True)
    mean = values.sum(-1, keepdim=True) / count.clamp_min(1)
    centred = torch.where(observed, values - mean, 0.0)
    variance = centred.square().sum(-1, keepdim=True) / (count - 1).clamp_min(1)
    location, deviation = mean * unit, variance.sqrt() * unit
    if rule == "absolute":
        floor = torch.full_like(deviation, math.sqrt(OFFICIAL_EPSILON))
        return Normaliser(location, torch.hypot(deviation, floor))
    rounding = 10 * torch.finfo(values.dtype).eps * magnitude
    flat = torch.where(magnitude > 0, RELATIVE_FLOOR * magnitude, 1.0)
    return Normaliser(location, torch.where(deviation > rounding, deviation, flat))
