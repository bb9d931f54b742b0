"""Benchmark sets, cut into contexts and what followed them, and their two plainest scores."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from moirai_moe_forecaster.errors import InvalidInputError
from moirai_moe_forecaster.evaluation.metrics import LEVELS, mase, weighted_quantile_loss
from moirai_moe_forecaster.evaluation.naive import seasonal_naive

if TYPE_CHECKING:
    from moirai_moe_forecaster.inference.pipeline import MoiraiMoEPipeline

Array = NDArray[np.float64]


class Task(NamedTuple):
    """One benchmark set, cut into contexts and what followed them.

    Attributes
    ----------
    name : str
    seasonality : int
        Period of the seasonal naive forecast and of MASE.
    contexts : list of ndarray, (time,)
        NaN is missing.
    labels : ndarray, (window, horizon)
        NaN is missing.
    freq : str
        Alias of pandas, or nothing where it is not known.
    series : ndarray of int, (window,), optional
        Number of the series that each window was cut from; without it, each is of its own.
    """

    name: str
    seasonality: int
    contexts: list[Array]
    labels: Array
    freq: str = ""
    series: NDArray[np.int64] | None = None

    @property
    def horizon(self) -> int:
        """Number of steps of a label."""
        return self.labels.shape[1]


class Scores(NamedTuple):
    """Scores of one forecaster on one set."""

    mase: float
    wql: float


def read_task(file: str | Path) -> Task:
    """Read a set from ``NAME.parquet`` (unique_id, ds, y) and ``NAME.json`` beside it.

    The JSON holds `seasonality`, `horizon`, `offset`, a negative position, counted from the end
    of each series, where its label begins, and perhaps `freq`.

    Raises
    ------
    InvalidInputError
        If a file, a column or a field is missing.
    """
    path = Path(file)
    facts: dict[str, Any] = {}
    if path.with_suffix(".json").is_file():
        facts = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
    frame = pd.read_parquet(path)
    missing = {"unique_id", "y"} - set(frame.columns) | (
        {"seasonality", "horizon", "offset"} - set(facts)
    )
    if missing:
        raise InvalidInputError(f"{path}, with the JSON file beside it, lacks {sorted(missing)}")
    series = [
        group.to_numpy(dtype=np.float64)
        for _, group in frame.groupby("unique_id", sort=False, observed=True)["y"]
    ]
    task = split_task(path.stem, series, facts["seasonality"], facts["horizon"], facts["offset"])
    return task._replace(freq=str(facts.get("freq", "")))


def split_task(
    name: str, series: Sequence[Array], seasonality: int, horizon: int, offset: int
) -> Task:
    """Cut the label of `horizon` steps out of each series at `offset` from its end."""
    contexts = [values[: len(values) + offset] for values in series]
    stops = [len(values) + offset + horizon for values in series]
    labels = [values[stop - horizon : stop] for values, stop in zip(series, stops, strict=True)]
    return Task(name, seasonality, contexts, np.stack(labels))


def rolling_task(
    name: str, series: Sequence[Array], seasonality: int, horizon: int, windows: int
) -> Task:
    """Cut the last `windows` labels out of each series; none overlaps the next.

    A series has as many windows as fit behind a context of one point, and may have none.

    Raises
    ------
    InvalidInputError
        If no series has a window.
    """
    contexts, labels, numbers = [], [], []
    for number, values in enumerate(series):
        for back in range(windows, 0, -1):
            cut = len(values) - back * horizon
            if cut > 0 and not np.isnan(values[:cut]).all():
                contexts.append(values[:cut])
                labels.append(values[cut : cut + horizon])
                numbers.append(number)
    if not contexts:
        raise InvalidInputError(
            f"no series of {name} is longer than the horizon of {horizon}; give longer series"
        )
    return Task(name, seasonality, contexts, np.stack(labels), series=np.array(numbers))


def naive_point(task: Task) -> Array:
    """Seasonal naive forecast of every window, (window, horizon)."""
    return np.stack([seasonal_naive(c, task.horizon, task.seasonality) for c in task.contexts])


def score_naive(task: Task) -> Scores:
    """Score the seasonal naive forecast, all of whose quantiles are the same."""
    return _scores(task, np.repeat(naive_point(task)[:, None], len(LEVELS), axis=1))


def score_pipeline(pipeline: MoiraiMoEPipeline, task: Task, *, progress: bool = False) -> Scores:
    """Score zero-shot forecasts; the random state is 0."""
    forecast = pipeline.predict(task.contexts, task.horizon, random_state=0, progress=progress)
    return _scores(task, forecast.quantile(LEVELS))


def _scores(task: Task, quantiles: Array) -> Scores:
    median = quantiles[:, LEVELS.index(0.5)]
    return Scores(
        mase(task.labels, median, task.contexts, task.seasonality),
        weighted_quantile_loss(task.labels, quantiles),
    )
