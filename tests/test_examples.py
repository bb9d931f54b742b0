"""Every example runs as a user would run it."""

import os
import re
import subprocess
import sys
from importlib.resources import files
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# those that draw need arguments, and no checkpoint: test_drawings.py runs them
EXAMPLES = [
    path for path in sorted((ROOT / "examples").glob("*.py")) if not path.stem.startswith("draw_")
]
README = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
BUNDLED = files("moirai_moe_forecaster") / "weights" / "model.safetensors"

pytestmark = pytest.mark.skipif(
    not BUNDLED.is_file(), reason="the bundled checkpoint is not in this source tree"
)


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_example_runs(example: Path, tmp_path: Path) -> None:
    if "import darts" in (text := example.read_text()) or "from darts" in text:
        pytest.importorskip("darts", reason="needs the extra `darts`")
    result = subprocess.run(
        [sys.executable, "-W", "error::DeprecationWarning:__main__", str(example)],
        cwd=tmp_path,
        env={**os.environ, "MPLBACKEND": "Agg", "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert result.returncode == 0, result.stderr
    for picture in re.findall(r'savefig\("(.+?)"', example.read_text()):
        assert (tmp_path / picture).read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("block", [block for block in README if "Salesforce/" not in block])
def test_the_readme_runs(block: str) -> None:
    exec(compile(block, "README.md", "exec"), {})
