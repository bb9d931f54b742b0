"""The loop learns, stops, resumes and refuses."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Container, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from moirai_moe_forecaster.config import ModelConfig, TrainConfig
from moirai_moe_forecaster.errors import (
    CheckpointError,
    ConfigError,
    InvalidInputError,
    TrainingError,
)
from moirai_moe_forecaster.training.data.batches import BatchMaker
from moirai_moe_forecaster.training.data.corpus import Source
from moirai_moe_forecaster.training.data.packing import TrainingBatch
from moirai_moe_forecaster.training.distributed import single_process
from moirai_moe_forecaster.training.pretrain import pretrain
from moirai_moe_forecaster.training.state import load_state, new_state
from moirai_moe_forecaster.training.step import learning_rate

MODEL = ModelConfig(
    d_model=16, d_ff=16, num_layers=2, num_heads=1, num_experts=4, experts_per_token=2
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
# the learning rate does not depend on the number of steps, so that runs of any length agree
STEADY = replace(TRAINING, decay_share=0.0)
ENDLESS = 10**6
ALONE = single_process(torch.device("cpu"))


def waves() -> list[Source]:
    time = np.arange(300)
    series = [np.sin(2 * np.pi * time / period) for period in range(5, 30)]
    points = np.concatenate(series).astype(np.float32)
    return [Source("waves", points, np.arange(0, len(points) + 1, 300), 1.0)]


def metrics(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def step_of(folder: Path) -> int:
    step: int = json.loads((folder / "run.json").read_text())["step"]
    return step


def test_the_loss_falls_and_metrics_are_written(tmp_path: Path) -> None:
    plain = {"mixing_share": 0.0, "stride_share": 0.0, "missing_share": 0.0}
    longer = replace(TRAINING, steps=60, learning_rate=5e-3, **plain)
    pretrain(MODEL, longer, waves(), tmp_path, progress=False)
    lines = metrics(tmp_path)
    assert [line["step"] for line in lines] == list(range(1, 61))
    losses = [line["loss"] for line in lines]
    assert np.mean(losses[-10:]) < np.mean(losses[:10]) - 0.1
    assert "validation_loss" in lines[-1]


def test_what_is_held_out_is_not_trained_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[BatchMaker] = []
    real = BatchMaker.__init__

    def record(self: BatchMaker, sources: Sequence[Source], *rest: Any) -> None:
        made.append(self)
        assert [source.lengths.tolist() for source in sources] == [[300] * 10 + [240] + [300] * 14]
        real(self, sources, *rest)

    monkeypatch.setattr(BatchMaker, "__init__", record)
    pretrain(MODEL, replace(TRAINING, steps=1), waves(), tmp_path, progress=False)
    assert made


def test_a_corpus_too_small_to_validate_on_is_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    long = Source("one", np.sin(np.arange(2000, dtype=np.float32)), np.array([0, 2000]), 1.0)
    pretrain(MODEL, replace(TRAINING, steps=1), [long], tmp_path, progress=False)
    assert "there is no validation" in caplog.text


def test_bfloat16_learns_with_weights_in_float32(tmp_path: Path) -> None:
    half = replace(
        STEADY,
        steps=60,
        learning_rate=5e-3,
        precision="bfloat16",
        mixing_share=0.0,
        stride_share=0.0,
        missing_share=0.0,
    )
    full = replace(half, steps=5, precision="float32")
    network = pretrain(MODEL, half, waves(), tmp_path / "half", progress=False)
    pretrain(MODEL, full, waves(), tmp_path / "full", progress=False)
    assert {parameter.dtype for parameter in network.parameters()} == {torch.float32}
    losses, exact = (
        np.array([line["loss"] for line in metrics(tmp_path / name)]) for name in ("half", "full")
    )
    assert losses[-10:].mean() < losses[:10].mean() - 0.1
    assert 0 < abs(losses[:5] - exact).max() < 0.05


def test_a_line_of_metrics_describes_loss_gradient_experts_and_speed(tmp_path: Path) -> None:
    pretrain(MODEL, TRAINING, waves(), tmp_path, progress=False)
    for line in metrics(tmp_path):
        assert 0 < line["gradient_norm"] < 1e4
        assert line["points"] > 0
        assert line["skipped"] == 0
        assert line["tokens_per_second"] == pytest.approx(4 * 16 / line["seconds"], rel=1e-2)
        assert 0 < line["mfu"] < 1
        assert np.shape(line["expert_load"]) == (2, 4)
        np.testing.assert_allclose(np.mean(line["expert_load"], axis=1), 1, rtol=1e-2)
        assert len(line["router_entropy"]) == 2
        assert all(0 <= entropy <= 1.0001 for entropy in line["router_entropy"])
    assert [line["step"] for line in metrics(tmp_path) if "validation_loss" in line] == [4, 8]


# --- resuming and stopping --------------------------------------------------------------------

RUN = """
import sys
from pathlib import Path
sys.path.insert(0, {here!r})
from test_pretrain import *
training = TrainConfig.from_dict({training!r})
pretrain(MODEL, training, waves(), Path({folder!r}), progress=False)
"""


def start(folder: Path, training: TrainConfig, until: int) -> subprocess.Popen[bytes]:
    """Train in another process and return when some step was logged."""
    here = str(Path(__file__).parent)
    code = RUN.format(here=here, training=training.to_dict(), folder=str(folder))
    threads = {"OMP_NUM_THREADS": str(torch.get_num_threads())}
    process = subprocess.Popen([sys.executable, "-c", code], env={**os.environ, **threads})
    file = folder / "metrics.jsonl"
    try:
        while process.poll() is None:
            if file.exists() and file.read_text().count("\n") >= until:
                return process
            time.sleep(0.005)
    except BaseException:  # the run would never end
        process.kill()
        raise
    raise AssertionError(f"the run did not come to step {until}")


def test_a_run_killed_at_any_step_goes_on_bit_by_bit_as_an_unbroken_one(tmp_path: Path) -> None:
    settings = replace(STEADY, ema_decay=0.9, save_every=7)
    process = start(tmp_path / "broken", replace(settings, steps=ENDLESS), until=10)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    before = metrics(tmp_path / "broken")
    saved, killed = step_of(tmp_path / "broken"), len(before)
    assert 0 < saved <= killed
    finished = replace(settings, steps=killed + 5)
    pretrain(MODEL, finished, waves(), tmp_path / "broken", resume=True, progress=False)
    pretrain(MODEL, finished, waves(), tmp_path / "whole", progress=False)
    after = metrics(tmp_path / "broken")[killed:]
    assert [line["step"] for line in after] == list(range(saved + 1, killed + 6))
    compared = ("loss", "gradient_norm", "validation_loss", "expert_load")
    expected = {line["step"]: line for line in metrics(tmp_path / "whole")}
    # the last step of a run is validated out of turn
    for line in before + after:
        for name in compared:
            assert line.get(name) == expected[line["step"]].get(name), (name, line["step"])


def test_sigterm_finishes_the_step_saves_and_exits(tmp_path: Path) -> None:
    process = start(tmp_path, replace(STEADY, steps=ENDLESS, save_every=ENDLESS), until=3)
    assert not (tmp_path / "state.safetensors").exists()
    process.terminate()
    assert process.wait(60) == 143
    assert step_of(tmp_path) == metrics(tmp_path)[-1]["step"] >= 3


def call_after(monkeypatch: pytest.MonkeyPatch, batches: int, action: Callable[[], None]) -> None:
    """Do something while the batch after so many others is made."""
    real = BatchMaker.batch

    def batch(self: BatchMaker, step: int, *parts: int) -> TrainingBatch:
        if step == batches:
            action()
        return real(self, step, *parts)

    monkeypatch.setattr(BatchMaker, "batch", batch)


def test_an_interrupt_saves_and_leaves_the_handlers_as_they_were(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    call_after(monkeypatch, 5, lambda: signal.raise_signal(signal.SIGINT))
    with pytest.raises(KeyboardInterrupt):
        pretrain(MODEL, replace(STEADY, steps=500), waves(), tmp_path, progress=False)
    assert 0 < step_of(tmp_path) < 500
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == handlers


def test_a_run_stops_after_its_minutes_and_goes_on_later(tmp_path: Path) -> None:
    pretrain(MODEL, TRAINING, waves(), tmp_path, progress=False, minutes=0)
    assert step_of(tmp_path) == 1
    pretrain(MODEL, TRAINING, waves(), tmp_path, resume=True, progress=False, minutes=5)
    assert step_of(tmp_path) == 8


def test_it_trains_in_a_thread_where_signals_cannot_be_handled(tmp_path: Path) -> None:
    networks: list[torch.nn.Module] = []

    def train() -> None:
        networks.append(pretrain(MODEL, TRAINING, waves(), tmp_path, progress=False))

    thread = threading.Thread(target=train)
    thread.start()
    thread.join()
    assert networks


def test_a_folder_is_not_overwritten_and_a_missing_run_not_resumed(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="holds no run"):
        pretrain(MODEL, TRAINING, waves(), tmp_path, resume=True, progress=False)
    pretrain(MODEL, TRAINING, waves(), tmp_path, progress=False)
    with pytest.raises(CheckpointError, match="holds a run"):
        pretrain(MODEL, TRAINING, waves(), tmp_path, progress=False)
    other = ModelConfig(**{**MODEL.to_dict(), "d_ff": 32})
    with pytest.raises(CheckpointError, match="trains another model"):
        pretrain(other, TRAINING, waves(), tmp_path, resume=True, progress=False)


def test_a_run_cannot_be_resumed_to_fewer_steps_than_it_has_done(tmp_path: Path) -> None:
    pretrain(MODEL, TRAINING, waves(), tmp_path, progress=False)
    with pytest.raises(ConfigError, match="has done 8 steps, more than steps=7"):
        pretrain(MODEL, replace(TRAINING, steps=7), waves(), tmp_path, resume=True, progress=False)
    pretrain(MODEL, TRAINING, waves(), tmp_path, resume=True, progress=False)


def test_a_file_is_no_folder_for_a_run(tmp_path: Path) -> None:
    (tmp_path / "run").touch()
    with pytest.raises(CheckpointError, match="run is a file"):
        pretrain(MODEL, TRAINING, waves(), tmp_path / "run", progress=False)


FULL_DISK = """
import resource, signal, sys
sys.path.insert(0, {here!r})
from test_pretrain import *
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, 40_000))
try:
    pretrain(MODEL, replace(TRAINING, steps=9), waves(), {folder!r}, resume=True, progress=False)
