"""Evaluation of any number of forecasters on any number of sets: parallel, timed, resumable."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

import numpy as np
from tqdm.auto import tqdm

from benchmark_sets.forecasts import BASELINE, identity, predict_task
from benchmark_sets.tasks import Task
from moirai_moe_forecaster.errors import InvalidInputError
from moirai_moe_forecaster.evaluation.comparison import Comparison, check_metric, paired_bootstrap
from moirai_moe_forecaster.evaluation.forecasters import naive_quantiles
from moirai_moe_forecaster.evaluation.metrics import METRICS, Terms, expand_metrics, score_terms


class SetResult(NamedTuple):
    """One forecaster's scores on one set.

    Attributes
    ----------
    task, model : str
    freq : str
    horizon : int
    windows : int
        Forecasts that were made.
    seconds : float
        That they took, without loading a model.
    terms : dict of Terms
        By metric, one entry per series.
    """

    task: str
    model: str
    freq: str
    horizon: int
    windows: int
    seconds: float
    terms: dict[str, Terms]

    def score(self, metric: str) -> float:
        """Return the score of all series together."""
        return self.terms[metric].pooled()


def evaluate_sets(
    tasks: Iterable[Task],
    forecasters: Mapping[str, Any],
    *,
    metrics: str | Sequence[str] = METRICS,
    folder: str | Path | None = None,
    n_jobs: int = 1,
    progress: bool = False,
) -> list[SetResult]:
    """Score forecasters, and seasonal naive, on benchmark sets.

    Parameters
    ----------
    tasks : iterable of Task
    forecasters : mapping
        By name: a `MoiraiMoEPipeline`, a `Variant` of one with options of `predict`, a sktime
        forecaster, a peer of `evaluation.peers`, or any function
        ``(contexts, horizon, seasonality, levels) -> quantiles (window, level, horizon)``.
        Seasonal naive is always there, as "seasonal-naive".
    metrics : sequence of str
        As `backtest` has them; by default all. WQL is over the levels 0.1, ..., 0.9.
    folder : str or Path, optional
        Results are stored there as ``MODEL/SET.json`` as soon as they are known, and taken from
        there if the data of the set, the metrics and the forecaster (a pipeline's weights, options
        and code, a sktime forecaster's parameters, a function's name) are still the same: a second
        run goes on where the first was interrupted.
    n_jobs : int, default=1
        Processes, of joblib. Times are comparable only with one.
    progress : bool, default=False
        Show a progress bar.

    Returns
    -------
    list of SetResult
        Set by set, seasonal naive first.

    Raises
    ------
    InvalidInputError
        If two sets have one name, or a forecaster cannot be used.
    """
    names = expand_metrics(metrics)
    sets = list(tasks)
    if len({task.name for task in sets}) < len(sets):
        raise InvalidInputError(f"two sets have one name among {[task.name for task in sets]}")
    everything = {BASELINE: naive_quantiles} | dict(forecasters)
    identities = {name: identity(forecaster) for name, forecaster in everything.items()}
    results: dict[tuple[str, str], SetResult] = {}
    pending = []
    for task in sets:
        data = _digest(task, names)
        for name in everything:
            key = hashlib.sha256(f"{data} {identities[name]}".encode()).hexdigest()
            file = None if folder is None else result_file(folder, name, task.name)
            stored = None if file is None else _read(file, key)
            if stored is None:
                pending.append((task, name, everything[name], names, file, key))
            else:
                results[task.name, name] = stored
    bar = tqdm(total=len(pending), disable=not progress, unit="set")
    for result in _run_all(pending, n_jobs):
        results[result.task, result.model] = result
        bar.update()
    bar.close()
    return [results[task.name, name] for task in sets for name in everything]


def result_file(folder: str | Path, model: str, task: str) -> Path:
    """Path of a stored result."""
    return Path(folder, quote(model, safe=" "), quote(task, safe=" ") + ".json")


def compare_models(
    results: Sequence[SetResult],
    first: str,
    second: str,
    metric: str = "WQL",
    *,
    random_state: int = 0,
) -> Comparison:
    """Compare two models of `evaluate_sets` over all its sets by `paired_bootstrap`."""
    check_metric(metric)
    by_model = [
        {result.task: result.terms[metric] for result in results if result.model == model}
        for model in (first, second)
    ]
    sets = [name for name in by_model[0] if name in by_model[1]]
    terms = [[scores[name] for name in sets] for scores in by_model]
    return paired_bootstrap(terms[0], terms[1], random_state=random_state)


def _run_all(pending: Sequence[tuple[Any, ...]], n_jobs: int) -> Iterable[SetResult]:
    if n_jobs == 1:
        return (_run(*job) for job in pending)
    from joblib import Parallel, delayed

    results: Iterable[SetResult] = Parallel(n_jobs, return_as="generator")(
        delayed(_run)(*job) for job in pending
    )
    return results


def _run(
    task: Task,
    model: str,
    forecaster: Any,
    metrics: Sequence[str],
    file: Path | None,
    key: str,
) -> SetResult:
    started = time.perf_counter()
    prediction = predict_task(forecaster, task, metrics)
    seconds = time.perf_counter() - started
    terms = score_terms(task.labels, task.contexts, task.seasonality, prediction, metrics)
    if task.series is not None:
        terms = {name: sums.summed(task.series) for name, sums in terms.items()}
    windows = len(task.contexts)
    result = SetResult(task.name, model, task.freq, task.horizon, windows, seconds, terms)
    if file is not None:
        _write(file, result, key)
    return result


def _write(file: Path, result: SetResult, key: str) -> None:
    """Write a result whole or not at all."""
    record = result._asdict() | {
        "key": key,
        "terms": {
            name: [terms.numerator.tolist(), terms.denominator.tolist(), terms.root]
            for name, terms in result.terms.items()
        },
    }
    file.parent.mkdir(parents=True, exist_ok=True)
    temporary = file.with_name(f".{os.getpid()}-{file.name}")
    temporary.write_text(json.dumps(record), encoding="utf-8")
    os.replace(temporary, file)


def _read(file: Path, key: str) -> SetResult | None:
    """Return the stored result if there is one, and it is of the same data and forecaster."""
    try:
        record = json.loads(file.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return None
    if record.pop("key", None) != key:
        return None
    record["terms"] = {
        name: Terms(numerator=np.array(numerator), denominator=np.array(denominator), root=root)
        for name, (numerator, denominator, root) in record["terms"].items()
    }
    return SetResult(**record)


def _digest(task: Task, metrics: Sequence[str]) -> str:
    digest = hashlib.sha256(f"{task.seasonality} {task.labels.shape} {metrics}".encode())
    for array in (*task.contexts, task.labels):
        digest.update(str(array.shape).encode() + array.astype(np.float64).tobytes())
    if task.series is not None:
        digest.update(task.series.tobytes())
    return digest.hexdigest()
