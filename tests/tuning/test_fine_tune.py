"""Fine-tuning gives a better pipeline, or the zero-shot one, and leaves the old one alone."""

from __future__ import annotations

import json
import logging
import pickle
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from moirai_moe_forecaster.checkpoint import CheckpointInfo
from moirai_moe_forecaster.checkpoint.adapters import ADAPTERS_FILE, apply_adapters, load_adapters
from moirai_moe_forecaster.errors import CheckpointError, ConfigError, InvalidInputError
from moirai_moe_forecaster.inference.pipeline import MoiraiMoEPipeline
from moirai_moe_forecaster.tuning import run, run_state
from moirai_moe_forecaster.tuning.lora import LoraConfig
from moirai_moe_forecaster.tuning.run_state import RunState
from moirai_moe_forecaster.tuning.validation import Evaluation
from tiny_network import OFFICIAL_CONVENTIONS, tiny_network

HORIZON = 8
QUICK: dict[str, Any] = {"horizon": HORIZON, "progress": False, "random_state": 0, "batch_size": 8}


def waves(count: int = 6, length: int = 120) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    time = np.arange(length)
    return [
        10 + np.sin(2 * np.pi * (time + rng.integers(12)) / 12) + 0.05 * rng.normal(size=length)
        for _ in range(count)
    ]


def weak() -> MoiraiMoEPipeline:
    """A pipeline of random weights, on which training improves quickly."""
    return MoiraiMoEPipeline(
        tiny_network(), CheckpointInfo("weak", "native", "MIT", "nowhere", None)
    )


def quantiles(pipeline: MoiraiMoEPipeline) -> np.ndarray:
    return pipeline.predict(waves(2), HORIZON, random_state=0).quantile([0.1, 0.5, 0.9])


@pytest.fixture(scope="module")
def tuned() -> MoiraiMoEPipeline:
    return weak().fine_tune(waves(), max_steps=24, learning_rate=5e-3, **QUICK)


@pytest.mark.parametrize(
    ("mode", "rate"), [("lora", 5e-3), ("full", 2e-3), ("head", 5e-3), ("router", 5e-2)]
)
def test_every_mode_improves_what_it_trains_and_nothing_else(mode: Any, rate: float) -> None:
    pipeline = weak()
    before = {name: tensor.clone() for name, tensor in pipeline.network.state_dict().items()}
    tuned = pipeline.fine_tune(waves(), mode=mode, max_steps=16, learning_rate=rate, **QUICK)
    report = tuned.tuning
    assert report is not None
    assert report.before is not None
    assert report.after is not None
    assert report.improved
    assert report.after.relative_to(report.before) < 0.995
    changed = {
        name
        for name, tensor in tuned.network.state_dict().items()
        if not torch.equal(tensor, before[name])
    }
    assert changed <= set(report.trained)
    if mode != "router":
        # without covariates there is nothing to learn about them
        assert changed == set(report.trained) - {"embedding.known_future"}
    for name, tensor in pipeline.network.state_dict().items():
        assert torch.equal(tensor, before[name]), name
    assert "WQL" in str(report)
    assert set(report.after.coverage) == {50, 80, 95}


def test_without_improvement_the_zero_shot_weights_return_and_it_is_said(
    caplog: pytest.LogCaptureFixture,
) -> None:
    pipeline = weak()
    rate = {"max_steps": 8, "learning_rate": 10.0}
    with caplog.at_level(logging.WARNING, logger="moirai_moe_forecaster"):
        tuned = pipeline.fine_tune(waves(), mode="full", **rate, **QUICK)
    assert tuned.tuning is not None
    assert not tuned.tuning.improved
    assert "zero-shot weights are returned" in caplog.text
    assert "zero-shot weights" in str(tuned.tuning)
    for name, tensor in pipeline.network.state_dict().items():
        assert torch.equal(tuned.network.state_dict()[name], tensor), name


def test_series_that_cannot_be_read_are_left_out_on_demand() -> None:
    series = [*waves(), np.full(30, np.nan), np.array(["x"] * 9), np.array([1.0, np.inf, 2.0])]
    options = {"max_steps": 4, "learning_rate": 5e-3, **QUICK}
    with pytest.raises(InvalidInputError, match="must hold real numbers"):
        weak().fine_tune(series, **options)
    tuned = weak().fine_tune(series, on_error="skip", **options)
    count = len(waves())
    assert tuned.tuning is not None
    skipped = dict(tuned.tuning.skipped)
    assert list(skipped) == [str(count + 1), str(count + 2), str(count)]
    assert "only missing values" in skipped[str(count)]
    expected = weak().fine_tune(waves(), **options)
    for name, tensor in tuned.network.state_dict().items():
        assert torch.equal(expected.network.state_dict()[name], tensor), name


