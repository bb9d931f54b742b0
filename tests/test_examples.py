"""Every example runs as a user would run it."""

import os
import re
import runpy
import subprocess
import sys
from importlib.resources import files
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# those that draw need arguments, and no checkpoint: test_drawings.py runs them
EXAMPLES = [
    path
    for path in sorted((ROOT / "examples").glob("*.py"))
    if not path.stem.startswith("draw_") and path.stem != "quickstart"
]
README = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
BUNDLED = files("moirai_moe_forecaster") / "weights" / "model.safetensors"

pytestmark = pytest.mark.skipif(
    not BUNDLED.is_file(), reason="the bundled checkpoint is not in this source tree"
)


def test_the_quickstart_runs_in_a_process_of_its_own(tmp_path: Path) -> None:
    example = ROOT / "examples" / "quickstart.py"
    result = subprocess.run(
        [sys.executable, "-W", "error::DeprecationWarning:__main__", str(example)],
        cwd=tmp_path,
        env={**os.environ, "MPLBACKEND": "Agg", "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert result.returncode == 0, result.stderr
    check_pictures(example, tmp_path)


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_example_runs(example: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for library in re.findall(r"^# needs (\w+)", example.read_text(), re.MULTILINE):
        pytest.importorskip(library, reason=f"{library} is not installed")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MPLBACKEND", "Agg")
    monkeypatch.setattr(sys, "argv", [str(example)])
    runpy.run_path(str(example), run_name="__main__")
    check_pictures(example, tmp_path)


def check_pictures(example: Path, folder: Path) -> None:
    for picture in re.findall(r'savefig\("(.+?)"', example.read_text()):
        assert (folder / picture).read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("block", [block for block in README if "Salesforce/" not in block])
def test_the_readme_runs(block: str) -> None:
    exec(compile(block, "README.md", "exec"), {})
