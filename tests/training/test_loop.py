"""The loop learns, stops, resumes and refuses."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from moirai_moe_forecaster.config import ModelConfig, TrainConfig
from moirai_moe_forecaster.errors import CheckpointError, ConfigError, TrainingError
from moirai_moe_forecaster.training import loop
from moirai_moe_forecaster.training.corpus import Source
from moirai_moe_forecaster.training.loop import learning_rate, pretrain

MODEL = ModelConfig(
    d_model=16, d_ff=16, num_layers=1, num_heads=1, num_experts=4, experts_per_token=2
)
TRAINING = TrainConfig(
    steps=8,
    batch_rows=4,
    row_tokens=16,
    max_points=256,
    warmup_steps=2,
    synthetic_share=0.0,
    coupled_share=0.0,
    log_every=1,
    save_every=4,
    validate_every=4,
)


def waves() -> list[Source]:
    time = np.arange(300)
    series = [np.sin(2 * np.pi * time / period) for period in range(5, 30)]
    points = np.concatenate(series).astype(np.float32)
    return [Source("waves", points, np.arange(0, len(points) + 1, 300), 1.0)]


def metrics(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_the_loss_falls_and_metrics_are_written(tmp_path: Path) -> None:
    plain = {"mixing_share": 0.0, "stride_share": 0.0, "missing_share": 0.0}
    changes = {"steps": 60, "learning_rate": 5e-3, **plain}
    longer = TrainConfig(**{**TRAINING.to_dict(), **changes})
    pretrain(MODEL, longer, waves(), tmp_path, progress=False)
    lines = metrics(tmp_path)
    assert [line["step"] for line in lines] == list(range(1, 61))
    losses = [line["loss"] for line in lines]
    assert np.mean(losses[-10:]) < np.mean(losses[:10]) - 0.1
    assert "validation_loss" in lines[-1]


def test_a_resumed_run_is_bit_equal_to_an_unbroken_one(tmp_path: Path) -> None:
    pretrain(MODEL, TRAINING, waves(), tmp_path / "whole", progress=False)
    broken = tmp_path / "broken"

    class Stop(Exception):
        pass

    real = loop.train_step

    def dies_at_six(state: loop.State, *rest: object) -> dict[str, float]:
        if state.step == 6:
            raise Stop
        return real(state, *rest)  # type: ignore[arg-type]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "train_step", dies_at_six)
        with pytest.raises(Stop):
            pretrain(MODEL, TRAINING, waves(), broken, progress=False)
    pretrain(MODEL, TRAINING, waves(), broken, resume=True, progress=False)
    expected = {line["step"]: line["loss"] for line in metrics(tmp_path / "whole")}
    repeated = metrics(broken)
    assert [line["step"] for line in repeated] == [1, 2, 3, 4, 5, 6, 5, 6, 7, 8]
    assert all(line["loss"] == expected[int(line["step"])] for line in repeated)


def test_a_folder_is_not_overwritten_and_a_missing_run_not_resumed(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="holds no run"):
        pretrain(MODEL, TRAINING, waves(), tmp_path, resume=True, progress=False)
    pretrain(MODEL, TRAINING, waves(), tmp_path, progress=False)
    with pytest.raises(CheckpointError, match="holds a run"):
        pretrain(MODEL, TRAINING, waves(), tmp_path, progress=False)
    other = ModelConfig(**{**MODEL.to_dict(), "d_ff": 32})
    with pytest.raises(CheckpointError, match="trains another model"):
        pretrain(other, TRAINING, waves(), tmp_path, resume=True, progress=False)


def test_a_loss_that_is_not_finite_stops_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = loop.training_loss

    def broken(*arguments: object) -> object:
        loss = real(*arguments)  # type: ignore[arg-type]
        return loss._replace(likelihood=loss.likelihood * math.nan)

    monkeypatch.setattr(loop, "training_loss", broken)
    with pytest.raises(TrainingError, match="not finite for 5 steps"):
        pretrain(MODEL, TRAINING, waves(), tmp_path, progress=False)


def test_a_step_that_is_not_finite_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    state = loop._new_state(MODEL, TRAINING)
    before = {name: tensor.clone() for name, tensor in state.network.state_dict().items()}
    maker = loop.BatchMaker(waves(), MODEL, TRAINING)
    batch = maker.batch(0)
    values = torch.full_like(batch.tokens.values, math.inf)
    bad = batch._replace(tokens=batch.tokens._replace(values=values))
    assert not math.isfinite(loop.train_step(state, bad, TRAINING, 1e-3)["loss"])
    for name, tensor in state.network.state_dict().items():
        assert torch.equal(tensor, before[name])


def test_the_learning_rate_warms_up_stays_and_falls_to_zero() -> None:
    config = TrainConfig(steps=100, warmup_steps=10, decay_share=0.5, learning_rate=2.0)
    rates = [learning_rate(config, step) for step in range(100)]
    assert rates[0] == pytest.approx(0.2)
    assert rates[10:50] == [2.0] * 40
    assert rates[75] == pytest.approx(1.0)
    assert rates[99] == pytest.approx(0.04)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("steps", 0),
        ("batch_rows", 1.5),
        ("synthetic_share", 1.2),
        ("seed", -1),
        ("min_points", 9999),
    ],
)
def test_a_training_configuration_out_of_range_is_refused(field: str, value: object) -> None:
    with pytest.raises(ConfigError, match=field):
        TrainConfig(**{**TRAINING.to_dict(), field: value})
