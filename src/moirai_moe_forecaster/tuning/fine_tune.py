"""Fine-tuning: train a copy of a network on a user's own series, and keep what forecasts best."""

from __future__ import annotations

import copy
import hashlib
import logging
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from numbers import Real
from pathlib import Path
from typing import Any, TypeVar

import torch
from tqdm.auto import tqdm

from moirai_moe_forecaster.checkpoint.adapters import BUNDLED, Adapters
from moirai_moe_forecaster.checkpoint.integrity import fingerprint
from moirai_moe_forecaster.config import TrainConfig
from moirai_moe_forecaster.data.panel import log_skipped
from moirai_moe_forecaster.data.series import Series, read_series
from moirai_moe_forecaster.errors import CheckpointError
from moirai_moe_forecaster.inference.options import context_points, regresses
from moirai_moe_forecaster.inference.pretrained import Pretrained
from moirai_moe_forecaster.inference.sampling import draw_seed
from moirai_moe_forecaster.model.network import MoiraiMoE
from moirai_moe_forecaster.training.objective import Objective
from moirai_moe_forecaster.training.optimiser import new_optimiser
from moirai_moe_forecaster.training.state import State, saved_settings
from moirai_moe_forecaster.training.stopping import Stop
from moirai_moe_forecaster.tuning.fine_tune_config import FineTuneConfig
from moirai_moe_forecaster.tuning.held_out import Split, default_horizon, split
from moirai_moe_forecaster.tuning.lora import lora_state, merge_lora
from moirai_moe_forecaster.tuning.modes import choose_trained, trained_parameters
from moirai_moe_forecaster.tuning.report import TuningReport
from moirai_moe_forecaster.tuning.run import ASKED, TuningTask, interpolate_weights, take_steps
from moirai_moe_forecaster.tuning.run_state import (
    RunState,
    holds_run,
    load_run,
    save_run,
    saved_seed,
)
from moirai_moe_forecaster.tuning.series_batches import SeriesBatches
from moirai_moe_forecaster.tuning.validation import Evaluation

log = logging.getLogger(__name__)

P = TypeVar("P", bound=Pretrained)

# the first keeps what a finely annealed checkpoint knows, the second learns what it has never seen
RATES: dict[str, tuple[float, ...]] = {
    "lora": (5e-4, 3e-3),
    "full": (1e-4, 6e-4),
    "head": (5e-4, 3e-3),
    "router": (5e-4, 3e-3),
}
EVALUATIONS = 8
AVERAGE_DECAY = 0.9
WARMUP_STEPS = 10
DECAY_SHARE = 0.7
WEIGHT_DECAY = 0.01
SERIES_BALANCE = 0.5


@dataclass(frozen=True, kw_only=True)
class FineTuned:
    """What a fine-tuning gives.

    Attributes
    ----------
    network : MoiraiMoE
        With all that was trained, in the dtype of the one before.
    adapters : dict of Tensor or None
        What was trained, apart from the network, on the CPU; None where that is all of it.
    settings : dict
        How it was trained, and on top of which weights.
    report : TuningReport
    """

    network: MoiraiMoE
    adapters: dict[str, torch.Tensor] | None
    settings: dict[str, Any]
    report: TuningReport


def fine_tune(
    pretrained: P,
    y: Any,
    config: FineTuneConfig,
    *,
    past_covariates: Any = None,
    future_covariates: Any = None,
) -> P:
    """Do the work of `MoiraiMoEPipeline.fine_tune`, which describes it.

    Parameters
    ----------
    pretrained : Pretrained
        A pipeline; it is not changed.
    y, past_covariates, future_covariates
        As for `MoiraiMoEPipeline.fine_tune`.
    config : FineTuneConfig

    Returns
    -------
    Pretrained
        Of the same class, with the new network.
    """
    skipped: dict[Hashable, str] | None = {} if config.on_error == "skip" else None
    series = read_series(y, 0, past_covariates, future_covariates, skipped=skipped).series
    log_skipped(skipped or {})
    found = fine_tune_network(pretrained.network, series, config)
    info = pretrained.info
    if info is not None:
        info = info._replace(name=f"{info.name}, fine-tuned")
    tuned = type(pretrained)(found.network, info)
    tuned.memory_budget = pretrained.memory_budget
    tuned.adapters = _adapters(pretrained, found)
    named = tuple((str(name), why) for name, why in (skipped or {}).items())
    tuned.tuning = replace(found.report, skipped=named)
    return tuned


