"""Adapter files: what fine-tuning added to a checkpoint, without the checkpoint.

A directory with ``adapters.safetensors``: for each changed weight either a low-rank pair,
``NAME.up`` and ``NAME.down``, whose product is to be added, or, under its own name, the whole new
tensor. The header says which checkpoint they belong to.
"""

from __future__ import annotations

import copy
import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from moirai_moe_forecaster.checkpoint.store import CONFIG_FILE, Checkpoint, load_checkpoint
from moirai_moe_forecaster.errors import CheckpointError
from moirai_moe_forecaster.model.network import MoiraiMoE

ADAPTERS_FILE = "adapters.safetensors"
UP, DOWN = ".up", ".down"
BUNDLED = "bundled"
FORMAT = "moirai-moe-adapters"
FORMAT_VERSION = 1
ELEMENTS_IN_FINGERPRINT = 4096
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


def fingerprint(network: nn.Module) -> str:
    """Tell checkpoints apart: a digest of the start of every tensor, the same in any precision."""
    digest = hashlib.sha256()
    for name, tensor in network.state_dict().items():
        start = tensor.detach().flatten()[:ELEMENTS_IN_FINGERPRINT].to("cpu", torch.bfloat16)
        digest.update(f"{name} {tuple(tensor.shape)}".encode())
        digest.update(start.contiguous().view(torch.int16).numpy().tobytes())
    return digest.hexdigest()


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
        if key.endswith(UP):
            if name + DOWN not in adapters.tensors:
                raise CheckpointError(f"the adapter {key!r} lacks its other half, {name + DOWN!r}")
            change = tensor @ adapters.tensors[name + DOWN]
        elif key.endswith(DOWN):
            continue
        elif sign < 0:
            raise CheckpointError(f"{name!r} was replaced as a whole, which cannot be taken off")
        else:
            change = tensor
        if change.shape != own[name].shape[-change.ndim :]:
            raise CheckpointError(
                f"the adapter {key!r} is for a weight of shape {tuple(change.shape)}; "
                f"the network's has {tuple(own[name].shape)}"
            )
        changes[key] = change
    for key, change in changes.items():
        name = key.removesuffix(UP)
        weight = own[name]
        if key == name:
            weight.copy_(change)
        else:
            weight.copy_(weight.float() + sign * change.to(weight.device))


def adapters_folder(directory: str | Path) -> Path:
    """Return where adapters can be written.

    Raises
    ------
    CheckpointError
        If `directory` is a file, or holds a whole checkpoint, which would be loaded instead.
    """
    folder = Path(os.path.expanduser(directory))
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
        If `directory` is a file or holds a whole checkpoint.
    """
    folder = adapters_folder(directory)
    folder.mkdir(parents=True, exist_ok=True)
    facts = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "base": adapters.base,
        "revision": adapters.revision,
        "fingerprint": adapters.fingerprint,
        "settings": adapters.settings,
    }
    tensors = {name: tensor.contiguous() for name, tensor in adapters.tensors.items()}
    temporary = folder / f".{os.getpid()}-{ADAPTERS_FILE}"
    try:
        temporary.write_bytes(save(tensors, metadata={"adapters": json.dumps(facts)}))
        os.replace(temporary, folder / ADAPTERS_FILE)
    finally:
        temporary.unlink(missing_ok=True)


def load_adapters(directory: str | Path) -> Adapters:
    """Read what `save_adapters` wrote.

    Raises
    ------
    CheckpointError
        If there is none, or it is damaged.
    """
    file = Path(os.path.expanduser(directory), ADAPTERS_FILE)
    try:
        with safe_open(file, "pt") as stored:
            facts = json.loads((stored.metadata() or {})["adapters"])
            tensors = {name: stored.get_tensor(name).clone() for name in stored.keys()}  # noqa: SIM118
    except FileNotFoundError as error:
        raise CheckpointError(
            f"{file} does not exist; expected what save_adapters wrote"
        ) from error
    except (SafetensorError, OSError, KeyError, ValueError) as error:
        raise CheckpointError(f"{file} is damaged or holds no adapters ({error})") from error
    if not isinstance(facts, Mapping) or facts.get("format") != FORMAT:
        raise CheckpointError(f"{file} holds no adapters of this package")
    if facts["format_version"] > FORMAT_VERSION:
        raise CheckpointError(
            f"{file} is of format {facts['format_version']}, this version of the package reads up "
            f"to {FORMAT_VERSION}: pip install --upgrade moirai-moe-forecaster"
        )
    names = ("base", "revision", "fingerprint", "settings")
    return Adapters(tensors, *(facts[name] for name in names))


def holds_adapters(directory: str | Path) -> bool:
    """Whether this is a directory of adapters and not of a whole checkpoint."""
    folder = Path(os.path.expanduser(directory))
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
    adapters = load_adapters(directory)
    if adapters.base is None:
        raise CheckpointError(
            f"the adapters in {directory} do not say which checkpoint they belong to: load that, "
            "and them by with_adapters"
        )
    name = None if adapters.base == BUNDLED else adapters.base
    if name is not None and holds_adapters(name):
        base = load_adapted(name)
    else:
        base = load_checkpoint(name, revision=adapters.revision)
    info = base.info._replace(name=Path(directory).resolve().name, source=str(directory))
    return Checkpoint(adapted_network(base.network, adapters), info)
