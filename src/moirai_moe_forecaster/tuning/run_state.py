"""A fine-tuning as it goes on: weights, scores, the best so far, and the files to resume from."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from moirai_moe_forecaster.checkpoint.adapters import DOWN
from moirai_moe_forecaster.config import TrainConfig
from moirai_moe_forecaster.errors import CheckpointError
from moirai_moe_forecaster.training.distributed import single_process
from moirai_moe_forecaster.training.monitoring import METRICS_FILE, append
from moirai_moe_forecaster.training.state import (
    STATE_FILE,
    State,
    load_state,
    save_state,
    saved_step,
)
from moirai_moe_forecaster.tuning.validation import Evaluation, WindowLosses

BEST_FILE = "best-{step}.safetensors"
LEAST_GAIN = 0.005
NEGLIGIBLE = 0.01
CONFIDENCE = 0.9
REFERENCE, BEST = "losses.reference.", "losses.best."
LOSSES = tuple(f.name for f in fields(WindowLosses))


@dataclass(kw_only=True)
class RunState:
    """All that a fine-tuning changes.

    Attributes
    ----------
    state : State
        Weights, their averages and the optimiser.
    training : TrainConfig
    settings : dict
        What a resumed run must have been started with too.
    history : list of Evaluation
        Zero-shot first.
    losses : list of float
        Mean training loss up to each evaluation after the first.
    best : dict of Tensor
        Trained parameters of the best evaluation.
    best_step : int
    seconds : float
        Spent so far.
    reference, best_losses : WindowLosses, optional
        Of the zero-shot weights and of the best ones.
    share : float
        How far the weights that are returned are from zero-shot (0) to the best ones (1).
    refitted : bool
        Whether the best weights are those of as many steps on all data.
    reason : str
        Why it ended before its last step; empty while it did not.
    lines : list of dict
        Metrics that are not written yet.
    """

    state: State
    training: TrainConfig
    settings: dict[str, Any]
    history: list[Evaluation] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    best: dict[str, Tensor] = field(default_factory=dict)
    best_step: int = 0
    seconds: float = 0.0
    reference: WindowLosses | None = None
    best_losses: WindowLosses | None = None
    share: float = 1.0
    refitted: bool = False
    reason: str = ""
    lines: list[dict[str, Any]] = field(default_factory=list)

    def add(self, evaluation: Evaluation, losses: WindowLosses) -> float:
        """Take an evaluation in, and the weights if they are the best so far.

        Returns
        -------
        float
            Its losses relative to zero-shot. Weights other than those must be better by
            `LEAST_GAIN`, and in `CONFIDENCE` of bootstrap samples, so that chance alone does not
            replace them.
        """
        self.history.append(evaluation)
        ratio = evaluation.relative_to(self.history[0])
        if self.reference is None:
            self.reference, self.best = losses, self._weights()
        elif (
            ratio < min(self.best_ratio, 1 - LEAST_GAIN)
            and losses.better_than(self.reference) >= CONFIDENCE
        ):
            self.best, self.best_step = self._weights(), evaluation.step
            self.best_losses = losses
        return ratio

    def start_from(self, other: RunState) -> None:
        """Take the scores of zero-shot over from a run that begins alike."""
        self.history, self.best = other.history[:1], self._weights()
        self.reference = other.reference

    def keep(self) -> None:
        """Take the present weights for the best, as without validation the last ones are."""
        self.best, self.best_step = self._weights(), self.state.step

    @property
    def best_evaluation(self) -> Evaluation | None:
        """Scores of the best weights; None without validation."""
        return next((e for e in self.history if e.step == self.best_step), None)

    @property
    def best_ratio(self) -> float:
        """Losses of the best weights relative to zero-shot."""
        best = self.best_evaluation
        return best.relative_to(self.history[0]) if best and self.best_step else 1.0

    @property
    def lowest_ratio(self) -> float:
        """Lowest losses of an evaluation relative to zero-shot, likely or not."""
        return min((e.relative_to(self.history[0]) for e in self.history[1:]), default=math.inf)

    def since_best(self, every: int) -> int:
        """How many regular evaluations, `every` so many steps, there were since the best one."""
        steps = [evaluation.step for evaluation in self.history]
        return sum(step > self.best_step and step % every == 0 for step in steps)

    def no_worse(self, evaluation: Evaluation, losses: WindowLosses) -> bool:
        """Whether losses are about as low as the best.

        Higher by `NEGLIGIBLE` at the most, or not so in all but `CONFIDENCE` of bootstrap samples.
        """
        if self.best_losses is None:
            return False
        close = evaluation.relative_to(self.history[0]) <= self.best_ratio * (1 + NEGLIGIBLE)
        return close or self.best_losses.better_than(losses) < CONFIDENCE

    @torch.no_grad()
    def restore(self, base: nn.Module, share: float = 1.0) -> None:
        """Put the best weights back, or what lies on the way to them from the ones of `base`."""
        start = dict(base.named_parameters())
        for name, parameter in self.state.network.named_parameters():
            if name not in self.best or name.endswith(DOWN):
                # of a low-rank pair, one half carries the whole change
                parameter.copy_(self.best.get(name, parameter))
            elif name in start:
                parameter.copy_(torch.lerp(start[name].to(parameter), self.best[name], share))
            else:
                parameter.copy_(share * self.best[name])

    def _weights(self) -> dict[str, Tensor]:
        """Copy the present trained weights."""
        return {name: part.detach().clone() for name, part in self.state.trained.items()}


def save_run(folder: Path, run: RunState) -> None:
    """Write everything that a later run goes on from, and the metrics up to here.

    The file of the weights comes second and tells which of the others counts, so that a kill at any
    moment leaves two that belong together.

    Raises
    ------
    CheckpointError
        If a file cannot be written, as on a full disk.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for metrics in run.lines:
        append(folder / METRICS_FILE, metrics)
    run.lines.clear()
    file = _best_file(folder, run.state.step)
    facts = {
        "settings": run.settings,
        "history": [evaluation.to_dict() for evaluation in run.history],
        "losses": run.losses,
        "best_step": run.best_step,
        "seconds": run.seconds,
    }
    temporary = folder / (file.name + ".new")
    tensors = {name: tensor.cpu().contiguous() for name, tensor in run.best.items()}
    if run.reference is not None:
        for key, losses in ((REFERENCE, run.reference), (BEST, run.best_losses)):
            parts = {} if losses is None else asdict(losses)
            tensors |= {key + name: torch.from_numpy(part) for name, part in parts.items()}
    try:
        save_file(tensors, temporary, metadata={"progress": json.dumps(facts)})
    except SafetensorError as error:
        raise CheckpointError(f"{temporary} could not be written: {error}") from error
    os.replace(temporary, file)
    device = next(run.state.network.parameters()).device
    save_state(folder, run.state, run.training, single_process(device))
    for older in folder.glob(BEST_FILE.format(step="*")):
        if older != file:
            older.unlink()


