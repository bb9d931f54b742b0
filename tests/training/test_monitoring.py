from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from moirai_moe_forecaster.config import ModelConfig, TrainConfig
from moirai_moe_forecaster.model.network import MoiraiMoE
from moirai_moe_forecaster.training import monitoring
from moirai_moe_forecaster.training.data.batches import BatchMaker
from moirai_moe_forecaster.training.monitoring import (
    StepTimer,
    append,
    expert_load,
    load_entropy,
    peak_flops,
    training_flops,
)
from moirai_moe_forecaster.training.objective import micro_batch, training_loss
from tiny_network import tiny_config


def test_load_is_relative_to_a_fair_share() -> None:
    counts = torch.tensor([[5, 5, 5, 5], [0, 0, 20, 0], [0, 0, 0, 0]])
    assert expert_load(counts) == [[1, 1, 1, 1], [0, 0, 4, 0], [0, 0, 0, 0]]


def test_entropy_is_one_for_an_even_load_and_zero_for_a_single_expert() -> None:
    counts = torch.tensor([[5, 5, 5, 5], [0, 0, 20, 0], [10, 10, 0, 0]])
    assert load_entropy(counts) == pytest.approx([1, 0, 0.5])
    assert load_entropy(torch.tensor([[7]])) == [1.0]


def test_a_line_holds_losses_in_full_and_the_rest_short(tmp_path: Path) -> None:
    loss = float(torch.rand((), generator=torch.Generator().manual_seed(0)))
    file = tmp_path / "metrics.jsonl"
    append(file, {"step": 123456, "loss": loss, "balance": 1 / 3, "expert_load": [[2 / 3]]})
    append(file, {"loss": float("inf"), "gradient_norm": float("nan")})
    first, second = (json.loads(line) for line in file.read_text().splitlines())
    assert np.float32(first.pop("loss")) == np.float32(loss)
    assert first == {"step": 123456, "balance": 0.3333, "expert_load": [[0.6667]]}
    assert second == {"loss": None, "gradient_norm": None}


def test_the_clock_leaves_pauses_out_and_starts_afresh(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(monitoring, "time", SimpleNamespace(perf_counter=lambda: now))
    timer = StepTimer(torch.device("cpu"))
    for _ in range(2):
        now += 0.25
        timer.count(3e6)
    with timer.paused():
        now += 64
    assert timer.read() == (0.25, 12e6)
    now += 0.5
    timer.count(1e6)
    assert timer.read() == (0.5, 2e6)


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
    assert 1e7 < peak < 1e14
