"""Moirai-MoE as a forecaster of sktime."""

from moirai_moe_forecaster.adapters.sktime.forecaster import MoiraiMoEForecaster

__all__ = ["MoiraiMoEForecaster"]
