"""Several processes that share a step train as one does."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from test_pretrain import MODEL, STEADY, metrics, waves

from moirai_moe_forecaster.training.pretrain import pretrain

# four groups of rows; a large weight, so that a wrong balance loss shows itself; saved in between
SHARED = replace(
    STEADY, steps=4, batch_rows=32, balance_weight=1.0, ema_decay=0.5, save_every=2, log_every=1
)
RUNS: dict[str, dict[str, Any]] = {
    "ddp": {},
    "ddp_accumulated": {"accumulate": 2},
    "fsdp": {"shard": True},
}
WORKER = """
import os, sys, torch
import torch.distributed as dist
sys.path.insert(0, {here!r})
from test_distributed import *

rank = int(os.environ["RANK"])
torch.manual_seed(rank)  # what the processes share must not come from here
folder = Path({folder!r})
store = dist.FileStore(str(folder / "store"), 2)
dist.init_process_group("gloo", store=store, rank=rank, world_size=2)
for name, options in RUNS.items():
    train(folder / name, 4, **options)
train(folder / "one_then_fsdp", 4, resume=True, shard=True)
train(folder / "fsdp_then_one", 2, shard=True)
assert dist.is_initialized()
dist.destroy_process_group()
train(folder / "torchrun", 4)
assert not dist.is_initialized()
"""


def train(folder: Path, steps: int, **options: Any) -> torch.nn.Module:
    training = replace(SHARED, steps=steps, accumulate=options.pop("accumulate", 1))
    network = pretrain(MODEL, training, waves(), folder, progress=False, device="cpu", **options)
    assert all(type(parameter.data) is torch.Tensor for parameter in network.parameters())
    return network


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs of one process, and the same of two that gloo connects."""
    folder = tmp_path_factory.mktemp("runs")
    train(folder / "one", 4)
    train(folder / "one_accumulated", 4, accumulate=2)
    train(folder / "one_then_fsdp", 2)
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        port = probe.getsockname()[1]
    code = WORKER.format(here=str(Path(__file__).parent), folder=str(folder))
    workers = []
    for rank in range(2):
        shared = {"MASTER_ADDR": "localhost", "MASTER_PORT": str(port), "WORLD_SIZE": "2"}
        own = {"RANK": str(rank), "LOCAL_RANK": str(rank), "OMP_NUM_THREADS": "1"}
        environment = {**os.environ, **shared, **own}
        workers.append(subprocess.Popen([sys.executable, "-c", code], env=environment))
    try:
        assert [worker.wait(200) for worker in workers] == [0, 0]
    finally:
        for worker in workers:
            worker.kill()
    train(folder / "fsdp_then_one", 4, resume=True)
    return folder


@pytest.mark.parametrize(
    ("name", "alone"),
    [
        ("ddp", "one"),
        ("torchrun", "one"),
        ("fsdp", "one"),
        ("ddp_accumulated", "one_accumulated"),
        ("one_then_fsdp", "one"),
        ("fsdp_then_one", "one"),
    ],
)
def test_two_processes_train_as_one(folder: Path, name: str, alone: str) -> None:
    expected, got = metrics(folder / alone), metrics(folder / name)
    assert [line["step"] for line in got] == [1, 2, 3, 4]
    for field in ("loss", "points", "balance", "gradient_norm", "expert_load"):
        for one, two in zip(expected, got, strict=True):
            tolerance = 1e-5 if field == "loss" else 2e-3
            np.testing.assert_allclose(two[field], one[field], tolerance, err_msg=field)
    losses = [runs[-1]["validation_loss"] for runs in (expected, got)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


@pytest.mark.parametrize("name", ["ddp", "fsdp"])
def test_the_state_of_two_processes_is_that_of_one(folder: Path, name: str) -> None:
    one, two = (load_file(folder / run / "state.safetensors") for run in ("one", name))
    assert two.keys() == one.keys()
    assert {key.split(".")[0] for key in one} == {"model", "optimiser", "average"}
    for key in one:
        # all tokens see their own variate alone: its bias has no gradient but rounding errors,
        # which AdamW takes for large
        if "variate_bias" in key:
            continue
        torch.testing.assert_close(two[key], one[key], rtol=1e-3, atol=2e-5, msg=key)
    assert json.loads((folder / name / "run.json").read_text())["step"] == 4
