"""From series to tokens: patches of points with the masks and ids that attention needs."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from moirai_moe_forecaster.config import TimeIndex


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


def pad_left(points: Tensor, patch_size: int) -> Tensor:
    """Pad the last axis with zeros on the left to whole patches, so that the last one is full."""
    return F.pad(points, (-points.shape[-1] % patch_size, 0))


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