def fine_tune_network(
    network: MoiraiMoE, series: Sequence[Series], config: FineTuneConfig
) -> FineTuned:
    """Train a copy of a network on series, and keep the weights that forecast best.

    Parameters
    ----------
    network : MoiraiMoE
        On any device; it is not changed.
    series : sequence of Series
        Known-future covariates end with the targets.
    config : FineTuneConfig

    Raises
    ------
    InvalidInputError
        If there is nothing to train or to validate on, or the mode leaves nothing to train.
    ConfigError
        If a target of LoRA matches nothing.
    CheckpointError
        If the output folder holds a run and is not to be resumed, or none that fits.
    """
    model, length = network.config, context_points(network.config, config.context_length)
    horizon = default_horizon(series, model) if config.horizon is None else config.horizon
    divided = split(series, horizon, config.validation, length)
    folder = _output_folder(config)
    seed = _seed(config, folder)
    batches_of = partial(
        SeriesBatches,
        model=model,
        batch_size=config.batch_size,
        context_length=length,
        horizon=horizon,
        regress=regresses(model),
        series_balance=SERIES_BALANCE,
        seed=seed,
    )
    task = TuningTask(
        config=config,
        base=network,
        batches=batches_of(divided.training),
        held_out=divided.validation,
        digest=_digest(divided),
        horizon=horizon,
        context_length=length,
        seed=seed,
        folder=folder,
    )
    with (
        # whatever the caller's code is within
        torch.inference_mode(False),
        torch.enable_grad(),
        Stop(config.minutes) as stop,
        tqdm(total=config.max_steps, disable=not config.progress, unit="step") as bar,
    ):
        run = _first_run(task, stop, bar)
        reason = take_steps(task, run, stop, bar)
        after = interpolate_weights(task, run)
        # what was validated on is trained on at last only if it is the end of the series themselves
        own = isinstance(config.validation, str | Real)
        if config.refit and own and run.best_step and not stop.reason:
            everything = replace(task, batches=batches_of(series), held_out=[], folder=None)
            _refit(everything, run, stop, bar)
        return _finished(task, run, reason, after)


def _first_run(task: TuningTask, stop: Stop, bar: tqdm[Any]) -> RunState:
    """Begin with the best learning rate that is known, go on with a saved run, or try rates."""
    config, folder = task.config, task.folder
    if folder is not None and config.resume:
        rate = config.learning_rate or saved_settings(folder)["learning_rate"]
        run = _begin(task, rate)
        load_run(folder, run)
        bar.update(run.state.step)
        return run
    rates = RATES[config.mode] if config.learning_rate is None else (config.learning_rate,)
    run = _begin(task, rates[0])
    if folder is not None:
        _make(folder)
    if len(rates) == 1 or not task.held_out:
        return run
    others = [_begin(task, rate) for rate in rates[1:]]
    return _best_rate(task, [run, *others], stop, bar)


