"""``moirai-moe forecast`` writes what `predict_df` computes."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from moirai_moe_forecaster import cli
from moirai_moe_forecaster.cli.forecast import plot_first
from moirai_moe_forecaster.data.panel import Columns
from moirai_moe_forecaster.inference.dataframe import forecast_frame
from moirai_moe_forecaster.inference.pipeline import MoiraiMoEPipeline


@pytest.fixture
def sales() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    parts = [
        pd.DataFrame(
            {
                "store": name,
                "date": pd.date_range("2024-01-01", periods=40),
                "sold": rng.normal(size=40).cumsum(),
                "price": rng.normal(size=40),
            }
        )
        for name in ("north", "south")
    ]
    return pd.concat(parts, ignore_index=True)


@pytest.fixture
def file(sales: pd.DataFrame, tmp_path: Path) -> Path:
    path = tmp_path / "sales.csv"
    sales.sample(frac=1, random_state=1).sort_values("store").to_csv(path, index=False)
    return path


NAMES = ["--id", "store", "--timestamp", "date", "--target", "sold"]
COLUMNS = {"id_column": "store", "timestamp_column": "date", "target_columns": "sold"}


def run(file: Path, model: str, *arguments: str) -> int:
    command = ["forecast", str(file), *NAMES, "--horizon", "4", "--model", model]
    return cli.main([*command, *arguments])


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_the_table_is_that_of_predict_df(
    file: Path,
    model: str,
    sales: pd.DataFrame,
    ending: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    output = tmp_path / f"out.{ending}"
    assert run(file, model, "--levels", "0.05,0.95", "--quiet", "-o", str(output)) == 0
    written = pd.read_csv(output) if ending == "csv" else pd.read_parquet(output)
    pipeline = MoiraiMoEPipeline.from_pretrained(model)
    expected = pipeline.predict_df(
        sales, 4, quantile_levels=[0.05, 0.95], random_state=0, **COLUMNS
    )
    written["date"] = pd.to_datetime(written["date"])
    pd.testing.assert_frame_equal(written, expected, rtol=1e-6, check_dtype=False)
    printed = capsys.readouterr()
    assert f"2 series, 4 steps ahead: {output}" in printed.out
    assert printed.err == ""
    assert not list(tmp_path.glob(".*"))


def test_without_an_output_the_table_is_printed_as_csv(
    file: Path, model: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(file, model) == 0
    printed = capsys.readouterr()
    table = pd.read_csv(io.StringIO(printed.out))
    assert list(table.columns) == ["store", "date", "mean", "median", "0.1", "0.5", "0.9"]
    assert len(table) == 8
    assert "2/2" in printed.err


def test_covariates_are_known_ahead_if_the_future_holds_them(
    file: Path, model: str, sales: pd.DataFrame, tmp_path: Path
) -> None:
    plan = pd.DataFrame(
        {
            "store": np.repeat(["north", "south"], 4),
            "date": np.tile(pd.date_range("2024-02-10", periods=4), 2),
            "price": np.arange(8.0),
        }
    )
    future, output = tmp_path / "plan.csv", tmp_path / "out.csv"
    plan.to_csv(future, index=False)
    own = ["--quiet", "-o", str(output), "--covariates", "price"]
    pipeline = MoiraiMoEPipeline.from_pretrained(model)
    for arguments, options in (
        (["--future", str(future)], {"future_df": plan}),
        ([], {"past_covariates": "price"}),
    ):
        assert run(file, model, *own, *arguments) == 0
        expected = pipeline.predict_df(sales, 4, random_state=0, **COLUMNS, **options)
        written = pd.read_csv(output)
        np.testing.assert_allclose(written["median"], expected["median"], rtol=1e-5)


def test_seed_and_context_are_passed_on(file: Path, model: str, tmp_path: Path) -> None:
    # paths are drawn by the very bits of the context, which a file may round
    sales, output = pd.read_csv(file), tmp_path / "out.csv"
    own = ["--quiet", "-o", str(output), "--horizon", "40", "--seed", "3", "--context-length", "24"]
    assert run(file, model, *own) == 0
    pipeline = MoiraiMoEPipeline.from_pretrained(model)
    expected = pipeline.predict_df(sales, 40, random_state=3, context_length=24, **COLUMNS)
    np.testing.assert_allclose(pd.read_csv(output)["0.9"], expected["0.9"], rtol=1e-4)
    other = pipeline.predict_df(sales, 40, random_state=0, context_length=24, **COLUMNS)
    assert not np.allclose(other["0.9"], expected["0.9"], rtol=1e-4)


def test_a_picture_has_axes_for_every_target(sales: pd.DataFrame, model: str) -> None:
    pytest.importorskip("matplotlib", reason="matplotlib, of the extra plot, is not installed")
    columns = Columns("store", "date", ["sold", "price"], [], [])
    pipeline = MoiraiMoEPipeline.from_pretrained(model)
    result = forecast_frame(pipeline, sales, None, columns, 4, random_state=0)
    axes = [ax for ax in plot_first(result).axes if ax.get_visible()]
    titles = [ax.get_title(loc="left") for ax in axes]
    assert titles == ["north, sold", "north, price", "south, sold", "south, price"]
    for ax, (series, variate) in zip(axes, np.ndindex(2, 2), strict=True):
        drawn = {line.get_label(): line.get_ydata() for line in ax.lines}
        own = sales[sales["store"] == ["north", "south"][series]]
        np.testing.assert_array_equal(drawn["history"], own[columns.targets[variate]])
        np.testing.assert_array_equal(drawn["median"], result.forecast.median[series, :, variate])


def test_a_picture_is_drawn_of_every_series(file: Path, model: str, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="matplotlib, of the extra plot, is not installed")
    picture = tmp_path / "sales.svg"
    assert run(file, model, "--quiet", "--plot", str(picture)) == 0
    text = picture.read_text()
    assert "north" in text
    assert "south" in text


def test_names_of_other_libraries_need_no_options(
    model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    days = pd.date_range("2024", periods=30)
    file = tmp_path / "nixtla.csv"
    pd.DataFrame({"unique_id": "a", "ds": days, "y": range(30)}).to_csv(file, index=False)
    command = ["forecast", str(file), "--horizon", "2", "--model", model, "--quiet"]
    assert cli.main(command) == 0
    assert capsys.readouterr().out.startswith("unique_id,ds,mean")


def test_rows_without_times_are_taken_in_order(
    model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "plain.csv"
    pd.DataFrame({"target": np.arange(30.0), "item_id": ["x", "y"] * 15}).to_csv(file, index=False)
    command = ["forecast", str(file), "--horizon", "2", "--model", model, "--quiet"]
    assert cli.main(command) == 0
    table = pd.read_csv(io.StringIO(capsys.readouterr().out))
    assert list(table["step"]) == [15, 16, 15, 16]


def test_columns_that_are_not_named_are_found_by_what_they_hold(
    model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """And rows are in the order of time, not of the file."""
    years = np.arange(1990, 2030)
    table = pd.DataFrame({"year": years, "v": np.sin(years)})
    file = tmp_path / "v.csv"
    printed = []
    for order in (table, table.sample(frac=1, random_state=0)):
        order.to_csv(file, index=False)
        assert cli.main(["forecast", str(file), "--horizon", "2", "--model", model]) == 0
        printed.append(capsys.readouterr())
    assert printed[0].out == printed[1].out
    assert list(pd.read_csv(io.StringIO(printed[0].out))["year"]) == [2030, 2031]
    assert "times: column 'year'\nvalues: column 'v'\n" in printed[0].err
    table.assign(month="2024-01").to_csv(file, index=False)
    assert cli.main(["forecast", str(file), "--horizon", "2", "--model", model]) == 1
    assert "'year', 'month' may all be that of the times" in capsys.readouterr().err


def test_a_file_of_a_spreadsheet(
    model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Semicolons, decimal commas, days that may be months, Western European letters."""
    months = pd.date_range("2023-01-01", periods=12, freq="MS")
    lines = [f"{month:%d/%m/%Y};1.{k:03d},5" for k, month in enumerate(months, 100)]
    file = tmp_path / "UMSATZ.CSV"
    file.write_bytes("\r\n".join(["Monat;Umsätze", *lines]).encode("cp1252"))
    command = ["forecast", str(file), "--horizon", "2", "--model", model, "--quiet"]
    assert cli.main(command) == 1
    assert "--dayfirst or --no-dayfirst" in capsys.readouterr().err
    assert cli.main([*command, "--dayfirst"]) == 0
    table = pd.read_csv(io.StringIO(capsys.readouterr().out))
    assert list(table["Monat"]) == ["2024-01-01", "2024-02-01"]
    assert table["median"].between(1000, 1300).all()


