"""Fine-tuning: train a copy of a network on a user's own series, and keep what forecasts best."""

from __future__ import annotations

import copy
import hashlib
import logging
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import replace
from numbers import Real
from pathlib import Path
from typing import Any

import torch
from tqdm.auto import tqdm

from moirai_moe_forecaster.checkpoint.adapters import BUNDLED, Adapters, fingerprint
from moirai_moe_forecaster.config import Precision, TrainConfig
from moirai_moe_forecaster.data.arguments import OnError, check_count, check_on_error
from moirai_moe_forecaster.data.panel import log_skipped
from moirai_moe_forecaster.data.series import Series, read_series
from moirai_moe_forecaster.errors import CheckpointError, InvalidInputError
from moirai_moe_forecaster.inference.options import context_points, regresses
from moirai_moe_forecaster.inference.pipeline import MoiraiMoEPipeline
from moirai_moe_forecaster.inference.sampling import RandomState, draw_seed
from moirai_moe_forecaster.model.network import MoiraiMoE
from moirai_moe_forecaster.training.objective import Objective
from moirai_moe_forecaster.training.optimiser import new_optimiser
from moirai_moe_forecaster.training.state import State, saved_settings
from moirai_moe_forecaster.training.stopping import Stop
from moirai_moe_forecaster.tuning.held_out import Split, default_horizon, split
from moirai_moe_forecaster.tuning.lora import LoraConfig, lora_state, merge_lora
from moirai_moe_forecaster.tuning.modes import Mode, choose_trained, trained_parameters
from moirai_moe_forecaster.tuning.report import TuningReport
from moirai_moe_forecaster.tuning.run import ASKED, Callback, Tuning
from moirai_moe_forecaster.tuning.run_state import (
    Progress,
    holds_progress,
    load_progress,
    saved_seed,
)
from moirai_moe_forecaster.tuning.series_batches import OwnWindows
from moirai_moe_forecaster.tuning.validation import Evaluation

log = logging.getLogger(__name__)

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


def fine_tune(
    pipeline: MoiraiMoEPipeline,
    y: Any,
    *,
    horizon: int | None = None,
    mode: Mode = "lora",
    past_covariates: Any = None,
    future_covariates: Any = None,
    validation: Any = "time",
    max_steps: int = 400,
    learning_rate: float | None = None,
    patience: int = 3,
    batch_size: int | None = None,
    freeze: str | Sequence[str] = (),
    lora: LoraConfig | Mapping[str, Any] | None = None,
    context_length: int | None = None,
    precision: Precision = "float32",
    minutes: float | None = None,
    refit: bool = True,
    output: str | Path | None = None,
    resume: bool = False,
    callbacks: Iterable[Callback] = (),
    progress: bool = True,
    random_state: RandomState = None,
    on_error: OnError = "raise",
) -> MoiraiMoEPipeline:
    """Do the work of `MoiraiMoEPipeline.fine_tune`, which describes it."""
    check_count("max_steps", max_steps)
    if batch_size is not None:
        check_count("batch_size", batch_size)
    if context_length is not None:
        check_count("context_length", context_length)
    length = context_points(pipeline.config, context_length)
    skipped: dict[Hashable, str] | None = {} if check_on_error(on_error) else None
    series = read_series(y, 0, past_covariates, future_covariates, skipped=skipped).series
    log_skipped(skipped or {})
    ahead = default_horizon(series, pipeline.config) if horizon is None else horizon
    divided = split(series, check_count("horizon", ahead), validation, length)
    config = _lora_config(lora, mode)
    told = _listed("callbacks", callbacks, callable, "functions of an Evaluation")
    patterns = (freeze,) if isinstance(freeze, str) else freeze
    kept = _listed("freeze", patterns, lambda item: isinstance(item, str), "patterns of names")
    folder = _folder(output, resume)
    resumed = folder if resume else None
    if resumed is not None and random_state is None:
        seed = saved_seed(resumed)
    else:
        # what a generator of torch and one of numpy take
        seed = draw_seed(random_state) % 2**63

    def windows_of(some: Sequence[Series]) -> OwnWindows:
        return OwnWindows(
            some,
            pipeline.config,
            batch_size,
            length,
            ahead,
            regresses(pipeline.config),
            SERIES_BALANCE,
            seed,
        )

    windows = windows_of(divided.training)

    def begin(rate: float) -> Tuning:
        network = copy.deepcopy(pipeline.network).float().train()
        names = choose_trained(network, mode, kept, config, seed)
        settings = {
            "mode": mode,
            "horizon": ahead,
            "trained": names,
            "lora": config.to_dict() if mode == "lora" else None,
            "base": fingerprint(pipeline.network),
            "data": _digest(divided),
            "random_state": seed,
            "batch_size": windows.batch_size,
            "context_length": length,
        }
        training = _training(max_steps, rate, precision)
        return Tuning(
            state=_new_state(network, training),
            progress=Progress(settings),
            training=training,
            windows=windows,
            validation=divided.validation,
            horizon=ahead,
            context_length=length,
            patience=check_count("patience", patience),
            folder=folder,
            callbacks=told,
        )

    rates = (learning_rate,) if learning_rate is not None else RATES.get(str(mode), (1e-3,))
    if resumed is not None:
        rates = (learning_rate or saved_settings(resumed)["learning_rate"],)
    with (
        # whatever the caller's code is within
        torch.inference_mode(False),
        torch.enable_grad(),
        Stop(minutes) as stop,
        tqdm(total=max_steps, disable=not progress, unit="step") as bar,
    ):
        tuning = begin(rates[0])
        if folder is not None:
            _make(folder)
        if resumed is not None:
            tuning.progress = load_progress(
                resumed, tuning.progress.settings, tuning.state, tuning.training
            )
            bar.update(tuning.state.step)
        elif len(rates) > 1 and divided.validation:
            tuning = _better_rate(tuning, [begin(rate) for rate in rates[1:]], stop, bar)
        reason = tuning.run(stop, bar)
        after = tuning.least_change(pipeline.network, reason)
        held_back = isinstance(validation, str | Real)
        if refit and held_back and tuning.progress.best_step and not stop.reason:
            again = replace(
                begin(tuning.training.learning_rate),
                windows=windows_of(series),
                validation=[],
                folder=None,
            )
            _refit(tuning, again, pipeline.network, stop, bar)
        tuned = _result(pipeline, tuning, reason, after)
    if skipped and tuned.tuning is not None:
        named = tuple((str(name), why) for name, why in skipped.items())
        tuned.tuning = replace(tuned.tuning, skipped=named)
    return tuned


