"""``moirai-moe backtest`` prints and writes what `backtest` computes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sktime.datasets import load_airline

from moirai_moe_forecaster import backtest, cli
from moirai_moe_forecaster.evaluation.forecasters import naive_quantiles
from moirai_moe_forecaster.inference.pipeline import MoiraiMoEPipeline


@pytest.fixture
def airline(tmp_path: Path) -> Path:
    """A file with shuffled rows and columns of other names."""
    table = load_airline().to_timestamp().rename("sold").rename_axis("month").reset_index()
    file = tmp_path / "airline.csv"
    table.sample(frac=1, random_state=0).to_csv(file, index=False)
    return file


@pytest.fixture
def panel(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    parts = [
        pd.DataFrame(
            {
                "item_id": name,
                "timestamp": pd.date_range("2020", periods=40, freq="D"),
                "target": rng.normal(size=40).cumsum(),
            }
        )
        for name in ("b", "a")
    ]
    file = tmp_path / "panel.parquet"
    pd.concat(parts).to_parquet(file)
    return file


def test_scores_are_those_of_the_library(
    airline: Path, model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "scores.csv"
    arguments = ["--horizon", "6", "--windows", "2", "--metrics", "MASE", "WQL", "coverage_80"]
    columns = ["--timestamp", "month", "--target", "sold"]
    command = ["backtest", str(airline), *arguments, *columns, "--model", model, "-o", str(output)]
    assert cli.main([*command, "--quiet", "--no-peers"]) == 0
    y = load_airline().to_timestamp()
    metrics = ("MASE", "WQL", "coverage_80")
    expected = {
        "Moirai-MoE": backtest(
            MoiraiMoEPipeline.from_pretrained(model), y, horizon=6, windows=2, metrics=metrics
        ),
        "seasonal naive": backtest(naive_quantiles, y, horizon=6, windows=2, metrics=metrics),
    }
    written = pd.read_csv(output)
    printed = capsys.readouterr()
    assert "1 series, 2 windows" in printed.out
    assert printed.err == ""
    for name, table in expected.items():
        own = written[written["model"] == name]
        for metric in metrics:
            np.testing.assert_allclose(own[metric], table[metric], rtol=1e-5)
        (line,) = (line for line in printed.out.splitlines() if line.startswith(name))
        assert f"{table['MASE'].mean():.4g}" in line
    assert not list(tmp_path.glob(".*"))


def test_levels_step_and_season_are_passed_on(
    airline: Path, model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "scores.csv"
    command = ["backtest", str(airline), "--timestamp", "month", "--target", "sold", "--quiet"]
    command += ["--horizon", "4", "--windows", "2", "--step", "2", "--levels", "0.05,0.95"]
    command += ["--seasonality", "6", "--no-peers", "--model", model, "-o", str(output)]
    assert cli.main(command) == 0
    expected = backtest(
        naive_quantiles,
        load_airline().to_timestamp(),
        horizon=4,
        windows=2,
        step=2,
        quantile_levels=[0.05, 0.95],
        seasonality=6,
    )
    written = pd.read_csv(output)
    own = written[written["model"] == "seasonal naive"]
    for column in ("n_train", "MASE", "WQL"):
        np.testing.assert_allclose(own[column], expected[column], rtol=1e-5)
    table = capsys.readouterr().out.splitlines()
    (header,) = (line for line in table if "relative MASE" in line)
    (line,) = (line for line in table if line.startswith("Moirai-MoE"))
    mase, _, relative = line.removeprefix("Moirai-MoE").split()[:3]
    naive = own["MASE"].mean()
    assert header.split()[:2] == ["MASE", "WQL"]
    assert float(relative) == pytest.approx(float(mase) / naive, rel=1e-3)


def test_a_panel_in_parquet(panel: Path, model: str, tmp_path: Path) -> None:
    output = tmp_path / "scores.parquet"
    command = ["backtest", str(panel), "--horizon", "3", "--seasonality", "7", "--quiet"]
    command += ["--no-peers"]
    assert cli.main([*command, "--model", model, "--step", "2", "-o", str(output)]) == 0
    written = pd.read_parquet(output)
    assert list(written["series"]) == ["b", "a"] * 2
    assert list(written["n_train"]) == [37] * 4


def test_progress_is_shown_unless_it_is_silenced(
    panel: Path, model: str, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["backtest", str(panel), "--horizon", "3", "--model", model, "--no-peers"]
    assert cli.main(command) == 0
    assert "2/2" in capsys.readouterr().err


def test_peers(panel: Path, model: str, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip(
        "statsforecast", reason="statsforecast, of the extra stats, is not installed"
    )
    command = ["backtest", str(panel), "--horizon", "3", "--model", model, "--quiet"]
    assert cli.main(command) == 0
    assert "AutoETS" in capsys.readouterr().out
    assert cli.main([*command, "--peers", "SeasonalNaive", "AutoTheta"]) == 0
    printed = capsys.readouterr().out
    assert "AutoTheta" in printed
    assert "AutoETS" not in printed
    assert cli.main([*command, "--no-peers"]) == 0
    assert "AutoETS" not in capsys.readouterr().out


def test_rows_without_times_are_taken_in_order(tmp_path: Path, model: str) -> None:
    file = tmp_path / "plain.csv"
    pd.DataFrame({"target": np.arange(30.0), "item_id": ["x", "y"] * 15}).to_csv(file, index=False)
    output = tmp_path / "scores.csv"
    command = ["backtest", str(file), "--horizon", "2", "--model", model, "--quiet"]
    assert cli.main([*command, "--no-peers", "-o", str(output)]) == 0
    assert list(pd.read_csv(output)["cutoff"]) == [12] * 4


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["--target", "price"],
            "has no column 'price'; it has 'item_id', 'timestamp', 'target': name yours",
        ),
        (["--windows", "99"], "series 'b' has 40 steps; 99 windows"),
        (["--metrics", "SMAPE"], "unknown metric 'SMAPE'"),
        (["--timestamp", "item_id", "--id", "timestamp"], "must hold times: row 0 holds 'b'"),
        (["--levels", "2"], "strictly between 0 and 1"),
        (["--peers", "ARIMA"], "unknown peer 'ARIMA'"),
    ],
)
def test_errors_are_one_line_before_a_model_is_loaded(
    arguments: list[str], message: str, panel: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["backtest", str(panel), "--horizon", "3", "--quiet", *arguments]
    assert cli.main([*command, "--model", "no/such/model"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("moirai-moe: error: ")
    assert message in line


def test_a_time_that_occurs_twice_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "twice.csv"
    file.write_text("timestamp,target\n2020-01-01,1\n2020-01-01,2\n")
    assert cli.main(["backtest", str(file), "--horizon", "1", "--quiet"]) == 1
    assert "row 2 (the series, 2020-01-01 00:00:00) and row 3" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["data.xlsx", "--horizon", "3"], "must be one of .csv, .parquet"),
        (["data.csv"], "required: --horizon"),
        (["data.csv", "--horizon", "3", "-o", "missing/out.csv"], "'missing' does not exist"),
    ],
)
def test_wrong_usage_exits_with_2(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        cli.main(["backtest", *arguments])
    assert stop.value.code == 2
    assert message in capsys.readouterr().err


def test_covariates_and_several_targets(tmp_path: Path, model: str) -> None:
    rng = np.random.default_rng(0)
    days = pd.date_range("2020", periods=40, freq="D")
    price, noise = rng.normal(size=40).cumsum(), rng.normal(size=(2, 40))
    values = {"sold": -2 * price + 0.1 * noise[0], "back": price + 0.1 * noise[1], "price": price}
    file, output = tmp_path / "sales.csv", tmp_path / "scores.csv"
    pd.DataFrame({"timestamp": days, **values}).to_csv(file, index=False)
    command = ["backtest", str(file), "--horizon", "3", "--model", model, "--quiet", "--no-peers"]
    command += ["--target", "sold", "back", "-o", str(output)]
    assert cli.main([*command, "--covariates", "price"]) == 0
    written = pd.read_csv(output).set_index(["model", "variate"])["MASE"]
    y = pd.DataFrame(values, index=days)
    pipeline = MoiraiMoEPipeline.from_pretrained(model)
    expected = backtest(pipeline, y[["sold", "back"]], horizon=3, X=y[["price"]])
    np.testing.assert_allclose(written["Moirai-MoE"], expected["MASE"], rtol=1e-5)
    assert cli.main(command) == 0
    without = pd.read_csv(output).set_index(["model", "variate"])["MASE"]
    assert not np.allclose(written["Moirai-MoE"], without["Moirai-MoE"])