def test_two_rates_are_tried_and_the_better_one_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="moirai_moe_forecaster"):
        tuned = weak().fine_tune(waves(), max_steps=16, **QUICK)
    assert "learning rate 0.003 is the best" in caplog.text
    assert tuned.tuning is not None
    assert [evaluation.step for evaluation in tuned.tuning.history] == [0, 1, *range(2, 17, 2)]


def test_the_same_random_state_gives_the_same_weights(tuned: MoiraiMoEPipeline) -> None:
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    again = weak().fine_tune(waves(), max_steps=24, learning_rate=5e-3, **QUICK)
    assert torch.equal(torch.rand(2), expected)
    for name, tensor in tuned.network.state_dict().items():
        assert torch.equal(again.network.state_dict()[name], tensor), name


def test_it_survives_saving_and_pickling(tuned: MoiraiMoEPipeline, tmp_path: Path) -> None:
    tuned.save_pretrained(tmp_path)
    code = (
        "import sys, numpy as np; sys.path.insert(0, sys.argv[2])\n"
        "from test_fine_tune import quantiles\n"
        "from moirai_moe_forecaster import MoiraiMoEPipeline\n"
        "np.save(sys.argv[1] + '/q.npy', quantiles(MoiraiMoEPipeline.from_pretrained(sys.argv[1])))"
    )
    folders = [str(Path(__file__).parent), str(Path(__file__).parents[1])]
    code = f"import sys; sys.path += {folders!r}\n" + code
    subprocess.run([sys.executable, "-c", code, str(tmp_path), folders[0]], check=True, timeout=120)
    np.testing.assert_array_equal(np.load(tmp_path / "q.npy"), quantiles(tuned))
    np.testing.assert_array_equal(quantiles(pickle.loads(pickle.dumps(tuned))), quantiles(tuned))


def test_adapters_load_on_top_of_their_checkpoint(tmp_path: Path) -> None:
    weak().save_pretrained(tmp_path / "base")
    base = MoiraiMoEPipeline.from_pretrained(tmp_path / "base")
    tuned = base.fine_tune(waves(), max_steps=8, learning_rate=5e-3, **QUICK)
    tuned.save_adapters(tmp_path / "adapters")
    assert sorted(file.name for file in (tmp_path / "adapters").iterdir()) == [ADAPTERS_FILE]
    for loaded in (
        MoiraiMoEPipeline.from_pretrained(tmp_path / "adapters"),
        base.with_adapters(tmp_path / "adapters"),
    ):
        np.testing.assert_array_equal(quantiles(loaded), quantiles(tuned))
    adapters = load_adapters(tmp_path / "adapters")
    apply_adapters(tuned.network, adapters, sign=-1)
    for name, tensor in base.network.state_dict().items():
        torch.testing.assert_close(tuned.network.state_dict()[name], tensor)


@pytest.mark.parametrize("mode", ["head", "router"])
def test_whole_tensors_are_adapters_too(mode: Any, tmp_path: Path) -> None:
    pipeline = weak()
    tuned = pipeline.fine_tune(waves(), mode=mode, max_steps=4, learning_rate=0.01, **QUICK)
    tuned.save_adapters(tmp_path)
    np.testing.assert_array_equal(quantiles(pipeline.with_adapters(tmp_path)), quantiles(tuned))


def test_adapters_of_another_checkpoint_are_refused(
    tuned: MoiraiMoEPipeline, tmp_path: Path
) -> None:
    tuned.save_adapters(tmp_path)
    with pytest.raises(CheckpointError, match="trained on other weights"):
        MoiraiMoEPipeline(tiny_network(seed=1)).with_adapters(tmp_path)
    (tmp_path / ADAPTERS_FILE).write_bytes(b"nothing")
    with pytest.raises(CheckpointError, match="damaged"):
        weak().with_adapters(tmp_path)
    with pytest.raises(CheckpointError, match="does not exist"):
        weak().with_adapters(tmp_path / "none")
    with pytest.raises(InvalidInputError, match="has no adapters"):
        weak().save_adapters(tmp_path)


