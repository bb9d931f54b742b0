"""Tables hold the scores and their geometric means."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmark_sets.results import SetResult
from benchmark_sets.tables import (
    calibration_table,
    frequency_group,
    group_table,
    model_table,
    read_published,
    scores_frame,
    set_table,
)
from moirai_moe_forecaster.errors import InvalidInputError
from moirai_moe_forecaster.evaluation import Terms


def result(task: str, model: str, freq: str, mase: float, wql: float, cover: float) -> SetResult:
    scores = {"MASE": mase, "WQL": wql, **{f"coverage_{c}": cover for c in (50, 80, 95)}}
    terms = {
        name: Terms(numerator=np.array([score]), denominator=np.ones(1))
        for name, score in scores.items()
    }
    return SetResult(task, model, freq, 8, 3, 2.0, terms)


RESULTS = [
    result("a", "seasonal-naive", "h", 1.0, 0.2, 0.1),
    result("a", "ours", "h", 0.5, 0.05, 0.8),
    result("b", "seasonal-naive", "15min", 2.0, 0.1, 0.1),
    result("b", "ours", "15min", 4.0, 0.1, 0.7),
]


def rows(table: str) -> dict[str, list[str]]:
    lines = [line.strip("|").split("|") for line in table.splitlines()]
    return {first.strip(): [cell.strip() for cell in cells] for first, *cells in lines}


def test_scores_are_relative_to_naive_on_the_same_set() -> None:
    table = rows(set_table(scores_frame(RESULTS), "ours"))
    assert table["a"] == ["3", "0.500", "0.0500", "0.500", "0.250", "2.0"]
    assert table["b"] == ["3", "4.000", "0.1000", "2.000", "1.000", "2.0"]
    assert table["geometric mean"] == ["", "", "", "1.000", "0.500", "4.0"]


def test_a_set_that_naive_forecasts_perfectly_compares_nothing() -> None:
    perfect = [
        result("a", "seasonal-naive", "h", 0.0, 0.2, 0.1),
        result("a", "ours", "h", 0.5, 0.1, 0.1),
    ]
    table = rows(set_table(scores_frame(perfect), "ours"))
    assert table["geometric mean"][3:5] == ["nan", "0.500"]


def test_groups_of_frequencies() -> None:
    table = rows(group_table(scores_frame(RESULTS)))
    assert table["model"] == ["hourly (1)", "sub-hourly (1)"]
    assert table["ours"] == ["0.500 / 0.250", "2.000 / 1.000"]
    names = [frequency_group(f) for f in ("YS", "QS-OCT", "MS", "W-SUN", "B", "2h", "5min", "")]
    assert names == [
        *("yearly", "quarterly", "monthly", "weekly", "daily", "hourly", "sub-hourly", "other"),
    ]


def test_coverage() -> None:
    table = rows(calibration_table(scores_frame(RESULTS), "ours"))
    assert table["a"] == ["80.0%"] * 3
    assert table["mean"] == ["75.0%"] * 3


def test_published_models_stand_beside_over_the_sets_both_have(tmp_path: Path) -> None:
    (tmp_path / "naive.csv").write_text(
        "dataset,model,MASE,WQL\na,seasonal-naive,1.0,0.2\nc,seasonal-naive,1.0,1.0\n"
    )
    (tmp_path / "bolt.csv").write_text("dataset,model,MASE,WQL\na,bolt,0.4,0.1\nc,bolt,9.0,9.0\n")
    table = model_table(scores_frame(RESULTS), read_published(tmp_path)).splitlines()
    assert "| ours | 2 | 1.000 | 0.500 | 4.0 |" in table
    assert "| ours | 1 | 0.500 | 0.250 | 2.0 |" in table
    assert "| bolt (published) | 1 | 0.400 | 0.500 |  |" in table
    assert not any("seasonal-naive (published)" in line for line in table)


def test_published_scores_are_checked(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match=r"no \.csv file"):
        read_published(tmp_path)
    (tmp_path / "bolt.csv").write_text("dataset,model,MASE,WQL\na,bolt,0.4,0.1\n")
    with pytest.raises(InvalidInputError, match="no row of 'seasonal-naive'"):
        read_published(tmp_path)
    (tmp_path / "bolt.csv").write_text("dataset,model,MASE\na,bolt,0.4\n")
    with pytest.raises(InvalidInputError, match="lacks the columns"):
        read_published(tmp_path)
