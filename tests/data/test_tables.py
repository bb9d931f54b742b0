"""Files of text in any dialect are read as what they say, or refused."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from moirai_moe_forecaster.data.tables import Dialect, load_table
from moirai_moe_forecaster.data.written_numbers import read_values
from moirai_moe_forecaster.errors import InvalidInputError

VALUES = [1234.5, 0.25, -17.0, np.nan, 1000000.0]
POINTS = ["1,234.50", "0.25", "-17.00", "", "1,000,000.00"]
COMMAS = ["1.234,50", "0,25", "-17,00", "NA", "1.000.000,00"]
SPACES = ["1 234,50", "0,25", "\u221217,00", "null", "1\u202f000\u202f000,00"]
PLAIN = ["1234.5", "0.25", "-17", "NaN", "1e6"]
SWISS = ["1'234.50", "0.25", "-17", "", "1'000'000"]


def load(path: Path, dialect: Dialect | None = None) -> pd.DataFrame:
    table, known = load_table(path, dialect or Dialect())
    assert known is not None
    return read_values(table, ["wert"], known.separator, known.decimal)


def write(path: Path, values: list[str], separator: str, encoding: str = "utf-8") -> Path:
    quoted = [f'"{value}"' if separator in value else value for value in values]
    lines = [f"größe{separator}wert", *(f"a{separator}{value}" for value in quoted)]
    raw = "\n".join(lines).encode(encoding)
    path.write_bytes(gzip.compress(raw) if path.suffix == ".gz" else raw)
    return path


@pytest.mark.parametrize("name", ["a.csv", "a.CSV", "a.tsv", "a.txt", "a.csv.gz"])
@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
@pytest.mark.parametrize("values", [POINTS, COMMAS, SPACES, PLAIN, SWISS], ids=lambda v: v[0])
def test_separators_and_marks_are_told_from_the_file(
    name: str, separator: str, values: list[str], tmp_path: Path
) -> None:
    table = load(write(tmp_path / name, values, separator))
    assert list(table.columns) == ["größe", "wert"]
    np.testing.assert_array_equal(table["wert"], VALUES)
    assert list(table.index) == [2, 3, 4, 5, 6]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "cp1252"])
def test_encodings_are_told_from_the_file(encoding: str, tmp_path: Path) -> None:
    values = [f"{value} €" for value in COMMAS[:3]]
    table = load(write(tmp_path / "a.csv", values, ";", encoding))
    assert list(table.columns) == ["größe", "wert"]
    np.testing.assert_array_equal(table["wert"], VALUES[:3])


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (["$1,234.50", "$0.25"], [1234.5, 0.25]),
        (["1.234,50 EUR", "0,25 EUR"], [1234.5, 0.25]),
        (["(12.50)", "3.10"], [-12.5, 3.1]),
        (["12,5 %", "3,1 %"], [12.5, 3.1]),
        (["12.50-", "3.10"], [-12.5, 3.1]),
    ],
)
def test_what_stands_around_numbers_is_taken_away(
    values: list[str], expected: list[float], tmp_path: Path
) -> None:
    np.testing.assert_array_equal(load(write(tmp_path / "a.csv", values, ";"))["wert"], expected)


@pytest.mark.parametrize("values", [["1.234", "2.345"], ["1,234", "2,345"]])
def test_three_digits_behind_a_mark_are_not_guessed(values: list[str], tmp_path: Path) -> None:
    file = write(tmp_path / "a.csv", values, ";")
    with pytest.raises(InvalidInputError, match=r"decimals or thousands.*--decimal"):
        load(file)
    for decimal in ".,":
        known = decimal in values[0]
        expected = [1.234, 2.345] if known else [1234, 2345]
        np.testing.assert_array_equal(load(file, Dialect(decimal=decimal))["wert"], expected)
    # other columns may tell
    table = load_table(file, Dialect())[0].assign(other="0,5")
    both = read_values(table, ["wert", "other"], ";", None)
    comma = "," in values[0]
    np.testing.assert_array_equal(both["wert"], [1.234, 2.345] if comma else [1234, 2345])


def test_a_column_with_both_marks_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="decimal points and others decimal commas"):
        load(write(tmp_path / "a.csv", ["1.5", "2,25"], ";"))


def test_text_among_numbers_stays_and_text_alone_too(tmp_path: Path) -> None:
    table = load(write(tmp_path / "a.csv", ["1,5", "oops", "2,5"], ";"))
    assert list(table["wert"]) == [1.5, "oops", 2.5]
    table = load(write(tmp_path / "a.csv", ["low", "", "high"], ";"))
    assert list(table["wert"]) == ["low", None, "high"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "has no rows"),
        ("a,b\n", "has no rows"),
        ("1,2\n3,4\n", "first line .* holds numbers or dates"),
        ("2024-01-01,2\n2024-01-02,4\n", "first line .* holds numbers or dates"),
        ("a,b\n1,2,3\n", "cannot be read with ','"),
    ],
)
def test_a_file_that_is_no_table_is_refused(text: str, message: str, tmp_path: Path) -> None:
    file = tmp_path / "a.csv"
    file.write_text(text)
    with pytest.raises(InvalidInputError, match=message):
        load_table(file, Dialect())


def test_a_line_of_excel_that_names_the_separator(tmp_path: Path) -> None:
    file = tmp_path / "a.csv"
    file.write_text("sep=;\nwert;x\n1,5;a\n")
    assert list(load(file)["wert"]) == [1.5]


def test_what_is_said_goes_before_what_is_told(tmp_path: Path) -> None:
    file = tmp_path / "a.csv"
    file.write_text("x;wert,y\n1;2,3\n")
    assert list(load_table(file, Dialect(separator=";"))[0].columns) == ["x", "wert,y"]
    file.write_bytes("größe".encode() + b",wert\n1,2\n")
    assert "gr" in load_table(file, Dialect(encoding="latin-1"))[0].columns[0]
    with pytest.raises(InvalidInputError, match="'morse' is not known"):
        load_table(file, Dialect(encoding="morse"))
    file.write_bytes("größe,wert\n1,2\n".encode("latin-1"))
    with pytest.raises(InvalidInputError, match="say --encoding"):
        load_table(file, Dialect(encoding="utf-8"))


def test_a_folder_of_parquet_is_one_table(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    for year in (2023, 2024):
        part = tmp_path / "sales" / f"year={year}"
        part.mkdir(parents=True)
        pd.DataFrame({"v": [year, year + 1]}).to_parquet(part / "part.parquet")
    table, dialect = load_table(tmp_path / "sales", Dialect())
    assert sorted(table["v"]) == [2023, 2024, 2024, 2025]
    assert dialect is None
