"""Metrics, benchmark sets, rolling backtests, classical peers, and comparisons of forecasters."""

from __future__ import annotations

from moirai_moe_forecaster.evaluation.backtest import backtest
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
from moirai_moe_forecaster.evaluation.sets import SetResult, evaluate_sets
from moirai_moe_forecaster.evaluation.tasks import (
    Scores,
    Task,
    read_task,
    rolling_task,
    score_naive,
    score_pipeline,
    split_task,
)
from moirai_moe_forecaster.evaluation.validation import ValidationTask, read_validation

__all__ = [
    "COVERAGES",
    "LEVELS",
    "METRICS",
    "Comparison",
    "Scores",
    "SetResult",
    "Task",
    "Terms",
    "ValidationTask",
    "Variant",
    "backtest",
    "compare_backtests",
    "crps_of_quantiles",
    "crps_of_samples",
    "evaluate_sets",
    "geometric_mean",
    "mase",
    "paired_bootstrap",
    "read_task",
    "read_validation",
    "rolling_task",
    "score_naive",
    "score_pipeline",
    "seasonal_naive",
    "split_task",
    "weighted_quantile_loss",
]
