"""Pretraining: one plain loop that can be stopped and resumed at any step."""

from __future__ import annotations

import json
import logging
import math
import os
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor
from tqdm.auto import tqdm

from moirai_moe_forecaster.config import ModelConfig, TrainConfig
from moirai_moe_forecaster.errors import CheckpointError, TrainingError
from moirai_moe_forecaster.model.network import MoiraiMoE
from moirai_moe_forecaster.training.corpus import Source, hold_out
from moirai_moe_forecaster.training.objective import training_loss
from moirai_moe_forecaster.training.packing import TrainingBatch
from moirai_moe_forecaster.training.windows import BatchMaker, validation_batches

log = logging.getLogger(__name__)

STATE_FILE = "state.safetensors"
RUN_FILE = "run.json"
METRICS_FILE = "metrics.jsonl"
MOST_SKIPPED_STEPS = 5
VALIDATION_ROWS = 64


class State(NamedTuple):
    """Everything that a step changes."""

    network: MoiraiMoE
    optimiser: torch.optim.AdamW
    step: int


def pretrain(
    model: ModelConfig,
    training: TrainConfig,
    sources: Sequence[Source],
    output: str | Path,
    *,
    resume: bool = False,
    progress: bool = True,
) -> MoiraiMoE:
    """Train a network from random weights, or go on from the last checkpoint.

    Parameters
    ----------
    model : ModelConfig
    training : TrainConfig
        A resumed run may change the number of steps, which moves the learning rate's decay.
    sources : sequence of Source
        `read_corpus` reads them; the last part of some series is held out for validation.
    output : str or Path
        Folder for the state and ``metrics.jsonl``, one JSON object per logged step.
    resume : bool, default=False
        Go on from the state in `output`. Otherwise `output` must not hold one.
    progress : bool, default=True

    Returns
    -------
    MoiraiMoE
        The trained network in evaluation mode.

    Raises
    ------
    CheckpointError
        If there is a state and `resume` is False, or none and it is True.
    TrainingError
        If the loss was not finite for several steps in a row.
    """
    folder = Path(output)
    folder.mkdir(parents=True, exist_ok=True)
    found = (folder / STATE_FILE).exists()
    if found != resume:
        raise CheckpointError(
            f"{folder} holds {'a' if found else 'no'} run: "
            + (
                "pass resume=True (--resume) or another folder"
                if found
                else "start with resume=False"
            )
        )
    state = _new_state(model, training)
    if resume:
        state = load_state(folder, state)
        log.info("resumed at step %d", state.step)
    kept, held_out = hold_out(sources)
    validation = validation_batches(held_out, model, training, VALIDATION_ROWS)
    maker = BatchMaker(kept, model, training)
    try:
        _run(state, maker, validation, training, folder, progress)
    except KeyboardInterrupt:
        log.warning("interrupted; the last checkpoint is in %s", folder)
        raise
    return state.network.eval()


def _run(
    state: State,
    maker: BatchMaker,
    validation: Sequence[TrainingBatch],
    training: TrainConfig,
    folder: Path,
    progress: bool,
) -> None:
    skipped = 0
    bar = tqdm(total=training.steps, initial=state.step, disable=not progress, unit="step")
    started = time.perf_counter()
    for batch in _ahead(maker, state.step, training.steps):
        rate = learning_rate(training, state.step)
        metrics = train_step(state, batch, training, rate)
        finite = math.isfinite(metrics["loss"])
        skipped = 0 if finite else skipped + 1
        if skipped >= MOST_SKIPPED_STEPS:
            raise TrainingError(f"the loss was not finite for {skipped} steps up to {state.step}")
        state = state._replace(step=state.step + 1)
        last = state.step == training.steps
        now = time.perf_counter()
        metrics |= {"step": state.step, "learning_rate": rate, "seconds": now - started}
        metrics["tokens_per_second"] = training.batch_rows * training.row_tokens / (now - started)
        started = now
        if validation and (state.step % training.validate_every == 0 or last):
            metrics["validation_loss"] = validate(state.network, validation)
        if state.step % training.log_every == 0 or last or "validation_loss" in metrics:
            _append(folder / METRICS_FILE, metrics)
            bar.set_postfix(loss=f"{metrics['loss']:.4f}", refresh=False)
        if state.step % training.save_every == 0 or last:
            save_state(folder, state, training)
        bar.update()
    bar.close()


