"""Commands take the lengths of cycles, and say what they found."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from moirai_moe_forecaster import backtest, cli
from moirai_moe_forecaster.cli.seasons import describe_cycles, season_length
from moirai_moe_forecaster.evaluation import Variant
from moirai_moe_forecaster.inference.pipeline import MoiraiMoEPipeline
from tiny_network import tiny_network

LENGTH = 12


@pytest.fixture(scope="module")
def seeker(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Directory of a tiny checkpoint that looks for cycles."""
    directory = tmp_path_factory.mktemp("seeker")
    MoiraiMoEPipeline(tiny_network(find_seasons=True)).save_pretrained(directory)
    return str(directory)


def cyclic(name: str, seed: int) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    values = np.tile(rng.normal(size=LENGTH), 20) + 0.1 * rng.normal(size=20 * LENGTH)
    times = pd.date_range("2024-01-01", periods=len(values), freq="h")
    return pd.DataFrame({"item_id": name, "timestamp": times, "target": values})


@pytest.fixture
def table() -> pd.DataFrame:
    walk = np.random.default_rng(2).normal(size=240).cumsum()
    parts = [cyclic("b", 0), cyclic("c", 1), cyclic("a", 0).assign(target=walk)]
    return pd.concat(parts, ignore_index=True)


@pytest.fixture
def file(table: pd.DataFrame, tmp_path: Path) -> Path:
    path = tmp_path / "data.csv"
    table.to_csv(path, index=False)
    return path


def seasons(*rows: tuple[int, int, int | None, float, float]) -> pd.DataFrame:
    table = pd.DataFrame(rows, columns=["series", "variate", "period", "strength", "plain"])
    return table.astype({"period": "Int64"}).assign(cycle=1 - table["plain"])


# --- the option -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "lengths"),
    [("auto", "auto"), ("none", None), ("None", None), ("24", [24]), ("24, 168", [24, 168])],
)
def test_lengths_are_read(text: str, lengths: object) -> None:
    assert season_length(text) == lengths


@pytest.mark.parametrize("text", ["", "day", "24;168", "1.5", "24,", "0", "-7", "24,0"])
def test_what_is_no_length_is_refused(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match=r"auto, none, or steps .* got"):
        season_length(text)


@pytest.mark.parametrize("command", ["forecast", "backtest"])
def test_a_wrong_length_is_wrong_usage(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        cli.main([command, "data.csv", "--horizon", "4", "--season-length", "daily"])
    assert stop.value.code == 2
    printed = capsys.readouterr().err
    assert "argument --season-length: the season length must be auto, none, or steps" in printed
    assert "such as 24 or 24,168; got 'daily'" in printed


# --- what is said -----------------------------------------------------------------------------


def test_nothing_was_found() -> None:
    assert describe_cycles(seasons((0, 0, None, 0.0, 1.0))) == "cycles: none found"


def test_the_periods_of_one_series_are_said() -> None:
    table = seasons((0, 0, 24, 0.963, 0.25), (0, 0, 168, 0.5, 0.25))
    assert describe_cycles(table) == (
        "cycles: 24 steps (strength 0.96), 168 steps (strength 0.50); views with cycles count 75%"
    )


def test_of_many_series_the_most_common_periods_are_said() -> None:
    """Every series counts once, however many periods it has; those without count nowhere."""
    table = seasons(
        (0, 0, 24, 0.9, 0.2),
        (0, 0, 168, 0.5, 0.2),
        (1, 0, 24, 0.9, 0.6),
        (2, 0, None, 0.0, 1.0),
    )
    assert describe_cycles(table) == (
        "cycles in 2 of 3 series: 24 steps (2), 168 steps (1); there, views with cycles count "
        "60% on average"
    )
    more = [(series, 0, length, 0.9, 0.2) for series, length in enumerate((7, 7, 5, 5, 4, 4, 3))]
    assert "7 of 7 series: 7 steps (2), 5 steps (2), 4 steps (2), ...; " in describe_cycles(
        seasons(*more)
    )
    assert "in 2 of 2 variates" in describe_cycles(seasons((0, 0, 7, 1, 0), (0, 1, 7, 1, 0)))


# --- forecast ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "value"), [("auto", "auto"), ("none", None), ("12", 12), ("12,24", [12, 24])]
)
def test_forecasts_are_those_of_predict_df(
    text: str, value: object, file: Path, table: pd.DataFrame, seeker: str, tmp_path: Path
) -> None:
    output = tmp_path / "out.csv"
    command = ["forecast", str(file), "--horizon", "8", "--model", seeker, "--quiet"]
    assert cli.main([*command, "--season-length", text, "-o", str(output)]) == 0
    pipeline = MoiraiMoEPipeline.from_pretrained(seeker)
    expected = pipeline.predict_df(
        pd.read_csv(file), 8, season_length=value, random_state=0, quantile_levels=[0.1, 0.9]
    )
    np.testing.assert_allclose(pd.read_csv(output)["0.9"], expected["0.9"], rtol=1e-4)


def test_what_was_found_is_said_beside_the_table(
    file: Path, seeker: str, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["forecast", str(file), "--horizon", "8", "--model", seeker]
    assert cli.main(command) == 0
    printed = capsys.readouterr()
    (line,) = (line for line in printed.err.splitlines() if "cycles" in line)
    assert line.startswith("cycles in 2 of 3 series: 12 steps (2)")
    assert "cycles" not in printed.out
    assert cli.main([*command, "--quiet"]) == 0
    assert capsys.readouterr().err == ""
    assert cli.main([*command, "--season-length", "none"]) == 0
    assert "cycles" not in capsys.readouterr().err


def test_a_checkpoint_that_does_not_look_for_cycles_does_not_say_there_are_none(
    file: Path, model: str, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["forecast", str(file), "--horizon", "8", "--model", model]
    assert cli.main(command) == 0
    assert "cycles" not in capsys.readouterr().err
    assert cli.main([*command, "--season-length", "12"]) == 0
    assert "cycles in 3 of 3 series: 12 steps (3);" in capsys.readouterr().err


# --- backtest and demo ------------------------------------------------------------------------


def test_backtests_forecast_with_the_cycles_that_are_named(
    file: Path, table: pd.DataFrame, seeker: str, tmp_path: Path
) -> None:
    output = tmp_path / "scores.csv"
    command = ["backtest", str(file), "--horizon", "8", "--model", seeker, "--quiet", "--no-peers"]
    y = table.set_index(["item_id", "timestamp"])["target"]
    pipeline = MoiraiMoEPipeline.from_pretrained(seeker)
    scores = {}
    for text, value in (("auto", "auto"), ("none", None), ("24", 24)):
        assert cli.main([*command, "--season-length", text, "-o", str(output)]) == 0
        written = pd.read_csv(output)
        scores[text] = written.loc[written["model"] == "Moirai-MoE", "MASE"].to_numpy()
        expected = backtest(Variant(pipeline, {"season_length": value}), y, horizon=8)
        np.testing.assert_allclose(scores[text], expected["MASE"], rtol=1e-4)
    assert not np.allclose(scores["auto"], scores["none"], rtol=1e-2)
    assert not np.allclose(scores["auto"], scores["24"], rtol=1e-3)


def test_the_demo_says_what_it_found(
    seeker: str, model: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    picture = ["--output", str(tmp_path / "demo.svg")]
    assert cli.main(["demo", "--model", seeker, *picture]) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if "cycles" in line]
    assert len(lines) == 2
    assert lines[0].startswith("cycles: 12 steps (strength 0.9")
    assert cli.main(["demo", "--model", model, *picture]) == 0
    assert "cycles" not in capsys.readouterr().out
