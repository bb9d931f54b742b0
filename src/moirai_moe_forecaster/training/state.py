"""The state of a run: all that a step changes, and the file that a run goes on from."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from moirai_moe_forecaster.config import ModelConfig, TrainConfig
from moirai_moe_forecaster.errors import CheckpointError
from moirai_moe_forecaster.model.network import MoiraiMoE
from moirai_moe_forecaster.training.distributed import Processes, like, part, shard, swap, whole
from moirai_moe_forecaster.training.initial import set_initial
from moirai_moe_forecaster.training.objective import Objective
from moirai_moe_forecaster.training.optimiser import new_optimiser

log = logging.getLogger(__name__)

STATE_FILE = "state.safetensors"
RUN_FILE = "run.json"
MOMENTS = ("step", "exp_avg", "exp_avg_sq")


@dataclass
class State:
    """Everything that a step changes.

    Attributes
    ----------
    network : MoiraiMoE
    objective : Module
        The `Objective` of that network, wrapped if several processes train it.
    optimiser : AdamW
    average : list of Tensor or None
        Moving averages of the `trained` parameters: what this process holds of them.
    step : int
        Steps that are done.
    skipped : Tensor of int64, (2,)
        How many of them were skipped since they were not finite: in all, and last in a row.
    """

    network: MoiraiMoE
    objective: nn.Module
    optimiser: torch.optim.AdamW
    average: list[Tensor] | None
    step: int
    skipped: Tensor

    @property
    def trained(self) -> dict[str, nn.Parameter]:
        """Parameters that are trained, in the network's order."""
        named = self.network.named_parameters()
        return {name: parameter for name, parameter in named if parameter.requires_grad}

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Let the network have its averaged weights, if there are any, within the context."""
        if self.average is None:
            yield
            return
        mine = [part(parameter) for parameter in self.trained.values()]
        swap(mine, self.average)
        try:
            yield
        finally:
            swap(mine, self.average)


def new_state(
    model: ModelConfig,
    training: TrainConfig,
    processes: Processes,
    initial: Mapping[str, Tensor] | None,
    sharded: bool = False,
) -> State:
    """Draw random weights from the seed, the same in every process, and replace some by `initial`.

    None is for a state that `load_state` fills.
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(training.seed)
        network = MoiraiMoE(model).train().to(processes.device)
    if initial is not None:
        set_initial(network, initial)
    plain = Objective(network)
    objective: nn.Module = plain
    if sharded:
        shard(plain, network.blocks, processes)
    elif processes.world_size > 1:
        objective = DistributedDataParallel(plain)
    optimiser = new_optimiser(network, training)
    average = [part(p).clone() for p in network.parameters()] if training.ema_decay else None
    skipped = torch.zeros(2, dtype=torch.long, device=processes.device)
    return State(network, objective, optimiser, average, 0, skipped)


def final_network(state: State, processes: Processes) -> MoiraiMoE:
    """Return the whole network, with averaged weights if there are any, in evaluation mode."""
    network = state.network
    with state.averaged():
        weights = {name: whole(tensor).clone() for name, tensor in network.state_dict().items()}
    with torch.random.fork_rng(devices=[]):
        network = MoiraiMoE(network.config).to(processes.device)
    network.load_state_dict(weights)
    return network.eval()


def save_state(folder: Path, state: State, training: TrainConfig, processes: Processes) -> None:
    """Write weights, optimiser and configuration; an old state stays whole until the new one is.

    Every process must call this, and the first writes.

    Raises
    ------
    CheckpointError
        If the file cannot be written, as on a full disk.
    """
    tensors = {}
    for name, tensor in _named_tensors(state):
        full = whole(tensor)
        if processes.rank == 0:
            tensors[name] = full.cpu().contiguous()
    if processes.rank != 0:
        return
    skipped, in_a_row = state.skipped.tolist()
    run = {
        "step": state.step,
        "skipped": skipped,
        "skipped_in_a_row": in_a_row,
        "model": state.network.config.to_dict(),
        "training": training.to_dict(),
    }
    temporary = folder / (STATE_FILE + ".new")
    try:
        save_file(tensors, temporary, metadata={"run": json.dumps(run)})
    except SafetensorError as error:
        raise CheckpointError(f"{temporary} could not be written: {error}") from error
    os.replace(temporary, folder / STATE_FILE)
    temporary = folder / (RUN_FILE + ".new")
    temporary.write_text(json.dumps(run, indent=2))
    os.replace(temporary, folder / RUN_FILE)


