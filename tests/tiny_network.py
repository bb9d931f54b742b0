"""Small random networks, made without touching torch's global random state."""

from __future__ import annotations

import functools
from typing import Any

import torch

from moirai_moe_forecaster.config import ModelConfig
from moirai_moe_forecaster.model.network import MoiraiMoE

OFFICIAL_CONVENTIONS: dict[str, Any] = {
    name: getattr(ModelConfig.official(), name)
    for name in (
        "router",
        "centroid_choice",
        "mixture",
        "observed_mask_input",
        "shift_known_future",
        "scale_rule",
        "time_index",
    )
}


def tiny_config(**changes: Any) -> ModelConfig:
    sizes = {
        "d_model": 32,
        "d_ff": 16,
        "num_layers": 2,
        "num_heads": 2,
        "num_experts": 4,
        "experts_per_token": 2,
        "max_seq_len": 64,
    }
    return ModelConfig(**{**sizes, **changes})


@functools.cache
def tiny_network(seed: int = 0, **changes: Any) -> MoiraiMoE:
    """A network in which every parameter matters: none is left at zero or at one."""
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        network = MoiraiMoE(tiny_config(**changes))
        for name, tensor in network.state_dict().items():
            spread = 1.0 if name.endswith(("centroids", "variate_bias", "known_future")) else 0.1
            tensor.add_(spread * torch.randn_like(tensor))
    return network.eval().requires_grad_(False)