except CheckpointError as error:
    assert "could not be written" in str(error)
    sys.exit(77)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="files have no limit there")
def test_a_full_disk_leaves_the_last_state_and_says_so(tmp_path: Path) -> None:
    pretrain(MODEL, TRAINING, waves(), tmp_path, progress=False)
    before = (tmp_path / "state.safetensors").read_bytes()
    assert len(before) > 40_000
    code = FULL_DISK.format(here=str(Path(__file__).parent), folder=str(tmp_path))
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 77
    assert (tmp_path / "state.safetensors").read_bytes() == before


def test_a_damaged_state_is_an_error_that_names_it(tmp_path: Path) -> None:
    (tmp_path / "state.safetensors").write_bytes(b"not a state")
    with pytest.raises(CheckpointError, match="is not the state of a run"):
        pretrain(MODEL, TRAINING, waves(), tmp_path, resume=True, progress=False)


def test_a_resumed_run_holds_its_state_in_memory_of_its_own(tmp_path: Path) -> None:
    """Not in pages of the file, which Windows would then refuse to replace."""
    pretrain(MODEL, TRAINING, waves(), tmp_path, progress=False)
    state = new_state(MODEL, TRAINING, ALONE, None)
    load_state(tmp_path, state, TRAINING)
    moments = [value for each in state.optimiser.state.values() for value in each.values()]
    before = [value.clone() for value in moments]
    file = tmp_path / "state.safetensors"
    size = file.stat().st_size
    with file.open("r+b") as stream:
        stream.write(bytes(size))
    assert all(torch.equal(*pair) for pair in zip(moments, before, strict=True))
    assert any(value.any() for value in moments)


