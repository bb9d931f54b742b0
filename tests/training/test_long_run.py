"""The script of long runs: slices, copies, weights that another run begins from."""

from __future__ import annotations

import importlib.util
import json
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest
import torch

from moirai_moe_forecaster.checkpoint import load_checkpoint
from moirai_moe_forecaster.config import ModelConfig, TrainConfig
from moirai_moe_forecaster.training.monitoring import METRICS_FILE
from moirai_moe_forecaster.training.state import STATE_FILE, saved_model

SCRIPTS = Path(__file__).parents[2] / "examples" / "training"
SMALL = ModelConfig.preset(
    "tiny", d_model=16, d_ff=8, num_layers=2, num_heads=1, num_experts=2, reference_periods=1
)
TRAINING = TrainConfig(
    steps=3, batch_rows=4, row_tokens=16, max_points=256, synthetic_share=0.0, coupled_share=0.0
)


def script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, SCRIPTS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def data(tmp_path: Path) -> list[str]:
    """Options that name a corpus."""
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    folder = tmp_path / "corpus"
    folder.mkdir()
    series = torch.randn(25, 400, generator=torch.Generator().manual_seed(0)).tolist()
    parquet.write_table(pyarrow.table({"y": series}), folder / "a.parquet")
    (tmp_path / "corpus.json").write_text(json.dumps({"weights": {}, "exclude": {}}))
    return ["--data", str(folder), "--corpus", str(tmp_path / "corpus.json")]


def test_weights_alone_begin_another_and_deeper_run(
    data: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = script("long_run")
    monkeypatch.setattr(run, "MODEL", SMALL)
    monkeypatch.setattr(run, "TRAINING", TRAINING)
    common = ["long_run", *data, "--minutes", "0.001"]
    kept = tmp_path / "kept"
    monkeypatch.setattr(
        sys, "argv", [*common, "--output", str(tmp_path / "one"), "--keep", str(kept)]
    )
    run.main()
    assert (tmp_path / "one" / "copy-0" / STATE_FILE).exists()
    assert load_checkpoint(kept).network.config.num_layers == 2
    begun = [*common, "--output", str(tmp_path / "two"), "--initial", str(kept), "--layers", "3"]
    for _ in range(2):  # the second call goes on with the run of the first
        monkeypatch.setattr(sys, "argv", begun)
        run.main()
    assert saved_model(tmp_path / "two").num_layers == 3
    lines = (tmp_path / "two" / METRICS_FILE).read_text().splitlines()
    assert json.loads(lines[-1])["step"] == 2


def test_an_arm_of_the_ablations_is_trained_and_resumed(
    data: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ablations = script("ablations")
    small = {name: getattr(SMALL, name) for name in ("d_model", "d_ff", "num_heads", "num_layers")}
    monkeypatch.setattr(
        ablations,
        "ARMS",
        {name: replace_model(arm, small) for name, arm in ablations.ARMS.items()},
    )
    settings = replace(TRAINING, missing_share=0.0).to_dict()
    monkeypatch.setattr(
        ablations, "RECIPE", {k: v for k, v in settings.items() if k not in ("steps", "seed")}
    )
    options = ["ablations", "hidden", *data, "--output", str(tmp_path)]
    for steps in ("1", "2"):
        monkeypatch.setattr(sys, "argv", [*options, "--steps", steps])
        ablations.main()
    assert load_checkpoint(tmp_path / "hidden-0").network.config.reference_periods == 2


def replace_model(arm, small: dict[str, int]):  # type: ignore[no-untyped-def]  # a script's own
    return arm._replace(model={**arm.model, **small})
