"""A pretrained network: loaded, adapted and saved."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

import torch

from moirai_moe_forecaster.checkpoint.adapters import (
    Adapters,
    adapted_network,
    holds_adapters,
    load_adapted,
    load_adapters,
    save_adapters,
)
from moirai_moe_forecaster.checkpoint.store import CheckpointInfo, load_checkpoint, save_checkpoint
from moirai_moe_forecaster.config import ModelConfig
from moirai_moe_forecaster.data.arguments import read_device, read_dtype
from moirai_moe_forecaster.errors import InvalidInputError
from moirai_moe_forecaster.inference.options import context_points
from moirai_moe_forecaster.model.network import MoiraiMoE

if TYPE_CHECKING:
    from typing_extensions import Self

    from moirai_moe_forecaster.tuning.report import TuningReport


class Pretrained:
    """A network and where it comes from; `MoiraiMoEPipeline` describes its attributes."""

    def __init__(self, network: MoiraiMoE, info: CheckpointInfo | None = None) -> None:
        self.network = network
        self.info = info
        self.memory_budget: int | None = None
        self.adapters: Adapters | None = None
        self.tuning: TuningReport | None = None

    @classmethod
    def from_pretrained(
        cls,
        name_or_path: str | Path | None = None,
        *,
        revision: str | None = None,
        device: str | torch.device = "auto",
        dtype: str | torch.dtype | None = None,
    ) -> Self:
        """Load a checkpoint.

        Parameters
        ----------
        name_or_path : str or Path, optional
            A directory or a Hub name such as ``"Salesforce/moirai-moe-1.0-R-small"``; None is the
            checkpoint that comes with this package.
        revision : str, optional
            Branch, tag or commit on the Hub.
        device : str or torch.device, default="auto"
            "auto" takes CUDA, then Apple's MPS, then the CPU.
        dtype : str or torch.dtype, optional
            None is float32.

        Raises
        ------
        CheckpointError
            If the checkpoint is missing, damaged or not what its configuration says.
        InvalidInputError
            If the device or the dtype is not known.
        """
        target, number = read_device(device), read_dtype(dtype)
        if name_or_path is not None and holds_adapters(name_or_path):
            checkpoint = load_adapted(name_or_path)
        else:
            checkpoint = load_checkpoint(name_or_path, revision=revision)
        return cls(checkpoint.network.to(target, number), checkpoint.info)

    def with_adapters(self, directory: str | Path) -> Self:
        """Return a pipeline of this checkpoint with adapters that were trained on it.

        `from_pretrained` does both at once where it can find the checkpoint again.

        Parameters
        ----------
        directory : str or Path
            What `save_adapters` wrote.

        Raises
        ------
        CheckpointError
            If there are none, or they belong to another checkpoint.
        """
        adapters = load_adapters(directory)
        adapted = type(self)(adapted_network(self.network, adapters), self.info)
        adapted.memory_budget, adapted.adapters = self.memory_budget, adapters
        return adapted

    def save_adapters(self, directory: str | Path) -> None:
        """Write only what fine-tuning added to the checkpoint, not the checkpoint.

        Parameters
        ----------
        directory : str or Path
            `from_pretrained` takes it, and `with_adapters`.

        Raises
        ------
        InvalidInputError
            If this pipeline has no adapters: it was not fine-tuned, or in mode "full".
        """
        if self.adapters is None:
            raise InvalidInputError(
                "this pipeline has no adapters: fine-tune it in mode 'lora', 'head' or 'router', "
                "or write the whole network with save_pretrained"
            )
        save_adapters(self.adapters, directory)

    def save_pretrained(
        self, directory: str | Path, layout: Literal["native", "official"] = "native"
    ) -> None:
        """Write the weights as `config.json` and `model.safetensors`.

        Parameters
        ----------
        directory : str or Path
        layout : {"native", "official"}, default="native"
            "official" is what the reference implementation reads; only for networks that follow
            its conventions.

        Raises
        ------
        ConfigError
            If the network does not follow the official conventions.
        """
        licence = "unspecified" if self.info is None else self.info.licence
        save_checkpoint(self.network, directory, layout=layout, licence=licence)

    @property
    def config(self) -> ModelConfig:
        """Sizes and conventions of the network."""
        return self.network.config

    @property
    def max_context_length(self) -> int:
        """Longest context in points that the network was made for."""
        return context_points(self.config)
