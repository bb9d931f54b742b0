"""How evenly a network's tokens are spread over its experts."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from moirai_moe_forecaster.model.moe import expert_counts
from moirai_moe_forecaster.model.network import MoiraiMoE
from moirai_moe_forecaster.model.tokens import TokenBatch


@torch.no_grad()
def expert_load(network: MoiraiMoE, batches: Iterable[TokenBatch]) -> Tensor:
    """Count where each layer sends its tokens.

    Parameters
    ----------
    network : MoiraiMoE
    batches : iterable of TokenBatch
        Moved to the network's device one at a time; padding tokens are not counted.

    Returns
    -------
    Tensor, (layer, num_experts)
        Shares of the choices, summing to 1 in each layer: 1 / num_experts where balanced.
    """
    config, device = network.config, network.norm.weight.device
    counts = torch.zeros(config.num_layers, config.num_experts, dtype=torch.long, device=device)
    for batch in batches:
        tokens = batch.to(device)
        valid = (tokens.sample_id > 0).flatten()
        for layer, routing in enumerate(network.encode(tokens).routings):
            counts[layer] += expert_counts(routing, valid)
    return counts / counts.sum(1, keepdim=True)
