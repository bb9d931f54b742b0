"""Checkpoints: bundled, in a directory or on the Hugging Face Hub; native and official layout.

A checkpoint is a ``config.json`` beside a ``model.safetensors``. Nothing that a configuration names
is ever imported or called, and no other format of weights is read.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.overrides import TorchFunctionMode

from moirai_moe_forecaster.checkpoint.integrity import (
    LARGEST_CONFIG,
    NAMES_IN_AN_ERROR,
    SHA256,
    check_digest,
    check_finite,
    check_regular,
    check_tensors,
    digest,
    fingerprint,
    open_tensors,
    read_path,
    saving,
    several,
)
from moirai_moe_forecaster.checkpoint.official import (
    OFFICIAL_LICENCE,
    count_experts,
    from_official,
    official_parts,
    official_settings,
    official_shapes,
    read_config,
    to_official,
)
from moirai_moe_forecaster.checkpoint.places import (
    CONFIG_FILE,
    WEIGHTS_FILE,
    WHAT_IS_EXPECTED,
    locate,
)
from moirai_moe_forecaster.config import ModelConfig
from moirai_moe_forecaster.errors import CheckpointError, ConfigError
from moirai_moe_forecaster.model.network import MoiraiMoE

Layout = Literal["native", "official"]

FORMAT = "moirai-moe-forecaster"
FORMAT_VERSION = 1
UNSPECIFIED_LICENCE = "unspecified"

LONGEST_SEQUENCE = 2**20

_warned: set[str] = set()


class CheckpointInfo(NamedTuple):
    """Where a network came from.

    Attributes
    ----------
    name : str
        For people to read.
    layout : {"native", "official"}
    licence : str
        Of the weights; "unspecified" if the checkpoint does not say.
    source : str
        Directory or Hub name.
    revision : str or None
        Commit on the Hub that was loaded; None for a local checkpoint.
    fingerprint : str or None
        Of the weights, the same in any precision and layout: what was fitted with other ones says
        so. None in what an earlier version pickled.
    """

    name: str
    layout: Layout
    licence: str
    source: str
    revision: str | None
    fingerprint: str | None = None


class Checkpoint(NamedTuple):
    """A network with its weights, and where it came from."""

    network: MoiraiMoE
    info: CheckpointInfo


def load_checkpoint(
    name_or_path: str | Path | None = None, *, revision: str | None = None
) -> Checkpoint:
    """Load a network in evaluation mode, in float32 on the CPU.

    Parameters
    ----------
    name_or_path : str, Path or None, default=None
        A directory; or the name of a Hub repository, "organisation/name", downloaded once and then
        taken from the local cache; or None for the bundled checkpoint.
    revision : str, optional
        Branch, tag or commit of a Hub repository.

    Returns
    -------
    Checkpoint

    Raises
    ------
    CheckpointError
        If there is no such checkpoint, it is damaged, its weights are not finite, or its files do
        not fit each other.
    MissingExtraError
        If a Hub name is given and huggingface_hub is not installed.

    Warns
    -----
    UserWarning
        Once per process and checkpoint, if the weights are the official ones, whose licence
        forbids commercial use.
    """
    place = locate(name_or_path, revision)
    network, described = _read(place.directory)
    info = CheckpointInfo(
        place.name,
        described.layout,
        described.licence,
        place.source,
        place.revision,
        fingerprint(network),
    )
    if info.layout == "official" and info.licence == OFFICIAL_LICENCE:
        _warn_once(info)
    return Checkpoint(network, info)


def save_checkpoint(
    network: MoiraiMoE,
    directory: str | Path,
    *,
    layout: Layout = "native",
    dtype: torch.dtype | None = None,
    licence: str = UNSPECIFIED_LICENCE,
) -> None:
    """Write a network into a directory, whose other files stay as they are.

    At every moment, and wherever the call is interrupted, the directory holds either what it held
    before or the new checkpoint.

    Parameters
    ----------
    network : MoiraiMoE
    directory : str or Path
        Made if it does not exist.
    layout : {"native", "official"}, default="native"
        "official" is what the original implementation reads; only for a network that follows its
        conventions.
    dtype : torch.dtype, optional
        torch.float32 (the default) or, in native layout, torch.bfloat16: half the size.
    licence : str, default="unspecified"
        Of the weights. Weights tuned from others usually remain under the licence of those.

    Raises
    ------
    ConfigError
        If the layout cannot express the network's configuration, or an argument is not known.
    CheckpointError
        If the network holds other tensors than its configuration says, such as adapters,
        `directory` is a file, or it cannot be written to.
    """
    config, directory = network.config, read_path(directory)
    if layout not in ("native", "official"):
        raise ConfigError(f"layout must be 'native' or 'official', got {layout!r}")
    allowed = [torch.float32, torch.bfloat16] if layout == "native" else [torch.float32]
    dtype = torch.float32 if dtype is None else dtype
    if dtype not in allowed:
        raise ConfigError(f"dtype in {layout} layout must be one of {allowed}, got {dtype!r}")
    settings = _settings(config, layout, licence)
    state = {name: tensor.detach().cpu() for name, tensor in network.state_dict().items()}
    if others := sorted(state.keys() ^ meta_network(config).state_dict().keys()):
        raise CheckpointError(
            "the network holds more or less than a MoiraiMoE of its configuration: "
            f"{several(others)}; merge or remove adapters before saving"
        )
    tensors = (
        {name: tensor.to(dtype).contiguous() for name, tensor in state.items()}
        if layout == "native"
        else to_official(state, config)
    )
    _write(directory, json.dumps(settings, indent=2) + "\n", tensors)


@dataclass(frozen=True, kw_only=True)
class _Description:
    layout: Layout
    config: ModelConfig
    licence: str
    sha256: str | None


def _warn_once(info: CheckpointInfo) -> None:
    if info.source not in _warned:
        _warned.add(info.source)
        warnings.warn(
            f"the weights of {info.name} are licensed under {info.licence}: commercial use is not "
            "permitted. The bundled checkpoint has no such restriction.",
            UserWarning,
            stacklevel=3,
        )


def _read(directory: Path) -> tuple[MoiraiMoE, _Description]:
    file = directory / CONFIG_FILE
    try:
        check_regular(file, LARGEST_CONFIG)
        text = file.read_bytes()
    except CheckpointError:
        raise
    except OSError as error:
        reason = f"cannot read {file} ({error.strerror})"
        raise CheckpointError(f"{reason}; expected {WHAT_IS_EXPECTED}") from error
    described = _describe(text, file)
    file = directory / WEIGHTS_FILE
    with _open(file) as weights:
        metadata = weights.metadata() or {}
        if metadata.get("replaces") == _digest(text):
            # saving was interrupted, or is just now, between its two renames: see `_write`
            described = _describe(metadata.get("config", "").encode(), file)
        if described.layout == "official":
            experts = count_experts(weights)
            described = replace(described, config=replace(described.config, num_experts=experts))
        network = _empty_network(described.config, weights, file)
        empty = network.state_dict()
        if described.layout == "official":
            check_tensors(weights, official_shapes(official_parts(empty, network.config)), file)
            state = from_official(weights, empty, network.config)
        else:
            check_tensors(
                weights, {name: tuple(tensor.shape) for name, tensor in empty.items()}, file
            )
            # copied, because the file may be replaced or cut while it is mapped into memory
            state = {key: weights.get_tensor(key).to(torch.float32, copy=True) for key in empty}
        check_digest(weights, file, described.sha256)
    check_finite(state, file)
    network.load_state_dict(state, assign=True)
    return network.eval(), described


def _empty_network(config: ModelConfig, weights: Any, file: Path) -> MoiraiMoE:
    """Build a network on the meta device, unless its size alone cannot be that of the file."""
    count = len(weights.keys())
    if config.num_layers > count or config.max_seq_len > LONGEST_SEQUENCE:
        raise CheckpointError(
            f"{file} holds {count} tensors, and {CONFIG_FILE} names num_layers={config.num_layers} "
            f"and max_seq_len={config.max_seq_len}: it belongs to other weights, or is no "
            "configuration at all"
        )
    try:
        return meta_network(config)
    except (RuntimeError, OverflowError, TypeError) as error:
        raise CheckpointError(
            f"{CONFIG_FILE} beside {file} names sizes that no network has ({error})"
        ) from error


def meta_network(config: ModelConfig) -> MoiraiMoE:
    """Build a network without memory for its weights, and without drawing random ones."""
    with torch.device("meta"), _NoDraws():
        return MoiraiMoE(config)


class _NoDraws(TorchFunctionMode):
    """Skips random draws: on tensors without memory they cost two seconds of imports in torch."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if func in (Tensor.normal_, Tensor.uniform_):
            return args[0]
        return func(*args, **(kwargs or {}))


