"""What the parameters of the forecaster mean: checks, and which network they name."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from moirai_moe_forecaster.adapters.sktime.tuning import tuning_options
from moirai_moe_forecaster.config import ModelConfig
from moirai_moe_forecaster.data.arguments import (
    check_count,
    check_count_or_none,
    read_season_length,
)
from moirai_moe_forecaster.errors import InvalidInputError
from moirai_moe_forecaster.inference.model_cache import ModelSource, last_written
from moirai_moe_forecaster.inference.options import read_support


def check_parameters(forecaster: Any) -> None:
    """Check what the constructor was given.

    Raises
    ------
    InvalidInputError, ConfigError
        Naming the parameter, its value and what is expected.
    """
    if forecaster.prediction_type not in ("median", "mean"):
        raise InvalidInputError(
            f"prediction_type must be 'median' or 'mean', got {forecaster.prediction_type!r}"
        )
    tuning_options(forecaster)
    check_count("num_samples", forecaster.num_samples)
    for name in ("context_length", "num_paths", "batch_size"):
        check_count_or_none(name, getattr(forecaster, name))
    read_season_length(forecaster.sp, "sp")
    read_support(forecaster.bounds, forecaster.integer)


def read_source(forecaster: Any) -> ModelSource:
    """Return what the forecaster's network is made from."""
    config, path = forecaster.config, forecaster.model_path
    if path is not None and config is not None:
        raise InvalidInputError(
            "model_path and config cannot both be given: a checkpoint has its configuration"
        )
    if not isinstance(path, str | Path | None):
        raise InvalidInputError(f"model_path must be a directory, a Hub name or None, got {path!r}")
    if not isinstance(config, Mapping | ModelConfig | None):
        raise InvalidInputError(
            f"config must be a mapping of the fields of ModelConfig, or one, got {config!r}"
        )
    if isinstance(config, Mapping):
        config = ModelConfig.from_dict(config)
    name = None if path is None else str(path)
    device = str(forecaster.device or "auto")
    return ModelSource(
        name, forecaster.revision, config, device, forecaster.dtype, last_written(path)
    )
