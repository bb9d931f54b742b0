"""Deeper networks that begin as a trained one: new blocks that change nothing yet."""

from __future__ import annotations

from dataclasses import replace

import torch

from moirai_moe_forecaster.errors import InvalidInputError
from moirai_moe_forecaster.model.network import MoiraiMoE


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
