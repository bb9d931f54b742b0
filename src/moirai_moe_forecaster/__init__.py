"""Moirai-MoE for sktime and Darts: zero-shot, fine-tuned and probabilistic forecasts.

Names are imported on first use, so that importing the package costs next to nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from moirai_moe_forecaster.moved import register

register()
__version__ = "0.1.0"

_HOME = {
    "MoiraiMoE": "model.network",
    "MoiraiMoEPipeline": "inference.pipeline",
    "Forecast": "inference.forecast",
    "ModelConfig": "config",
    "TrainConfig": "config",
    "pretrain": "training.pretrain",
    "MoiraiMoEForecaster": "adapters.sktime",
    "MoiraiMoEModel": "adapters.darts",
    "backtest": "evaluation.backtest",
    "RoutingReport": "reports.routing",
}

__all__ = ["__version__", *_HOME]

if TYPE_CHECKING:
    from moirai_moe_forecaster.adapters.darts import MoiraiMoEModel
    from moirai_moe_forecaster.adapters.sktime import MoiraiMoEForecaster
    from moirai_moe_forecaster.config import ModelConfig, TrainConfig
    from moirai_moe_forecaster.evaluation.backtest import backtest
    from moirai_moe_forecaster.inference.forecast import Forecast
    from moirai_moe_forecaster.inference.pipeline import MoiraiMoEPipeline
    from moirai_moe_forecaster.model.network import MoiraiMoE
    from moirai_moe_forecaster.reports.routing import RoutingReport
    from moirai_moe_forecaster.training.pretrain import pretrain


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
