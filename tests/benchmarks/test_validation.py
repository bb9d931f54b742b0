"""Validation tasks: windows as their protocol says, groups, variants and their ratios."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from benchmark_sets.forecasts import BASELINE, identity
from benchmark_sets.results import SetResult, evaluate_sets
from benchmark_sets.validation import cut_windows, read_validation
from benchmark_sets.validation_tables import (
    group_ratios,
    group_scores,
    group_table,
    ratio_table,
    task_ratios,
    task_scores,
    task_table,
)
from moirai_moe_forecaster.errors import InvalidInputError
from moirai_moe_forecaster.evaluation.forecasters import Variant
from moirai_moe_forecaster.inference.pipeline import MoiraiMoEPipeline
from tiny_network import tiny_network

HOURLY = {"source": "some", "freq": "h", "seasonality": 24, "windows": 2, "unique_ids": ["a", "b"]}
DAILY = {"source": "some", "freq": "D", "seasonality": 7, "windows": 1, "unique_ids": ["c"]}
TASKS = [
    HOURLY | {"term": "long", "horizon": 60, "step": 30},
    HOURLY | {"term": "medium", "horizon": 30, "step": 30},
    HOURLY | {"term": "short", "horizon": 6, "step": 6},
    DAILY | {"term": "short", "horizon": 5, "step": 5},
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("validation")
    rng = np.random.default_rng(0)
    table = {
        "unique_id": ["a", "b", "c", "d"],
        "freq": ["h", "h", "D", "h"],
        "start": None,
        "y": [9 + rng.normal(size=length) for length in (300, 200, 150, 10)],
    }
    pd.DataFrame(table).to_parquet(directory / "some.parquet")
    (directory / "tasks.json").write_text(json.dumps(TASKS))
    return directory


def test_windows_end_with_the_series_and_have_whole_contexts() -> None:
    values = np.arange(200.0)
    task = cut_windows("some", [values], 24, horizon=10, windows=3, step=4)
    assert [label[0] for label in task.labels] == [182, 186, 190]
    assert task.labels[-1, -1] == 199
    for context, label in zip(task.contexts, task.labels, strict=True):
        np.testing.assert_array_equal(context, values[: int(label[0])])


def test_windows_count_only_if_enough_is_observed() -> None:
    half, more, short, gaps = (np.arange(200.0) for _ in range(4))
    half[190:195] = np.nan
    more[190:194] = np.nan
    gaps[:126] = np.nan
    task = cut_windows("some", [half, more, short[:75], short[:74], gaps], 24, 10, 1, 10)
    assert task.series is not None
    assert list(task.series) == [1, 2]
    with pytest.raises(InvalidInputError, match="no window of some"):
        cut_windows("some", [gaps], 24, 10, 1, 10)


def test_tasks_are_read_coarse_and_short_first(folder: Path) -> None:
    found = read_validation(folder)
    assert [item.task.name for item in found] == [
        "some D short",
        "some h short",
        "some h medium",
        "some h long",
    ]
    long = found[-1]
    assert (long.source, long.term, long.task.freq, long.task.horizon) == ("some", "long", "h", 60)
    assert [len(context) for context in long.task.contexts] == [210, 240, 110, 140]
    assert long.groups == ("h long", "hourly and finer, medium and long", "all")
    assert found[0].groups == ("D short", "all")
    assert [item.term for item in read_validation(folder, "h m")] == ["medium"]


def test_what_is_missing_is_named(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="contains 'weekly'"):
        read_validation(folder, "weekly")
    with pytest.raises(InvalidInputError, match=r"holds no tasks\.json"):
        read_validation(tmp_path)
    pd.read_parquet(folder / "some.parquet").to_parquet(tmp_path / "some.parquet")
    for changes, message in (
        ({"unique_ids": ["a", "c"]}, r"lacks the series \['c'\]"),
        ({"term": None}, "lacks"),
    ):
        facts = {key: value for key, value in (TASKS[1] | changes).items() if value}
        (tmp_path / "tasks.json").write_text(json.dumps([facts]))
        with pytest.raises(InvalidInputError, match=message):
            read_validation(tmp_path)


def test_options_reach_predict_and_are_part_of_a_stored_results_key(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipeline = MoiraiMoEPipeline(tiny_network())
    calls: list[dict[str, Any]] = []
    predict = pipeline.predict

    def recorded(y: Any, horizon: int, **options: Any) -> Any:
        calls.append(options)
        options.pop("not_yet_known", None)
        return predict(y, horizon, **options)

    monkeypatch.setattr(pipeline, "predict", recorded)
    tasks = [item.task for item in read_validation(folder, "D short")]
    plain, given = Variant(pipeline, {}), Variant(pipeline, {"not_yet_known": None})
    assert identity(plain) == identity(pipeline) != identity(given)
    for variant in (plain, given, given):
        evaluate_sets(tasks, {"ours": variant}, metrics="WQL", folder=tmp_path)
    assert len(calls) == 2
    assert identity(Variant(pipeline, {"a": 1, "b": 2})) == identity(
        Variant(pipeline, {"b": 2, "a": 1})
    )


def test_another_random_state_may_be_asked_for(folder: Path) -> None:
    pipeline = MoiraiMoEPipeline(tiny_network())
    tasks = [item.task for item in read_validation(folder, "h long")]
    variants = {str(state): Variant(pipeline, {"random_state": state}) for state in (0, 1)}
    results = evaluate_sets(tasks, {"plain": pipeline, **variants}, metrics="WQL")
    _, plain, first, second = (result.score("WQL") for result in results)
    assert plain == first != second


def test_groups_are_geometric_means_and_ratios_show_the_worst_first(folder: Path) -> None:
    tasks = read_validation(folder)
    results: list[SetResult] = []
    for number, item in enumerate(tasks):
        naive, base = evaluate_sets([item.task], {"base": flat(1.0)}, metrics=("MASE", "WQL"))
        worse = base.terms["WQL"]
        worse = replace(worse, numerator=worse.numerator * (1 + number / 10))
        results += [naive, base, base._replace(model="other", terms=base.terms | {"WQL": worse})]
    scores = task_scores(tasks, results)
    means = group_scores(scores)
    assert list(means["group"][::3]) == [
        "D short",
        "h short",
        "h medium",
        "h long",
        "hourly and finer, short",
        "hourly and finer, medium and long",
        "all",
    ]
    own = scores[(scores["model"] == "base") & scores["term"].isin(["medium", "long"])]
    by_name = means.set_index(["group", "model"])
    mean = by_name.loc[("hourly and finer, medium and long", "base")]
    assert mean["relative WQL"] == pytest.approx(own["relative WQL"].prod() ** 0.5)
    assert mean["tasks"] == 2
    assert (means[means["model"] == BASELINE].filter(like="relative") == 1).all(axis=None)
    by_task = task_ratios(scores, "other", "base")
    np.testing.assert_allclose(by_task["WQL"], [1, 1.1, 1.2, 1.3])
    np.testing.assert_allclose(by_task["MASE"], 1)
    by_group = group_ratios(scores, "other", "base")
    assert by_group.loc["all", "WQL"] == pytest.approx((1.1 * 1.2 * 1.3) ** 0.25)
    assert ratio_table(by_task, "task").splitlines()[2] == (
        "| some h long | 1.000 | 1.300 | 1.300 |"
    )
    assert "| some | h | long | 60 | 4 |" in task_table(scores, ["base", "other"])
    assert len(group_table(scores, ["base", "other"]).splitlines()) == 2 + 7


def flat(width: float) -> Any:
    """A forecaster of 9 with quantiles that far apart."""

    def forecast(contexts: Any, horizon: int, seasonality: int, levels: Any) -> np.ndarray:
        quantiles = 9 + width * (np.array(levels) - 0.5)[:, None]
        return np.tile(quantiles, (len(contexts), 1, horizon))

    return forecast
