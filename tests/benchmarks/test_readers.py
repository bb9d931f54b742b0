"""Readers give the series of a file, whatever it is."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from benchmark_sets.readers import read_series_file
from moirai_moe_forecaster.errors import InvalidInputError

pa = pytest.importorskip("pyarrow", reason="pyarrow, of the extra train, is not installed")

TSF = """# Dataset Information
# caf\xe9
@relation some
@attribute series_name string
@attribute start_timestamp date
@frequency monthly
@horizon 2
@missing true
@equallength false
@data
T1:1979-01-01 00-00-00:1,2.5,?,4
T2:1980-01-01 00-00-00:7,8
"""


def test_tsf(tmp_path: Path) -> None:
    file = tmp_path / "some_dataset.tsf"
    file.write_text(TSF, encoding="cp1252")
    data = read_series_file(file)
    np.testing.assert_array_equal(data.series[0], [1, 2.5, np.nan, 4])
    np.testing.assert_array_equal(data.series[1], [7, 8])
    assert (data.freq, data.horizons) == ("MS", [2, 2])


def test_a_series_horizon_goes_before_the_files(tmp_path: Path) -> None:
    text = TSF.replace("start_timestamp date", "horizon numeric").replace("@horizon 2\n", "")
    text = text.replace("1979-01-01 00-00-00", "12").replace("1980-01-01 00-00-00", "6")
    (tmp_path / "cif.tsf").write_text(text, encoding="cp1252")
    assert read_series_file(tmp_path / "cif.tsf").horizons == [12, 6]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (("T1:1979-01-01 00-00-00:1", "T1:1"), "line 11: got 1 attributes"),
        (("2.5", "spam"), "line 11 must end with numbers"),
        (("@data", ""), "no series behind a line @data"),
    ],
)
def test_a_damaged_tsf_names_the_line(
    damage: tuple[str, str], message: str, tmp_path: Path
) -> None:
    (tmp_path / "some.tsf").write_text(TSF.replace(*damage), encoding="cp1252")
    with pytest.raises(InvalidInputError, match=message):
        read_series_file(tmp_path / "some.tsf")


@pytest.mark.parametrize("kind", ["stream", "file"])
def test_arrow(kind: str, tmp_path: Path) -> None:
    table = pa.table({"target": [[1.0, None, 3.0], [4.0]], "freq": ["h", "h"]})
    new = pa.ipc.new_stream if kind == "stream" else pa.ipc.new_file
    for part in range(2):
        path = tmp_path / f"data-0000{part}-of-00002.arrow"
        with pa.OSFile(str(path), "wb") as sink, new(sink, table.schema) as writer:
            writer.write_table(table)
    data = read_series_file(tmp_path)
    assert (len(data.series), data.freq) == (4, "h")
    np.testing.assert_array_equal(data.series[0], [1, np.nan, 3])
    one = read_series_file(tmp_path / "data-00000-of-00002.arrow")
    assert len(one.series) == 2


def test_the_variates_of_arrow_are_series(tmp_path: Path) -> None:
    table = pa.table({"target": [[[1.0, 2.0], [3.0, 4.0]]], "freq": ["D"]})
    path = str(tmp_path / "some.arrow")
    with pa.OSFile(path, "wb") as sink, pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    np.testing.assert_array_equal(read_series_file(path).series, [[1, 2], [3, 4]])


def test_parquet_long_and_wide(tmp_path: Path) -> None:
    pd.DataFrame({"item_id": ["b", "b", "a"], "target": [1.0, 2.0, 3.0]}).to_parquet(
        tmp_path / "long.parquet"
    )
    pd.DataFrame({"y": [[1.0, 2.0], [3.0]], "freq": ["D", "D"]}).to_parquet(
        tmp_path / "wide.parquet"
    )
    for name, freq in (("long", ""), ("wide", "D")):
        data = read_series_file(tmp_path / f"{name}.parquet")
        assert [list(series) for series in data.series] == [[1, 2], [3]]
        assert data.freq == freq


def test_what_cannot_be_read_is_refused(tmp_path: Path) -> None:
    pd.DataFrame({"value": [1.0]}).to_parquet(tmp_path / "none.parquet")
    pd.DataFrame({"y": [1.0]}).to_parquet(tmp_path / "no_id.parquet")
    (tmp_path / "bad.arrow").write_bytes(b"spam" * 10)
    (tmp_path / "empty").mkdir()
    for name, message in (
        ("none.parquet", "needs rows and a column"),
        ("no_id.parquet", "says whose"),
        ("bad.arrow", "cannot be read as arrow"),
        ("empty", "holds no .arrow file"),
        ("some.csv", "is no .tsf, .arrow or .parquet"),
    ):
        with pytest.raises(InvalidInputError, match=message):
            read_series_file(tmp_path / name)