def saved_settings(folder: Path) -> dict[str, Any]:
    """Read the fields of the `TrainConfig` that a run was saved with, and `saved_step` its step.

    Raises
    ------
    CheckpointError
        If there is no state, or it cannot be read.
    """
    settings: dict[str, Any] = _saved(folder, "training")
    return settings


def saved_step(folder: Path) -> int:
    """Read how many steps a saved run has done."""
    return int(_saved(folder, "step"))


def saved_model(folder: Path) -> ModelConfig:
    """Read the `ModelConfig` of the network that a run trains.

    Raises
    ------
    CheckpointError
        If there is no state, or it cannot be read.
    """
    return ModelConfig.from_dict(_saved(folder, "model"))


def _saved(folder: Path, name: str) -> Any:
    try:
        with safe_open(folder / STATE_FILE, "pt") as file:
            return json.loads(file.metadata()["run"])[name]
    except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{folder} holds no run to resume: {error}") from error


@torch.no_grad()
def load_state(folder: Path, state: State, training: TrainConfig) -> None:
    """Read what `save_state` wrote into a new state of the same model, whatever its processes.

    Raises
    ------
    CheckpointError
        If the file cannot be read or holds another model.
    """
    try:
        with safe_open(folder / STATE_FILE, "pt") as file:
            run = json.loads(file.metadata()["run"])
            _check_model(folder, ModelConfig.from_dict(run["model"]), state.network.config)
            _read_tensors(file, state)
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"{folder / STATE_FILE} is not the state of a run: {error}"
        ) from error
    state.step = run["step"]
    counts = run.get("skipped", 0), run.get("skipped_in_a_row", 0)
    state.skipped.copy_(torch.tensor(counts))
    _warn_of_changes(run["training"], training)


def _check_model(folder: Path, saved: ModelConfig, config: ModelConfig) -> None:
    """Refuse a run of another model, naming what differs."""
    ours = config.to_dict()
    different = [
        f"{name} was {value!r} and is {ours[name]!r}"
        for name, value in saved.to_dict().items()
        if value != ours[name]
    ]
    if different:
        raise CheckpointError(
            f"the run in {folder} trains another model: {', '.join(different)}; it was begun on "
            "another checkpoint, or by another version of the package, and goes on only with it"
        )


def _named_tensors(state: State) -> Iterator[tuple[str, Tensor]]:
    for name, tensor in state.network.state_dict().items():
        yield f"model.{name}", tensor
    for index, (name, parameter) in enumerate(state.trained.items()):
        for moment, value in state.optimiser.state[parameter].items():
            yield f"optimiser.{moment}.{name}", value
        if state.average is not None:
            average = torch.empty_like(parameter, requires_grad=False)
            part(average).copy_(state.average[index])
            yield f"average.{name}", average


def _read_tensors(file: Any, state: State) -> None:
    stored = set(file.keys())
    for name, tensor in state.network.state_dict().items():
        tensor.copy_(like(tensor, file.get_tensor(f"model.{name}")))
    for index, (name, parameter) in enumerate(state.trained.items()):
        if f"optimiser.momentum.{name}" in stored:
            momentum = file.get_tensor(f"optimiser.momentum.{name}").clone()
            state.optimiser.state[parameter] = {"momentum": like(parameter, momentum)}
        if f"optimiser.step.{name}" in stored:
            # copied, as what safetensors gives may be the file's own pages: a mapped file cannot be
            # replaced on Windows, and must not be changed elsewhere
            step, *moments = (
                file.get_tensor(f"optimiser.{kind}.{name}").clone() for kind in MOMENTS
            )
            values = [step.to(parameter.device), *(like(parameter, value) for value in moments)]
            state.optimiser.state[parameter] = dict(zip(MOMENTS, values, strict=True))
        if state.average is not None:
            # a run without an average starts one from its weights
            kind = "average" if f"average.{name}" in stored else "model"
            average = like(parameter, file.get_tensor(f"{kind}.{name}"))
            state.average[index].copy_(part(average))


def _warn_of_changes(before: dict[str, Any], training: TrainConfig) -> None:
    """Name settings that differ from those that the run was saved with, the steps aside."""
    now = json.loads(json.dumps(training.to_dict()))
    for name, value in now.items():
        if name != "steps" and before.get(name, value) != value:
            log.warning("resumed with %s=%s; until now it was %s", name, value, before[name])
