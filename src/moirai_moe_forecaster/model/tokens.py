"""From series to tokens: the normaliser, and patches with the masks and ids attention needs."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from moirai_moe_forecaster.config import ScaleRule, TimeIndex

OFFICIAL_EPSILON = 1e-5
RELATIVE_FLOOR = 1e-3


class TokenBatch(NamedTuple):
    """Sequences of tokens; one token is one patch of one variate.

    The order of tokens carries no meaning: attention reads the ids alone.

    Attributes
    ----------
    values : Tensor, (batch, token, patch_size)
        Standardised values.
    observed : Tensor of bool, (batch, token, patch_size)
        Which of them were observed.
    time_id : Tensor of int64, (batch, token)
        Position in time, in patches.
    variate_id : Tensor of int64, (batch, token)
        Which variate of its sample a token belongs to.
    sample_id : Tensor of int64, (batch, token)
        Which sample of a packed sequence a token belongs to; 0 is padding.
    known_future : Tensor of bool, (batch, token)
        Whether a token belongs to a covariate that is known ahead of time.
    reference : Tensor, (batch, token, reference_width)
        What the points that it predicts were in earlier cycles (`model.reference`); of no width
        for networks that do not read it.
    """

    values: Tensor
    observed: Tensor
    time_id: Tensor
    variate_id: Tensor
    sample_id: Tensor
    known_future: Tensor
    reference: Tensor = torch.empty(1, 1, 0)

    def to(self, device: torch.device | str) -> TokenBatch:
        """Return the same tokens on another device."""
        return TokenBatch(*(tensor.to(device, non_blocking=True) for tensor in self))


def patches(points: Tensor, patch_size: int) -> Tensor:
    """Cut the last axis into patches: (..., time) -> (..., time / patch_size, patch_size)."""
    return points.unflatten(-1, (points.shape[-1] // patch_size, patch_size))


def time_index(observed: Tensor, rule: TimeIndex) -> Tensor:
    """Number the patches of a context.

    Parameters
    ----------
    observed : Tensor of bool, (..., patch)
        Whether a patch holds any observed value.
    rule : {"position", "observed"}
        Count all patches, or, as official checkpoints do, those from the first observed one on;
        the ones before it then share its number.

    Returns
    -------
    Tensor of int64, (..., patch)
    """
    if rule == "position":
        return torch.arange(observed.shape[-1], device=observed.device).expand(observed.shape)
    return (observed.long().cummax(-1).values.cumsum(-1) - 1).clamp_min(0)


def next_patches(tokens: TokenBatch, count: int) -> tuple[Tensor, Tensor]:
    """Give every token the patches that follow it, the ones that its distribution is scored on.

    Tokens of one variate must stand in order of time beside each other.

    Parameters
    ----------
    tokens : TokenBatch
    count : int
        How many following patches, `ModelConfig.output_patches`.

    Returns
    -------
    values : Tensor, (batch, token, count, patch_size)
    observed : Tensor of bool, (batch, token, count, patch_size)
        False also where no such patch exists.
    """
    values, observed = [], []
    for step in range(1, count + 1):
        follows = (
            (_later(tokens.sample_id, step) == tokens.sample_id)
            & (_later(tokens.variate_id, step) == tokens.variate_id)
            & (tokens.sample_id > 0)
        )
        values.append(_later(tokens.values, step))
        observed.append(_later(tokens.observed, step) & follows[..., None])
    return torch.stack(values, 2), torch.stack(observed, 2)


def _later(tensor: Tensor, step: int) -> Tensor:
    """Shift the token axis by `step` to the left, zeros entering at the end."""
    shifted = torch.zeros_like(tensor)
    shifted[:, :-step] = tensor[:, step:]
    return shifted


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
    exponent = torch.frexp(magnitude).exponent - 1
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
    least = torch.finfo(values.dtype).smallest_normal
    flat = torch.where(magnitude > 0, (RELATIVE_FLOOR * magnitude).clamp_min(least), 1.0)
    return Normaliser(location, torch.where(deviation > rounding, deviation, flat))