def test_bad_series_are_left_out_and_what_was_read_is_said(
    file: Path, model: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with file.open("a") as lines:
        lines.write("east,2024-01-05,7,1\neast,2024-01-05,8,1\n")
    assert run(file, model, "--quiet") == 1
    assert "have the same id and time" in capsys.readouterr().err
    assert run(file, model, "--quiet", "--on-error", "skip", "--verbose") == 0
    printed = capsys.readouterr()
    assert set(pd.read_csv(io.StringIO(printed.out))["store"]) == {"north", "south"}
    assert "2 series, 80 rows, times are datetimes, frequency D" in printed.err
    assert "1 series skipped" in printed.err
    assert "skipped 'east': two rows have the same time" in printed.err


def test_warnings_are_one_line(
    file: Path, model: str, sales: pd.DataFrame, capsys: pytest.CaptureFixture[str]
) -> None:
    sales.drop(range(10, 20)).to_csv(file, index=False)
    assert run(file, model, "--quiet") == 0
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("moirai-moe: warning: 1 of 2 series have no row in more than 10%")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--target", "cost"], "has no column 'cost'; it has 'store', 'date', 'sold', 'price'"),
        (["--covariates", "wind"], "has no column 'wind'"),
        (["--levels", "0.5,2"], "strictly between 0 and 1"),
        (["--horizon", "0"], "horizon must be an integer of at least 1"),
        (["--freq", "often"], "alias of pandas"),
    ],
)
def test_errors_are_one_line(
    arguments: list[str],
    message: str,
    file: Path,
    model: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run(file, model, "--quiet", *arguments) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("moirai-moe: error: ")
    assert message in line


def test_a_row_is_known_by_its_line_in_the_file(
    file: Path, model: str, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = file.read_text().splitlines()
    lines[6] = lines[6].replace("2024", "year")
    file.write_text("\n".join(lines))
    assert run(file, model, "--quiet") == 1
    assert "row 7 holds 'year" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["", "store,date,sold\n"])
def test_an_empty_file_is_called_so(
    text: str, file: Path, model: str, capsys: pytest.CaptureFixture[str]
) -> None:
    file.write_text(text)
    assert run(file, model, "--quiet") == 1
    assert f"{file} has no rows; give a line of column names" in capsys.readouterr().err


def test_one_value_that_is_no_number_is_the_row_that_is_named(
    file: Path, sales: pd.DataFrame, model: str, capsys: pytest.CaptureFixture[str]
) -> None:
    sold = sales["sold"].astype(str).where(sales.index != 5, "oops")
    sales.assign(sold=sold).to_csv(file, index=False)
    assert run(file, model, "--quiet") == 1
    assert "row 7 holds 'oops'; correct it" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("command", "option"),
    [
        ("forecast", "--covariates"),
        ("forecast", "--target"),
        ("backtest", "--metrics"),
        ("backtest", "--peers"),
        ("finetune", "--freeze"),
    ],
)
def test_a_file_behind_an_option_of_several_names_is_not_one_of_them(
    command: str, option: str, file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        cli.main([command, "--horizon", "4", option, "price", str(file)])
    assert stop.value.code == 2
    said = capsys.readouterr().err
    assert f"usage: moirai-moe {command} DATA [options]" in said
    assert f"argument {option}: takes '{file}' for a name; give the file of data before" in said


def test_a_name_may_look_like_a_file_once_the_file_is_given(
    file: Path, sales: pd.DataFrame, model: str, capsys: pytest.CaptureFixture[str]
) -> None:
    sales.rename(columns={"price": "price.csv"}).to_csv(file, index=False)
    assert run(file, model, "--quiet", "--covariates", "price.csv") == 0


@pytest.mark.parametrize("column", ["store", "date"])
def test_a_level_does_not_overwrite_ids_or_times(
    column: str,
    file: Path,
    sales: pd.DataFrame,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    sales.rename(columns={column: "0.5"}).to_csv(file, index=False)
    output = tmp_path / "out.csv"
    names = ["0.5" if name == column else name for name in NAMES]
    command = ["forecast", str(file), *names, "--horizon", "4", "-o", str(output)]
    # before any work: the checkpoint, which does not exist, is not looked for
    assert cli.main([*command, "--model", str(tmp_path / "none")]) == 1
    assert "column '0.5' has the name of a level's column" in capsys.readouterr().err
    assert not output.exists()


def test_a_future_without_the_covariates_is_refused(
    file: Path, model: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(file, model, "--quiet", "--future", str(file)) == 1
    assert "holds none of the covariates" in capsys.readouterr().err


def test_an_output_that_cannot_be_written_leaves_the_old_one(
    file: Path, model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fill_the_disk(_: object, path: Path, **__: object) -> None:
        path.write_bytes(b"half a ta")
        raise OSError("no space left")

    monkeypatch.setattr("pandas.DataFrame.to_csv", fill_the_disk)
    output = tmp_path / "old.csv"
    output.write_text("old")
    assert run(file, model, "--quiet", "-o", str(output)) == 1
    assert output.read_text() == "old"
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["data.xlsx", "--horizon", "3"], "must be one of .csv, .parquet"),
        (["data.csv"], "required: --horizon"),
        (["data.csv", "--horizon", "3", "--plot", "p.gif"], "must be one of .pdf, .png, .svg"),
        (["data.csv", "--horizon", "3", "--levels", "low"], "levels must be numbers"),
    ],
)
def test_wrong_usage_exits_with_2(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        cli.main(["forecast", *arguments])
    assert stop.value.code == 2
    assert message in capsys.readouterr().err


def test_ids_are_the_text_of_the_file(model: str, tmp_path: Path) -> None:
    days = pd.date_range("2024-01-01", periods=20)
    data, plan, output = (tmp_path / name for name in ("data.csv", "plan.csv", "out.csv"))
    whole = pd.concat(
        [
            pd.DataFrame({"item_id": name, "timestamp": days, "x": 1.0})
            for name in ("007", "7", "NA")
        ]
    )
    whole.assign(target=np.arange(60) % 7)[whole["timestamp"] < days[16]].to_csv(data, index=False)
    whole[whole["timestamp"] >= days[16]].to_csv(plan, index=False)
    command = ["forecast", str(data), "--horizon", "4", "--model", model, "-o", str(output)]
    assert cli.main([*command, "--covariates", "x", "--future", str(plan)]) == 0
    ids = pd.read_csv(output, dtype=str, keep_default_na=False)["item_id"]
    assert list(ids.unique()) == ["007", "7", "NA"]


def test_an_empty_id_is_missing(
    model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "data.csv"
    data.write_text("item_id,timestamp,target\na,2024-01-01,1\n,2024-01-02,2\n")
    assert cli.main(["forecast", str(data), "--horizon", "4", "--model", model]) == 1
    assert "no id in 1 rows, the first of them row 3" in capsys.readouterr().err