def _describe(text: bytes, file: Path) -> _Description:
    try:
        settings = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise CheckpointError(
            f"{file} is not valid JSON ({error}): download or save the checkpoint again"
        ) from error
    if not isinstance(settings, dict):
        raise CheckpointError(f"{file} must hold a JSON object, got {type(settings).__name__}")
    licence = settings.get("licence")
    try:
        if settings.get("format") == FORMAT:
            config = _native_config(settings)
            kept = settings.get(SHA256)
            licence = str(licence or UNSPECIFIED_LICENCE)
            return _Description(layout="native", config=config, licence=licence, sha256=kept)
        if "distr_output" in settings:
            # only this package writes a licence there; the original weights are the usual case
            config = read_config(settings)
            licence = str(licence or OFFICIAL_LICENCE)
            return _Description(layout="official", config=config, licence=licence, sha256=None)
    except ConfigError as error:
        raise CheckpointError(f"{file}: {error}") from error
    what = {key: settings[key] for key in ("format", "model_type") if key in settings}
    raise CheckpointError(
        f"{file} describes another model ({what or sorted(settings)[:NAMES_IN_AN_ERROR]}); "
        f"expected 'format': {FORMAT!r}, or an official Moirai-MoE with 'distr_output'"
    )


def _native_config(settings: Mapping[str, Any]) -> ModelConfig:
    version, model = settings.get("format_version"), settings.get("model")
    if type(version) is not int or version < 1:
        raise ConfigError(f"format_version must be an integer of at least 1, got {version!r}")
    if version > FORMAT_VERSION:
        raise ConfigError(
            f"format_version is {version}, this version of the package reads up to "
            f"{FORMAT_VERSION}: pip install --upgrade moirai-moe-forecaster"
        )
    if not isinstance(model, dict):
        raise ConfigError(f"'model' must hold the fields of ModelConfig, got {model!r}")
    return ModelConfig.from_dict(model)


