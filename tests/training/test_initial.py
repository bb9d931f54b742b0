from __future__ import annotations

import numpy as np
import pytest
import torch

from moirai_moe_forecaster import ModelConfig, MoiraiMoE, MoiraiMoEPipeline
from moirai_moe_forecaster.errors import InvalidInputError
from moirai_moe_forecaster.training.initial import grown

CONFIG = ModelConfig.preset("tiny", num_layers=2, reference_periods=1)


def trained() -> MoiraiMoE:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = MoiraiMoE(CONFIG)
        network.projection.weight.data.mul_(10)
    return network


@pytest.mark.parametrize("layers", [2, 3, 5])
def test_a_grown_network_forecasts_the_same(layers: int) -> None:
    y = np.random.default_rng(0).normal(size=120).cumsum()
    small, large = trained(), grown(trained(), layers)
    assert large.config.num_layers == len(large.blocks) == layers
    one, other = (MoiraiMoEPipeline(n).predict(y, 20, random_state=0) for n in (small, large))
    np.testing.assert_allclose(one.median, other.median, rtol=1e-5)


def test_new_blocks_learn() -> None:
    network = grown(trained(), 4)
    out = [block.get_parameter("experts.weight_out") for block in network.blocks]
    assert [bool(weight.any()) for weight in out] == [True, False, True, False]
    weight = network.blocks[1].get_parameter("attention.out.weight")
    assert weight.requires_grad


def test_networks_do_not_shrink() -> None:
    with pytest.raises(InvalidInputError, match="cannot be grown"):
        grown(trained(), 1)
