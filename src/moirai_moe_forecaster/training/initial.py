"""What a run starts from instead of random weights: token clusters, or weights trained before."""

from __future__ import annotations

from collections.abc import Mapping

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