def _open(file: Path) -> Any:
    try:
        return open_tensors(file)
    except FileNotFoundError as error:
        raise CheckpointError(
            f"{file} does not exist; weights are read from {WEIGHTS_FILE} only, never from pickles"
        ) from error


def _settings(config: ModelConfig, layout: Layout, licence: str) -> dict[str, Any]:
    if layout == "official":
        return official_settings(config) | {"licence": licence}
    return {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "licence": licence,
        "model": config.to_dict(),
    }


def _write(directory: Path, config: str, tensors: Mapping[str, Tensor]) -> None:
    """Write both files whole elsewhere and rename them, the weights first.

    Two renames are not one. So the weights carry their configuration, and the digest of the one
    they replace: a reader that finds them beside that knows which configuration is theirs.
    """
    metadata = {"format": "pt", "config": config, SHA256: digest(tensors)}
    with saving(directory) as temporary:
        if (directory / CONFIG_FILE).exists():
            check_regular(directory / CONFIG_FILE, LARGEST_CONFIG)
            metadata["replaces"] = _digest((directory / CONFIG_FILE).read_bytes())
        new_weights, new_config = temporary / WEIGHTS_FILE, temporary / CONFIG_FILE
        save_file(dict(tensors), new_weights, metadata=metadata)
        new_config.write_text(config, encoding="utf-8")
        # safetensors writes for the owner alone; the user's umask decides, as for any other file
        shutil.copymode(new_config, new_weights)
        os.replace(new_weights, directory / WEIGHTS_FILE)
        os.replace(new_config, directory / CONFIG_FILE)


def _digest(config: bytes) -> str:
    return hashlib.sha256(config).hexdigest()
