"""Root-mean-square normalisation (arXiv 1910.07467), with its gradient in closed form."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

EPSILON = 1e-5


class RMSNorm(nn.Module):
    """Divide the last axis by its root mean square and scale it by learned weights.

    Parameters
    ----------
    width : int
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        """Normalise `x` (..., width)."""
        if x.is_cuda:
            return F.rms_norm(x, self.weight.shape, self.weight.to(x.dtype), EPSILON)
        # torch has one kernel for it on a GPU, and many small ones on a CPU
        normed: Tensor = _Normalise.apply(x, self.weight)
        return normed


class _Normalise(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        ctx.dtype = x.dtype
        x = x.float()
        norm = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
        inverse = norm.square_().div_(x.shape[-1]).add_(EPSILON).rsqrt_()
        ctx.save_for_backward(x, inverse, weight)
        return (x * inverse).mul_(weight).to(ctx.dtype)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor]:
        x, inverse, weight = ctx.saved_tensors
        gradient = gradients[0].float()
        unit = x * inverse
        of_weight = (gradient * unit).flatten(0, -2).sum(0)
        of_unit = gradient * weight
        along = (of_unit * unit).mean(-1, keepdim=True)
        of_x = of_unit.addcmul_(unit, along, value=-1).mul_(inverse)
        return of_x.to(ctx.dtype), of_weight
