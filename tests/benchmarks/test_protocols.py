"""The paper's protocols find their files and cut them as they say."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from benchmark_sets.protocols import PROTOCOLS, find_protocols, read_protocol
from moirai_moe_forecaster.errors import InvalidInputError

BY_NAME = {protocol.name: protocol for protocol in PROTOCOLS}


def write_tsf(path: Path, series: list[np.ndarray], header: str) -> None:
    lines = [",".join(f"{value:g}" for value in values) for values in series]
    text = [header, "@data", *(f"T{number}:{line}" for number, line in enumerate(lines))]
    path.write_text("@attribute series_name string\n" + "\n".join(text))


def test_there_are_29_and_10() -> None:
    kinds = [protocol.kind for protocol in PROTOCOLS]
    assert (kinds.count("monash"), kinds.count("zero-shot")) == (29, 10)
    assert len(BY_NAME) == 39
    names = [name for protocol in PROTOCOLS for name in protocol.files]
    assert len(set(names)) == len(names)


def test_files_are_found_by_the_names_of_their_archives(tmp_path: Path) -> None:
    for name in (
        "m1_monthly_dataset.tsf",
        "car_parts_dataset_with_missing_values.tsf",
        "kdd_cup_2018_with_missing.parquet",
        "monash_m3_other.tsf",
        "solar-energy/data.arrow",
        "jena_weather/10T/data-00000-of-00001.arrow",
        "ett1/D/data-00000-of-00001.arrow",
        "ett1/H/data-00000-of-00001.arrow",
        "unknown.tsf",
    ):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    found = {protocol.name: path for protocol, path in find_protocols(tmp_path)}
    assert found == {
        "M1 Monthly": tmp_path / "m1_monthly_dataset.tsf",
        "M3 Other": tmp_path / "monash_m3_other.tsf",
        "Carparts": tmp_path / "car_parts_dataset_with_missing_values.tsf",
        "KDD cup": tmp_path / "kdd_cup_2018_with_missing.parquet",
        "Solar": tmp_path / "solar-energy",
        "ETT1": tmp_path / "ett1" / "D",
    }


def test_a_monash_set_has_one_window_of_every_series(tmp_path: Path) -> None:
    series = [np.arange(30.0), np.arange(50.0), np.arange(12.0)]
    write_tsf(tmp_path / "hospital_dataset.tsf", series, "@frequency monthly")
    ((protocol, path),) = find_protocols(tmp_path)
    task = read_protocol(protocol, path)
    assert (task.name, task.freq, task.seasonality) == ("Hospital", "MS", 12)
    # the one that is not longer than the horizon is left out
    np.testing.assert_array_equal(task.labels, [np.arange(18, 30), np.arange(38, 50)])
    assert [len(context) for context in task.contexts] == [18, 38]


def test_horizons_may_be_the_files_and_differ(tmp_path: Path) -> None:
    (tmp_path / "cif_2016_dataset.tsf").write_text(
        "@attribute series_name string\n@attribute horizon numeric\n@frequency monthly\n@data\n"
        "A:2:1,2,3,4,5\nB:3:1,2,3,4,5\n"
    )
    task = read_protocol(BY_NAME["CIF 2016"], tmp_path / "cif_2016_dataset.tsf")
    np.testing.assert_array_equal(task.labels, [[4, 5, np.nan], [3, 4, 5]])
    write_tsf(tmp_path / "m3_other.tsf", [np.arange(9.0)], "@frequency quarterly")
    with pytest.raises(InvalidInputError, match="does not tell its horizon"):
        read_protocol(BY_NAME["M3 Other"], tmp_path / "m3_other.tsf")


def test_a_zero_shot_set_rolls(tmp_path: Path) -> None:
    file = tmp_path / "walmart.parquet"
    pd.DataFrame({"y": [np.arange(143.0), np.arange(143.0) + 1]}).to_parquet(file)
    task = read_protocol(BY_NAME["Walmart"], file)
    assert task.labels.shape == (2 * 4, 8)
    assert task.labels[3, -1] == 142
    assert task.series is not None
    assert list(task.series) == [0] * 4 + [1] * 4


def test_the_rule_of_gift_eval_holds_where_nothing_else_is_known(tmp_path: Path) -> None:
    file = tmp_path / "ett1.parquet"
    pd.DataFrame({"y": [np.arange(725.0)] * 7}).to_parquet(file)
    # a tenth of 725 days are three windows of 30
    assert read_protocol(BY_NAME["ETT1"], file).labels.shape == (7 * 3, 30)
    long = tmp_path / "bizitobs_l2c.parquet"
    pd.DataFrame({"y": [np.arange(31_968.0)], "freq": ["5min"]}).to_parquet(long)
    assert read_protocol(BY_NAME["BizITObs"], long).labels.shape == (20, 48)
    silent = tmp_path / "m_dense.parquet"
    pd.DataFrame({"y": [np.arange(100.0)]}).to_parquet(silent)
    with pytest.raises(InvalidInputError, match="does not tell its frequency"):
        read_protocol(BY_NAME["M_DENSE"], silent)
