"""The benchmark scripts run on a folder, and go on where they were interrupted."""

from __future__ import annotations

import json
import os
import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from moirai_moe_forecaster.inference.pipeline import MoiraiMoEPipeline
from tiny_network import tiny_network

SCRIPTS = Path(__file__).parents[2] / "examples" / "benchmarks"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    directory = tmp_path_factory.mktemp("model")
    MoiraiMoEPipeline(tiny_network()).save_pretrained(directory)
    return str(directory)


def run(script: str, *arguments: str | Path) -> str:
    result = subprocess.run(
        [sys.executable, SCRIPTS / script, *map(str, arguments)],
        env={**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_sets(model: str, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"unique_id": np.repeat(["a", "b"], 40), "y": rng.normal(size=80) + 9})
    frame.to_parquet(tmp_path / "some.parquet")
    facts = {"seasonality": 4, "horizon": 6, "offset": -6, "freq": "QS"}
    (tmp_path / "some.json").write_text(json.dumps(facts))
    published = tmp_path / "published"
    published.mkdir()
    (published / "all.csv").write_text(
        "dataset,model,MASE,WQL\nsome,seasonal-naive,1,1\nsome,bolt,0.5,0.25\n"
    )
    command = ("evaluate.py", tmp_path, "--model", model, "--published", published, "--quiet")
    first = run(*command, "--output", tmp_path / "out")
    assert "| bolt (published) | 1 | 0.500 | 0.250 |  |" in first
    assert "quarterly (1)" in first
    assert sorted(path.name for path in (tmp_path / "out").rglob("*.json")) == ["some.json"] * 2
    # stored times are printed again, so that nothing was computed
    assert run(*command, "--output", tmp_path / "out") == first


def test_the_papers_sets(model: str, tmp_path: Path) -> None:
    values = ",".join(str(value % 12 + value % 5) for value in range(40))
    header = "@attribute series_name string\n@frequency monthly\n@data\n"
    (tmp_path / "hospital_dataset.tsf").write_text(f"{header}T1:{values}\nT2:{values}\n")
    pd.DataFrame({"y": [np.arange(60.0) % 7]}).to_parquet(tmp_path / "walmart.parquet")
    printed = run("paper_protocols.py", tmp_path, "--model", model, "--quiet")
    for part in (
        "| Hospital |",
        "| 23 | 19.4 | 19.44 | 24.07 |",
        "geometric mean over 1 of 29",
        "| Walmart |",
        "| 0.103, 1.048 |",
        "geometric mean over 1 of 10",
        "| Moirai-MoE-Small, published, over all 10 | 0.497 | 0.670 |",
        "not there: M1 Monthly",
    ):
        assert part in printed


def test_long_horizons(model: str, tmp_path: Path) -> None:
    hours = np.arange(3000)
    rng = np.random.default_rng(0)
    # every twentieth series, from the tenth on, has its last fifth held out
    table = {
        "unique_id": [str(number) for number in range(20)],
        "freq": ["h"] * 20,
        "y": [np.sin(hours * np.pi / 12) + rng.normal(size=3000) / 9 for _ in range(20)],
    }
    pd.DataFrame(table).to_parquet(tmp_path / "waves.parquet")
    printed = run("long_horizon.py", tmp_path, "--model", model, "--horizons", "480")
    assert "| 480 x h | 1 |" in printed


def test_validation_sources(model: str, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    table = {"unique_id": ["a", "b"], "freq": "h", "start": None}
    table["y"] = [9 + rng.normal(size=length) for length in (150, 99)]
    pd.DataFrame(table).to_parquet(tmp_path / "some.parquet")
    facts = {"source": "some", "freq": "h", "seasonality": 24, "unique_ids": ["a", "b"]}
    facts |= {"term": "short", "horizon": 6, "windows": 2, "step": 6}
    (tmp_path / "tasks.json").write_text(json.dumps([facts]))
    options = ('{"context_length": 64}', "{}")
    command = ("validation.py", tmp_path, "--model", model, "--options", *options, "--quiet")
    first = run(*command, "--output", tmp_path / "out", "--threads", "1")
    assert "| some | h | short | 6 | 4 |" in first
    assert "| hourly and finer, short | 1 |" in first
    assert f"### {model} / {model}, context_length=64, by task" in first
    assert run(*command, "--output", tmp_path / "out", "--threads", "1") == first


def test_routing_by_frequency(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rng = np.random.default_rng(0)
    freqs = ["h", "MS"] * 6
    table = {"freq": freqs, "y": [rng.normal(size=100).cumsum() for _ in freqs]}
    pd.DataFrame(table).to_parquet(tmp_path / "walks.parquet")
    picture = tmp_path / "routing.png"
    arguments = [str(tmp_path), "--model", model, "--context", "64", "--output", str(picture)]
    monkeypatch.setattr(sys, "argv", ["routing.py", *arguments])
    runpy.run_path(str(SCRIPTS / "routing.py"), run_name="__main__")
    printed = capsys.readouterr().out
    assert "12 series, 48 patches, context 64" in printed
    rows = [line.split("|")[1:-1] for line in printed.splitlines() if line.startswith("| ")]
    assert [len(row) for row in rows] == [5, 5, 5]
    assert all(0 < float(cell) <= 1 for row in rows[1:] for cell in row[2:])
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_frames_are_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    script = runpy.run_path(str(SCRIPTS / "frames.py"))
    monkeypatch.setitem(script["measure"].__globals__, "ROWS", 1_000)
    assert 0 < script["measure"](10, "MS") < 5
