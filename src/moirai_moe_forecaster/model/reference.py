"""What repeats: the values one cycle before the points that a token predicts."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from moirai_moe_forecaster.config import ModelConfig

DOUBLINGS = 5  # means and gaps reach over 2 ** DOUBLINGS cycles
DECAY = 0.75


class Cycles(NamedTuple):
    """Periods of signals, the clearest first.

    Attributes
    ----------
    length : Tensor of int64, (signal, period)
        In points; 0 where no further one was found.
    strength : Tensor, (signal, period)
        From 0 to 1.
    """

    length: Tensor
    strength: Tensor


class Reference(NamedTuple):
    """The parts of the features that `reference` gives a token.

    Attributes
    ----------
    values : Tensor, (..., channel, point)
        Last cycle and mean cycle of each period, where the token predicts; 0 where not known.
    known : Tensor of bool, of that shape
    facts : Tensor, (..., 2 * period)
        Strength and logarithm of each period; 0 where there is none.
    """

    values: Tensor
    known: Tensor
    facts: Tensor


def points_ahead(config: ModelConfig) -> int:
    """How many points one token predicts."""
    return config.output_patches * config.patch_size


def reference_width(config: ModelConfig) -> int:
    """How many features a token has besides its patch; none without references."""
    return config.reference_periods * 2 * (points_ahead(config) + 1)


def reference(
    signal: Tensor, seen: Tensor, cycles: Cycles, row: Tensor, end: Tensor, ahead: int
) -> Tensor:
    """Look up what the next points were in earlier cycles.

    A token sees only what lies before its own end.

    Parameters
    ----------
    signal : Tensor, (signal, time)
        Standardised values.
    seen : Tensor of bool, (signal, time)
    cycles : Cycles
        Of each signal.
    row, end : Tensor of int64, (...)
        Of each token: its signal, and the time after its last point.
    ahead : int
        How many points it predicts.

    Returns
    -------
    Tensor, (..., feature)
        NaN where nothing is known; `split_reference` names the parts.
    """
    found = cycles.length > 0
    signals, _ = found.nonzero(as_tuple=True)
    past = _past_cycles(signal[signals], seen[signals], cycles.length[found])
    # (..., period, point): where in the last cycle before the end a point lies
    length = cycles.length[row][..., None]
    period, step = length.clamp_min(1), torch.arange(ahead, device=signal.device)
    at = end[..., None, None] + step - period * (step // period + 1)
    known = (at >= 0) & (length > 0)
    # number of a signal's period among those that were found
    number = (found.flatten().cumsum(0) - 1).clamp_min(0).view(found.shape)
    place = number[row][..., None] * signal.shape[1] + at.clamp_min(0)
    values = [
        torch.where(known, part.flatten()[place], torch.nan)
        if len(part)
        else torch.full(at.shape, torch.nan, device=signal.device, dtype=signal.dtype)
        for part in past
    ]
    strength = torch.where(length > 0, cycles.strength[row][..., None], torch.nan)
    logarithm = torch.where(length > 0, period.log(), torch.nan)
    return torch.cat((*values, strength, logarithm), -1).flatten(-2)


def _past_cycles(signal: Tensor, seen: Tensor, length: Tensor) -> tuple[Tensor, Tensor]:
    """At every time, what was seen there or last in earlier cycles, and the mean over cycles.

    Sums over 1, 2, 4, ... cycles double until they reach `2 ** DOUBLINGS`.

    Parameters
    ----------
    signal : Tensor, (signal, time)
    seen : Tensor of bool, (signal, time)
    length : Tensor of int64, (signal,)

    Returns
    -------
    last, mean : Tensor, (signal, time)
        NaN where none of the cycles was seen.
    """
    last = torch.where(seen, signal, torch.nan)
    total, weight = torch.where(seen, signal, 0.0), seen.to(signal.dtype)
    time = torch.arange(signal.shape[1], device=signal.device)
    for cycles in (2**doubling for doubling in range(DOUBLINGS)):
        at = time - cycles * length[:, None]
        there, at = at >= 0, at.clamp_min(0)
        share = DECAY**cycles * there
        total = total + share * total.gather(-1, at)
        weight = weight + share * weight.gather(-1, at)
        earlier = torch.where(there, last.gather(-1, at), torch.nan)
        last = torch.where(last.isnan(), earlier, last)
    return last, total / weight  # 0 / 0 is NaN: not known


def patch_references(
    signal: Tensor, seen: Tensor, cycles: Cycles, positions: range, size: int, ahead: int
) -> Tensor:
    """Give the patches at some positions of every signal their references.

    Parameters
    ----------
    signal : Tensor, (signal, time)
    seen : Tensor of bool, (signal, time)
    cycles : Cycles
        Of each signal.
    positions : range
        Of the patches, of `size` points each.
    size, ahead : int

    Returns
    -------
    Tensor, (signal, patch, feature)
    """
    shape = len(signal), len(positions)
    if not cycles.length.shape[-1]:
        return signal.new_empty(*shape, 0)
    row = torch.arange(shape[0], device=signal.device)[:, None].expand(shape)
    end = torch.tensor(positions, device=signal.device).add(1).mul(size).expand(shape)
    return reference(signal, seen, cycles, row, end, ahead)


def split_reference(features: Tensor, config: ModelConfig) -> Reference:
    """Name the parts of a token's features."""
    ahead = points_ahead(config)
    parts = features.unflatten(-1, (config.reference_periods, -1))
    values, facts = parts.split([2 * ahead, 2], -1)
    values = values.unflatten(-1, (2, ahead)).flatten(-3, -2)
    known = values.isfinite()
    return Reference(torch.where(known, values, 0.0), known, facts.nan_to_num(0.0).flatten(-2))
