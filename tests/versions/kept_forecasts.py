"""Forecasts from files that a version of this package wrote: what both the maker and the test run.

Every function takes the folder of the files and returns quantiles at `LEVELS`, the level first.
Imports are those that users of that version wrote.
"""

from __future__ import annotations

import pickle
import shutil
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sktime.base import load

from moirai_moe_forecaster import ModelConfig, MoiraiMoEPipeline, TrainConfig, pretrain
from moirai_moe_forecaster.checkpoint import load_checkpoint
from moirai_moe_forecaster.training.corpus import Source

Array = NDArray[np.float64]

LEVELS = [0.1, 0.5, 0.9]
# the first pass of a tiny network reaches 16 steps: these need paths
HORIZON = 20
SIZES: dict[str, Any] = {
    "d_model": 8,
    "d_ff": 8,
    "num_layers": 1,
    "num_heads": 2,
    "num_experts": 4,
    "experts_per_token": 2,
    "patch_size": 8,
    "max_seq_len": 16,
    "mixture": ["student_t", "normal_fixed"],
}
OFFICIAL = {
    name: getattr(ModelConfig.official(), name)
    for name in (
        "router",
        "centroid_choice",
        "mixture",
        "observed_mask_input",
        "shift_known_future",
        "scale_rule",
        "time_index",
    )
}
# the smallest that its layout can say
OFFICIAL_SIZES = {"d_model": 64, "d_ff": 1, "num_heads": 1, "num_experts": 32, "patch_size": 16}
# everything that a native checkpoint can say and that is not its default
NATIVE: dict[str, Any] = {
    "router": "centroid",
    "mixture": ["student_t", "normal_fixed", "log_normal"],
    "output_patches": 2,
    "mirror_up_to": 64,
    "find_seasons": True,
    "dependence_share": 0.1,
    "dependence_growth": 0.4,
    "dependence_decay": 0.98,
    "reference_periods": 2,
    "exchange_channels": 2,
}
TRAINING = TrainConfig(
    steps=4,
    batch_rows=2,
    row_tokens=8,
    max_points=96,
    warmup_steps=1,
    synthetic_share=0.0,
    coupled_share=0.0,
    ema_decay=0.5,
    save_every=2,
    validate_every=4,
)
TUNING: dict[str, Any] = {
    "horizon": 8,
    "mode": "head",
    # the last weights are returned, better or not
    "validation": None,
    "learning_rate": 1e-2,
    "batch_size": 2,
    "progress": False,
    "random_state": 0,
}


def waves(points: int = 60, variates: int = 1) -> Array:
    """Sines of period 12 around a trend, and what looks like noise, (time, variate)."""
    time = np.arange(points)[:, None]
    cycle = 5 * np.sin(2 * np.pi * time / 12 + np.arange(variates))
    return 20 + time / 10 + cycle + np.sin(time**2 + np.arange(variates))


def months(variates: int = 1) -> pd.DataFrame:
    """The same as a table with monthly periods."""
    index = pd.period_range("2015-01", periods=60, freq="M")
    return pd.DataFrame(waves(60, variates), index, [f"y{i}" for i in range(variates)])


def corpus() -> list[Source]:
    """Two series to train on."""
    points = waves(240).astype(np.float32)[:, 0]
    return [Source("waves", points, np.array([0, 120, 240]), 1.0)]


def of_pipeline(pipeline: MoiraiMoEPipeline) -> Array:
    """Forecast two variates that repeat, with a covariate known ahead."""
    known = np.sin(np.arange(60 + HORIZON) ** 2)[:, None]
    forecast = pipeline.predict(
        waves(60, 2), HORIZON, future_covariates=known, num_paths=8, random_state=0
    )
    return forecast.quantile(LEVELS)


def of_forecaster(forecaster: Any) -> Array:
    """Forecast what a fitted forecaster of sktime remembers, also in its past."""
    steps = [-10, 0, *range(1, HORIZON + 1)]
    table = forecaster.predict_quantiles(steps, alpha=LEVELS)
    return table.to_numpy().reshape(len(steps), -1, len(LEVELS)).transpose(2, 0, 1)


def of_darts(model: Any) -> Array:
    """Forecast what a fitted model of Darts remembers."""
    forecast = model.predict(12, predict_likelihood_parameters=True)
    return forecast.values().reshape(12, -1, len(LEVELS)).transpose(2, 0, 1)


