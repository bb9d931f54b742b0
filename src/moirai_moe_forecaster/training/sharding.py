"""Tensors of which every process holds a part (FSDP2), beside ordinary ones."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor

from moirai_moe_forecaster.errors import InvalidInputError
from moirai_moe_forecaster.training.distributed import Processes
from moirai_moe_forecaster.training.objective import Objective


def shard(objective: Objective, processes: Processes) -> None:
    """Share the weights, gradients and optimiser's moments of every block out to the processes.

    Raises
    ------
    InvalidInputError
        If there is one process only.
    """
    if processes.world_size == 1:
        raise InvalidInputError(
            "sharding needs several processes, got one: start them with torchrun, "
            "or train without it"
        )
    # imported here and below, as it takes seconds that most runs need not spend
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh(processes.device.type, (processes.world_size,))
    for block in objective.network.blocks:
        fully_shard(block, mesh=mesh)
    # not FSDP's default for the outermost module, which would stay whole after a validation
    fully_shard(objective, mesh=mesh, reshard_after_forward=True)


def whole(tensor: Tensor) -> Tensor:
    """Return the full tensor; every process must take part."""
    detached: Any = tensor.detach()
    return detached.full_tensor() if _is_sharded(tensor) else detached


def part(tensor: Tensor) -> Tensor:
    """Return what this process holds of a tensor, sharing its memory."""
    detached: Any = tensor.detach()
    return detached.to_local() if _is_sharded(tensor) else detached


def like(tensor: Tensor, values: Tensor) -> Tensor:
    """Lay out the same full `values` of every process as `tensor` is, and on its device."""
    values = values.to(tensor.device)
    if not _is_sharded(tensor):
        return values
    from torch.distributed.tensor import DTensor, distribute_tensor

    model = cast(DTensor, tensor)
    return distribute_tensor(values, model.device_mesh, model.placements, src_data_rank=None)


def _is_sharded(tensor: Tensor) -> bool:
    """Whether a tensor is a DTensor, told without importing that class."""
    return hasattr(tensor, "full_tensor")


@torch.no_grad()
def swap(some: list[Tensor], others: list[Tensor]) -> None:
    """Exchange the values of tensors pairwise."""
    for one, other in zip(some, others, strict=True):
        kept = one.clone()
        one.copy_(other)
        other.copy_(kept)
