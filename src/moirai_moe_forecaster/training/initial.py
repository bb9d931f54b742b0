"""What a run starts from instead of random weights: token clusters, trained or grown weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from moirai_moe_forecaster.errors import InvalidInputError
from moirai_moe_forecaster.model.moe import CentroidRouter
from moirai_moe_forecaster.model.network import MoiraiMoE


@torch.no_grad()
def set_initial(network: MoiraiMoE, tensors: Mapping[str, Tensor]) -> None:
    """Replace entries of a network's state dict, after which centroid gating must have centroids.

    Parameters
    ----------
    network : MoiraiMoE
    tensors : mapping of str to Tensor
        By their names in ``network.state_dict()``.

    Raises
    ------
    InvalidInputError
        If a name is unknown, a shape differs, or centroid gating is left without centroids; the
        network is then unchanged.
    """
    own = network.state_dict()
    for name, tensor in tensors.items():
        if name not in own:
            raise InvalidInputError(
                f"the network has no {name!r}; expected names of its state_dict(), such as "
                f"{next(iter(own))!r}"
            )
        if tensor.shape != own[name].shape:
            raise InvalidInputError(
                f"{name!r} has the shape {tuple(own[name].shape)} in the network, "
                f"got {tuple(tensor.shape)}"
            )
    for name, module in network.named_modules():
        if isinstance(module, CentroidRouter):
            centroids = f"{name}.centroids"
            if not tensors.get(centroids, own[centroids]).any():
                raise InvalidInputError(
                    f"{centroids!r} was never set: make centroids with "
                    "training.centroids.centroids_from from a dense run and pass them as initial"
                )
    for name, tensor in tensors.items():
        own[name].copy_(tensor)


@torch.no_grad()
def grown(network: MoiraiMoE, num_layers: int) -> MoiraiMoE:
    """Return a network of more blocks with the same forecasts, to go on training from.

    The new blocks lie between the old ones, evenly. Each is a copy of the one before it whose
    attention and experts write nothing to the residual stream at first.

    Parameters
    ----------
    network : MoiraiMoE
    num_layers : int

    Raises
    ------
    InvalidInputError
        If there were to be fewer blocks than there are.
    """
    config = network.config
    if num_layers < config.num_layers:
        raise InvalidInputError(
            f"a network of {config.num_layers} blocks cannot be grown to {num_layers}"
        )
    with torch.random.fork_rng(devices=[]):
        larger = MoiraiMoE(replace(config, num_layers=num_layers))
    old = network.state_dict()
    sources = [layer * config.num_layers // num_layers for layer in range(num_layers)]
    state = {name: tensor for name, tensor in old.items() if not name.startswith("blocks.")}
    for layer, source in enumerate(sources):
        prefix = f"blocks.{source}."
        own = {name.removeprefix(prefix): t for name, t in old.items() if name.startswith(prefix)}
        if layer and sources[layer - 1] == source:
            for name in ("attention.out.weight", "experts.weight_out"):
                own[name] = torch.zeros_like(own[name])
        state |= {f"blocks.{layer}.{name}": tensor for name, tensor in own.items()}
    larger.load_state_dict(state)
    return larger
