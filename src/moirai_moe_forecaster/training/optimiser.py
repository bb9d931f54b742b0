"""AdamW, or Muon for the matrices inside the blocks and AdamW for all else."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from moirai_moe_forecaster.config import TrainConfig
from moirai_moe_forecaster.model.network import MoiraiMoE

MOMENTUM = 0.95
# of a quintic iteration that brings singular values to about 1 in few steps
COEFFICIENTS = (3.4445, -4.7750, 2.0315)
ITERATIONS = 5
ADAM_UPDATE = 0.2
"""Root mean square of a typical update of Adam, in learning rates."""


def new_optimiser(network: MoiraiMoE, training: TrainConfig) -> torch.optim.AdamW:
    """AdamW of all parameters that are to be trained, with weight decay on matrices alone.

    With Muon, the matrices of attention and experts are stepped by it.
    """
    named = {name: p for name, p in network.named_parameters() if p.requires_grad}
    matrices = {
        name for name, p in named.items() if p.ndim >= 2 and p.numel() > network.config.d_model
    }
    inner = set()
    if training.optimiser == "muon":
        inner = {n for n in matrices if ".attention." in n or ".experts." in n} - {
            n for n in matrices if n.endswith("variate_bias")
        }
    kinds: list[tuple[set[str], dict[str, Any]]] = [
        (matrices - inner, {"weight_decay": training.weight_decay}),
        (named.keys() - matrices, {"weight_decay": 0.0}),
    ]
    if inner:
        kinds.append((inner, {"weight_decay": training.weight_decay, "orthogonal": True}))
    groups = [
        {"params": [p for name, p in named.items() if name in names], **options}
        for names, options in kinds
    ]
    kind = Muon if inner else torch.optim.AdamW
    return kind(groups, lr=training.learning_rate, betas=training.betas, fused=True)


class Muon(torch.optim.AdamW):
    """AdamW that steps along orthogonal momentum in groups with ``orthogonal=True``.

    Their parameters are matrices, or stacks of them (..., row, column). Jordan et al. (2024), with
    the scale of arXiv 2502.16982, so that both kinds of group share one learning rate.
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
