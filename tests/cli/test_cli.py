"""The command line prints and writes what the library computes."""

import contextlib
import io
import json
import os
import socket
import subprocess
import sys
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
import torch
from sktime.datasets import load_airline

from moirai_moe_forecaster import __version__, cli
from moirai_moe_forecaster.cli import demo, pretrain
from moirai_moe_forecaster.config import ModelConfig
from moirai_moe_forecaster.errors import CheckpointError, ConfigError
from moirai_moe_forecaster.evaluation import LEVELS, mase, weighted_quantile_loss
from moirai_moe_forecaster.inference.pipeline import MoiraiMoEPipeline
from moirai_moe_forecaster.model.network import MoiraiMoE

BUNDLED = files("moirai_moe_forecaster") / "weights" / "model.safetensors"
SIZES = {
    "d_model": 16,
    "d_ff": 16,
    "num_layers": 2,
    "num_heads": 2,
    "num_experts": 4,
    "experts_per_token": 1,
}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    torch.manual_seed(0)
    directory = tmp_path_factory.mktemp("random_model")
    MoiraiMoEPipeline(MoiraiMoE(ModelConfig(**SIZES))).save_pretrained(directory)
    return str(directory)


@pytest.fixture(scope="module")
def demo_output(model: str) -> str:
    with contextlib.redirect_stdout(io.StringIO()) as out:
        assert cli.main(["demo", "--model", model, "--output", str(Path(model, "demo.png"))]) == 0
    return out.getvalue()


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def table(text: str, first: str) -> dict[str, list[str]]:
    """Rows of the printed table whose header begins with `first`, by their first cell."""
    lines = text.splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith(first)) + 1
    rows = []
    for line in lines[start:]:
        if not line:
            break
        rows.append([cell for cell in line.split("  ") if cell])
    return {name.strip(): [cell.strip() for cell in cells] for name, *cells in rows}


# --- demo -------------------------------------------------------------------------------------


def test_demo_prints_the_forecast_beside_the_truth(model: str, demo_output: str) -> None:
    rows = table(demo_output, "month")
    airline = load_airline()
    history, truth = airline[:-36], airline[-36:]
    forecast = MoiraiMoEPipeline.from_pretrained(model).predict(history, 36, random_state=0)
    assert list(rows) == [str(month) for month in truth.index]
    expected = np.stack([forecast.median, *forecast.interval(0.8), truth], axis=1)
    np.testing.assert_allclose(np.array([*rows.values()], float), expected, atol=0.5001)


def test_demo_scores_against_the_seasonal_naive(model: str, demo_output: str) -> None:
    rows = table(demo_output, "lower is better")
    airline = load_airline().to_numpy()
    history, truth = airline[:-36], airline[-36:]
    forecast = MoiraiMoEPipeline.from_pretrained(model).predict(history, 36, random_state=0)
    naive, scale = np.tile(history[-12:], 3), np.abs(history[12:] - history[:-12]).mean()
    expected = {
        "Moirai-MoE": (
            mase(truth[None], forecast.median[None], [history], 12),
            weighted_quantile_loss(truth[None], forecast.quantile(LEVELS)[None]),
        ),
        "seasonal naive": (
            np.abs(truth - naive).mean() / scale,
            np.abs(truth - naive).sum() / truth.sum(),
        ),
    }
    for name, scores in expected.items():
        np.testing.assert_allclose(np.array(rows[name], float), scores, atol=0.00051)


def test_demo_forecasts_the_us_economy_as_a_panel(model: str, demo_output: str) -> None:
    rows = table(demo_output, "in 2013Q4")
    data = demo.us_change()
    panel = [data[:-12][name] for name in data]
    forecast = MoiraiMoEPipeline.from_pretrained(model).predict(panel, 12, random_state=0)
    lower, upper = forecast.interval(0.8)
    assert list(rows) == ["Consumption", "Income", "Production", "Savings", "Unemployment"]
    for series, (*numbers, inside) in enumerate(rows.values()):
        truth = data.iloc[-12:, series].to_numpy()
        edges = lower[series], upper[series]
        expected = [forecast.median[series, 0], edges[0][0], edges[1][0], truth[0]]
        np.testing.assert_allclose(np.array(numbers, float), expected, atol=0.00501)
        assert inside == f"{((edges[0] <= truth) & (truth <= edges[1])).sum()} of 12"


def test_demo_says_which_checkpoint_and_how_long(model: str, demo_output: str) -> None:
    for part in (Path(model).name, "licence", "parameters", "loaded in "):
        assert part in demo_output


