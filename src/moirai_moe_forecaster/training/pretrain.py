"""Pretraining: one plain loop that can be stopped and resumed at any step."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from signal import SIGINT, SIGTERM
from typing import Any

from torch import Tensor
from tqdm.auto import tqdm

from moirai_moe_forecaster.checkpoint.store import save_checkpoint
from moirai_moe_forecaster.config import ModelConfig, TrainConfig
from moirai_moe_forecaster.errors import CheckpointError, ConfigError, TrainingError
from moirai_moe_forecaster.model.network import MoiraiMoE
from moirai_moe_forecaster.training.data.batches import GROUP_ROWS, BatchMaker, validation_batches
from moirai_moe_forecaster.training.data.corpus import (
    HELD_OUT_EVERY,
    HELD_OUT_POINTS,
    Source,
    hold_out,
)
from moirai_moe_forecaster.training.distributed import (
    Processes,
    joined_processes,
    largest_over_processes,
)
from moirai_moe_forecaster.training.fitted_dependence import fitted_dependence
from moirai_moe_forecaster.training.monitoring import (
    METRICS_FILE,
    StepTimer,
    append,
    expert_load,
    load_entropy,
    peak_flops,
    training_flops,
)
from moirai_moe_forecaster.training.objective import MicroBatch, micro_batch
from moirai_moe_forecaster.training.state import (
    STATE_FILE,
    State,
    final_network,
    load_state,
    new_state,
    save_state,
)
from moirai_moe_forecaster.training.step import (
    MOST_SKIPPED_STEPS,
    StepResult,
    learning_rate,
    train_step,
    validate,
)
from moirai_moe_forecaster.training.stopping import TERMINATED, Stop

log = logging.getLogger(__name__)

VALIDATION_ROWS = 64
STEPS_AHEAD = 2


def pretrain(
    model: ModelConfig,
    training: TrainConfig,
    sources: Sequence[Source],
    output: str | Path,
    *,
    initial: Mapping[str, Tensor] | None = None,
    resume: bool = False,
    device: str = "auto",
    progress: bool = True,
    minutes: float | None = None,
    shard: bool = False,
) -> MoiraiMoE:
    """Train a network from random weights, or go on from the last checkpoint.

    A resumed run repeats an unbroken one bit by bit on a CPU in float32 with as many threads. On
    SIGTERM the present step is finished, the state saved, and the process exits with code 143; an
    interrupt (Ctrl-C) saves likewise. Processes that torchrun started share the rows of each step.

    Parameters
    ----------
    model : ModelConfig
    training : TrainConfig
        A resumed run may change the number of steps, which moves the learning rate's decay.
    sources : sequence of Source
        `read_corpus` reads them; the last part of some series is held out for validation.
    output : str or Path
        Folder for the state and ``metrics.jsonl``, one JSON object per logged step.
    initial : mapping of str to Tensor, optional
        Entries of the network's state dict that take the place of the random ones before the first
        step: token clusters (`centroids_from`), or weights for a warm start. A resumed run has all
        of its weights in the state and does not read them.
    resume : bool, default=False
        Go on from the state in `output`. Otherwise `output` must not hold one. The number of
        processes may differ from before.
    device : str, default="auto"
        "auto" is the GPU, or the CPU if there is none.
    progress : bool, default=True
    minutes : float, optional
        Save the state and return after this time, if the steps are not done by then.
    shard : bool, default=False
        Share weights and optimiser out to the processes (FSDP2), for models that do not fit one.

    Returns
    -------
    MoiraiMoE
        The trained network in evaluation mode; its weights are averages if `training` asks so.

    Raises
    ------
    CheckpointError
        If there is a state and `resume` is False, or none and it is True, or the state cannot be
        written.
    ConfigError
        If a step has too few rows for the processes and micro-batches, or a resumed run has done
        more steps than it shall have.
    InvalidInputError
        If there is no such device, `shard` is True for a single process, `initial` names what the
        network does not have, or in another shape, centroid gating has no centroids, or windows
        of `max_points` are no longer than a patch.
    TrainingError
        If the loss was not finite for several steps in a row.
    """
    folder = Path(output)
    _check_folder(folder, resume)
    with Stop(minutes) as stop, joined_processes(device) as processes:
        parts = processes.world_size * training.accumulate
        _check_rows(training, parts)
        state = new_state(model, training, processes, None if resume else initial or {}, shard)
        if resume:
            load_state(folder, state, training)
            _check_steps(training, state.step)
            log.info("resumed at step %d", state.step)
        folder.mkdir(parents=True, exist_ok=True)
        kept, held_out = hold_out(sources)
        maker = BatchMaker(kept, model, training, processes.device)
        validation = [
            micro_batch(batch, model.output_patches).to(processes.device)
            for batch in validation_batches(held_out, model, training, VALIDATION_ROWS)
        ]
        if sources and not validation:
            log.warning(
                "there is no validation: of every %d series of a source, one is held out if it has "
                "%d points",
                HELD_OUT_EVERY,
                HELD_OUT_POINTS,
            )
        with tqdm(
            total=training.steps,
            initial=state.step,
            disable=not progress or processes.rank > 0,
            unit="step",
        ) as bar:
            reason = _run(state, maker, validation, training, folder, processes, stop, bar)
        if reason == SIGTERM:
            log.warning("terminated at step %d; the state is in %s", state.step, folder)
            raise SystemExit(TERMINATED)
        if reason == SIGINT:
            log.warning("interrupted at step %d; the state is in %s", state.step, folder)
            raise KeyboardInterrupt
        if state.step < training.steps:
            log.info("time is up at step %d of %d; resume to go on", state.step, training.steps)
        network = final_network(state, processes)
        if state.step == training.steps and not shard:
            network.config = fitted_dependence(network, validation)
            if processes.rank == 0:
                save_checkpoint(network, folder)
        return network


def _run(
    state: State,
    maker: BatchMaker,
    validation: Sequence[MicroBatch],
    training: TrainConfig,
    folder: Path,
    processes: Processes,
    stop: Stop,
    bar: tqdm[Any],
) -> int:
    """Take steps until they are done or something asks to stop; return the reason, 0 for none."""
    peak = peak_flops(processes.device, training.precision)
    timer = StepTimer(processes.device)
    reason = 0
    for batches in _ahead(maker, state.step, training, processes):
        rate = learning_rate(training, state.step)
        result = train_step(state, batches, training, rate, processes)
        timer.count(sum(_flops(maker.model, batch) for batch in batches))
        last = state.step == training.steps
        validated = bool(validation) and (state.step % training.validate_every == 0 or last)
        logged = state.step % training.log_every == 0 or last or validated
        if processes.world_size == 1 or logged:
            # processes must leave at the same step, and asking them each time would cost a wait
            reason = largest_over_processes(stop.reason, processes.device)
        logged = logged or reason > 0
        if logged or processes.device.type == "cpu":
            _refuse_too_many_skips(state)
        if logged:
            metrics = {"step": state.step, **_metrics(state, result, timer, peak, training)}
            metrics["learning_rate"] = rate
            if validated:
                with timer.paused():
                    metrics["validation_loss"] = validate(
                        state, validation, training.precision, processes
                    )
            bar.set_postfix(loss=f"{metrics['loss']:.4f}", refresh=False)
            if processes.rank == 0:
                append(folder / METRICS_FILE, metrics)
        bar.update()
        if state.step % training.save_every == 0 or last or reason:
            with timer.paused():
                save_state(folder, state, training, processes)
        if reason:
            break
    return reason


def _metrics(
    state: State, result: StepResult, timer: StepTimer, peak: float, training: TrainConfig
) -> dict[str, Any]:
    """Describe the last step, and the speed since the last description."""
    counts = result.counts.cpu()
    seconds, flops = timer.read()
    return {
        "loss": float(result.loss),
        "balance": float(result.balance),
        "gradient_norm": float(result.gradient_norm),
        "points": float(result.weight),
        "skipped": int(state.skipped[0]),
        "seconds": seconds,
        "tokens_per_second": training.batch_rows * training.row_tokens / seconds,
        "mfu": flops / peak,
        "expert_load": expert_load(counts),
        "router_entropy": load_entropy(counts),
    }


def _flops(model: ModelConfig, batch: MicroBatch) -> float:
    rows, row_tokens = batch.tokens.sample_id.shape
    return training_flops(model, rows, row_tokens, len(batch.targets.positions))


def _refuse_too_many_skips(state: State) -> None:
    in_a_row = int(state.skipped[1])
    if in_a_row >= MOST_SKIPPED_STEPS:
        raise TrainingError(
            f"the loss or its gradient was not finite for {in_a_row} steps up to {state.step}: "
            "lower the learning rate, or look in the data for values that are too large, or for "
            "series without any"
        )
    if in_a_row:
        log.warning("step %d skipped: its loss or gradient is not finite", state.step)


def _ahead(
    maker: BatchMaker, first: int, training: TrainConfig, processes: Processes
) -> Iterator[list[MicroBatch]]:
    """Make this process's micro-batches of the next steps in another thread."""
    parts = processes.world_size * training.accumulate
    # so that a micro-batch of all processes holds the rows that it holds in one alone
    first_part = processes.rank * training.accumulate
    mine = range(first_part, first_part + training.accumulate)

    def make(step: int) -> list[MicroBatch]:
        batches = [maker.batch(step, part, parts) for part in mine]
        patches = maker.model.output_patches
        return [micro_batch(batch, patches).to(processes.device) for batch in batches]

    pool = ThreadPoolExecutor(1)
    upcoming: deque[Future[list[MicroBatch]]] = deque()
    try:
        for step in range(first, training.steps + STEPS_AHEAD):
            if step < training.steps:
                upcoming.append(pool.submit(make, step))
            if step >= first + STEPS_AHEAD:
                yield upcoming.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def _check_folder(folder: Path, resume: bool) -> None:
    if folder.exists() and not folder.is_dir():
        raise CheckpointError(f"{folder} is a file: the output must be a folder")
    found = (folder / STATE_FILE).exists()
    if found and not resume:
        raise CheckpointError(
            f"{folder} holds a run: pass resume=True (--resume) or another folder"
        )
    if resume and not found:
        raise CheckpointError(f"{folder} holds no run: start with resume=False")


def _check_steps(training: TrainConfig, done: int) -> None:
    if done > training.steps:
        raise ConfigError(
            f"the run has done {done} steps, more than steps={training.steps}: give at least as "
            "many, or start another run"
        )


def _check_rows(training: TrainConfig, parts: int) -> None:
    groups = -(-training.batch_rows // GROUP_ROWS)
    if groups < parts:
        raise ConfigError(
            f"batch_rows={training.batch_rows} gives {groups} groups of {GROUP_ROWS} rows, fewer "
            f"than processes x accumulate = {parts}: raise batch_rows or lower accumulate"
        )