def train_step(
    state: State, batch: TrainingBatch, training: TrainConfig, rate: float
) -> dict[str, float]:
    """Take one optimiser step, or none if the loss or the gradient is not finite."""
    loss = training_loss(state.network, *batch)
    total = loss.likelihood
    if state.network.config.router == "linear":
        total = total + training.balance_weight * loss.balance
    state.optimiser.zero_grad(set_to_none=True)
    total.backward()
    norm = torch.nn.utils.clip_grad_norm_(state.network.parameters(), training.clip_norm)
    if math.isfinite(total.item()) and math.isfinite(norm.item()):
        for group in state.optimiser.param_groups:
            group["lr"] = rate
        state.optimiser.step()
    else:
        log.warning("step %d skipped: its loss or gradient is not finite", state.step)
    return {
        "loss": loss.likelihood.item(),
        "balance": loss.balance.item(),
        "gradient_norm": norm.item(),
        "points": loss.points.item(),
    }


@torch.no_grad()
def validate(network: MoiraiMoE, batches: Sequence[TrainingBatch]) -> float:
    """Mean negative log-likelihood over the scored points of `batches`."""
    losses = [training_loss(network, *batch) for batch in batches]
    points = torch.stack([loss.points for loss in losses])
    likelihood = torch.stack([loss.likelihood for loss in losses])
    return float((likelihood * points).sum() / points.sum())


def learning_rate(training: TrainConfig, step: int) -> float:
    """Warm up linearly, stay, and fall linearly to 0 over the last `decay_share` of the steps."""
    decay_steps = max(round(training.decay_share * training.steps), 1)
    warm = (step + 1) / training.warmup_steps
    left = (training.steps - step) / decay_steps
    return training.learning_rate * min(1.0, warm, left)


def save_state(folder: Path, state: State, training: TrainConfig) -> None:
    """Write weights, optimiser and configuration; an old state stays whole until the new one is."""
    tensors = {f"model.{k}": v for k, v in state.network.state_dict().items()}
    for name, parameter in state.network.named_parameters():
        for moment, value in state.optimiser.state[parameter].items():
            tensors[f"optimiser.{moment}.{name}"] = value
    run = {
        "step": state.step,
        "model": state.network.config.to_dict(),
        "training": training.to_dict(),
    }
    temporary = folder / (STATE_FILE + ".new")
    save_file(
        {name: tensor.contiguous() for name, tensor in tensors.items()},
        temporary,
        metadata={"run": json.dumps(run)},
    )
    os.replace(temporary, folder / STATE_FILE)
    temporary = folder / (RUN_FILE + ".new")
    temporary.write_text(json.dumps(run, indent=2))
    os.replace(temporary, folder / RUN_FILE)


def load_state(folder: Path, state: State) -> State:
    """Read what `save_state` wrote into a state of the same model."""
    with safe_open(folder / STATE_FILE, "pt") as file:
        run = json.loads(file.metadata()["run"])
    if ModelConfig.from_dict(run["model"]) != state.network.config:
        raise CheckpointError(f"the run in {folder} trains another model: {run['model']}")
    tensors = load_file(folder / STATE_FILE)
    state.network.load_state_dict(
        {k.removeprefix("model."): v for k, v in tensors.items() if k.startswith("model.")}
    )
    for name, parameter in state.network.named_parameters():
        moments: dict[str, Tensor] = {
            key.split(".")[1]: value
            for key, value in tensors.items()
            if key.startswith("optimiser.") and key.split(".", 2)[2] == name
        }
        if moments:
            state.optimiser.state[parameter] = moments
    return state._replace(step=run["step"])


def _new_state(model: ModelConfig, training: TrainConfig) -> State:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(training.seed)
        network = MoiraiMoE(model).train()
    matrices = [p for p in network.parameters() if p.ndim >= 2 and p.numel() > model.d_model]
    chosen = set(matrices)
    others = [p for p in network.parameters() if p not in chosen]
    groups: list[dict[str, Any]] = [
        {"params": matrices, "weight_decay": training.weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    optimiser = torch.optim.AdamW(
        groups, lr=training.learning_rate, betas=training.betas, fused=True
    )
    return State(network, optimiser, 0)


def _ahead(maker: BatchMaker, first: int, end: int) -> Iterator[TrainingBatch]:
    """Make batches one step ahead in another thread."""
    with ThreadPoolExecutor(1) as pool:
        upcoming = pool.submit(maker.batch, first)
        for step in range(first + 1, end + 1):
            batch = upcoming.result()
            if step < end:
                upcoming = pool.submit(maker.batch, step)
            yield batch


def _append(file: Path, metrics: dict[str, Any]) -> None:
    with file.open("a") as stream:
        stream.write(json.dumps(metrics) + "\n")
