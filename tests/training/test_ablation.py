"""The ablation's script trains, resumes and reports."""

from __future__ import annotations

import functools
import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from test_centroids import DENSE, batches

from moirai_moe_forecaster.config import ModelConfig, TrainConfig
from moirai_moe_forecaster.training.centroids import centroids_from
from tiny_network import tiny_network

pytestmark = pytest.mark.slow

SCRIPT = Path(__file__).parents[2] / "examples" / "benchmarks" / "ablation.py"
MODEL = ModelConfig(
    d_model=16, d_ff=8, num_layers=2, num_heads=1, num_experts=4, experts_per_token=2
)
SMALL_RUNS = functools.partial(
    TrainConfig,
    batch_rows=4,
    row_tokens=16,
    max_points=256,
    synthetic_share=0.0,
    coupled_share=0.0,
    save_every=1,
)


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script, with everything small."""
    spec = importlib.util.spec_from_file_location("ablation", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "ModelConfig", SimpleNamespace(preset=lambda name: MODEL))
    monkeypatch.setattr(module, "TrainConfig", SMALL_RUNS)
    monkeypatch.setattr(module, "centroids_from", functools.partial(centroids_from, tokens=500))
    return module


@pytest.fixture
def arguments(tmp_path: Path) -> list[str]:
    """Command line for a corpus and a benchmark set of waves."""
    time = np.arange(300)
    series = [np.sin(2 * np.pi * time / period) for period in range(5, 30)]
    corpus, sets = tmp_path / "corpus", tmp_path / "sets"
    corpus.mkdir()
    sets.mkdir()
    names = [f"wave{index}" for index in range(len(series))]
    pd.DataFrame({"unique_id": names, "y": series}).to_parquet(corpus / "waves.parquet")
    options = {"weights": {"waves": 2.0}, "exclude": {"waves": ["wave3"]}}
    (tmp_path / "corpus.json").write_text(json.dumps(options))
    noisy = np.sin(2 * np.pi * time[:80] / 12) + np.cos(time[:80] ** 2)
    frame = pd.DataFrame({"unique_id": ["a"] * 80 + ["b"] * 80, "y": np.tile(noisy, 2)})
    frame.to_parquet(sets / "waves.parquet")
    facts = {"seasonality": 12, "horizon": 8, "offset": -8}
    (sets / "waves.json").write_text(json.dumps(facts))
    folders = {"data": corpus, "eval": sets, "output": tmp_path / "out"}
    options_given = [word for name, path in folders.items() for word in (f"--{name}", str(path))]
    return [*options_given, "--corpus", str(tmp_path / "corpus.json")]


def test_networks_of_equal_active_size(script: ModuleType) -> None:
    with torch.random.fork_rng(devices=[]):
        networks = {name: script.MoiraiMoE(model) for name, model in script.variants(MODEL).items()}
    active = {name: network.parameter_counts()[1] for name, network in networks.items()}
    routers = {
        name: sum(p.numel() for p_name, p in network.named_parameters() if ".router." in p_name)
        for name, network in networks.items()
    }
    assert len({active[name] - routers[name] for name in networks}) == 1
    dense, linear = (networks[name].parameter_counts() for name in ("dense", "linear"))
    assert dense[0] == dense[1]
    assert linear[0] != linear[1]


def test_the_script_trains_reports_and_does_not_train_twice(
    script: ModuleType,
    arguments: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(sys, "argv", ["ablation.py", *arguments, "--steps", "2"])
    script.main()
    report = (tmp_path / "out" / "ablation.md").read_text()
    assert report in capsys.readouterr().out
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in report.splitlines()[2:]]
    header, _, *runs = rows
    assert [run[0] for run in runs] == [
        "dense",
        "linear",
        "centroid-nearest",
        "centroid-farthest",
        script.WARM,
    ]
    assert all(len(run) == len(header) for run in runs)
    for run in runs:
        last = json.loads(
            (tmp_path / "out" / run[0] / "metrics.jsonl").read_text().splitlines()[-1]
        )
        assert last["step"] == 2
        assert run[3] == f"{last['validation_loss']:.4f}"
        assert float(run[4]) > 0
        assert float(run[5]) > 0
    assert runs[0][6:8] == ["1.00 1.00", "1.00 1.00"]

    states = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("state.safetensors")}
    assert len(states) == 5
    monkeypatch.setattr(script, "centroids_from", None)
    script.main()
    assert states == {path: path.stat().st_mtime_ns for path in states}
    assert (tmp_path / "out" / "ablation.md").read_text() == report


def test_a_folder_without_sets_is_refused_before_training(
    script: ModuleType, arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sets" / "waves.parquet").unlink()
    monkeypatch.setattr(sys, "argv", ["ablation.py", *arguments, "--steps", "2"])
    with pytest.raises(SystemExit):
        script.main()
    assert not (tmp_path / "out").exists()


def test_the_load_of_experts_counts_the_choices_for_valid_tokens(script: ModuleType) -> None:
    network = tiny_network(router="centroid")
    data = batches(model=network.config)
    expected = torch.zeros(2, 4)
    for tokens in data:
        for layer, routing in enumerate(network.encode(tokens).routings):
            choices = routing.experts[(tokens.sample_id > 0).flatten()]
            for expert in range(4):
                expected[layer, expert] += (choices == expert).sum()
    assert ((expected > 0).sum(1) > 2).all()
    load = script.expert_shares(network, data)
    torch.testing.assert_close(load, expected / expected.sum(1, keepdim=True))
    torch.testing.assert_close(script.expert_shares(tiny_network(**DENSE), data), torch.ones(2, 1))
