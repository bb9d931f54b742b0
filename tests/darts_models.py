"""Darts models over a tiny checkpoint, and series for them."""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tiny_network import tiny_network

pytest.importorskip("darts", reason="needs the extra `darts`, on Python 3.11 or newer")

from darts import TimeSeries
from darts.utils.likelihood_models.torch import QuantileRegression

from moirai_moe_forecaster import MoiraiMoEModel, MoiraiMoEPipeline
from moirai_moe_forecaster.adapters.darts.module import QUANTILE_SEED

CONTEXT, CHUNK = 48, 12
# what the network that looks for seasons reads; cycles are learnt from more
READ = 128
QUIET = {"accelerator": "cpu", "enable_progress_bar": False, "enable_model_summary": False}
LEVELS = [0.1, 0.5, 0.9]
# one pass of the tiny network predicts 32 steps
PASS = 32
PARAMETERS = {"predict_likelihood_parameters": True}


@functools.cache
def _folder() -> tempfile.TemporaryDirectory[str]:
    folder = tempfile.TemporaryDirectory()
    tiny_pipeline().save_pretrained(folder.name)
    return folder


def tiny_checkpoint() -> str:
    """Directory of a tiny random checkpoint."""
    return _folder().name


def tiny_pipeline() -> MoiraiMoEPipeline:
    """The same network behind the native interface."""
    return MoiraiMoEPipeline(tiny_network(output_patches=2))


@functools.cache
def _seasonal_folder() -> tempfile.TemporaryDirectory[str]:
    folder = tempfile.TemporaryDirectory()
    seasonal_pipeline().save_pretrained(folder.name)
    return folder


def seasonal_checkpoint() -> str:
    """Directory of a tiny random checkpoint that looks for seasons and reads `READ` points."""
    return _seasonal_folder().name


def seasonal_pipeline() -> MoiraiMoEPipeline:
    """The same network behind the native interface."""
    return MoiraiMoEPipeline(
        tiny_network(output_patches=2, find_seasons=True, max_seq_len=READ // 16)
    )


def quantiles(levels: Sequence[float] = LEVELS) -> QuantileRegression:
    return QuantileRegression(list(levels))


def model(context: Any = CONTEXT, chunk: int = CHUNK, **changes: Any) -> MoiraiMoEModel:
    """A model over the tiny checkpoint, with the trainer silent unless `changes` say otherwise."""
    trainer = {**QUIET, **changes.pop("pl_trainer_kwargs", {})}
    changes.setdefault("local_dir", tiny_checkpoint())
    return MoiraiMoEModel(context, chunk, pl_trainer_kwargs=trainer, **changes)


def walk(points: int = 90, components: int = 1, seed: int = 0, start: str = "2020") -> TimeSeries:
    """Random walks around 0 with steps of 0.1, daily."""
    values = 0.1 * np.random.default_rng(seed).normal(size=(points, components)).cumsum(0)
    index = pd.date_range(start, periods=points, freq="D")
    return TimeSeries.from_times_and_values(index, values)


def cyclic(
    points: int = 300, steps: int = 12, noise: float = 0.1, seed: int = 0, components: int = 1
) -> TimeSeries:
    """Random tables of some steps, over and over, hourly; as float32."""
    rng = np.random.default_rng(seed)
    table = rng.normal(size=(steps, components))
    values = table[np.arange(points) % steps] + noise * rng.normal(size=(points, components))
    index = pd.date_range("2020", periods=points, freq="h")
    return TimeSeries.from_times_and_values(index, values.astype(np.float32))


def covariates(points: int = 150) -> dict[str, TimeSeries]:
    """Two past covariates and one known-future one, longer than the walks."""
    return {
        "past_covariates": walk(points, 2, seed=11),
        "future_covariates": walk(points, 1, seed=12),
    }


def driven(points: int = 90, seed: int = 0, lag: int = 0) -> TimeSeries:
    """A walk that moves with the known-future covariate, which therefore acts on its forecast."""
    known = covariates()["future_covariates"][:points]
    moved = 10 * np.roll(known.values(), lag, 0)
    return known.with_values(walk(points, seed=seed).values() + moved)


def native(
    series: TimeSeries, horizon: int, pipeline: MoiraiMoEPipeline | None = None, **options: Any
) -> Any:
    """Native forecast of the last context of a series, by the seed of quantiles."""
    options = {"context_length": CONTEXT, "random_state": QUANTILE_SEED} | options
    values = series.values(copy=False)
    return (pipeline or tiny_pipeline()).predict(values, horizon, **options)
