"""Adapter files: what fine-tuning added to a checkpoint, without the checkpoint.

A directory with ``adapters.safetensors``: for each changed weight either a low-rank pair,
``NAME.up`` and ``NAME.down``, whose product is to be added, or, under its own name, the whole new
tensor. The header says which checkpoint they belong to.
"""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Mapping
from pathlib import Path
from types import NoneType
from typing import Any, NamedTuple

import torch
from safetensors.torch import save
from torch import Tensor, nn

from moirai_moe_forecaster.checkpoint.integrity import (
    FLOATING,
    SHA256,
    check_digest,
    check_finite,
    digest,
    fingerprint,
    open_tensors,
    read_path,
    saving,
    several,
)
from moirai_moe_forecaster.checkpoint.places import CONFIG_FILE
from moirai_moe_forecaster.checkpoint.store import Checkpoint, load_checkpoint
from moirai_moe_forecaster.errors import CheckpointError
from moirai_moe_forecaster.model.network import MoiraiMoE

ADAPTERS_FILE = "adapters.safetensors"
UP, DOWN = ".up", ".down"
BUNDLED = "bundled"
FORMAT = "moirai-moe-adapters"
FORMAT_VERSION = 1
DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16, "float64": torch.float64}


class Adapters(NamedTuple):
    """What to change in the weights of a checkpoint.

    Attributes
    ----------
    tensors : dict of Tensor
        In float32, on the CPU.
    base : str or None
        Directory or Hub name of the checkpoint, "bundled", or None where it is none of these.
    revision : str or None
        Of a Hub name.
    fingerprint : str
        Of the checkpoint's weights.
    settings : dict
        How they were trained; "dtype" is that of the weights which they were trained on.
    """

    tensors: dict[str, Tensor]
    base: str | None
    revision: str | None
    fingerprint: str
    settings: dict[str, Any]

    def parameters(self) -> int:
        """How many numbers they hold."""
        return sum(tensor.numel() for tensor in self.tensors.values())


@torch.no_grad()
def apply_adapters(network: nn.Module, adapters: Adapters, sign: int = 1) -> None:
    """Change the weights of a network in place.

    Parameters
    ----------
    network : Module
    adapters : Adapters
    sign : {1, -1}, default=1
        -1 takes the products of low-rank pairs off again, up to rounding.

    Raises
    ------
    CheckpointError
        If they do not fit the network, or whole tensors are to be taken off; it is then unchanged.
    """
    own = network.state_dict()
    changes: dict[str, Tensor] = {}
    for key, tensor in adapters.tensors.items():
        name = key.removesuffix(UP).removesuffix(DOWN)
        if name not in own or (key.endswith(DOWN) and name + UP not in adapters.tensors):
            raise CheckpointError(f"the adapter {key!r} fits no weight of the network")
        if key.endswith(DOWN):
            continue
        shape = tensor.shape
        if key.endswith(UP):
            if name + DOWN not in adapters.tensors:
                raise CheckpointError(f"the adapter {key!r} lacks its other half, {name + DOWN!r}")
            shape = _shape_of_product(key, tensor, adapters.tensors[name + DOWN])
        elif sign < 0:
            raise CheckpointError(f"{name!r} was replaced as a whole, which cannot be taken off")
        if shape != own[name].shape[-len(shape) :]:
            raise CheckpointError(
                f"the adapter {key!r} is for a weight of shape {tuple(shape)}; "
                f"the network's has {tuple(own[name].shape)}"
            )
        # multiplied only now: two thin tensors can have a product that no memory holds
        changes[key] = tensor @ adapters.tensors[name + DOWN] if key.endswith(UP) else tensor
    for key, change in changes.items():
        name = key.removesuffix(UP)
        weight = own[name]
        if key == name:
            weight.copy_(change)
        else:
            weight.copy_(weight.float() + sign * change.to(weight.device))


def _shape_of_product(key: str, up: Tensor, down: Tensor) -> torch.Size:
    fits = up.ndim == down.ndim >= 2 and up.shape[:-2] == down.shape[:-2]
    if not fits or up.shape[-1] != down.shape[-2]:
        raise CheckpointError(
            f"the halves of the adapter {key!r} have shapes {tuple(up.shape)} and "
            f"{tuple(down.shape)}, which have no product"
        )
    return torch.Size((*up.shape[:-1], down.shape[-1]))


def adapters_folder(directory: str | Path) -> Path:
    """Return where adapters can be written.

    Raises
    ------
    CheckpointError
        If `directory` is a file, or holds a whole checkpoint, which would be loaded instead.
    """
    folder = read_path(directory)
    if folder.exists() and not folder.is_dir():
        raise CheckpointError(f"{folder} is a file; adapters are saved as a directory")
    if (folder / CONFIG_FILE).exists():
        raise CheckpointError(
            f"{folder} holds a whole checkpoint, which would be loaded instead of adapters beside "
            "it: choose another folder for them"
        )
    return folder


