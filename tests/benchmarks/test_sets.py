"""Evaluation of sets: the benchmark's numbers, stored and picked up, in any number of processes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sktime.forecasting.naive import NaiveForecaster

from benchmark_sets.forecasts import BASELINE
from benchmark_sets.results import evaluate_sets, result_file
from benchmark_sets.tasks import Task, read_task, rolling_task, score_naive, score_pipeline
from moirai_moe_forecaster.errors import InvalidInputError
from moirai_moe_forecaster.evaluation.forecasters import naive_quantiles
from moirai_moe_forecaster.inference.pipeline import MoiraiMoEPipeline
from tiny_network import tiny_network


@pytest.fixture(scope="module")
def task() -> Task:
    rng = np.random.default_rng(0)
    series = [10 + rng.normal(size=length).cumsum() for length in (40, 60, 33)]
    return rolling_task("walks", series, 4, 6, 2)._replace(freq="QS")


@pytest.fixture(scope="module")
def pipeline() -> MoiraiMoEPipeline:
    return MoiraiMoEPipeline(tiny_network())


def flat(
    contexts: Sequence[Any], horizon: int, seasonality: int, levels: Sequence[float]
) -> np.ndarray:
    """Forecast the mean of each context, less sure with every step."""
    scores = np.array(levels)[None, :, None] - 0.5
    means = np.array([np.nanmean(context) for context in contexts])[:, None, None]
    return means + scores * np.arange(1, horizon + 1)


def test_scores_are_those_of_the_benchmark(task: Task, pipeline: MoiraiMoEPipeline) -> None:
    naive, ours = evaluate_sets([task], {"ours": pipeline})
    assert (naive.model, ours.model) == (BASELINE, "ours")
    for result, scores in ((naive, score_naive(task)), (ours, score_pipeline(pipeline, task))):
        assert result.score("MASE") == pytest.approx(scores.mase, rel=1e-5)
        assert result.score("WQL") == pytest.approx(scores.wql, rel=1e-5)
        assert (result.task, result.freq, result.horizon, result.windows) == ("walks", "QS", 6, 6)
    # the windows of a series are one entry
    assert len(ours.terms["MASE"].numerator) == 3


def test_any_forecaster_can_be_evaluated(task: Task) -> None:
    results = evaluate_sets([task], {"flat": flat, "sktime": NaiveForecaster(sp=4)})
    naive, function, sktime = results
    assert sktime.score("MAE") == pytest.approx(naive.score("MAE"))
    assert sktime.score("WQL") < naive.score("WQL")
    lower, upper = (flat(task.contexts, 6, 4, [q])[:, 0] for q in (0.1, 0.9))
    inside = ((lower <= task.labels) & (task.labels <= upper)).mean()
    assert function.score("coverage_80") == pytest.approx(inside)


def test_a_second_run_goes_on_where_the_first_was_interrupted(task: Task, tmp_path: Path) -> None:
    calls = []

    def slow(contexts: Sequence[Any], *rest: Any) -> np.ndarray:
        calls.append(len(contexts))
        if len(calls) == 2:
            raise KeyboardInterrupt
        return flat(contexts, *rest)

    tasks = [task, task._replace(name="again")]
    with pytest.raises(KeyboardInterrupt):
        evaluate_sets(tasks, {"org/slow": slow}, folder=tmp_path)
    assert len(calls) == 2
    results = evaluate_sets(tasks, {"org/slow": slow}, folder=tmp_path)
    assert len(calls) == 3
    assert len(results) == 4
    assert evaluate_sets(tasks, {"org/slow": slow}, folder=tmp_path)[1].terms.keys()
    assert len(calls) == 3
    stored = result_file(tmp_path, "org/slow", "walks")
    assert stored.parent.parent == tmp_path
    assert json.loads(stored.read_text())["model"] == "org/slow"
    assert not [path for path in tmp_path.rglob("*") if path.name.startswith(".")]


def test_results_of_other_data_or_weights_are_not_taken(
    task: Task, pipeline: MoiraiMoEPipeline, tmp_path: Path
) -> None:
    before = evaluate_sets([task], {"ours": pipeline}, folder=tmp_path)[1]
    other = task._replace(labels=task.labels + 1)
    assert evaluate_sets([other], {"ours": pipeline}, folder=tmp_path)[1].score("MAE") != (
        before.score("MAE")
    )
    evaluate_sets([task], {"ours": pipeline}, folder=tmp_path)
    retrained = MoiraiMoEPipeline(tiny_network(seed=1))
    after = evaluate_sets([task], {"ours": retrained}, folder=tmp_path)[1]
    assert after.score("MAE") != before.score("MAE")


def test_a_damaged_result_is_computed_again(task: Task, tmp_path: Path) -> None:
    evaluate_sets([task], {"flat": flat}, folder=tmp_path)
    file = result_file(tmp_path, "flat", "walks")
    file.write_text(file.read_text()[:-10])
    evaluate_sets([task], {"flat": flat}, folder=tmp_path)
    assert json.loads(file.read_text())["task"] == "walks"


def test_two_processes_find_the_same(task: Task) -> None:
    tasks = [task, task._replace(name="again", labels=task.labels + 1)]
    forecasters = {"naive": naive_quantiles}
    one, two = (evaluate_sets(tasks, forecasters, n_jobs=n_jobs) for n_jobs in (1, 2))
    assert [(r.task, r.model, r.score("WQL")) for r in one] == [
        (r.task, r.model, r.score("WQL")) for r in two
    ]


def test_what_cannot_be_scored_is_refused(task: Task) -> None:
    with pytest.raises(InvalidInputError, match="two sets have one name"):
        evaluate_sets([task, task], {})
    with pytest.raises(InvalidInputError, match="of them not finite"):
        evaluate_sets([task], {"bad": lambda *a: np.full((6, len(a[3]), 6), np.nan)})
    with pytest.raises(InvalidInputError, match="a forecaster must be"):
        evaluate_sets([task], {"bad": "AutoETS"})


def test_rolling_windows_do_not_overlap_and_know_their_series() -> None:
    task = rolling_task("counts", [np.arange(10.0), np.arange(5.0), np.arange(2.0)], 1, 2, 3)
    assert [list(label) for label in task.labels] == [[4, 5], [6, 7], [8, 9], [1, 2], [3, 4]]
    assert [len(context) for context in task.contexts] == [4, 6, 8, 1, 3]
    assert task.series is not None
    assert list(task.series) == [0, 0, 0, 1, 1]
    with pytest.raises(InvalidInputError, match="longer than the horizon"):
        rolling_task("short", [np.arange(2.0)], 1, 2, 1)


def test_a_set_is_read_with_the_file_beside_it(tmp_path: Path) -> None:
    frame = pd.DataFrame({"unique_id": ["b"] * 5 + ["a"] * 4, "y": np.arange(9.0)})
    frame.to_parquet(tmp_path / "some.parquet")
    with pytest.raises(InvalidInputError, match="lacks"):
        read_task(tmp_path / "some.parquet")
    facts = {"seasonality": 1, "horizon": 2, "offset": -2, "freq": "h"}
    (tmp_path / "some.json").write_text(json.dumps(facts))
    task = read_task(tmp_path / "some.parquet")
    assert (task.name, task.freq, task.horizon) == ("some", "h", 2)
    np.testing.assert_array_equal(task.labels, [[3, 4], [7, 8]])