def test_adapters_are_not_hidden_behind_a_checkpoint(
    tuned: MoiraiMoEPipeline, tmp_path: Path
) -> None:
    weak().save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match="holds a whole checkpoint"):
        tuned.save_adapters(tmp_path)
    assert not (tmp_path / ADAPTERS_FILE).exists()


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_adapters_of_rounded_weights_belong_to_these(dtype: str, tmp_path: Path) -> None:
    weak().save_pretrained(tmp_path / "base")
    base = MoiraiMoEPipeline.from_pretrained(tmp_path / "base", dtype=dtype)
    tuned = base.fine_tune(waves(), max_steps=8, learning_rate=5e-3, **QUICK)
    tuned.save_adapters(tmp_path / "adapters")
    for loaded in (
        MoiraiMoEPipeline.from_pretrained(tmp_path / "adapters", dtype=dtype),
        base.with_adapters(tmp_path / "adapters"),
    ):
        assert loaded.network.state_dict().keys() == tuned.network.state_dict().keys()
        for name, tensor in tuned.network.state_dict().items():
            assert torch.equal(loaded.network.state_dict()[name], tensor), name


def test_adapters_of_the_bundled_checkpoint_are_under_a_twentieth_of_it(tmp_path: Path) -> None:
    bundled = MoiraiMoEPipeline.from_pretrained()
    tuned = bundled.fine_tune(waves(2, 60), max_steps=1, learning_rate=1e-3, **QUICK)
    tuned.save_adapters(tmp_path)
    weights = Path(run.__file__).parents[1] / "weights" / "model.safetensors"
    assert (tmp_path / ADAPTERS_FILE).stat().st_size < 0.05 * weights.stat().st_size
    assert load_adapters(tmp_path).base == "bundled"
    loaded = MoiraiMoEPipeline.from_pretrained(tmp_path)
    np.testing.assert_array_equal(quantiles(loaded), quantiles(tuned))


def test_official_layout_in_and_out(tmp_path: Path) -> None:
    network = tiny_network(d_model=64, num_heads=1, num_experts=32, **OFFICIAL_CONVENTIONS)
    MoiraiMoEPipeline(network).save_pretrained(tmp_path / "base", layout="official")
    base = MoiraiMoEPipeline.from_pretrained(tmp_path / "base")
    series = waves(4, 80)
    series[0][20:30] = np.nan
    tuned = base.fine_tune(series, max_steps=8, learning_rate=5e-3, **QUICK)
    assert tuned.tuning is not None
    assert tuned.tuning.improved
    tuned.save_pretrained(tmp_path / "tuned", layout="official")
    settings = json.loads((tmp_path / "tuned" / "config.json").read_text())
    assert "distr_output" in settings
    loaded = MoiraiMoEPipeline.from_pretrained(tmp_path / "tuned")
    np.testing.assert_array_equal(quantiles(loaded), quantiles(tuned))
    with pytest.raises(InvalidInputError, match="token clusters"):
        base.fine_tune(waves(2), mode="router", **QUICK)


def test_short_series_gaps_covariates_and_variates() -> None:
    rng = np.random.default_rng(0)
    panel = pd.DataFrame(
        {"a": rng.normal(size=30), "b": rng.normal(size=30)},
        index=pd.MultiIndex.from_product([["x", "y", "z"], range(10)]),
    )
    options = {**QUICK, "horizon": None, "max_steps": 2}
    assert weak().fine_tune(panel, **options).tuning is not None
    ragged = [rng.normal(size=(n, 2)) for n in (3, 9, 40)]
    ragged[2][5:20, 0] = np.nan
    past = [rng.normal(size=(len(y), 1)) for y in ragged]
    future = [rng.normal(size=(len(y), 2)) for y in ragged]
    tuned = weak().fine_tune(ragged, past_covariates=past, future_covariates=future, **options)
    assert tuned.tuning is not None
    assert np.isfinite(tuned.tuning.losses).all()