def _refit(tuning: Tuning, again: Tuning, base: MoiraiMoE, stop: Stop, bar: tqdm[Any]) -> None:
    """Take the steps that were found to be best anew, with what was held out among the data."""
    progress = tuning.progress
    bar.total = (bar.total or 0) + progress.best_step
    reason = again.run(stop, bar, until=progress.best_step)
    progress.seconds += again.progress.seconds
    if again.reason:
        log.warning("%s: the weights that were fitted without the held-out windows stay", reason)
        return
    progress.best, progress.refitted = again.progress.best, True
    progress.restore(tuning.state.network, base, progress.share)


def _better_rate(first: Tuning, others: Sequence[Tuning], stop: Stop, bar: tqdm[Any]) -> Tuning:
    """Try learning rates up to the first evaluation, and go on with the one that forecasts best."""
    bar.total = (bar.total or 0) + len(others) * first.training.validate_every
    best = first
    for tuning in (first, *others):
        if tuning is not first:
            tuning.progress.start_from(first.progress, tuning.state)
        tuning.run(stop, bar, until=tuning.training.validate_every)
        if tuning.found < best.found:
            best = tuning
        if stop.reason or tuning.reason == ASKED:
            best.reason = tuning.reason
            break
    log.info("learning rate %g is the best of those tried", best.training.learning_rate)
    best.progress.seconds = sum(tuning.progress.seconds for tuning in (first, *others))
    if not best.reason:
        best.save()
    return best