def load_run(folder: Path, run: RunState) -> None:
    """Read what `save_run` wrote into a run that begins.

    Raises
    ------
    CheckpointError
        If there is nothing to resume, it cannot be read, or was started with other settings.
    """
    facts, tensors = _read(folder)
    wanted = json.loads(json.dumps(run.settings))
    if differ := sorted(name for name in wanted if wanted[name] != facts["settings"].get(name)):
        raise CheckpointError(
            f"the fine-tuning in {folder} was started with another {', '.join(differ)}: "
            "resume it with the same arguments, or choose another folder"
        )
    load_state(folder, run.state, run.training)
    device = next(run.state.network.parameters()).device
    run.history = [Evaluation.from_dict(values) for values in facts["history"]]
    run.losses, run.best_step = facts["losses"], facts["best_step"]
    run.seconds = facts["seconds"]
    run.best = {n: t.to(device) for n, t in tensors.items() if not n.startswith((REFERENCE, BEST))}
    run.reference, run.best_losses = _losses(tensors, REFERENCE), _losses(tensors, BEST)


def _losses(tensors: Mapping[str, Tensor], key: str) -> WindowLosses | None:
    if key + LOSSES[0] not in tensors:
        return None
    return WindowLosses(**{name: tensors[key + name].numpy() for name in LOSSES})


def saved_seed(folder: Path) -> int:
    """Read the seed that a fine-tuning was started with."""
    return int(_read(folder)[0]["settings"]["random_state"])


def holds_run(folder: Path) -> bool:
    """Whether a fine-tuning was saved there."""
    return (folder / STATE_FILE).exists()


def _read(folder: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    best = _best_file(folder, saved_step(folder))
    try:
        with safe_open(best, "pt") as file:
            facts = json.loads(file.metadata()["progress"])
            return facts, {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{folder} holds no fine-tuning to resume: {error}") from error


def _best_file(folder: Path, step: int) -> Path:
    return folder / BEST_FILE.format(step=step)
