"""How to fine-tune, checked once: what `MoiraiMoEPipeline.fine_tune` takes beside series."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from moirai_moe_forecaster.config import Precision
from moirai_moe_forecaster.data.arguments import (
    OnError,
    check_count,
    check_count_or_none,
    check_on_error,
)
from moirai_moe_forecaster.errors import InvalidInputError
from moirai_moe_forecaster.inference.sampling import RandomState
from moirai_moe_forecaster.tuning.lora import LoraConfig
from moirai_moe_forecaster.tuning.modes import MODES, Mode
from moirai_moe_forecaster.tuning.validation import Evaluation

Callback = Callable[[Evaluation], bool | None]


@dataclass(frozen=True, kw_only=True)
class FineTuneConfig:
    """Settings of a fine-tuning; `MoiraiMoEPipeline.fine_tune` describes every one of them.

    Raises
    ------
    InvalidInputError
        If a setting is none of what it may be.
    ConfigError
        If a field of `lora` is wrong.
    """

    horizon: int | None = None
    mode: Mode = "lora"
    validation: Any = "time"
    max_steps: int = 400
    learning_rate: float | None = None
    patience: int = 3
    batch_size: int | None = None
    freeze: str | Sequence[str] = ()
    lora: LoraConfig | Mapping[str, Any] | None = None
    context_length: int | None = None
    precision: Precision = "float32"
    minutes: float | None = None
    refit: bool = True
    output: str | Path | None = None
    resume: bool = False
    callbacks: Iterable[Callback] = ()
    progress: bool = True
    random_state: RandomState = None
    on_error: OnError = "raise"

    def __post_init__(self) -> None:
        check_on_error(self.on_error)
        for name in ("max_steps", "patience"):
            check_count(name, getattr(self, name))
        for name in ("horizon", "batch_size", "context_length"):
            check_count_or_none(name, getattr(self, name))
        if not isinstance(self.mode, str) or self.mode not in MODES:
            raise InvalidInputError(f"mode must be one of {list(MODES)}, got {self.mode!r}")
        if self.lora is not None and self.mode != "lora":
            raise InvalidInputError(
                f"lora={self.lora!r} is for mode='lora', got mode={self.mode!r}"
            )
        patterns = (self.freeze,) if isinstance(self.freeze, str) else self.freeze
        freeze = _listed(
            "freeze", patterns, lambda item: isinstance(item, str), "patterns of names"
        )
        callbacks = _listed("callbacks", self.callbacks, callable, "functions of an Evaluation")
        if self.resume and self.output is None:
            raise InvalidInputError("resume=True needs the output folder of the run to go on with")
        object.__setattr__(self, "freeze", freeze)
        object.__setattr__(self, "callbacks", callbacks)
        if isinstance(self.lora, Mapping):
            object.__setattr__(self, "lora", LoraConfig.from_dict(self.lora))
        elif self.lora is not None and not isinstance(self.lora, LoraConfig):
            raise InvalidInputError(
                f"lora must be a LoraConfig or a mapping of its fields, got {self.lora!r}"
            )

    @property
    def adapters(self) -> LoraConfig:
        """Ranks and targets of the adapters, as `lora` says or by default."""
        return self.lora if isinstance(self.lora, LoraConfig) else LoraConfig()


def _listed(name: str, given: Any, fits: Callable[[Any], bool], kind: str) -> tuple[Any, ...]:
    items = tuple(given) if isinstance(given, Iterable) else (given,)
    if not isinstance(given, Iterable) or not all(fits(item) for item in items):
        raise InvalidInputError(f"{name} must be a list of {kind}, got {given!r}")
    return items