def test_changed_settings_of_a_resumed_run_are_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pretrain(MODEL, TRAINING, waves(), tmp_path, progress=False)
    changed = replace(TRAINING, steps=9, betas=(0.9, 0.95))
    pretrain(MODEL, changed, waves(), tmp_path, resume=True, progress=False)
    (warning,) = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert warning == "resumed with betas=[0.9, 0.95]; until now it was [0.9, 0.98]"


# --- the numbers of a run ---------------------------------------------------------------------


def losses(folder: Path, training: TrainConfig, model: ModelConfig = MODEL) -> list[float]:
    pretrain(model, training, waves(), folder, progress=False)
    return [line["loss"] for line in metrics(folder)]


def test_accumulated_micro_batches_are_one_batch(tmp_path: Path) -> None:
    """Three groups of rows in two micro-batches, so that these differ in size."""
    model = ModelConfig(**{**MODEL.to_dict(), "output_patches": 2})
    whole = replace(TRAINING, batch_rows=24, balance_weight=0.0)
    expected = losses(tmp_path / "whole", whole, model)
    got = losses(tmp_path / "parts", replace(whole, accumulate=2), model)
    np.testing.assert_allclose(got, expected, rtol=1e-5)
    points = [[line["points"] for line in metrics(tmp_path / name)] for name in ("whole", "parts")]
    np.testing.assert_allclose(*points, rtol=1e-3)
    balances = [
        [line["balance"] for line in metrics(tmp_path / name)] for name in ("whole", "parts")
    ]
    np.testing.assert_allclose(*balances, rtol=0.05)  # a mean over the micro-batches


