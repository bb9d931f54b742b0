"""Muon: momentum made orthogonal, for the matrices inside the blocks; AdamW for all else.

Jordan et al. (2024), with the scale of arXiv 2502.16982, so that both share one learning rate.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

MOMENTUM = 0.95
# of a quintic iteration that brings singular values to about 1 in few steps
COEFFICIENTS = (3.4445, -4.7750, 2.0315)
ITERATIONS = 5
ADAM_UPDATE = 0.2
"""Root mean square of a typical update of Adam, in learning rates."""


class Muon(torch.optim.AdamW):
    """AdamW that steps along orthogonal momentum in groups with ``orthogonal=True``.

    Their parameters are matrices, or stacks of them (..., row, column).
    """

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Take a step, unless `found_inf` says that a gradient is not finite."""
        finite = getattr(self, "found_inf", torch.zeros(())) == 0
        for group in self.param_groups:
            if group.get("orthogonal"):
                for parameter in group["params"]:
                    self._orthogonal_step(parameter, group, finite)
                    parameter.grad = None  # so that AdamW passes it by
        return super().step(closure)

    def _orthogonal_step(self, parameter: Tensor, group: dict[str, Any], finite: Tensor) -> None:
        gradient = parameter.grad
        if gradient is None:
            return
        momentum = self.state[parameter].setdefault("momentum", torch.zeros_like(parameter))
        gradient = torch.where(finite, gradient, 0.0)
        momentum.lerp_(gradient, 1 - MOMENTUM)
        update = orthogonal(gradient.lerp(momentum, MOMENTUM))
        rate = torch.where(finite, group["lr"], 0.0)
        parameter.mul_(1 - rate * group["weight_decay"])
        scale = ADAM_UPDATE * math.sqrt(max(parameter.shape[-2:]))
        parameter.sub_(update.to(parameter.dtype) * (rate * scale))


def orthogonal(matrices: Tensor) -> Tensor:
    """Bring the singular values of matrices (..., row, column) near to 1 (0.7 to 1.2)."""
    x = matrices.bfloat16()
    tall = x.shape[-2] > x.shape[-1]
    x = x.mT if tall else x
    x = x / torch.linalg.matrix_norm(x, keepdim=True).clamp_min(1e-7)
    first, third, fifth = COEFFICIENTS
    for _ in range(ITERATIONS):
        gram = x @ x.mT
        x = first * x + (third * gram + fifth * gram @ gram) @ x
    return x.mT if tall else x