def unpickled(file: Path) -> Any:
    """Read a pickle."""
    with file.open("rb") as stored:
        return pickle.load(stored)


def _native(folder: Path) -> Array:
    return of_pipeline(MoiraiMoEPipeline.from_pretrained(folder / "native"))


def _official(folder: Path) -> Array:
    with tempfile.TemporaryDirectory() as unpacked:
        shutil.unpack_archive(folder / "official.zip", unpacked)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the licence of official weights
            return of_pipeline(MoiraiMoEPipeline(load_checkpoint(unpacked).network))


def _adapters(folder: Path) -> Array:
    pipeline = MoiraiMoEPipeline.from_pretrained(folder / "native")
    return of_pipeline(pipeline.with_adapters(folder / "adapters"))


def _adapters_of_bundled(folder: Path) -> Array:
    return of_pipeline(MoiraiMoEPipeline.from_pretrained(folder / "adapters_of_bundled"))


def _pretraining(folder: Path) -> Array:
    with tempfile.TemporaryDirectory() as copied:
        shutil.copytree(folder / "pretraining", copied, dirs_exist_ok=True)
        network = pretrain(
            ModelConfig(**SIZES), TRAINING, corpus(), copied, resume=True, progress=False
        )
    return of_pipeline(MoiraiMoEPipeline(network))


def _fine_tuning(folder: Path) -> Array:
    pipeline = MoiraiMoEPipeline.from_pretrained(folder / "native")
    with tempfile.TemporaryDirectory() as copied:
        shutil.copytree(folder / "fine_tuning", copied, dirs_exist_ok=True)
        tuned = pipeline.fine_tune(waves(90, 2), max_steps=8, output=copied, resume=True, **TUNING)
    return of_pipeline(tuned)


def _pickled_pipeline(folder: Path) -> Array:
    return of_pipeline(unpickled(folder / "pipeline.pickle"))


def _pickled_forecast(folder: Path) -> Array:
    forecast = unpickled(folder / "forecast.pickle")
    # samples are drawn when they are asked for, from what is stored
    return np.concatenate([forecast.quantile(LEVELS), forecast.samples])


def _sktime(name: str) -> Callable[[Path], Array]:
    return lambda folder: of_forecaster(unpickled(folder / f"{name}.pickle"))


def _sktime_saved(folder: Path) -> Array:
    return of_forecaster(load(folder / "sktime_saved.zip"))


def _darts(name: str) -> Callable[[Path], Array]:
    def forecast(folder: Path) -> Array:
        from moirai_moe_forecaster import MoiraiMoEModel

        return of_darts(MoiraiMoEModel.load(str(folder / f"{name}.pt")))

    return forecast


def _darts_pickled(folder: Path) -> Array:
    return of_darts(unpickled(folder / "darts_lora.pickle"))


def _distribution(folder: Path) -> Array:
    distribution = unpickled(folder / "sktime_distribution.pickle")
    return np.stack([distribution.quantile(level).to_numpy() for level in LEVELS])


def _routing(folder: Path) -> Array:
    loads = unpickled(folder / "routing.pickle").load()["share"].to_numpy()
    # no quantiles, but of a size that a width has
    return np.stack([loads - 1, loads, loads + 1])


FORECASTS: dict[str, Callable[[Path], Array]] = {
    "native": _native,
    "official": _official,
    "adapters": _adapters,
    "adapters_of_bundled": _adapters_of_bundled,
    "pretraining": _pretraining,
    "fine_tuning": _fine_tuning,
    "pipeline": _pickled_pipeline,
    "forecast": _pickled_forecast,
    "sktime_zero_shot": _sktime("sktime_zero_shot"),
    "sktime_random": _sktime("sktime_random"),
    "sktime_tuned": _sktime("sktime_tuned"),
    "sktime_saved": _sktime_saved,
    "darts_zero_shot": _darts("darts_zero_shot"),
    "darts_lora": _darts("darts_lora"),
    "darts_pickled": _darts_pickled,
    "sktime_distribution": _distribution,
    "routing": _routing,
}
# what forecasts with the weights of the package, which a later version may replace
OF_BUNDLED = {"adapters_of_bundled", "sktime_zero_shot"}