def test_demo_opens_no_connection(model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("the demo opened a connection")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    assert cli.main(["demo", "--model", model]) == 0


def test_demo_writes_its_picture_and_nothing_else(
    model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cli.main(["demo", "--model", model])
    assert [path.name for path in tmp_path.iterdir()] == ["moirai_moe_demo.png"]
    picture = tmp_path / "moirai_moe_demo.png"
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert f"picture: {picture}" in capsys.readouterr().out


def test_demo_writes_the_format_of_the_ending(model: str, tmp_path: Path) -> None:
    assert cli.main(["demo", "--model", model, "--output", "demo.svg"]) == 0
    assert "<svg" in (tmp_path / "demo.svg").read_text()


def test_the_picture_shows_both_examples(model: str) -> None:
    pipeline = MoiraiMoEPipeline.from_pretrained(model)
    airline = demo.forecast_end(pipeline, demo.airline(), 36)
    us_change = demo.forecast_end(pipeline, demo.us_change(), 12)
    first, *others = demo.plot_examples(airline, us_change).axes
    assert [ax.get_title(loc="left") for ax in others] == list(us_change.truth.columns)
    lines = {line.get_label(): line.get_ydata() for line in first.lines}
    np.testing.assert_array_equal(lines["history"], airline.history)
    np.testing.assert_array_equal(lines["truth"], airline.truth)
    np.testing.assert_array_equal(lines["median"], airline.forecast.median)
    for series, ax in enumerate(others):
        lines = {line.get_label(): line.get_ydata() for line in ax.lines}
        np.testing.assert_array_equal(lines["truth"], us_change.truth.iloc[:, series])
        np.testing.assert_array_equal(lines["median"], us_change.forecast.median[series])


def test_a_picture_that_cannot_be_written_leaves_the_old_one(
    model: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fill_the_disk(_: object, path: Path, **__: object) -> None:
        path.write_bytes(b"half a pic")
        raise OSError("no space left")

    monkeypatch.setattr("matplotlib.figure.Figure.savefig", fill_the_disk)
    picture = tmp_path / "old.png"
    picture.write_bytes(b"old")
    assert cli.main(["demo", "--model", model, "--output", str(picture)]) == 1
    assert "no space left" in capsys.readouterr().err
    assert picture.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [picture]


def test_demo_without_matplotlib_still_prints(
    model: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    assert cli.main(["demo", "--model", model]) == 0
    assert "no picture" in capsys.readouterr().out
    assert cli.main(["demo", "--model", model, "--output", "wanted.png"]) == 1
    assert "pip install 'moirai-moe-forecaster[plot]'" in capsys.readouterr().err


@pytest.mark.skipif(
    not BUNDLED.is_file(), reason="the bundled checkpoint is not in this source tree"
)
def test_the_bundled_model_beats_the_seasonal_naive(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["demo"]) == 0
    rows = table(capsys.readouterr().out, "lower is better")
    for ours, naive in zip(rows["Moirai-MoE"], rows["seasonal naive"], strict=True):
        assert float(ours) < float(naive)


# --- info -------------------------------------------------------------------------------------


def test_info_names_versions_sizes_and_licence(
    model: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["info", "--model", model]) == 0
    lines = capsys.readouterr().out.splitlines()
    facts = dict(line.split(maxsplit=1) for line in lines if line)
    assert facts["moirai-moe-forecaster"] == __version__
    assert facts["torch"] == torch.__version__
    assert facts["threads"] == str(torch.get_num_threads())
    assert facts["licence"] == "unspecified"
    assert {name: int(facts[name]) for name in SIZES} == SIZES


# --- pretrain ---------------------------------------------------------------------------------


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    rng = np.random.default_rng(0)
    series = [rng.normal(size=rng.integers(50, 300)).astype(np.float32) for _ in range(25)]
    folder = tmp_path / "corpus"
    folder.mkdir()
    parquet.write_table(
        pyarrow.table({"y": [part.tolist() for part in series]}), folder / "a.parquet"
    )
    return folder


def test_pretrain_stops_resumes_and_leaves_a_checkpoint(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        ModelConfig, "preset", lambda name: ModelConfig(**{**SIZES, "max_seq_len": 32})
    )
    output = tmp_path / "run"
    command = ["pretrain", "--data", str(corpus), "--output", str(output), "--quiet"]
    first = ["--seed", "3", "--set", "batch_rows=2", "--set", "clip_norm=2"]
    assert cli.main([*command, "--resume", "--steps", "1"]) == 1
    assert cli.main([*command, "--steps", "1", *first]) == 0
    assert cli.main([*command, "--steps", "2"]) == 1
    later = ["--set", "clip_norm=3", "--device", "cpu", "--minutes", "0"]
    assert cli.main([*command, "--steps", "9", "--resume", *later]) == 0
    run = json.loads((output / "run.json").read_text())
    assert (run["step"], run["training"]["steps"], run["training"]["seed"]) == (2, 9, 3)
    assert (run["training"]["batch_rows"], run["training"]["clip_norm"]) == (2, 3)
    assert MoiraiMoEPipeline.from_pretrained(output).config.d_model == SIZES["d_model"]


def test_pretrain_goes_on_in_the_architecture_of_a_checkpoint(
    corpus: Path, model: str, tmp_path: Path
) -> None:
    command = ["pretrain", "--data", str(corpus), "--output", str(tmp_path / "run"), "--quiet"]
    small = ["--set", "batch_rows=2", "--set", "max_points=256"]
    assert cli.main([*command, "--steps", "1", "--initial", model, *small]) == 0
    assert cli.main([*command, "--steps", "2", "--resume"]) == 0
    assert MoiraiMoEPipeline.from_pretrained(tmp_path / "run").config.d_model == SIZES["d_model"]


def test_pretrain_takes_any_field_of_the_training_configuration() -> None:
    settings = ["learning_rate=2e-3", "precision=bfloat16", "betas=[0.8, 0.9]", "batch_rows=32"]
    training = pretrain.training_config(settings, 7, 3, {"clip_norm": 5.0})
    assert (training.steps, training.seed, training.batch_rows) == (7, 3, 32)
    assert (training.learning_rate, training.betas) == (2e-3, (0.8, 0.9))
    assert (training.precision, training.clip_norm) == ("bfloat16", 5.0)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("learning_rate", "--set takes NAME=VALUE, got 'learning_rate'"),
        ("steps=3", "--set steps=3: use --steps instead"),
        ("epochs=3", "unknown TrainConfig fields ['epochs']"),
        ("precision=half", "precision must be one of ['float32', 'bfloat16'], got 'half'"),
        ("batch_rows=many", "batch_rows must be a positive integer, got 'many'"),
    ],
)
def test_a_setting_that_is_none_is_refused_before_any_data_is_read(
    setting: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["pretrain", "--data", "missing", "--steps", "3", "--output", "run"]
    assert cli.main([*command, "--set", setting]) == 1
    assert message in capsys.readouterr().err
    assert not Path("run").exists()


def test_pretrain_reads_weights_of_sources_and_series_to_leave_out(tmp_path: Path) -> None:
    file = tmp_path / "corpus.json"
    file.write_text('{"weights": {"a": 2}, "exclude": {"b": ["x"]}}')
    assert pretrain.corpus_options(file) == ({"a": 2}, {"b": ["x"]})
    assert pretrain.corpus_options(None) == ({}, {})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("spam", "is not valid JSON"),
        ('{"weigths": {}}', "with the keys 'weights' and 'exclude'"),
        ('{"weights": ["a"]}', "must be JSON objects by source"),
        ('{"exclude": {"b": "x"}}', "must have a list of ids for 'b'"),
    ],
)
def test_pretrain_refuses_other_options_of_a_corpus(
    text: str, message: str, tmp_path: Path
) -> None:
    (tmp_path / "corpus.json").write_text(text)
    with pytest.raises(ConfigError, match=message):
        pretrain.corpus_options(tmp_path / "corpus.json")


def test_pretrain_knows_the_presets_of_the_configuration() -> None:
    for name in pretrain.PRESETS:
        assert ModelConfig.preset(name)


# --- errors and help --------------------------------------------------------------------------


def test_an_error_is_one_line_without_a_traceback(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    missing = str(tmp_path / "missing")
    assert cli.main(["info", "--model", missing]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("moirai-moe: error: ")
    assert missing in line


def test_debug_shows_the_traceback(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError):
        cli.main(["info", "--debug", "--model", str(tmp_path / "missing")])


def test_an_interrupt_is_not_a_traceback_either(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(MoiraiMoEPipeline, "from_pretrained", interrupt)
    assert cli.main(["demo"]) == 130
    assert capsys.readouterr().err == "moirai-moe: interrupted\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "required: COMMAND"),
        (["forecasts"], "invalid choice: 'forecasts'"),
        (["demo", "--output", "picture.gif"], "must be one of .pdf, .png, .svg"),
        (["demo", "--output", "missing/picture.png"], "folder 'missing' does not exist"),
        (["pretrain", "--data", "x", "--output", "y"], "required: --steps"),
    ],
)
def test_wrong_usage_exits_with_2(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        cli.main(arguments)
    assert stop.value.code == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("command", ["demo", "info", "forecast", "backtest", "routing", "pretrain"])
def test_every_command_teaches_by_example(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main([command, "--help"])
    assert f"examples:\n  moirai-moe {command}" in capsys.readouterr().out


def test_help_imports_neither_torch_nor_sktime() -> None:
    code = (
        "import sys; from moirai_moe_forecaster.cli import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: print(sorted({'torch', 'sktime', 'pandas'} & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.stdout.splitlines()[-1] == "[]", result.stderr


def test_the_module_can_be_run() -> None:
    command = [sys.executable, "-m", "moirai_moe_forecaster.cli", "--version"]
    result = subprocess.run(command, capture_output=True, text=True)
    assert (result.returncode, result.stdout.strip()) == (0, f"moirai-moe {__version__}")


def test_a_reader_that_leaves_early_is_no_error_message(model: str) -> None:
    command = [sys.executable, "-m", "moirai_moe_forecaster.cli", "demo", "--model", model]
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    process.stdout.close()
    assert process.stderr.read() == b""
    assert process.wait() == 1