def _result(
    pipeline: MoiraiMoEPipeline, tuning: Tuning, reason: str, after: Evaluation | None
) -> MoiraiMoEPipeline:
    """Put the best weights into a pipeline of their own."""
    network, progress = tuning.state.network, tuning.progress
    # once they are merged, nothing tells adapters from weights
    count = trained_parameters(network)
    adapters = _adapters(pipeline, network, progress.settings)
    merge_lora(network)
    report = TuningReport(
        mode=progress.settings["mode"],
        trained=progress.settings["trained"],
        trained_parameters=count,
        parameters=sum(parameter.numel() for parameter in network.parameters()),
        steps=tuning.state.step,
        best_step=progress.best_step,
        share=progress.share,
        refitted=progress.refitted,
        windows=len(tuning.validation),
        horizon=tuning.horizon,
        seconds=progress.seconds,
        reason=reason,
        history=tuple(progress.history),
        after=after,
        losses=tuple(progress.losses),
    )
    log.info("%s", report)
    if not report.improved:
        why = "validation did not improve" if progress.history else reason
        log.warning("%s: the zero-shot weights are returned", why)
    network.requires_grad_(True).to(next(pipeline.network.parameters()).dtype)
    info = pipeline.info
    if info is not None:
        info = info._replace(name=f"{info.name}, fine-tuned")
    tuned = MoiraiMoEPipeline(network, info)
    tuned.memory_budget = pipeline.memory_budget
    tuned.adapters, tuned.tuning = adapters, report
    return tuned


def _new_state(network: MoiraiMoE, training: TrainConfig) -> State:
    skipped = torch.zeros(2, dtype=torch.long, device=next(network.parameters()).device)
    optimiser = new_optimiser(network, training)
    average = [p.detach().clone() for p in network.parameters() if p.requires_grad]
    return State(network, Objective(network), optimiser, average, 0, skipped)


def _listed(name: str, given: Any, fits: Callable[[Any], bool], kind: str) -> tuple[Any, ...]:
    items = tuple(given) if isinstance(given, Iterable) else (given,)
    if not isinstance(given, Iterable) or not all(fits(item) for item in items):
        raise InvalidInputError(f"{name} must be a list of {kind}, got {given!r}")
    return items


def _digest(divided: Split) -> str:
    """Tell data apart, for a run that is resumed."""
    digest = hashlib.sha256()
    for series in (*divided.training, *(window.series for window in divided.validation)):
        for part in series:
            digest.update(str(part.shape).encode() + part.tobytes())
    return digest.hexdigest()


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CheckpointError(f"{folder} cannot be made: {error}; choose another folder") from error


def _folder(output: str | Path | None, resume: bool) -> Path | None:
    if output is None:
        if resume:
            raise InvalidInputError("resume=True needs the output folder of the run to go on with")
        return None
    folder = Path(output).expanduser()
    if folder.exists() and not folder.is_dir():
        raise CheckpointError(f"{folder} is a file: the output must be a folder")
    if not resume and holds_progress(folder):
        raise CheckpointError(f"{folder} holds a run: pass resume=True or another folder")
    return folder


def _adapters(
    pipeline: MoiraiMoEPipeline, network: MoiraiMoE, settings: dict[str, Any]
) -> Adapters | None:
    """What was trained, apart from the checkpoint; nothing where that is all of it."""
    if settings["mode"] == "full":
        return None
    tensors = lora_state(network)
    if settings["mode"] != "lora":
        own = network.state_dict()
        tensors = {name: own[name].cpu().clone() for name in settings["trained"]}
    info = pipeline.info if pipeline.tuning is None and pipeline.adapters is None else None
    base = revision = None
    if info is not None:
        local = info.revision is None and info.name != BUNDLED
        base = BUNDLED if info.name == BUNDLED else info.source
        base = str(Path(base).resolve()) if local else base
        revision = info.revision
    about = {name: settings[name] for name in ("mode", "horizon", "lora")}
    about["dtype"] = str(next(pipeline.network.parameters()).dtype).removeprefix("torch.")
    return Adapters(tensors, base, revision, settings["base"], about)


def _lora_config(lora: LoraConfig | Mapping[str, Any] | None, mode: str) -> LoraConfig:
    if lora is not None and mode != "lora":
        raise InvalidInputError(f"lora={lora!r} is for mode='lora', got mode={mode!r}")
    if isinstance(lora, Mapping):
        return LoraConfig.from_dict(lora)
    if lora is not None and not isinstance(lora, LoraConfig):
        raise InvalidInputError(
            f"lora must be a LoraConfig or a mapping of its fields, got {lora!r}"
        )
    return lora or LoraConfig()


def _training(max_steps: int, learning_rate: float, precision: Precision) -> TrainConfig:
    steps = check_count("max_steps", max_steps)
    return TrainConfig(
        steps=steps,
        learning_rate=learning_rate,
        warmup_steps=WARMUP_STEPS,
        decay_share=DECAY_SHARE,
        weight_decay=WEIGHT_DECAY,
        ema_decay=AVERAGE_DECAY,
        precision=precision,
        validate_every=max(steps // EVALUATIONS, 1),
    )
