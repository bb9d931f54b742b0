from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from moirai_moe_forecaster.config import ModelConfig, TrainConfig
from moirai_moe_forecaster.model.network import MoiraiMoE
from moirai_moe_forecaster.training.data.batches import BatchMaker
from moirai_moe_forecaster.training.flops import peak_flops, training_flops
from moirai_moe_forecaster.training.objective import micro_batch, training_loss
from tiny_network import tiny_config


@pytest.mark.parametrize("row_tokens", [16, 64])
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"output_patches": 3, "num_experts": 8, "num_layers": 3},
        {"mixture": ("student_t",) * 3, "reference_periods": 2, "exchange_channels": 16},
    ],
)
def test_the_formula_counts_what_torch_counts(row_tokens: int, changes: dict[str, int]) -> None:
    config = replace(tiny_config(), **changes)
    training = TrainConfig(
        steps=1,
        batch_rows=4,
        row_tokens=row_tokens,
        max_points=16 * config.patch_size,
        synthetic_share=1.0,
        coupled_share=0.0,
    )
    batch = micro_batch(BatchMaker([], config, training).batch(0), config.output_patches)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = MoiraiMoE(config)
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        loss = training_loss(network, batch)
        (loss.likelihood + loss.balance).backward()
    predicting = len(batch.targets.positions)
    assert 0 < predicting < 4 * row_tokens
    formula = training_flops(config, 4, row_tokens, predicting)
    assert formula == pytest.approx(counter.get_total_flops(), rel=0.05)


def test_a_centroid_router_is_no_matrix_product() -> None:
    linear, centroid = (
        training_flops(ModelConfig.preset("tiny", router=router), 1, 100, 50)
        for router in ("linear", "centroid")
    )
    assert linear - centroid == 6 * 100 * 4 * 192 * 8


def test_the_peak_is_that_of_the_machine() -> None:
    peak = peak_flops(torch.device("cpu"), "float32")
    assert 1e9 < peak < 1e14
