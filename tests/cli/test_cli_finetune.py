"""``moirai-moe finetune`` writes what `fine_tune` gives, for ``--model`` to take."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from moirai_moe_forecaster import cli
from moirai_moe_forecaster.checkpoint.adapters import ADAPTERS_FILE
from moirai_moe_forecaster.data.panel import read_panel
from moirai_moe_forecaster.inference.pipeline import MoiraiMoEPipeline
from tiny_network import tiny_network

QUICK = ["--horizon", "6", "--steps", "8", "--learning-rate", "5e-3", "--quiet"]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    directory = tmp_path_factory.mktemp("model")
    MoiraiMoEPipeline(tiny_network()).save_pretrained(directory)
    return str(directory)


@pytest.fixture
def panel(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    times = pd.date_range("2020", periods=90, freq="D")
    parts = [
        pd.DataFrame({"store": name, "date": times, "sold": np.sin(np.arange(90)) + rng.random(90)})
        for name in ("b", "a")
    ]
    file = tmp_path / "panel.csv"
    pd.concat(parts).to_csv(file, index=False)
    return file


COLUMNS = ["--id", "store", "--timestamp", "date", "--target", "sold"]


def test_the_result_is_that_of_the_library_and_can_be_used(
    panel: Path, model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "tuned"
    command = ["finetune", str(panel), *COLUMNS, *QUICK, "--model", model, "--device", "cpu"]
    assert cli.main([*command, "--output", str(output)]) == 0
    printed = capsys.readouterr()
    assert printed.err == ""
    assert "WQL" in printed.out
    assert "inside 80 % interval" in printed.out
    names = {"id_column": "store", "timestamp_column": "date", "target_columns": "sold"}
    y = read_panel(pd.read_csv(panel), **names)
    expected = MoiraiMoEPipeline.from_pretrained(model).fine_tune(
        y, horizon=6, max_steps=8, learning_rate=5e-3, progress=False, random_state=0
    )
    loaded = MoiraiMoEPipeline.from_pretrained(output)
    ours, theirs = (p.predict(y, 6, random_state=0).median for p in (loaded, expected))
    np.testing.assert_array_equal(ours, theirs)
    backtest = ["backtest", str(panel), *COLUMNS, "--horizon", "6", "--quiet"]
    assert cli.main([*backtest, "--model", str(output)]) == 0
    assert cli.main([*command, "--output", str(output)]) == 1
    assert "holds a run" in capsys.readouterr().err
    assert cli.main([*command, "--output", str(output), "--resume"]) == 0


def test_adapters_alone(panel: Path, model: str, tmp_path: Path) -> None:
    output = tmp_path / "adapters"
    options = ["--write", "adapters", "--rank", "2", "--targets", "experts"]
    command = ["finetune", str(panel), *COLUMNS, *QUICK, *options, "--model", model]
    assert cli.main([*command, "--validation", "0.1", "--output", str(output)]) == 0
    assert (output / ADAPTERS_FILE).is_file()
    assert not (output / "config.json").exists()
    assert MoiraiMoEPipeline.from_pretrained(output).config == tiny_network().config


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--freeze", "layers.*"], "matches no parameter"),
        (["--targets", "q_proj"], "matches no weight"),
        (["--mode", "full", "--rank", "3"], "is for mode='lora'"),
        (["--mode", "full", "--write", "adapters"], "has no adapters"),
        (["--target", "price"], "price"),
    ],
)
def test_errors_are_one_line_and_nothing_is_written(
    arguments: list[str],
    message: str,
    panel: Path,
    model: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    output = tmp_path / "out"
    command = ["finetune", str(panel), *COLUMNS, *QUICK, "--model", model, "--output", str(output)]
    assert cli.main([*command, *arguments]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line
    assert not output.exists()


@pytest.mark.parametrize(
    ("write", "message"), [("model", "holds a checkpoint"), ("adapters", "a whole checkpoint")]
)
def test_a_checkpoint_is_not_written_over(
    write: str,
    message: str,
    panel: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    other = tmp_path / "other"
    MoiraiMoEPipeline(tiny_network(seed=1)).save_pretrained(other)
    before = {file.name: file.read_bytes() for file in other.iterdir()}
    command = ["finetune", str(panel), *COLUMNS, *QUICK, "--model", str(other), "--write", write]
    assert cli.main([*command, "--output", str(other)]) == 1
    assert message in capsys.readouterr().err
    assert {file.name: file.read_bytes() for file in other.iterdir()} == before


def test_an_output_that_cannot_be_made_is_told_before_training(
    panel: Path, model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    command = ["finetune", str(panel), *COLUMNS, *QUICK, "--model", model]
    assert cli.main([*command, "--output", str(tmp_path / "file" / "deep")]) == 1
    assert "cannot be made" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["data.xlsx", "--output", "x"], "must be one of .csv, .parquet"),
        (["data.csv"], "required: --output"),
        (["data.csv", "--output", "x", "--validation", "2"], "must be time, none or a share"),
        (["data.csv", "--output", "x", "--mode", "some"], "invalid choice"),
    ],
)
def test_wrong_usage_exits_with_2(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        cli.main(["finetune", *arguments])
    assert stop.value.code == 2
    assert message in capsys.readouterr().err
