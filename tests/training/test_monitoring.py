from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from moirai_moe_forecaster.training import monitoring
from moirai_moe_forecaster.training.monitoring import Clock, append, expert_load, load_entropy


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
    clock = Clock(torch.device("cpu"))
    for _ in range(2):
        now += 0.25
        clock.count(3e6)
    with clock.paused():
        now += 64
    assert clock.read() == (0.25, 12e6)
    now += 0.5
    clock.count(1e6)
    assert clock.read() == (0.5, 2e6)