@pytest.mark.parametrize(
    ("validation", "windows"),
    [("time", 36), (0.4, 72), (None, 0), (waves(3), 3), ({"y": waves(2)}, 2)],
)
def test_what_is_held_out(validation: Any, windows: int) -> None:
    tuned = weak().fine_tune(waves(12), validation=validation, max_steps=2, **QUICK)
    assert tuned.tuning is not None
    assert tuned.tuning.windows == windows
    if validation is None:
        assert tuned.tuning.best_step == 2
        assert "nothing was held out" in str(tuned.tuning)


def test_held_out_values_do_not_reach_the_training() -> None:
    y = waves()
    spoiled = [np.concatenate((x[:-24], np.full(24, 1e6))) for x in y]
    # few series: three windows of each, a fifth of its points
    options = {**QUICK, "max_steps": 2, "learning_rate": 1e-3}
    one, two = (weak().fine_tune(data, **options).tuning for data in (y, spoiled))
    assert one is not None
    assert two is not None
    assert one.windows == 18
    assert one.losses == two.losses


def test_the_best_steps_are_taken_anew_on_all_data() -> None:
    options = {**QUICK, "max_steps": 16, "learning_rate": 5e-3}
    refitted, held_back = (
        weak().fine_tune(waves(), refit=refit, **options) for refit in (True, False)
    )
    one, two = refitted.tuning, held_back.tuning
    assert one is not None
    assert two is not None
    assert one.refitted
    assert not two.refitted
    assert "anew on all data" in str(one)
    assert (one.history, one.after, one.share) == (two.history, two.after, two.share)
    # the last step was the best: these are the weights of training on everything without validation
    assert (one.best_step, one.share) == (16, 1.0)
    everything = weak().fine_tune(waves(), validation=None, **options).network.state_dict()
    for name, tensor in refitted.network.state_dict().items():
        torch.testing.assert_close(tensor, everything[name], msg=name)
    other = held_back.network.state_dict()
    assert any(not torch.allclose(tensor, other[name]) for name, tensor in everything.items())


