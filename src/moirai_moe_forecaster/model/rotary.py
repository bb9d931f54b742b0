"""Rotary position embedding over the first half of each attention head (arXiv 2104.09864)."""

from __future__ import annotations

from typing import Any, NamedTuple

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
    rotated: Tensor = _Rotate.apply(x, angles.cos.to(x.dtype), angles.sin.to(x.dtype))
    return rotated


class _Rotate(torch.autograd.Function):
    """A rotation, whose gradient is the rotation back; in fewer passes than autograd's own."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        ctx.save_for_backward(cos, sin)
        return _rotated(x, cos, sin, 1)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        cos, sin = ctx.saved_tensors
        return _rotated(gradients[0], cos, sin, -1), None, None


def _rotated(x: Tensor, cos: Tensor, sin: Tensor, direction: int) -> Tensor:
    quarter = x.shape[-1] // 4
    first, second = x[..., :quarter], x[..., quarter : 2 * quarter]
    turned = x.clone()
    turned[..., :quarter].mul_(cos).addcmul_(second, sin, value=-direction)
    turned[..., quarter : 2 * quarter].mul_(cos).addcmul_(first, sin, value=direction)
    return turned
