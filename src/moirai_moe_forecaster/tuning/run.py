"""One fine-tuning run: steps, evaluations on the way, and what ends it."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from signal import SIGTERM
from typing import Any

import torch
from tqdm.auto import tqdm

from moirai_moe_forecaster.model.network import MoiraiMoE
from moirai_moe_forecaster.model.tokens import TokenBatch
from moirai_moe_forecaster.training.data.packing import TrainingBatch
from moirai_moe_forecaster.training.distributed import single_process
from moirai_moe_forecaster.training.objective import micro_batch
from moirai_moe_forecaster.training.step import (
    MOST_SKIPPED_STEPS,
    StepResult,
    learning_rate,
    train_step,
)
from moirai_moe_forecaster.training.stopping import TERMINATED, TIME_IS_UP, Stop
from moirai_moe_forecaster.tuning.fine_tune_config import FineTuneConfig
from moirai_moe_forecaster.tuning.held_out import HeldOut
from moirai_moe_forecaster.tuning.run_state import RunState, save_run
from moirai_moe_forecaster.tuning.series_batches import SeriesBatches
from moirai_moe_forecaster.tuning.validation import Evaluation, WindowLosses, evaluate

log = logging.getLogger(__name__)

MICRO_BATCH_TOKENS = 8192
SHARES = (0.25, 0.5, 0.75)
INTERRUPTED = "interrupted"
ASKED = "a callback asked to stop"
DIVERGED = "diverged: the loss was not finite for several steps"


@dataclass(frozen=True, kw_only=True)
class TuningTask:
    """What a fine-tuning is about; its runs change none of it.

    Attributes
    ----------
    config : FineTuneConfig
    base : MoiraiMoE
        The zero-shot network.
    batches : SeriesBatches
        What is trained on.
    held_out : list of HeldOut
        What is validated on; empty without validation.
    digest : str
        Of both, to tell other data from these when a run is resumed.
    horizon, context_length : int
        Of a validation forecast, in points.
    seed : int
    folder : Path, optional
        For what a later run goes on from.
    """

    config: FineTuneConfig
    base: MoiraiMoE
    batches: SeriesBatches
    held_out: list[HeldOut]
    digest: str
    horizon: int
    context_length: int
    seed: int
    folder: Path | None


def take_steps(
    task: TuningTask, run: RunState, stop: Stop, bar: tqdm[Any], until: int | None = None
) -> str:
    """Take steps until something ends them, or up to one of them; return what it was."""
    steps = run.training.steps if until is None else until
    state, started = run.state, time.perf_counter() - run.seconds
    # a run that had ended so, and is resumed, ends at the same step
    reason = run.reason or _out_of_patience(task, run)
    results: list[StepResult] = []
    if task.held_out and not run.history:
        reason = _validate(task, run, [], bar)
    elif not run.best:
        run.keep()
    while not reason and state.step < steps:
        results.append(_step(task, run))
        bar.update()
        due = _validation_is_due(state.step, run.training.validate_every)
        if int(state.skipped[1]) >= MOST_SKIPPED_STEPS:
            reason = DIVERGED
        elif due or stop.reason == TIME_IS_UP or state.step == run.training.steps:
            reason = _validate(task, run, results, bar)
            results = []
        if stop.reason:
            reason = reason or ("time is up" if stop.reason == TIME_IS_UP else INTERRUPTED)
        run.seconds = time.perf_counter() - started
        if task.folder and until is None and (due or reason) and reason != DIVERGED:
            save_run(task.folder, run)
    if not task.held_out and reason != DIVERGED:
        with _averaged(run):
            run.keep()
    if stop.reason == SIGTERM:
        raise SystemExit(TERMINATED)
    run.reason = reason
    return reason or f"all {steps} steps are done"


def interpolate_weights(task: TuningTask, run: RunState) -> Evaluation | None:
    """Restore the weights nearest to zero-shot that forecast as well as the best ones.

    On the line between the two, as what was learned from one time may be wrong for the next
    (arXiv 2109.01903); "as well" as in the one-standard-error rule, by bootstrap samples. An
    interrupt is not kept waiting: it gets the best ones.

    Returns
    -------
    Evaluation or None
        Of the restored weights; None without validation.
    """
    if run.best_step and task.held_out and run.reason != INTERRUPTED:
        for share in SHARES:
            run.restore(task.base, share)
            evaluation, losses = _evaluate(task, run)
            if run.no_worse(evaluation, losses):
                run.share = share
                return replace(evaluation, step=run.best_step)
    run.restore(task.base)
    return run.best_evaluation


def _validation_is_due(step: int, every: int) -> bool:
    """Whether to validate after a step: regularly, and twice before the first regular time.

    What a checkpoint can take over without loss may be learned in few steps.
    """
    return step % every == 0 or step in (every // 4, every // 2)


def _step(task: TuningTask, run: RunState) -> StepResult:
    state, device = run.state, next(run.state.network.parameters()).device
    whole = task.batches.batch(state.step, state.network)
    patches = task.batches.model.output_patches
    batches = [micro_batch(part, patches).to(device) for part in _parts(whole)]
    rate = learning_rate(run.training, state.step)
    return train_step(state, batches, run.training, rate, single_process(device))


def _validate(
    task: TuningTask, run: RunState, results: Sequence[StepResult], bar: tqdm[Any]
) -> str:
    """Score the present weights; return why to stop, or nothing.

    `results` are those of the steps since the last time; before the first there are none.
    """
    metrics: dict[str, Any] = {"step": run.state.step}
    if results:
        loss = float(torch.stack([result.loss for result in results]).nanmean())
        run.losses.append(loss)
        metrics |= {
            "loss": loss,
            "gradient_norm": float(results[-1].gradient_norm),
            "learning_rate": learning_rate(run.training, run.state.step - 1),
            "skipped": int(run.state.skipped[0]),
        }
    evaluation = None
    if task.held_out:
        with _averaged(run):
            evaluation, losses = _evaluate(task, run)
            metrics["relative_loss"] = run.add(evaluation, losses)
        metrics |= {
            "wql": evaluation.wql,
            "scaled_loss": evaluation.scaled,
            "coverage": evaluation.coverage,
        }
        bar.set_postfix(relative=f"{metrics['relative_loss']:.3f}", refresh=False)
    log.info("step %d: %s", run.state.step, metrics)
    run.lines.append(metrics)
    if evaluation is None:
        return ""
    # all of them are called, whatever the first says
    if any([callback(evaluation) for callback in task.config.callbacks]):
        return ASKED
    return _out_of_patience(task, run)


def _out_of_patience(task: TuningTask, run: RunState) -> str:
    patience = task.config.patience
    waited = run.since_best(run.training.validate_every) >= patience
    return f"no improvement in {patience} evaluations" if waited else ""


def _averaged(run: RunState) -> AbstractContextManager[None]:
    """Before the first step there is nothing to average."""
    return run.state.averaged() if run.state.step else nullcontext()


def _evaluate(task: TuningTask, run: RunState) -> tuple[Evaluation, WindowLosses]:
    return evaluate(
        run.state.network, task.held_out, task.horizon, task.context_length, run.state.step
    )


def _parts(batch: TrainingBatch) -> list[TrainingBatch]:
    """Cut a batch into micro-batches by rows, to bound memory."""
    rows = max(MICRO_BATCH_TOKENS // batch.weights.shape[1], 1)
    tokens = zip(*(tensor.split(rows) for tensor in batch.tokens), strict=True)
    weights = batch.weights.split(rows)
    return [TrainingBatch(TokenBatch(*part), w) for part, w in zip(tokens, weights, strict=True)]
