"""Rotary position embedding over the first half of each attention head (arXiv 2104.09864)."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

BASE = 10_000.0


class Rotation(NamedTuple):
    """Cosines and sines, (..., token, head_dim / 4) each."""

    cos: Tensor
    sin: Tensor


def rotation(time_id: Tensor, head_dim: int) -> Rotation:
    """Angles of the rotated pairs at positions `time_id` (..., token)."""
    width = head_dim // 2
    exponent = torch.arange(0, width, 2, device=time_id.device, dtype=torch.float32) / width
    angle = time_id[..., None].float() * BASE**-exponent
    return Rotation(angle.cos(), angle.sin())


def rotate(x: Tensor, angles: Rotation) -> Tensor:
    """Rotate the first half of `x` (..., token, head_dim).

    A pair is dimension i of the first quarter with dimension i of the second: contiguous slices,
    faster than interleaved pairs. Official weights, trained with interleaved pairs, are reordered
    when they are loaded (`checkpoint`), which leaves every product of query and key as it was.
    """
    quarter = x.shape[-1] // 4
    first, second, kept = x.split([quarter, quarter, x.shape[-1] - 2 * quarter], -1)
    cos, sin = angles.cos.to(x.dtype), angles.sin.to(x.dtype)
    return torch.cat((first * cos - second * sin, second * cos + first * sin, kept), -1)