def test_more_micro_batches_than_groups_of_rows_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="batch_rows=4 gives 1 groups of 8 rows, fewer than"):
        losses(tmp_path, replace(TRAINING, accumulate=2))


def test_the_final_network_is_the_average_of_the_weights(tmp_path: Path) -> None:
    """After two steps, corrected for its start: (d w1 + w2) / (d + 1)."""
    decay = 0.75
    ends = {}
    for name, steps, average in (("one", 1, 0.0), ("two", 2, 0.0), ("average", 2, decay)):
        training = replace(STEADY, steps=steps, ema_decay=average, warmup_steps=1)
        network = pretrain(MODEL, training, waves(), tmp_path / name, progress=False)
        ends[name] = network.state_dict()
    for name, got in ends["average"].items():
        expected = (decay * ends["one"][name] + ends["two"][name]) / (decay + 1)
        torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-7)
    assert metrics(tmp_path / "average")[-1]["loss"] == metrics(tmp_path / "two")[-1]["loss"]
    validated = [metrics(tmp_path / name)[-1]["validation_loss"] for name in ("average", "two")]
    assert validated[0] != validated[1]


def test_the_user_s_random_state_is_left_alone(tmp_path: Path) -> None:
    before = torch.get_rng_state()
    pretrain(MODEL, replace(TRAINING, steps=1), waves(), tmp_path, progress=False)
    assert torch.equal(torch.get_rng_state(), before)


def test_the_learning_rate_warms_up_stays_and_falls_to_zero() -> None:
    config = TrainConfig(steps=100, warmup_steps=10, decay_share=0.5, learning_rate=2.0)
    rates = [learning_rate(config, step) for step in range(100)]
    assert rates[0] == pytest.approx(0.2)
    assert rates[10:50] == [2.0] * 40
    assert rates[75] == pytest.approx(1.0)
    assert rates[99] == pytest.approx(0.04)


# --- what is not finite -----------------------------------------------------------------------


def spoil(monkeypatch: pytest.MonkeyPatch, steps: Container[int]) -> None:
    """Let the values of some steps be infinite."""
    real = BatchMaker.batch

    def batch(self: BatchMaker, step: int, *parts: int) -> TrainingBatch:
        made = real(self, step, *parts)
        if step not in steps:
            return made
        values = torch.full_like(made.tokens.values, math.inf)
        return made._replace(tokens=made.tokens._replace(values=values))

    monkeypatch.setattr(BatchMaker, "batch", batch)


def test_a_loss_that_is_not_finite_for_long_stops_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoil(monkeypatch, range(1, 100))
    with pytest.raises(TrainingError, match="not finite for 5 steps up to 6"):
        pretrain(MODEL, TRAINING, waves(), tmp_path, progress=False)


def test_skipped_steps_that_are_not_in_a_row_do_not_stop_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoil(monkeypatch, range(0, 12, 2))
    pretrain(MODEL, replace(STEADY, steps=12), waves(), tmp_path, progress=False)
    assert metrics(tmp_path)[-1]["skipped"] == 6


def test_data_without_a_point_to_score_end_the_run_instead_of_a_loss_of_zero(
    tmp_path: Path,
) -> None:
    (source,) = waves()
    nothing = replace(source, points=np.full_like(source.points, np.nan))
    with pytest.raises(TrainingError, match="or for series without any"):
        pretrain(MODEL, TRAINING, [nothing], tmp_path, progress=False)
    assert {line["loss"] for line in metrics(tmp_path)} == {None}
    assert metrics(tmp_path)[-1]["skipped"] == 4


