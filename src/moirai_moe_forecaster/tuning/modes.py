"""Which tensors a mode of fine-tuning trains."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import Literal

from torch import nn

from moirai_moe_forecaster.errors import InvalidInputError
from moirai_moe_forecaster.model.network import MoiraiMoE
from moirai_moe_forecaster.tuning.lora import LoraConfig, add_lora, matched

log = logging.getLogger(__name__)

Mode = Literal["lora", "full", "head", "router"]
PATTERNS: dict[str, tuple[str, ...]] = {
    "full": ("*",),
    "head": ("projection.*", "norm.*"),
    "router": ("blocks.*.router.*",),
}
MODES = ("lora", *PATTERNS)


def choose_trained(
    network: MoiraiMoE, mode: Mode, freeze: Sequence[str], lora: LoraConfig, seed: int
) -> list[str]:
    """Freeze a network but for what a mode trains, and put adapters onto it if that is LoRA.

    Parameters
    ----------
    network : MoiraiMoE
        Is changed.
    mode : {"lora", "full", "head", "router"}
    freeze : sequence of str
        Patterns of names of parameters, such as "embedding.*" or "blocks.0.*", that stay as they
        are in any mode.
    lora : LoraConfig
    seed : int
        Of the adapters.

    Returns
    -------
    list of str
        Names of the weights that change.

    Raises
    ------
    ConfigError
        If a target of LoRA matches nothing.
    InvalidInputError
        If a pattern matches nothing, or nothing is left to train.
    """
    names = [name for name, _ in network.named_parameters()]
    for pattern in freeze:
        if not any(fnmatchcase(name, pattern) for name in names):
            raise InvalidInputError(
                f"freeze={pattern!r} matches no parameter; expected patterns of names such as "
                f"'embedding.*', 'blocks.0.*' or {names[-1]!r}"
            )
    total = sum(parameter.numel() for parameter in network.parameters())
    if mode == "lora":
        candidates = matched(network, lora.targets)
    else:
        patterns = PATTERNS[mode]
        candidates = [n for n in names if any(fnmatchcase(n, pattern) for pattern in patterns)]
    if mode == "router" and not candidates:
        raise InvalidInputError(
            "mode='router' trains linear gating; this checkpoint gates by fixed token clusters, "
            "which are not trained: choose another mode"
        )
    chosen = [n for n in candidates if not any(fnmatchcase(n, pattern) for pattern in freeze)]
    if not chosen:
        raise InvalidInputError(f"freeze={list(freeze)} leaves nothing to train in mode {mode!r}")
    if mode == "lora":
        add_lora(network, lora, chosen, seed=seed)
    else:
        for name, parameter in network.named_parameters():
            parameter.requires_grad_(name in chosen)
    _log(network, mode, chosen, total)
    return chosen


def _log(network: nn.Module, mode: str, chosen: Sequence[str], total: int) -> None:
    count = trained_parameters(network)
    log.info(
        "mode %s trains %s of %s parameters (%.2f %%), in %d tensors",
        mode,
        f"{count:,}",
        f"{total:,}",
        100 * count / total,
        len(chosen),
    )
    for name in chosen:
        log.debug("trained: %s", name)


def trained_parameters(network: nn.Module) -> int:
    """How many numbers are trained."""
    return sum(p.numel() for p in network.parameters() if p.requires_grad)
