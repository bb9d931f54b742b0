"""Classical forecasters of statsforecast to hold a model against."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moirai_moe_forecaster.errors import InvalidInputError, MissingExtraError
from moirai_moe_forecaster.evaluation.forecasters import naive_quantiles

log = logging.getLogger(__name__)

Array = NDArray[np.float64]

PEERS: tuple[str, ...] = ("AutoETS", "AutoTheta", "DynamicOptimizedTheta", "SeasonalNaive")


class Peer:
    """A model of statsforecast as a function from contexts to quantiles.

    Quantiles are the edges of its prediction intervals, the median its point forecast. Missing
    values inside a context are interpolated linearly and those at its ends take the nearest value,
    as these models know none. Where a model cannot be fitted, for example to a handful of points,
    the seasonal naive forecast stands in for it; how often is logged.

    Parameters
    ----------
    name : {"AutoETS", "AutoTheta", "DynamicOptimizedTheta", "SeasonalNaive"}

    Raises
    ------
    InvalidInputError
        If the name is another.
    MissingExtraError
        If statsforecast is not installed.
    """

    def __init__(self, name: str) -> None:
        if name not in PEERS:
            raise InvalidInputError(f"unknown peer {name!r}; choose from {', '.join(PEERS)}")
        _model_class(name)
        self.name = name

    def __call__(
        self, contexts: Sequence[Array], horizon: int, seasonality: int, levels: Sequence[float]
    ) -> Array:
        """Forecast every context: quantiles (context, level, horizon)."""
        model = _model_class(self.name)(season_length=seasonality)
        # simulated intervals seed numpy's global generator, which is not theirs to touch
        state = np.random.get_state()  # noqa: NPY002
        try:
            forecasts = [_quantiles(model, context, horizon, levels) for context in contexts]
        finally:
            np.random.set_state(state)  # noqa: NPY002
        failed = [index for index, forecast in enumerate(forecasts) if forecast is None]
        if failed:
            log.warning("%s: seasonal naive for %d series", self.name, len(failed))
        return np.stack(
            [
                naive_quantiles([fill(context)], horizon, seasonality, levels)[0]
                if forecast is None
                else forecast
                for context, forecast in zip(contexts, forecasts, strict=True)
            ]
        )


def fill(context: Array) -> Array:
    """Interpolate missing values linearly; those at the ends take the nearest value."""
    observed = np.flatnonzero(~np.isnan(context))
    return np.interp(np.arange(len(context)), observed, context[observed])


def _quantiles(model: Any, context: Array, horizon: int, levels: Sequence[float]) -> Array | None:
    """Edges of the intervals, (level, horizon), or None where the model has none."""
    # the interval in per cent that a level is the lower or upper edge of
    edges = {level: round(100 * abs(2 * level - 1), 8) for level in levels}
    coverages = sorted({percent for percent in edges.values() if percent})
    try:
        result = model.forecast(y=fill(context), h=horizon, level=coverages or None)
    except (ArithmeticError, LookupError, NotImplementedError, RuntimeError, ValueError):
        # the ways in which its models refuse series that are too short or too plain
        return None

    def quantile(level: float) -> Array:
        side = "lo" if level < 0.5 else "hi"
        edge = f"{side}-{edges[level]}" if edges[level] else "mean"
        return np.asarray(result[edge], dtype=np.float64)

    quantiles = np.stack([quantile(level) for level in levels])
    return quantiles if np.isfinite(quantiles).all() else None


def _model_class(name: str) -> Any:
    try:
        from statsforecast import models
    except ImportError as error:
        raise MissingExtraError(
            "statsforecast", "stats", "comparing with classical peers"
        ) from error
    return getattr(models, name)
