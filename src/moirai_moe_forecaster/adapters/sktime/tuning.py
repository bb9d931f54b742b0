"""Fine-tuning of the forecaster: what its parameters ask for, and the weights that come of it."""

from __future__ import annotations

import copy
import sys
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

import numpy as np
import pandas as pd
from sktime.forecasting.base import ForecastingHorizon

from moirai_moe_forecaster.adapters.sktime.context import Context
from moirai_moe_forecaster.adapters.sktime.instances import panel_frequency, target_values
from moirai_moe_forecaster.data.arguments import read_device
from moirai_moe_forecaster.errors import InvalidInputError
from moirai_moe_forecaster.inference.pipeline import MoiraiMoEPipeline
from moirai_moe_forecaster.tuning.fine_tune_config import FineTuneConfig
from moirai_moe_forecaster.tuning.lora import LoraConfig

# "zero-shot" trains in pretrain only
MODES = {"zero-shot": "lora", "minimal": "head", "full": "full", "peft": "lora"}
# what training_args may not hold, and what says it instead
ELSEWHERE = {
    "y": "y",
    "past_covariates": "X",
    "future_covariates": "X",
    "mode": "fit_strategy",
    "lora": "peft_config",
    "validation": "validation_split",
    "random_state": "random_state",
}
KNOWN = sorted({field.name for field in fields(FineTuneConfig)} - ELSEWHERE.keys())


class TunedWeights:
    """A fine-tuned pipeline that is never changed: copies share it, a pickle holds its tensors.

    Parameters
    ----------
    pipeline : MoiraiMoEPipeline
    device : str
        Where it computes; pickled tensors are on the CPU, and move when they are used.
    """

    def __init__(self, pipeline: MoiraiMoEPipeline, device: str) -> None:
        self._pipeline = pipeline
        self._device = device

    @property
    def pipeline(self) -> MoiraiMoEPipeline:
        """The pipeline, on its device."""
        self._pipeline.network.to(read_device(self._device))
        return self._pipeline

    def __copy__(self) -> TunedWeights:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> TunedWeights:
        return self

    def __getstate__(self) -> dict[str, Any]:
        stored = copy.copy(self._pipeline)
        if next(stored.network.parameters()).device.type != "cpu":
            stored.network = copy.deepcopy(stored.network).cpu()
        return {"_pipeline": stored, "_device": self._device}


def tuning_options(forecaster: Any) -> dict[str, Any]:
    """Return the arguments of `fine_tune` that a forecaster's parameters stand for.

    Raises
    ------
    InvalidInputError, ConfigError
        Naming the parameter, its value and what is expected.
    """
    strategy = forecaster.fit_strategy
    if not isinstance(strategy, str) or strategy not in MODES:
        raise InvalidInputError(f"fit_strategy must be one of {list(MODES)}, got {strategy!r}")
    options = _training_arguments(forecaster.training_args)
    options["mode"] = MODES[strategy]
    options["validation"] = _validation(forecaster.validation_split)
    peft = forecaster.peft_config
    if peft is not None:
        if MODES[strategy] != "lora":
            raise InvalidInputError(
                f"peft_config is for fit_strategy='peft', and for pretrain with 'zero-shot'; got "
                f"{peft!r} with fit_strategy={strategy!r}"
            )
        if not isinstance(peft, Mapping | LoraConfig):
            raise InvalidInputError(
                f"peft_config must be a mapping of the fields of LoraConfig, got {peft!r}"
            )
        options["lora"] = LoraConfig.from_dict(peft) if isinstance(peft, Mapping) else peft
    if forecaster.context_length is not None:
        options.setdefault("context_length", forecaster.context_length)
    return options


def tune(
    pipeline: MoiraiMoEPipeline,
    options: Mapping[str, Any],
    y: pd.DataFrame,
    X: pd.DataFrame | None,
    fh: ForecastingHorizon | None,
    seed: int,
) -> MoiraiMoEPipeline:
    """Fine-tune a copy of a pipeline on the series that `fit` or `pretrain` got.

    Parameters
    ----------
    pipeline : MoiraiMoEPipeline
        Stays as it is.
    options : mapping
        Of `MoiraiMoEPipeline.fine_tune`.
    y : DataFrame
        A series, a panel or a hierarchy.
    X : DataFrame, optional
        Trained on as covariates known ahead.
    fh : ForecastingHorizon, optional
        Unless `options` has a horizon, held-out windows reach as far, up to half of a series.
    seed : int
    """
    context = Context.of(y, X, sys.maxsize)
    freq = panel_frequency(y)
    instances = context.instances(ForecastingHorizon([0]), freq)
    _, future = context.covariates(instances, 0, context.X)
    series = [target_values(instance) for instance in instances]
    horizon = None
    if fh is not None:
        furthest = max(int(instance.steps.max()) for instance in context.instances(fh, freq))
        half = int(np.median([len(values) for values in series])) // 2
        horizon = max(min(furthest, half), 1) if furthest > 0 else None
    return pipeline.fine_tune(
        series, future_covariates=future, random_state=seed, **{"horizon": horizon, **options}
    )


def _training_arguments(given: Any) -> dict[str, Any]:
    if given is None:
        return {}
    if not isinstance(given, Mapping):
        raise InvalidInputError(
            "training_args must be a mapping of arguments of MoiraiMoEPipeline.fine_tune, such as "
            f"{{'max_steps': 100}}; got {given!r}"
        )
    for name in given:
        if name in ELSEWHERE:
            raise InvalidInputError(
                f"training_args cannot hold {name!r}: {ELSEWHERE[name]} of the forecaster says it"
            )
    if unknown := [name for name in given if name not in KNOWN]:
        raise InvalidInputError(f"unknown training_args {unknown}; known are {KNOWN}")
    return dict(given)


def _validation(share: Any) -> str | float:
    if share is None:
        return "time"
    if not isinstance(share, float | np.floating) or not 0 < share < 1:
        raise InvalidInputError(
            f"validation_split must be None or a fraction between 0 and 1, got {share!r}"
        )
    return float(share)
