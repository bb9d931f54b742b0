"""One fine-tuning run: steps, evaluations on the way, and what ends it."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from signal import SIGTERM
from typing import Any

import torch
from tqdm.auto import tqdm

from moirai_moe_forecaster.config import TrainConfig
from moirai_moe_forecaster.model.network import MoiraiMoE
from moirai_moe_forecaster.model.tokens import TokenBatch
from moirai_moe_forecaster.training.data.packing import TrainingBatch
from moirai_moe_forecaster.training.distributed import single_process
from moirai_moe_forecaster.training.monitoring import METRICS_FILE, append
from moirai_moe_forecaster.training.objective import micro_batch
from moirai_moe_forecaster.training.pretrain import MOST_SKIPPED_STEPS
from moirai_moe_forecaster.training.pretrain import learning_rate as scheduled_rate
from moirai_moe_forecaster.training.state import State
from moirai_moe_forecaster.training.step import StepResult, train_step
from moirai_moe_forecaster.training.stopping import TERMINATED, TIME_IS_UP, Stop
from moirai_moe_forecaster.tuning.held_out import HeldOut
from moirai_moe_forecaster.tuning.run_state import Progress, save_progress
from moirai_moe_forecaster.tuning.series_batches import OwnWindows
from moirai_moe_forecaster.tuning.validation import Evaluation, Losses, evaluate

log = logging.getLogger(__name__)

MICRO_BATCH_TOKENS = 8192
SHARES = (0.25, 0.5, 0.75)
INTERRUPTED = "interrupted"
ASKED = "a callback asked to stop"
DIVERGED = "diverged: the loss was not finite for several steps"

Callback = Callable[[Evaluation], bool | None]


@dataclass
class Tuning:
    """One run: `state` and `progress` are what it changes."""

    state: State
    progress: Progress
    training: TrainConfig
    windows: OwnWindows
    validation: list[HeldOut]
    horizon: int
    context_length: int
    patience: int
    folder: Path | None
    callbacks: tuple[Callback, ...]
    reason: str = ""
    lines: list[dict[str, Any]] = field(default_factory=list)

    @property
    def found(self) -> float:
        """Lowest losses of an evaluation relative to zero-shot."""
        history = self.progress.history
        return min((e.relative_to(history[0]) for e in history[1:]), default=math.inf)

    def run(self, stop: Stop, bar: tqdm[Any], until: int | None = None) -> str:
        """Take steps until something ends them, or up to one of them; return what it was."""
        steps = self.training.steps if until is None else until
        started = time.perf_counter() - self.progress.seconds
        # a run that had ended so, and is resumed, ends at the same step
        reason, results = self.reason or self._out_of_patience(), []
        if self.validation and not self.progress.history:
            reason = self._judge(None, bar)
        elif not self.progress.best:
            self.progress.keep(self.state)
        while not reason and self.state.step < steps:
            results.append(self._step())
            bar.update()
            due = self._due(self.state.step)
            if int(self.state.skipped[1]) >= MOST_SKIPPED_STEPS:
                reason = DIVERGED
            elif due or stop.reason == TIME_IS_UP or self.state.step == self.training.steps:
                reason = self._judge(results, bar)
                results = []
            if stop.reason:
                reason = reason or ("time is up" if stop.reason == TIME_IS_UP else INTERRUPTED)
            self.progress.seconds = time.perf_counter() - started
            if until is None and (due or reason) and reason != DIVERGED:
                self.save()
        if not self.validation and reason != DIVERGED:
            with self._averaged():
                self.progress.keep(self.state)
        if stop.reason == SIGTERM:
            raise SystemExit(TERMINATED)
        self.reason = reason
        return reason or f"all {steps} steps are done"

    def _due(self, step: int) -> bool:
        """Whether to evaluate after a step: regularly, and twice before the first regular time.

        What a checkpoint can take over without loss may be learned in few steps.
        """
        every = self.training.validate_every
        return step % every == 0 or step in (every // 4, every // 2)

    def least_change(self, base: MoiraiMoE, reason: str) -> Evaluation | None:
        """Restore the weights nearest to zero-shot that forecast as well as the best ones.

        On the line between the two, as what was learned from one time may be wrong for the next
        (arXiv 2109.01903); "as well" as in the one-standard-error rule, by bootstrap samples. An
        interrupt is not kept waiting: it gets the best ones.
        """
        progress, network = self.progress, self.state.network
        if progress.best_step and self.validation and reason != INTERRUPTED:
            for share in SHARES:
                progress.restore(network, base, share)
                found, losses = self._evaluate()
                if progress.no_worse(found, losses):
                    progress.share = share
                    return found._replace(step=progress.best_step)
        progress.restore(network, base)
        return next((e for e in progress.history if e.step == progress.best_step), None)

    def _step(self) -> StepResult:
        state, device = self.state, next(self.state.network.parameters()).device
        whole = self.windows.batch(state.step, state.network)
        patches = self.windows.model.output_patches
        batches = [micro_batch(part, patches).to(device) for part in _parts(whole)]
        rate = scheduled_rate(self.training, state.step)
        return train_step(state, batches, self.training, rate, single_process(device))

    def _judge(self, results: Sequence[StepResult] | None, bar: tqdm[Any]) -> str:
        """Score the present weights; return why to stop, or nothing."""
        metrics: dict[str, Any] = {"step": self.state.step}
        if results:
            loss = float(torch.stack([result.loss for result in results]).nanmean())
            self.progress.losses.append(loss)
            metrics |= {
                "loss": loss,
                "gradient_norm": float(results[-1].gradient_norm),
                "learning_rate": scheduled_rate(self.training, self.state.step - 1),
                "skipped": int(self.state.skipped[0]),
            }
        found = None
        if self.validation:
            with self._averaged():
                found, losses = self._evaluate()
                metrics["relative_loss"] = self.progress.add(found, losses, self.state)
            metrics |= {"wql": found.wql, "scaled_loss": found.scaled, "coverage": found.coverage}
            bar.set_postfix(relative=f"{metrics['relative_loss']:.3f}", refresh=False)
        log.info("step %d: %s", self.state.step, metrics)
        self.lines.append(metrics)
        if found is None:
            return ""
        if any([callback(found) for callback in self.callbacks]):
            return ASKED
        return self._out_of_patience()

    def _out_of_patience(self) -> str:
        waited = self.progress.since_best(self.training.validate_every) >= self.patience
        return f"no improvement in {self.patience} evaluations" if waited else ""

    def _averaged(self) -> AbstractContextManager[None]:
        """Before the first step there is nothing to average."""
        return self.state.averaged() if self.state.step else nullcontext()

    def _evaluate(self) -> tuple[Evaluation, Losses]:
        network = self.state.network
        try:
            return evaluate(
                network, self.validation, self.horizon, self.context_length, self.state.step
            )
        finally:
            network.train()

    def save(self) -> None:
        """Write what a later run goes on from, if there is a folder for it."""
        if self.folder is not None:
            self.folder.mkdir(parents=True, exist_ok=True)
            for metrics in self.lines:
                append(self.folder / METRICS_FILE, metrics)
            self.lines.clear()
            device = next(self.state.network.parameters()).device
            save_progress(
                self.folder, self.progress, self.state, self.training, single_process(device)
            )


def _parts(batch: TrainingBatch) -> list[TrainingBatch]:
    """Cut a batch into micro-batches by rows, to bound memory."""
    rows = max(MICRO_BATCH_TOKENS // batch.weights.shape[1], 1)
    tokens = zip(*(tensor.split(rows) for tensor in batch.tokens), strict=True)
    weights = batch.weights.split(rows)
    return [TrainingBatch(TokenBatch(*part), w) for part, w in zip(tokens, weights, strict=True)]
