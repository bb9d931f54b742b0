"""What `enable_finetuning` may be, and how a pretrained network is trained by default."""

from __future__ import annotations

import fnmatch
from typing import Any

from moirai_moe_forecaster.errors import ConfigError
from moirai_moe_forecaster.model.network import MoiraiMoE
from moirai_moe_forecaster.tuning.lora import LoraConfig, matched

# where the user says nothing: Darts' own would undo a pretrained network
EPOCHS = 10
LEARNING_RATE, LEARNING_RATE_OF_ADAPTERS = 1e-4, 3e-4
GRADIENT_NORM = 1.0


def lora_settings(enable_finetuning: Any) -> Any:
    """Return the settings of adapters; None where there are to be none."""
    return enable_finetuning.get("lora") if _trains_adapters(enable_finetuning) else None


def set_defaults(parameters: dict[str, Any], enable_finetuning: Any) -> None:
    """Train as suits pretrained weights, where the parameters of a model do not say otherwise."""
    parameters.setdefault("n_epochs", EPOCHS)
    if "optimizer_cls" not in parameters:
        adapters = _trains_adapters(enable_finetuning)
        rate = LEARNING_RATE_OF_ADAPTERS if adapters else LEARNING_RATE
        own = parameters.get("optimizer_kwargs") or {}
        parameters["optimizer_kwargs"] = {"lr": rate, **own}
    trainer = parameters.get("pl_trainer_kwargs") or {}
    parameters["pl_trainer_kwargs"] = {"gradient_clip_val": GRADIENT_NORM, **trainer}


def check_choice(enable_finetuning: Any) -> None:
    """Check what Darts does not.

    Raises
    ------
    ConfigError
        If it is none of the types it may be, or a setting of adapters is wrong.
    """
    if _trains_adapters(enable_finetuning):
        LoraConfig.from_dict(enable_finetuning["lora"])
    elif not isinstance(enable_finetuning, bool | dict | None):
        raise ConfigError(
            "`enable_finetuning` must be None, True, False or a dict with one of the keys "
            f"'freeze', 'unfreeze' and 'lora', got {enable_finetuning!r}"
        )


def check_matches(enable_finetuning: Any, network: MoiraiMoE) -> None:
    """Check that patterns choose something before training finds out.

    Raises
    ------
    ConfigError
        If a pattern or a target of adapters matches no parameter, or none is left to train.
    """
    if _trains_adapters(enable_finetuning):
        matched(network, LoraConfig.from_dict(enable_finetuning["lora"]).targets)
    elif isinstance(enable_finetuning, dict):
        ((mode, patterns),) = enable_finetuning.items()
        names = {f"network.{name}" for name, _ in network.named_parameters()}
        chosen = set()
        for pattern in patterns:
            hits = fnmatch.filter(names, pattern)
            if not hits:
                raise ConfigError(
                    f"the pattern {pattern!r} of `enable_finetuning` matches no parameter; names "
                    f"are such as {min(names)!r}"
                )
            chosen.update(hits)
        if not (chosen if mode == "unfreeze" else names - chosen):
            raise ConfigError(
                f"`enable_finetuning` {enable_finetuning} leaves no parameter to train; pass None "
                "for zero-shot forecasts"
            )


def _trains_adapters(enable_finetuning: Any) -> bool:
    return isinstance(enable_finetuning, dict) and "lora" in enable_finetuning
