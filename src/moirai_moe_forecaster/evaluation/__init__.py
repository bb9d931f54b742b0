"""Metrics, rolling backtests, classical peers, and comparisons of forecasters."""

from __future__ import annotations

from moirai_moe_forecaster.evaluation.backtest import Backtest, backtest
from moirai_moe_forecaster.evaluation.comparison import (
    Comparison,
    compare_backtests,
    paired_bootstrap,
)
from moirai_moe_forecaster.evaluation.forecasters import Variant
from moirai_moe_forecaster.evaluation.metrics import (
    COVERAGES,
    LEVELS,
    METRICS,
    Terms,
    crps_of_quantiles,
    crps_of_samples,
    geometric_mean,
    mase,
    weighted_quantile_loss,
)
from moirai_moe_forecaster.evaluation.naive import seasonal_naive

__all__ = [
    "COVERAGES",
    "LEVELS",
    "METRICS",
    "Backtest",
    "Comparison",
    "Terms",
    "Variant",
    "backtest",
    "compare_backtests",
    "crps_of_quantiles",
    "crps_of_samples",
    "geometric_mean",
    "mase",
    "paired_bootstrap",
    "seasonal_naive",
    "weighted_quantile_loss",
]
