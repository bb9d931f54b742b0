"""Forecasts of a task's windows by whatever can forecast, and what tells forecasters apart."""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from benchmark_sets.tasks import Task
from moirai_moe_forecaster import MoiraiMoEPipeline
from moirai_moe_forecaster.data.items import read_items
from moirai_moe_forecaster.evaluation.forecasters import Variant, is_sktime, predict_quantiles
from moirai_moe_forecaster.evaluation.metrics import LEVELS, Prediction, needed_levels
from moirai_moe_forecaster.evaluation.sktime_windows import forecast_windows
from moirai_moe_forecaster.evaluation.window import BacktestWindow

BASELINE = "seasonal-naive"


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
    if isinstance(forecaster, MoiraiMoEPipeline):
        forecaster = Variant(forecaster, {})
    if isinstance(forecaster, Variant):
        levels = needed_levels(metrics, LEVELS, samples=True)
        options = {"random_state": 0, **forecaster.options}
        forecast = forecaster.pipeline.predict(task.contexts, task.horizon, **options)
        quantiles = forecast.quantile(levels)
        samples = forecast.samples if "CRPS" in metrics else None
        return Prediction.of(levels, quantiles, samples)
    levels = needed_levels(metrics, LEVELS, samples=False)
    if is_sktime(forecaster):
        return _predict_sktime(forecaster, task, levels)
    return predict_quantiles(forecaster, task.contexts, task.horizon, task.seasonality, levels)


def identity(forecaster: Any) -> str:
    """Tell forecasters apart whose stored results must not be mixed up.

    A pipeline is its configuration, weights and options, and the code that forecasts with them; a
    sktime forecaster is its parameters. A function is its name only.
    """
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
        BacktestWindow(item=item, cut=len(item.values))
        for item in read_items([*task.contexts]).items
    ]
    return forecast_windows(forecaster, windows, task.horizon, levels, panel=False)
