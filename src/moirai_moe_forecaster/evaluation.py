"""Benchmark sets, the metrics they are scored with, and the seasonal naive they are held against.

The protocol is that of the Chronos benchmark (arXiv 2403.07815, section 5.1): one window a series,
scores relative to seasonal naive, aggregated over sets by the geometric mean.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from moirai_moe_forecaster.errors import InvalidInputError
from moirai_moe_forecaster.inference.pipeline import MoiraiMoEPipeline

Array = NDArray[np.float64]

LEVELS: tuple[float, ...] = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)


class Task(NamedTuple):
    """One benchmark set, cut into contexts and what followed them.

    Attributes
    ----------
    name : str
    seasonality : int
        Period of the seasonal naive forecast and of MASE.
    contexts : list of ndarray, (time,)
        NaN is missing.
    labels : ndarray, (series, horizon)
        NaN is missing.
    """

    name: str
    seasonality: int
    contexts: list[Array]
    labels: Array


class Scores(NamedTuple):
    """Scores of one forecaster on one set."""

    mase: float
    wql: float


def read_task(file: str | Path) -> Task:
    """Read a set from ``NAME.parquet`` (unique_id, ds, y) and ``NAME.json`` beside it.

    The JSON holds `seasonality`, `horizon` and `offset`: a negative position, counted from the end
    of each series, where its label begins.

    Raises
    ------
    InvalidInputError
        If a column or a field is missing.
    """
    path = Path(file)
    facts = json.loads(path.with_suffix(".json").read_text())
    frame = pd.read_parquet(path)
    missing = {"unique_id", "y"} - set(frame.columns) | (
        {"seasonality", "horizon", "offset"} - set(facts)
    )
    if missing:
        raise InvalidInputError(f"{path} lacks {sorted(missing)}")
    series = [
        group.to_numpy(dtype=np.float64)
        for _, group in frame.groupby("unique_id", sort=False, observed=True)["y"]
    ]
    return split_task(path.stem, series, facts["seasonality"], facts["horizon"], facts["offset"])


def split_task(
    name: str, series: Sequence[Array], seasonality: int, horizon: int, offset: int
) -> Task:
    """Cut the label of `horizon` steps out of each series at `offset` from its end."""
    contexts = [values[: len(values) + offset] for values in series]
    stops = [len(values) + offset + horizon for values in series]
    labels = [values[stop - horizon : stop] for values, stop in zip(series, stops, strict=True)]
    return Task(name, seasonality, contexts, np.stack(labels))


def seasonal_naive(context: Array, horizon: int, seasonality: int) -> Array:
    """Repeat the last season; a missing value is filled from the season before it.

    A context shorter than a season repeats its last value.
    """
    season = seasonality if len(context) >= seasonality else 1
    filled = context.copy()
    for position in range(season, len(filled)):
        if np.isnan(filled[position]):
            filled[position] = filled[position - season]
    return np.resize(filled[-season:], horizon)


def mase(labels: Array, point: Array, contexts: Sequence[Array], seasonality: int) -> float:
    """Mean absolute scaled error over all series and steps.

    Each series' errors are divided by the mean absolute seasonal difference of its whole context
    (difference to the value before, where the context is not longer than a season). Series whose
    scale is 0 and missing labels are left out.

    Parameters
    ----------
    labels, point : ndarray, (series, horizon)
    contexts : sequence of ndarray
    seasonality : int
    """
    lags = [seasonality if len(context) > seasonality else 1 for context in contexts]
    scale = np.array(
        [
            np.nanmean(np.abs(context[lag:] - context[:-lag])) if len(context) > lag else np.nan
            for context, lag in zip(contexts, lags, strict=True)
        ]
    )
    usable = scale > 0
    return float(np.nanmean(np.abs(labels - point)[usable] / scale[usable, None]))


def weighted_quantile_loss(
    labels: Array, quantiles: Array, levels: Sequence[float] = LEVELS
) -> float:
    """Pinball loss, doubled, over the sum of absolute labels; the mean over levels.

    Parameters
    ----------
    labels : ndarray, (series, horizon)
    quantiles : ndarray, (series, level, horizon)
    levels : sequence of float
    """
    target = labels[:, None]
    level = np.array(levels)[:, None]
    loss = 2 * np.abs((target - quantiles) * ((target <= quantiles) - level))
    return float(np.nansum(loss, axis=(0, 2)).mean() / np.nansum(np.abs(labels)))


def score_naive(task: Task) -> Scores:
    """Score the seasonal naive forecast, all of whose quantiles are the same."""
    horizon = task.labels.shape[1]
    point = np.stack([seasonal_naive(c, horizon, task.seasonality) for c in task.contexts])
    quantiles = np.repeat(point[:, None], len(LEVELS), axis=1)
    return _scores(task, quantiles)


def score_pipeline(pipeline: MoiraiMoEPipeline, task: Task, *, progress: bool = False) -> Scores:
    """Score zero-shot forecasts; the random state is 0."""
    forecast = pipeline.predict(
        task.contexts, task.labels.shape[1], random_state=0, progress=progress
    )
    return _scores(task, forecast.quantile(LEVELS))


def geometric_mean(ratios: Sequence[float]) -> float:
    """Aggregate scores that are relative to a baseline."""
    return float(np.exp(np.mean(np.log(ratios))))


def _scores(task: Task, quantiles: Array) -> Scores:
    median = quantiles[:, LEVELS.index(0.5)]
    return Scores(
        mase(task.labels, median, task.contexts, task.seasonality),
        weighted_quantile_loss(task.labels, quantiles),
    )
