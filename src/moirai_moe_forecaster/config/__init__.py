"""Configurations: what a checkpoint is, and how one is trained."""

from moirai_moe_forecaster.config.model import (
    MAY_BE_NONE,
    OFFICIAL_MIXTURE,
    CentroidChoice,
    Component,
    ModelConfig,
    ScaleRule,
    TimeIndex,
)
from moirai_moe_forecaster.config.training import Precision, TrainConfig

__all__ = [
    "MAY_BE_NONE",
    "OFFICIAL_MIXTURE",
    "CentroidChoice",
    "Component",
    "ModelConfig",
    "Precision",
    "ScaleRule",
    "TimeIndex",
    "TrainConfig",
]
