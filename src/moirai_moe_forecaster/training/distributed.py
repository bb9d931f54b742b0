"""The processes that train together, and tensors of which each holds a part (FSDP2)."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn

from moirai_moe_forecaster.errors import InvalidInputError


@dataclass(frozen=True, kw_only=True)
class Processes:
    """This process among those that train together.

    Attributes
    ----------
    rank : int
        The first, 0, writes files and shows progress.
    world_size : int
        How many they are.
    device : torch.device
        Where this process computes.
    """

    rank: int
    world_size: int
    device: torch.device


def single_process(device: torch.device) -> Processes:
    """Return a process that trains by itself."""
    return Processes(rank=0, world_size=1, device=device)


@contextmanager
def joined_processes(device: str = "auto") -> Iterator[Processes]:
    """Join the other processes for as long as the context lasts.

    A process group that exists is used and left alone. Otherwise one is made if torchrun started
    this process beside others, with NCCL on CUDA and gloo elsewhere.

    Parameters
    ----------
    device : str, default="auto"
        A name that torch knows; "auto" is this process's GPU, or the CPU if there is none.

    Raises
    ------
    InvalidInputError
        If there is no such device.
    """
    mine = _device(device)
    if mine.type == "cuda":
        torch.cuda.set_device(mine)
    started = "MASTER_ADDR" in os.environ and int(os.environ.get("WORLD_SIZE", 1)) > 1
    owned = started and not _are_joined()
    if owned:
        dist.init_process_group("nccl" if mine.type == "cuda" else "gloo")
    try:
        if _are_joined():
            yield Processes(rank=dist.get_rank(), world_size=dist.get_world_size(), device=mine)
        else:
            yield single_process(mine)
    finally:
        if owned:
            dist.destroy_process_group()


def is_first_process() -> bool:
    """Whether this process is alone or the first of those that torchrun started."""
    return int(os.environ.get("RANK", 0)) == 0


def sum_over_processes(tensor: Tensor) -> Tensor:
    """Sum a tensor over all processes, in place; without waiting for it on a GPU."""
    if _are_joined():
        dist.all_reduce(tensor)
    return tensor


def largest_over_processes(number: int, device: torch.device) -> int:
    """Return the largest of the processes' numbers."""
    if not _are_joined():
        return number
    largest = torch.tensor(number, device=device)
    dist.all_reduce(largest, dist.ReduceOp.MAX)
    return int(largest.item())


def shard(module: nn.Module, blocks: Iterable[nn.Module], processes: Processes) -> None:
    """Share weights, gradients and the optimiser's moments out to the processes (FSDP2).

    Parameters
    ----------
    module : Module
        Computes the loss in its `forward`.
    blocks : iterable of Module
        Parts of it whose weights are gathered one after another.
    processes : Processes

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
    for block in blocks:
        fully_shard(block, mesh=mesh)
    # not FSDP's default for the outermost module, which would stay whole after a validation
    fully_shard(module, mesh=mesh, reshard_after_forward=True)


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


@torch.no_grad()
def swap(some: list[Tensor], others: list[Tensor]) -> None:
    """Exchange the values of tensors pairwise."""
    for one, other in zip(some, others, strict=True):
        kept = one.clone()
        one.copy_(other)
        other.copy_(kept)


def _is_sharded(tensor: Tensor) -> bool:
    """Whether a tensor is a DTensor, told without importing that class."""
    return hasattr(tensor, "full_tensor")


def _are_joined() -> bool:
    return dist.is_available() and dist.is_initialized()


def _device(name: str) -> torch.device:
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise InvalidInputError(
            f"device must be 'auto' or a device of torch such as 'cpu' or 'cuda:0', got {name!r}"
        ) from error
    if device.type == "cuda":
        if not torch.cuda.is_available():
            raise InvalidInputError(f"device is {name!r}, but torch finds no GPU: use 'cpu'")
        if ":" not in name:
            device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)))
    try:
        torch.ones(1, device=device).item()
    except (RuntimeError, NotImplementedError, AssertionError) as error:
        raise InvalidInputError(f"device {str(device)!r} cannot be used here: {error}") from error
    return device
