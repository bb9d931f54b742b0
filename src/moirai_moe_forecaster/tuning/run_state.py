"""How far a fine-tuning has come: scores, best weights so far, and the files to go on from."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from moirai_moe_forecaster.checkpoint.adapters import DOWN
from moirai_moe_forecaster.config import TrainConfig
from moirai_moe_forecaster.errors import CheckpointError
from moirai_moe_forecaster.training.distributed import Processes
from moirai_moe_forecaster.training.state import (
    STATE_FILE,
    State,
    load_state,
    save_state,
    saved_step,
)
from moirai_moe_forecaster.tuning.validation import Evaluation, Losses

BEST_FILE = "best-{step}.safetensors"
LEAST_GAIN = 0.005
NEGLIGIBLE = 0.01
CONFIDENCE = 0.9
REFERENCE, BEST = "losses.reference.", "losses.best."


@dataclass
class Progress:
    """What a fine-tuning has found out.

    Attributes
    ----------
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
    reference, best_losses : Losses, optional
        Of the zero-shot weights and of the best ones.
    share : float
        How far the weights that are returned are from zero-shot (0) to the best ones (1).
    refitted : bool
        Whether the best weights are those of as many steps on all data.
    """

    settings: dict[str, Any]
    history: list[Evaluation] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    best: dict[str, Tensor] = field(default_factory=dict)
    best_step: int = 0
    seconds: float = 0.0
    reference: Losses | None = None
    best_losses: Losses | None = None
    share: float = 1.0
    refitted: bool = False

    def add(self, evaluation: Evaluation, losses: Losses, state: State) -> float:
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
            self.reference, self.best = losses, _copied(state)
        elif (
            ratio < min(self.best_ratio, 1 - LEAST_GAIN)
            and losses.better_than(self.reference) >= CONFIDENCE
        ):
            self.best, self.best_step = _copied(state), evaluation.step
            self.best_losses = losses
        return ratio

    def start_from(self, other: Progress, state: State) -> None:
        """Take the scores of zero-shot over from a run that begins alike."""
        self.history, self.best = other.history[:1], _copied(state)
        self.reference = other.reference

    def keep(self, state: State) -> None:
        """Take the present weights for the best, as without validation the last ones are."""
        self.best, self.best_step = _copied(state), state.step

    @property
    def best_ratio(self) -> float:
        """Losses of the best evaluation relative to zero-shot."""
        best = next(e for e in self.history if e.step == self.best_step)
        return best.relative_to(self.history[0]) if self.best_step else 1.0

    def since_best(self, every: int) -> int:
        """How many regular evaluations, `every` so many steps, there were since the best one."""
        steps = [evaluation.step for evaluation in self.history]
        return sum(step > self.best_step and step % every == 0 for step in steps)

    def no_worse(self, evaluation: Evaluation, losses: Losses) -> bool:
        """Whether losses are about as low as the best.

        Higher by `NEGLIGIBLE` at the most, or not so in all but `CONFIDENCE` of bootstrap samples.
        """
        if self.best_losses is None:
            return False
        close = evaluation.relative_to(self.history[0]) <= self.best_ratio * (1 + NEGLIGIBLE)
        return close or self.best_losses.better_than(losses) < CONFIDENCE

    @torch.no_grad()
    def restore(self, network: nn.Module, base: nn.Module, share: float = 1.0) -> None:
        """Put the best weights back, or what lies on the way to them from the ones of `base`."""
        start = dict(base.named_parameters())
        for name, parameter in network.named_parameters():
            if name not in self.best or name.endswith(DOWN):
                # of a low-rank pair, one half carries the whole change
                parameter.copy_(self.best.get(name, parameter))
            elif name in start:
                parameter.copy_(torch.lerp(start[name].to(parameter), self.best[name], share))
            else:
                parameter.copy_(share * self.best[name])


def _copied(state: State) -> dict[str, Tensor]:
    return {name: parameter.detach().clone() for name, parameter in state.trained.items()}


def save_progress(
    folder: Path, progress: Progress, state: State, training: TrainConfig, processes: Processes
) -> None:
    """Write everything that a later run goes on from.

    The file of the state comes second and tells which of the others counts, so that a kill at any
    moment leaves two that belong together.
    """
    folder.mkdir(parents=True, exist_ok=True)
    file = _best_file(folder, state.step)
    facts = {
        "settings": progress.settings,
        "history": [evaluation._asdict() for evaluation in progress.history],
        "losses": progress.losses,
        "best_step": progress.best_step,
        "seconds": progress.seconds,
    }
    temporary = folder / (file.name + ".new")
    tensors = {name: tensor.cpu().contiguous() for name, tensor in progress.best.items()}
    if progress.reference is not None:
        for key, losses in ((REFERENCE, progress.reference), (BEST, progress.best_losses)):
            parts = {} if losses is None else losses._asdict()
            tensors |= {key + name: torch.from_numpy(part) for name, part in parts.items()}
    try:
        save_file(tensors, temporary, metadata={"progress": json.dumps(facts)})
    except SafetensorError as error:
        raise CheckpointError(f"{temporary} could not be written: {error}") from error
    os.replace(temporary, file)
    save_state(folder, state, training, processes)
    for older in folder.glob(BEST_FILE.format(step="*")):
        if older != file:
            older.unlink()


def load_progress(
    folder: Path, settings: Mapping[str, Any], state: State, training: TrainConfig
) -> Progress:
    """Read what `save_progress` wrote into a new state.

    Raises
    ------
    CheckpointError
        If there is nothing to resume, it cannot be read, or was started with other settings.
    """
    facts, tensors = _read(folder)
    wanted = json.loads(json.dumps(settings))
    if differ := sorted(name for name in wanted if wanted[name] != facts["settings"].get(name)):
        raise CheckpointError(
            f"the fine-tuning in {folder} was started with another {', '.join(differ)}: "
            "resume it with the same arguments, or choose another folder"
        )
    load_state(folder, state, training)
    history = [Evaluation.from_dict(values) for values in facts["history"]]
    device = next(state.network.parameters()).device
    best = {n: t.to(device) for n, t in tensors.items() if not n.startswith((REFERENCE, BEST))}
    reference, lowest = (
        Losses(*(tensors[key + name].numpy() for name in Losses._fields))
        if key + Losses._fields[0] in tensors
        else None
        for key in (REFERENCE, BEST)
    )
    return Progress(
        wanted,
        history,
        facts["losses"],
        best,
        facts["best_step"],
        facts["seconds"],
        reference,
        lowest,
    )


def saved_seed(folder: Path) -> int:
    """Read the seed that a fine-tuning was started with."""
    return int(_read(folder)[0]["settings"]["random_state"])


def holds_progress(folder: Path) -> bool:
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