def _begin(task: TuningTask, rate: float) -> RunState:
    """Make a copy of the network to train, with adapters if the mode wants them."""
    config = task.config
    network = copy.deepcopy(task.base).float().train()
    names = choose_trained(network, config.mode, tuple(config.freeze), config.adapters, task.seed)
    training = TrainConfig(
        steps=config.max_steps,
        learning_rate=rate,
        warmup_steps=WARMUP_STEPS,
        decay_share=DECAY_SHARE,
        weight_decay=WEIGHT_DECAY,
        ema_decay=AVERAGE_DECAY,
        precision=config.precision,
        validate_every=max(config.max_steps // EVALUATIONS, 1),
    )
    settings = {
        "mode": config.mode,
        "horizon": task.horizon,
        "trained": names,
        "lora": config.adapters.to_dict() if config.mode == "lora" else None,
        "base": fingerprint(task.base),
        "data": task.digest,
        "random_state": task.seed,
        "batch_size": task.batches.batch_size,
        "context_length": task.context_length,
    }
    state = State(
        network=network,
        objective=Objective(network),
        optimiser=new_optimiser(network, training),
        average=[p.detach().clone() for p in network.parameters() if p.requires_grad],
        step=0,
        skipped=torch.zeros(2, dtype=torch.long, device=next(network.parameters()).device),
    )
    return RunState(state=state, training=training, settings=settings)


def _best_rate(task: TuningTask, runs: Sequence[RunState], stop: Stop, bar: tqdm[Any]) -> RunState:
    """Try learning rates up to the first evaluation, and go on with the one that forecasts best."""
    first = best = runs[0]
    bar.total = (bar.total or 0) + (len(runs) - 1) * first.training.validate_every
    for run in runs:
        if run is not first:
            run.start_from(first)
        take_steps(task, run, stop, bar, until=run.training.validate_every)
        if run.lowest_ratio < best.lowest_ratio:
            best = run
        if stop.reason or run.reason == ASKED:
            best.reason = run.reason
            break
    log.info("learning rate %g is the best of those tried", best.training.learning_rate)
    best.seconds = sum(run.seconds for run in runs)
    if task.folder and not best.reason:
        save_run(task.folder, best)
    return best


def _refit(task: TuningTask, run: RunState, stop: Stop, bar: tqdm[Any]) -> None:
    """Take the steps that were found to be best anew, with what was held out among the data."""
    again = _begin(task, run.training.learning_rate)
    bar.total = (bar.total or 0) + run.best_step
    reason = take_steps(task, again, stop, bar, until=run.best_step)
    run.seconds += again.seconds
    if again.reason:
        log.warning("%s: the weights that were fitted without the held-out windows stay", reason)
        return
    run.best, run.refitted = again.best, True
    run.restore(task.base, run.share)


def _finished(task: TuningTask, run: RunState, reason: str, after: Evaluation | None) -> FineTuned:
    """Tell what was trained apart from what was there, merge both, and report."""
    network = run.state.network
    count = trained_parameters(network)
    adapters = _apart(run)
    # once they are merged, nothing tells adapters from weights
    merge_lora(network)
    report = TuningReport(
        mode=task.config.mode,
        trained=run.settings["trained"],
        trained_parameters=count,
        parameters=sum(parameter.numel() for parameter in network.parameters()),
        steps=run.state.step,
        best_step=run.best_step,
        share=run.share,
        refitted=run.refitted,
        windows=len(task.held_out),
        horizon=task.horizon,
        seconds=run.seconds,
        reason=reason,
        history=tuple(run.history),
        after=after,
        losses=tuple(run.losses),
    )
    log.info("%s", report)
    if not report.improved:
        why = "validation did not improve" if run.history else reason
        log.warning("%s: the zero-shot weights are returned", why)
    dtype = next(task.base.parameters()).dtype
    return FineTuned(
        network=network.requires_grad_(True).to(dtype),
        adapters=adapters,
        settings=run.settings | {"dtype": str(dtype).removeprefix("torch.")},
        report=report,
    )


def _apart(run: RunState) -> dict[str, torch.Tensor] | None:
    """What was trained, apart from the network; nothing where that is all of it."""
    if run.settings["mode"] == "full":
        return None
    if run.settings["mode"] == "lora":
        return lora_state(run.state.network)
    own = run.state.network.state_dict()
    return {name: own[name].cpu().clone() for name in run.settings["trained"]}


def _adapters(pretrained: Pretrained, found: FineTuned) -> Adapters | None:
    """Name the checkpoint that what was trained lies on top of, if it is one."""
    if found.adapters is None:
        return None
    changed = pretrained.tuning is not None or pretrained.adapters is not None
    info = None if changed else pretrained.info
    base = revision = None
    if info is not None:
        local = info.revision is None and info.name != BUNDLED
        base = BUNDLED if info.name == BUNDLED else info.source
        base = str(Path(base).resolve()) if local else base
        revision = info.revision
    about = {name: found.settings[name] for name in ("mode", "horizon", "lora", "dtype")}
    return Adapters(found.adapters, base, revision, found.settings["base"], about)


def _seed(config: FineTuneConfig, folder: Path | None) -> int:
    if folder is not None and config.resume and config.random_state is None:
        return saved_seed(folder)
    # what a generator of torch and one of numpy take
    return draw_seed(config.random_state) % 2**63


def _digest(divided: Split) -> str:
    """Tell data apart, for a run that is resumed."""
    digest = hashlib.sha256()
    for series in (*divided.training, *(window.series for window in divided.validation)):
        for part in series:
            digest.update(str(part.shape).encode() + part.tobytes())
    return digest.hexdigest()


def _output_folder(config: FineTuneConfig) -> Path | None:
    if config.output is None:
        return None
    folder = Path(config.output).expanduser()
    if folder.exists() and not folder.is_dir():
        raise CheckpointError(f"{folder} is a file: the output must be a folder")
    if not config.resume and holds_run(folder):
        raise CheckpointError(f"{folder} holds a run: pass resume=True or another folder")
    return folder


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CheckpointError(f"{folder} cannot be made: {error}; choose another folder") from error