def save_adapters(adapters: Adapters, directory: str | Path) -> None:
    """Write them into a directory, whole or not at all.

    Raises
    ------
    CheckpointError
        If `directory` is a file, holds a whole checkpoint, or cannot be written to.
    """
    folder = adapters_folder(directory)
    facts = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "base": adapters.base,
        "revision": adapters.revision,
        "fingerprint": adapters.fingerprint,
        "settings": adapters.settings,
    }
    tensors = {name: tensor.contiguous() for name, tensor in adapters.tensors.items()}
    metadata = {"adapters": json.dumps(facts), SHA256: digest(tensors)}
    with saving(folder) as temporary:
        file = temporary / ADAPTERS_FILE
        file.write_bytes(save(tensors, metadata=metadata))
        os.replace(file, folder / ADAPTERS_FILE)


def load_adapters(directory: str | Path) -> Adapters:
    """Read what `save_adapters` wrote.

    Raises
    ------
    CheckpointError
        If there is none, or it is damaged; it names the field that is wrong.
    """
    file = read_path(directory) / ADAPTERS_FILE
    try:
        stored = open_tensors(file)
    except FileNotFoundError as error:
        raise CheckpointError(
            f"{file} does not exist; expected what save_adapters wrote"
        ) from error
    with stored:
        facts = _read_facts(stored.metadata() or {}, file)
        types = {name: stored.get_slice(name).get_dtype() for name in stored.keys()}  # noqa: SIM118
        if wrong := [f"{name} {kind}" for name, kind in types.items() if kind not in FLOATING]:
            raise CheckpointError(
                f"{file} holds tensors of no floating-point type: {several(wrong)}"
            )
        check_digest(stored, file)
        tensors = {name: stored.get_tensor(name).to(torch.float32, copy=True) for name in types}
    check_finite(tensors, file)
    return Adapters(tensors, *(facts[name] for name in FACTS))


FACTS: dict[str, tuple[tuple[type, ...], str]] = {
    "base": ((str, NoneType), f"a directory, a Hub name, {BUNDLED!r} or null"),
    "revision": ((str, NoneType), "text or null"),
    "fingerprint": ((str,), "text"),
    "settings": ((dict,), "a JSON object"),
}
"""What a file says beside its tensors, in the order of `Adapters`."""


def _read_facts(metadata: Mapping[str, str], file: Path) -> dict[str, Any]:
    try:
        facts = json.loads(metadata.get("adapters", "null"))
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{file} is damaged or holds no adapters ({error})") from error
    if not isinstance(facts, dict) or facts.get("format") != FORMAT:
        raise CheckpointError(f"{file} holds no adapters of this package")
    version = facts.get("format_version")
    if type(version) is not int or version < 1:
        raise CheckpointError(
            f"{file}: 'format_version' must be an integer of at least 1, got {version!r}"
        )
    if version > FORMAT_VERSION:
        raise CheckpointError(
            f"{file} is of format {version}, this version of the package reads up "
            f"to {FORMAT_VERSION}: pip install --upgrade moirai-moe-forecaster"
        )
    for name, (kinds, expected) in FACTS.items():
        if name not in facts or not isinstance(facts[name], kinds):
            got = f"got {facts[name]!r:.100}" if name in facts else "it is missing"
            raise CheckpointError(f"{file}: {name!r} must be {expected}; {got}")
    return facts


def holds_adapters(directory: str | Path) -> bool:
    """Whether this is a directory of adapters and not of a whole checkpoint."""
    folder = read_path(directory)
    return (folder / ADAPTERS_FILE).is_file() and not (folder / CONFIG_FILE).exists()


def adapted_network(network: MoiraiMoE, adapters: Adapters) -> MoiraiMoE:
    """Return a copy of a network with adapters in its weights.

    Raises
    ------
    CheckpointError
        If they belong to another checkpoint.
    """
    # what was trained on rounded weights belongs to these
    trained_on = DTYPES.get(str(adapters.settings.get("dtype")), torch.float32)
    copied = copy.deepcopy(network).to(trained_on)
    if fingerprint(copied) != adapters.fingerprint:
        raise CheckpointError(
            f"the adapters were trained on other weights ({adapters.base or 'not saved'}): load "
            "the checkpoint that they belong to, in the version of the package that they were made "
            "with if that is the bundled one"
        )
    apply_adapters(copied, adapters)
    return copied.to(next(network.parameters()).dtype)


def load_adapted(directory: str | Path) -> Checkpoint:
    """Load adapters together with the checkpoint that they name.

    Raises
    ------
    CheckpointError
        If they name none, or it is not there or another one by now.
    """
    found: dict[Path, Adapters] = {}
    base: str | Path | None = directory
    revision: str | None = None
    # adapters on adapters, from the outermost to those of a whole checkpoint
    while base is not None and holds_adapters(base):
        if (here := read_path(base).resolve()) in found:
            raise CheckpointError(
                f"the adapters in {directory} have themselves as 'base', by way of {base}"
            )
        adapters = found[here] = load_adapters(base)
        if adapters.base is None:
            raise CheckpointError(
                f"the adapters in {base} do not say which checkpoint they belong to: load that, "
                "and them by with_adapters"
            )
        base = None if adapters.base == BUNDLED else adapters.base
        revision = adapters.revision
    network, info = load_checkpoint(base, revision=revision)
    for adapters in reversed(found.values()):
        network = adapted_network(network, adapters)
    info = info._replace(
        name=Path(directory).resolve().name,
        source=str(directory),
        fingerprint=fingerprint(network),
    )
    return Checkpoint(network, info)