def test_the_refitted_weights_are_as_near_to_zero_shot_as_the_best_ones(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    options = {**QUICK, "max_steps": 8, "learning_rate": 5e-3, "mode": "full"}
    found = {}
    for near in (False, True):
        monkeypatch.setattr(RunState, "no_worse", lambda *_, near=near: near)
        tuned = weak().fine_tune(waves(), **options)
        assert tuned.tuning is not None
        assert tuned.tuning.refitted
        assert tuned.tuning.share == (0.25 if near else 1.0)
        found[near] = tuned.network.state_dict()
    for name, start in weak().network.state_dict().items():
        expected = torch.lerp(start, found[False][name], 0.25)
        torch.testing.assert_close(found[True][name], expected, msg=name)


def test_an_interrupt_of_the_last_steps_keeps_the_weights_before(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = {**QUICK, "max_steps": 16, "learning_rate": 5e-3}
    before = weak().fine_tune(waves(), refit=False, **options)
    step, count = run.train_step, 0

    def interrupted(*arguments: Any) -> Any:
        nonlocal count
        count += 1
        if count == 18:
            signal.raise_signal(signal.SIGINT)
        return step(*arguments)

    monkeypatch.setattr(run, "train_step", interrupted)
    tuned = weak().fine_tune(waves(), **options)
    assert tuned.tuning is not None
    assert before.tuning is not None
    assert tuned.tuning.steps == before.tuning.steps == 16
    assert not tuned.tuning.refitted
    assert "without the held-out windows stay" in caplog.text
    for name, tensor in before.network.state_dict().items():
        assert torch.equal(tuned.network.state_dict()[name], tensor), name


def test_freezing(caplog: pytest.LogCaptureFixture) -> None:
    options = {**QUICK, "max_steps": 1, "validation": None}
    with caplog.at_level(logging.INFO, logger="moirai_moe_forecaster"):
        tuned = weak().fine_tune(waves(), freeze=("blocks.0.*", "embedding.*"), **options)
    assert tuned.tuning is not None
    assert not any(n.startswith(("blocks.0.", "embedding.")) for n in tuned.tuning.trained)
    assert f"trains {tuned.tuning.trained_parameters:,} of" in caplog.text


def test_an_interrupt_keeps_the_best_so_far(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(RunState, "no_worse", lambda *_: True)

    def interrupt(evaluation: Evaluation) -> None:
        if evaluation.step == 6:
            signal.raise_signal(signal.SIGINT)

    options = {**QUICK, "max_steps": 48, "learning_rate": 5e-3}
    tuned = weak().fine_tune(waves(), callbacks=[interrupt], **options)
    assert tuned.tuning is not None
    assert tuned.tuning.reason == "interrupted"
    assert tuned.tuning.best_step == 6
    assert tuned.tuning.steps == 6
    # whoever interrupts does not wait for anything that comes after the training
    assert tuned.tuning.share == 1.0
    assert "held-out windows stay" not in caplog.text
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_callback_can_stop() -> None:
    seen: list[int] = []

    def stop(evaluation: Evaluation) -> bool:
        seen.append(evaluation.step)
        return evaluation.step >= 2

    tuned = weak().fine_tune(waves(), callbacks=[stop], max_steps=16, learning_rate=1e-3, **QUICK)
    assert seen == [0, 1, 2]
    assert tuned.tuning is not None
    assert "callback" in tuned.tuning.reason


@pytest.mark.parametrize("calls", [1, 3])
def test_a_callback_stops_the_trial_of_rates_too(calls: int) -> None:
    seen: list[int] = []

    def stop(evaluation: Evaluation) -> bool:
        seen.append(evaluation.step)
        return len(seen) == calls

    tuned = weak().fine_tune(waves(), callbacks=[stop], max_steps=16, **QUICK)
    assert tuned.tuning is not None
    assert "callback" in tuned.tuning.reason
    assert len(seen) == calls
    assert tuned.tuning.steps <= 2


def test_diverged_weights_are_not_returned_without_validation_either(
    caplog: pytest.LogCaptureFixture,
) -> None:
    options = {**QUICK, "max_steps": 16, "learning_rate": 1e30, "validation": None}
    tuned = weak().fine_tune(waves(), **options)
    assert tuned.tuning is not None
    assert not tuned.tuning.improved
    assert "the zero-shot weights are returned" in caplog.text
    np.testing.assert_array_equal(quantiles(tuned), quantiles(weak()))


def test_divergence_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    step = run.train_step

    def spoiled(state: Any, batches: Any, *rest: Any) -> Any:
        if state.step >= 4:
            batches = [
                batch._replace(
                    targets=batch.targets._replace(weights=batch.targets.weights * torch.inf)
                )
                for batch in batches
            ]
        return step(state, batches, *rest)

    monkeypatch.setattr(run, "train_step", spoiled)
    tuned = weak().fine_tune(waves(), max_steps=32, learning_rate=5e-3, **QUICK)
    assert tuned.tuning is not None
    assert tuned.tuning.reason.startswith("diverged")
    assert tuned.tuning.best_step in (4, 8)  # the average still moves while steps are skipped
    assert all(torch.isfinite(t).all() for t in tuned.network.state_dict().values())


@pytest.mark.parametrize("known", [False, True])
def test_a_stopped_run_goes_on_as_an_unbroken_one(tmp_path: Path, known: bool) -> None:
    # with covariates, what the weights forecast has a say in what they are trained on
    data = driven(2) if known else {"y": waves()}
    options = {**QUICK, "max_steps": 16, "learning_rate": 5e-3, "output": tmp_path}
    unbroken = weak().fine_tune(**data, **{**options, "output": None})

    def stop(evaluation: Evaluation) -> bool:
        return evaluation.step == 6

    weak().fine_tune(**data, callbacks=[stop], **options)
    with pytest.raises(CheckpointError, match="holds a run"):
        weak().fine_tune(**data, **options)
    with pytest.raises(CheckpointError, match="another lora, mode"):
        weak().fine_tune(**data, mode="head", resume=True, **options)
    resumed = weak().fine_tune(**data, resume=True, **options)
    for name, tensor in unbroken.network.state_dict().items():
        assert torch.equal(resumed.network.state_dict()[name], tensor), name
    assert resumed.tuning is not None
    assert unbroken.tuning is not None
    assert resumed.tuning.history == unbroken.tuning.history
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [0, 1, *range(2, 17, 2)]
    assert {"loss", "wql", "coverage", "learning_rate", "gradient_norm"} <= lines[-1].keys()


class Killed(BaseException):
    """What ends a process without a word."""


def killed_at(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, call: int) -> None:
    """Let a function end the run at one of its calls."""
    original, count = getattr(owner, name), 0

    def counted(*arguments: Any, **options: Any) -> Any:
        nonlocal count
        count += 1
        if count == call:
            raise Killed
        return original(*arguments, **options)

    monkeypatch.setattr(owner, name, counted)


# three files are renamed into place at every evaluation
@pytest.mark.parametrize("call", [2, 3, 4, 5, 6])
def test_a_kill_between_two_files_leaves_a_run_to_go_on_with(
    call: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = {**QUICK, "max_steps": 8, "learning_rate": 5e-3, "random_state": None}
    with monkeypatch.context() as patch:
        killed_at(patch, run_state.os, "replace", call)
        with pytest.raises(Killed):
            weak().fine_tune(waves(), output=tmp_path, **options)
    if call == 2:
        with pytest.raises(CheckpointError, match="holds no"):
            weak().fine_tune(waves(), output=tmp_path, resume=True, **options)
        weak().fine_tune(waves(), output=tmp_path, **options)
        return
    seed = run_state.saved_seed(tmp_path)
    with pytest.raises(CheckpointError, match="another data"):
        weak().fine_tune(waves(5), output=tmp_path, resume=True, **options)
    resumed = weak().fine_tune(waves(), output=tmp_path, resume=True, **options)
    unbroken = weak().fine_tune(waves(), **{**options, "random_state": seed})
    assert resumed.tuning is not None
    assert unbroken.tuning is not None
    assert resumed.tuning.history == unbroken.tuning.history
    assert resumed.tuning.losses == unbroken.tuning.losses
    for name, tensor in unbroken.network.state_dict().items():
        assert torch.equal(resumed.network.state_dict()[name], tensor), name
    assert len(list(tmp_path.glob("best-*.safetensors"))) == 1


def test_the_rate_that_was_chosen_is_kept_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = {**QUICK, "max_steps": 16}
    unbroken = weak().fine_tune(waves(), **options)
    with monkeypatch.context() as patch:
        # each of the two rates was tried for two steps
        killed_at(patch, run, "train_step", 5)
        with pytest.raises(Killed):
            weak().fine_tune(waves(), output=tmp_path, **options)
    resumed = weak().fine_tune(waves(), output=tmp_path, resume=True, **options)
    assert resumed.tuning is not None
    assert unbroken.tuning is not None
    assert resumed.tuning.history == unbroken.tuning.history
    for name, tensor in unbroken.network.state_dict().items():
        assert torch.equal(resumed.network.state_dict()[name], tensor), name


def test_a_run_that_lost_patience_ends_there_when_it_is_resumed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # learns in the first step and forgets in the next ones
    options = {**QUICK, "max_steps": 40, "learning_rate": 0.5}
    unbroken = weak().fine_tune(waves(), **options).tuning
    assert unbroken is not None
    assert unbroken.reason.startswith("no improvement")
    assert unbroken.improved
    with monkeypatch.context() as patch:
        # after the last evaluation, while weights nearer to zero-shot are tried
        killed_at(patch, run, "evaluate", len(unbroken.history) + 1)
        with pytest.raises(Killed):
            weak().fine_tune(waves(), output=tmp_path, **options)
    resumed = weak().fine_tune(waves(), output=tmp_path, resume=True, **options).tuning
    assert resumed is not None
    assert (resumed.steps, resumed.history) == (unbroken.steps, unbroken.history)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_it_trains_wherever_it_is_called(mode: Any, tuned: MoiraiMoEPipeline) -> None:
    with mode():
        again = weak().fine_tune(waves(), max_steps=24, learning_rate=5e-3, **QUICK)
    np.testing.assert_array_equal(quantiles(again), quantiles(tuned))


def test_a_gap_as_long_as_the_context() -> None:
    y = waves()
    y[0][60:110] = np.nan
    tuned = weak().fine_tune(y, context_length=32, max_steps=1, learning_rate=1e-3, **QUICK)
    assert tuned.tuning is not None
    # two of the three windows of that series follow 32 missing values
    assert tuned.tuning.windows == 16


def test_any_integer_is_a_seed() -> None:
    for seed in (-1, 2**64, 2**70):
        weak().fine_tune(waves(2), max_steps=1, **{**QUICK, "random_state": seed})


def test_bfloat16_products_and_weights() -> None:
    pipeline = MoiraiMoEPipeline(tiny_network())
    half = MoiraiMoEPipeline(pickle.loads(pickle.dumps(tiny_network())).to(torch.bfloat16))
    options = {**QUICK, "max_steps": 8, "learning_rate": 5e-3}
    for source, dtype in ((pipeline, torch.float32), (half, torch.bfloat16)):
        tuned = source.fine_tune(waves(), precision="bfloat16", **options)
        assert tuned.tuning is not None
        assert tuned.tuning.improved
        assert {p.dtype for p in tuned.network.parameters()} == {dtype}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mode": "half"}, "mode must be one of"),
        ({"validation": "random"}, "validation must be"),
        ({"validation": 1.5}, "a fraction"),
        ({"freeze": "layers.*"}, "matches no parameter"),
        ({"mode": "head", "freeze": ("projection.*", "norm.*")}, "leaves nothing to train"),
        ({"mode": "head", "lora": {"rank": 4}}, "is for mode='lora'"),
        ({"horizon": 200}, "no series has 4 steps"),
        ({"resume": True}, "needs the output folder"),
        ({"max_steps": 0}, "max_steps"),
        ({"batch_size": 0}, "batch_size"),
        ({"precision": "float64"}, "precision"),
        ({"minutes": -1}, "minutes"),
        ({"minutes": float("nan")}, "minutes"),
        ({"callbacks": [3]}, "callbacks"),
        ({"callbacks": print}, "callbacks must be a list"),
        ({"callbacks": None}, "callbacks"),
        ({"freeze": None}, "freeze"),
        ({"freeze": [1]}, "freeze"),
        ({"mode": ["lora"]}, "mode must be one of"),
        ({"lora": {"targets": None}}, "targets must be names"),
        ({"validation": {}}, "validation must be"),
        ({"validation": 1}, "a fraction"),
        ({"validation": np.float32(2)}, "a fraction"),
        ({"max_steps": "many"}, "max_steps"),
        ({"future_covariates": [np.ones((3, 1))] * 2}, "future_covariates"),
    ],
)
def test_wrong_arguments_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises((InvalidInputError, ConfigError), match=message):
        weak().fine_tune(waves(2), **{**QUICK, **options})


def test_a_target_that_matches_nothing_is_refused() -> None:
    with pytest.raises(ConfigError, match="matches no weight"):
        weak().fine_tune(waves(2), lora=LoraConfig(targets=("q_proj",)), **QUICK)


def driven(count: int = 6) -> dict[str, Any]:
    """Waves beside what a known-future covariate explains, which is far larger."""
    rng = np.random.default_rng(1)
    known = [rng.normal(size=(120, 1)) for _ in range(count)]
    y = [wave + 5 * x[:, 0] for wave, x in zip(waves(count), known, strict=True)]
    return {"y": y, "future_covariates": known}


def test_what_a_known_covariate_leaves_is_learned() -> None:
    options = {**QUICK, "max_steps": 16, "learning_rate": 5e-3, "refit": False}
    report = weak().fine_tune(**driven(), **options).tuning
    assert report is not None
    assert report.before is not None
    assert report.after is not None
    # a network that is shown the covariate as tokens instead gains less than a seventh
    assert report.after.relative_to(report.before) < 0.7


@pytest.mark.parametrize("shift", [True, False], ids=["ours", "official"])
def test_covariates_are_tokens_where_forecasts_have_them_as_tokens(
    shift: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    conventions = {} if shift else {"d_model": 64, "num_heads": 1, **OFFICIAL_CONVENTIONS}
    step, variates, known = run.train_step, set[int](), set[bool]()

    def remembered(state: Any, batches: Any, *rest: Any) -> Any:
        for batch in batches:
            variates.update(batch.tokens.variate_id.unique().tolist())
            known.update(batch.tokens.known_future.unique().tolist())
        return step(state, batches, *rest)

    monkeypatch.setattr(run, "train_step", remembered)
    past = [x**2 for x in driven()["future_covariates"]]
    options = {**QUICK, "max_steps": 1, "validation": None, "learning_rate": 1e-3}
    pipeline = MoiraiMoEPipeline(tiny_network(**conventions))
    pipeline.fine_tune(**driven(), past_covariates=past, **options)
    # the target and the past covariate always
    assert (variates, known) == (({0, 1}, {False}) if shift else ({0, 1, 2}, {False, True}))


def test_series_too_short_for_anything() -> None:
    with pytest.raises(InvalidInputError, match="nothing to fine-tune on"):
        weak().fine_tune([[1.0], [2.0]], validation=None, **QUICK)
