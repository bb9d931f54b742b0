"""A run moves between machines that have nothing but the package's source."""

from __future__ import annotations

import json
import os
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from test_pretrain import MODEL, TRAINING, metrics, waves

import moirai_moe_forecaster
from moirai_moe_forecaster.training.pretrain import pretrain

SCRIPT = Path(__file__).parents[2] / "examples" / "training" / "gpu_slices.py"
ABSENT = ("sktime", "skpro", "skbase", "darts", "sklearn", "scipy", "matplotlib", "huggingface_hub")
# the package is not installed there either: nothing may ask for its metadata
ON_A_BARE_MACHINE = f"""
import importlib.metadata, runpy, sys
sys.modules.update(dict.fromkeys({ABSENT}))  # an import of them fails
def version(name):
    raise importlib.metadata.PackageNotFoundError(name)
importlib.metadata.version = version
import torch
torch.set_num_threads(1)
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""

pytestmark = pytest.mark.slow


def run_script(*arguments: object) -> None:
    source = Path(moirai_moe_forecaster.__file__).parents[1]
    subprocess.run(
        [sys.executable, "-c", ON_A_BARE_MACHINE, str(SCRIPT), *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": str(source)},
        check=True,
        timeout=200,
    )


def test_slices_go_on_from_each_other_on_a_bare_machine(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    series = [waves()[0].series(index).tolist() for index in range(25)]
    parquet.write_table(pyarrow.table({"y": series}), corpus / "a.parquet")
    sizes = ("batch_rows=2", "row_tokens=16", "max_points=256")
    shares = ("synthetic_share=0", "coupled_share=0")
    settings = [f"--set={setting}" for setting in sizes + shares]
    common = ["--data", corpus, "--steps", 2, *settings]
    first, second, out = tmp_path / "first", tmp_path / "second", tmp_path / "out"
    run_script(*common, "--output", first, "--minutes", 0, "--export", out)
    assert json.loads((out / "run.json").read_text())["step"] == 1
    assert len(list(out.iterdir())) <= 8
    assert all(file.stat().st_size < 16_000_000 for file in out.iterdir())
    run_script(*common, "--output", second, "--import", out)
    assert json.loads((second / "run.json").read_text())["step"] == 2


@pytest.mark.parametrize("weights_only", [False, True])
def test_an_exported_run_comes_back_rounded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, weights_only: bool
) -> None:
    script = runpy.run_path(str(SCRIPT))
    pretrain(MODEL, TRAINING, waves(), tmp_path / "run", progress=False)
    monkeypatch.setitem(script["export_run"].__globals__, "SHARD_BYTES", 20_000)
    script["export_run"](tmp_path / "run", tmp_path / "out")  # more, if only weights follow
    (tmp_path / "run" / "run.json").write_text("{}")  # is written after the state: may be older
    script["export_run"](tmp_path / "run", tmp_path / "out", weights_only)
    shards = list((tmp_path / "out").glob("state-*"))
    assert len(shards) > 1
    assert all(file.stat().st_size < 30_000 for file in shards)
    script["import_run"](tmp_path / "out", tmp_path / "back")
    before, after = (load_file(tmp_path / name / "state.safetensors") for name in ("run", "back"))
    kept = {name for name in before if not (weights_only and name.startswith("optimiser."))}
    assert after.keys() == kept
    for name in kept:
        assert after[name].dtype == torch.float32
        torch.testing.assert_close(after[name], before[name], rtol=2**-8, atol=0)
    longer = type(TRAINING)(**{**TRAINING.to_dict(), "steps": 10})
    pretrain(MODEL, longer, waves(), tmp_path / "back", resume=True, progress=False)
    assert [line["step"] for line in metrics(tmp_path / "back")] == list(range(1, 11))
    assert all(line["loss"] < 10 for line in metrics(tmp_path / "back"))


def test_a_run_too_large_to_carry_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = runpy.run_path(str(SCRIPT))
    pretrain(MODEL, TRAINING, waves(), tmp_path / "run", progress=False)
    monkeypatch.setitem(script["export_run"].__globals__, "SHARD_BYTES", 1_000)
    with pytest.raises(SystemExit, match="too large for a shard"):
        script["export_run"](tmp_path / "run", tmp_path / "out")
    assert not (tmp_path / "out").exists()
