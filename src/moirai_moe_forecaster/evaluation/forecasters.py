"""Whatever can forecast, called in one way: contexts in, quantiles out."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from moirai_moe_forecaster.errors import InvalidInputError
from moirai_moe_forecaster.evaluation.metrics import Prediction
from moirai_moe_forecaster.evaluation.naive import seasonal_naive
from moirai_moe_forecaster.evaluation.window import BacktestWindow
from moirai_moe_forecaster.inference.forecast import Forecast
from moirai_moe_forecaster.inference.pipeline import MoiraiMoEPipeline

Array = NDArray[np.float64]
# (contexts, horizon, seasonality, levels) -> quantiles (window, level, horizon)
QuantileFunction: TypeAlias = Callable[[Sequence[Array], int, int, Sequence[float]], Array]


class Variant(NamedTuple):
    """A pipeline that forecasts with other options than the defaults.

    Attributes
    ----------
    pipeline : MoiraiMoEPipeline
    options : mapping
        Keyword arguments of `predict`, such as ``{"season_length": None}``; what JSON can hold.
    """

    pipeline: MoiraiMoEPipeline
    options: Mapping[str, Any]


def predict_windows(
    forecaster: MoiraiMoEPipeline | Variant, windows: Sequence[BacktestWindow], horizon: int
) -> Forecast:
    """Forecast all windows of a backtest in one call, a series of a batch each.

    The random state is 0, unless a variant's options name another.
    """
    pipeline, options = forecaster if isinstance(forecaster, Variant) else (forecaster, {})
    future = [w.covariates.values[: w.cut + horizon] for w in windows if w.covariates is not None]
    return pipeline.predict(
        [window.context for window in windows],
        horizon,
        future_covariates=future or None,
        **{"random_state": 0, **options},
    )


def naive_quantiles(
    contexts: Sequence[Array], horizon: int, seasonality: int, levels: Sequence[float]
) -> Array:
    """Forecast seasonally naively: all quantiles are the same."""
    point = np.stack([seasonal_naive(context, horizon, seasonality) for context in contexts])
    return np.repeat(point[:, None], len(levels), axis=1)


def predict_quantiles(
    function: QuantileFunction,
    contexts: Sequence[Array],
    horizon: int,
    seasonality: int,
    levels: tuple[float, ...],
) -> Prediction:
    """Call a function that forecasts, and check what it returns; its median is the point.

    Raises
    ------
    InvalidInputError
        If it is no function, or its quantiles are not finite or of another shape.
    """
    if not callable(function):
        raise InvalidInputError(
            "a forecaster must be a MoiraiMoEPipeline, a sktime forecaster or a function of "
            f"contexts, horizon, seasonality and levels; got {function!r}"
        )
    quantiles = np.asarray(function(contexts, horizon, seasonality, levels), dtype=np.float64)
    expected = (len(contexts), len(levels), horizon)
    if quantiles.shape != expected or not np.isfinite(quantiles).all():
        raise InvalidInputError(
            f"the function returned quantiles of shape {quantiles.shape}, "
            f"{int((~np.isfinite(quantiles)).sum())} of them not finite; expected {expected}, "
            "(context, level, horizon), all finite"
        )
    return Prediction.of(levels, quantiles)


def is_sktime(forecaster: Any) -> bool:
    """Whether this is a forecaster of sktime, which whoever made one has imported."""
    base = sys.modules.get("sktime.forecasting.base")
    if base is None or callable(forecaster):
        return False
    return isinstance(forecaster, base.BaseForecaster)