def test_skipped_steps_are_counted_also_over_a_resumption(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoil(monkeypatch, range(2, 5))
    pretrain(MODEL, replace(STEADY, steps=4), waves(), tmp_path, progress=False)
    pretrain(MODEL, STEADY, waves(), tmp_path, resume=True, progress=False)
    lines = metrics(tmp_path)
    assert [line["skipped"] for line in lines] == [0, 0, 1, 2, 3, 3, 3, 3]
    assert [line["loss"] is None for line in lines] == [False] * 2 + [True] * 3 + [False] * 3
    assert json.loads((tmp_path / "run.json").read_text())["skipped"] == 3


def test_a_skipped_step_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = pretrain(MODEL, replace(STEADY, steps=3), waves(), tmp_path, progress=False)
    spoil(monkeypatch, range(3, 5))
    longer = replace(STEADY, steps=5)
    after = pretrain(MODEL, longer, waves(), tmp_path, resume=True, progress=False)
    for name, tensor in after.state_dict().items():
        assert torch.equal(tensor, before.state_dict()[name]), name


# --- arguments --------------------------------------------------------------------------------


@pytest.mark.parametrize("device", ["gpu", "cuda:99x"])
def test_an_unknown_device_is_refused(tmp_path: Path, device: str) -> None:
    with pytest.raises(InvalidInputError, match="device must be 'auto'"):
        pretrain(MODEL, TRAINING, waves(), tmp_path, device=device, progress=False)


def test_a_device_that_cannot_compute_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="device 'meta' cannot be used here"):
        pretrain(MODEL, TRAINING, waves(), tmp_path, device="meta", progress=False)


def test_one_process_alone_cannot_shard(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="start them with torchrun"):
        pretrain(MODEL, TRAINING, waves(), tmp_path, shard=True, progress=False)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("steps", 0),
        ("batch_rows", 1.5),
        ("synthetic_share", 1.2),
        ("seed", -1),
        ("seed", 2**63),
        ("min_points", 9999),
        ("accumulate", 0),
        ("precision", "float16"),
        ("ema_decay", 1.0),
        ("ema_decay", -0.1),
    ],
)
def test_a_training_configuration_out_of_range_is_refused(field: str, value: object) -> None:
    with pytest.raises(ConfigError, match=field):
        TrainConfig(**{**TRAINING.to_dict(), field: value})


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_gpu_resumes_as_an_unbroken_run(tmp_path: Path, precision: Any) -> None:
    whole = replace(STEADY, steps=20, precision=precision, ema_decay=0.9)
    expected = losses(tmp_path / "whole", whole)
    losses(tmp_path / "broken", replace(whole, steps=11))
    pretrain(MODEL, whole, waves(), tmp_path / "broken", resume=True, progress=False)
    got = [line["loss"] for line in metrics(tmp_path / "broken")]
    np.testing.assert_allclose(got, expected, rtol=1e-3)


CENTROID = replace(MODEL, router="centroid", num_layers=1)
CENTROIDS = "blocks.0.router.centroids"


def test_initial_weights_enter_before_the_first_step_and_stay_in_the_state(tmp_path: Path) -> None:
    centroids = torch.arange(64.0).view(4, 16)
    still = replace(TRAINING, learning_rate=1e-30, steps=1)
    given = {CENTROIDS: centroids, "norm.weight": torch.full((16,), 3.0)}
    trained = pretrain(CENTROID, still, waves(), tmp_path, initial=given, progress=False)
    assert torch.equal(trained.state_dict()[CENTROIDS], centroids)
    assert torch.equal(trained.state_dict()["norm.weight"], given["norm.weight"])
    longer = replace(TRAINING, steps=3)
    resumed = pretrain(CENTROID, longer, waves(), tmp_path, resume=True, progress=False)
    assert torch.equal(resumed.state_dict()[CENTROIDS], centroids)
    assert not torch.equal(resumed.state_dict()["norm.weight"], given["norm.weight"])


@pytest.mark.parametrize(
    ("initial", "message"),
    [
        (None, "'blocks.0.router.centroids' was never set: make centroids with"),
        ({CENTROIDS: torch.zeros(4, 16)}, "was never set"),
        ({CENTROIDS: torch.ones(5, 16)}, r"has the shape \(4, 16\) in the network, got \(5, 16\)"),
        ({CENTROIDS: torch.ones(4, 16), "centroids": torch.ones(4, 16)}, "has no 'centroids'"),
    ],
)
def test_initial_weights_that_do_not_fit_are_refused_before_anything_is_written(
    initial: dict[str, torch.Tensor] | None, message: str, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    with pytest.raises(InvalidInputError, match=message):
        pretrain(CENTROID, TRAINING, waves(), folder, initial=initial, progress=False)
    assert not folder.exists()
