"""Whatever can forecast, called in one way: windows of a set in, quantiles out."""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from moirai_moe_forecaster.data.series import read_items
from moirai_moe_forecaster.errors import InvalidInputError
from moirai_moe_forecaster.evaluation.metrics import LEVELS, Prediction, needed_levels
from moirai_moe_forecaster.evaluation.naive import seasonal_naive
from moirai_moe_forecaster.evaluation.sktime_windows import forecast_windows
from moirai_moe_forecaster.evaluation.tasks import Task
from moirai_moe_forecaster.evaluation.window import Window

if TYPE_CHECKING:
    from moirai_moe_forecaster.inference.pipeline import MoiraiMoEPipeline

Array = NDArray[np.float64]
# (contexts, horizon, seasonality, levels) -> quantiles (window, level, horizon)
QuantileFunction: TypeAlias = Callable[[Sequence[Array], int, int, Sequence[float]], Array]

BASELINE = "seasonal-naive"


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


def naive_quantiles(
    contexts: Sequence[Array], horizon: int, seasonality: int, levels: Sequence[float]
) -> Array:
    """Forecast seasonally naively: all quantiles are the same."""
    point = np.stack([seasonal_naive(context, horizon, seasonality) for context in contexts])
    return np.repeat(point[:, None], len(levels), axis=1)


def predict_task(forecaster: Any, task: Task, metrics: Sequence[str]) -> Prediction:
    """Forecast the windows of a set at all levels that the metrics need.

    Parameters
    ----------
    forecaster : MoiraiMoEPipeline, Variant, sktime forecaster or function
        A pipeline's CRPS is that of 100 samples, any other's that of quantiles. Its random state is
        0, unless a variant's options name another.
    task : Task
    metrics : sequence of str

    Raises
    ------
    InvalidInputError
        If the forecaster is none of these, or returns what it should not.
    """
    from moirai_moe_forecaster.inference.pipeline import MoiraiMoEPipeline

    if isinstance(forecaster, MoiraiMoEPipeline):
        forecaster = Variant(forecaster, {})
    if isinstance(forecaster, Variant):
        levels = needed_levels(metrics, LEVELS, samples=True)
        options = {"random_state": 0, **forecaster.options}
        forecast = forecaster.pipeline.predict(task.contexts, task.horizon, **options)
        quantiles = forecast.quantile(levels)
        samples = forecast.samples if "CRPS" in metrics else None
        return Prediction(levels, quantiles, quantiles[:, levels.index(0.5)], samples)
    levels = needed_levels(metrics, LEVELS, samples=False)
    if is_sktime(forecaster):
        return _predict_sktime(forecaster, task, levels)
    return predict_quantiles(forecaster, task.contexts, task.horizon, task.seasonality, levels)


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
    return Prediction(levels, quantiles, quantiles[:, levels.index(0.5)])


def is_sktime(forecaster: Any) -> bool:
    """Whether this is a forecaster of sktime, which functions do not make one import."""
    if callable(forecaster):
        return False
    from sktime.forecasting.base import BaseForecaster

    return isinstance(forecaster, BaseForecaster)


def identity(forecaster: Any) -> str:
    """Tell forecasters apart whose stored results must not be mixed up.

    A pipeline is its configuration, weights and options, and the code that forecasts with them; a
    sktime forecaster is its parameters. A function is its name only.
    """
    from moirai_moe_forecaster.inference.pipeline import MoiraiMoEPipeline

    if isinstance(forecaster, Variant):
        options = json.dumps(dict(forecaster.options), sort_keys=True)
        return identity(forecaster.pipeline) + (options if forecaster.options else "")
    if isinstance(forecaster, MoiraiMoEPipeline):
        digest = hashlib.sha256(f"{_code()} {forecaster.config}".encode())
        for name, tensor in sorted(forecaster.network.state_dict().items()):
            digest.update(f"{name} {tensor.dtype}".encode())
            digest.update(tensor.double().cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()
    if is_sktime(forecaster):
        return repr(forecaster)
    return str(getattr(forecaster, "name", getattr(forecaster, "__qualname__", type(forecaster))))


@functools.cache
def _code() -> str:
    """Digest of the source that a forecast comes from: what reads data, the network, inference."""
    package = Path(str(files("moirai_moe_forecaster")))
    digest = hashlib.sha256()
    for folder in ("data", "inference", "model"):
        for file in sorted(package.joinpath(folder).rglob("*.py")):
            digest.update(file.read_bytes())
    return digest.hexdigest()


def _predict_sktime(forecaster: Any, task: Task, levels: tuple[float, ...]) -> Prediction:
    windows = [
        Window(item, None, 0, len(item.values)) for item in read_items([*task.contexts]).items
    ]
    return forecast_windows(forecaster, windows, task.horizon, levels, panel=False)
