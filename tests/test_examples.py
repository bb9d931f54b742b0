"""Every example runs as a user would run it."""

import importlib.util
import os
import re
import runpy
import subprocess
import sys
import warnings
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[1]
# those that draw need arguments, and no checkpoint: test_drawings.py runs them
EXAMPLES = [
    path
    for path in sorted((ROOT / "examples").glob("*.py"))
    if not path.stem.startswith("draw_") and path.stem != "quickstart"
]
README = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
# the others with code: test_sktime_docs.py runs one, the other is a record for sktime's registry
PAGES = [
    page.stem
    for page in sorted((ROOT / "docs").glob("*.md"))
    if "```python" in page.read_text() and page.stem not in ("sktime", "sktime_registry")
]
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
    if "darts" in block:
        pytest.importorskip("darts", reason="darts is not installed")
    exec(compile(block, "README.md", "exec"), {})


@pytest.mark.parametrize("page", PAGES)
def test_the_pages_run(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Block by block, in order, without a warning of what will change."""
    monkeypatch.setenv("MPLBACKEND", "Agg")
    monkeypatch.chdir(tmp_path)
    text = (ROOT / "docs" / f"{page}.md").read_text()
    blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    if importlib.util.find_spec("darts") is None:
        blocks = [block for block in blocks if "MoiraiMoEModel" not in block]
    if page == "training":
        write_corpus(tmp_path / "corpus")
        # days of training in seconds
        small = 'router="centroid", d_model=32, d_ff=32, num_layers=1, num_heads=2'
        blocks = [block.replace("steps=7000", "steps=2, batch_rows=2") for block in blocks]
        blocks = [block.replace('router="centroid"', small) for block in blocks]
    names: dict[str, object] = {}
    with warnings.catch_warnings():
        warnings.filterwarnings("error", ".*remember_data", FutureWarning)
        for block in blocks:
            exec(compile(block, f"{page}.md", "exec"), names)


def write_corpus(folder: Path) -> None:
    """Write a source to train on."""
    pa = pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    import pyarrow.parquet as parquet

    folder.mkdir()
    walks = np.random.default_rng(0).normal(size=(40, 200)).cumsum(1)
    parquet.write_table(pa.table({"y": list(walks)}), folder / "walks.parquet")


@pytest.mark.slow
def test_the_newcomers_path_in_the_readme(tmp_path: Path) -> None:
    """The third block of shell, as written but for the installation, which is this one."""
    pytest.importorskip("plotly", reason="plotly, of the extra report, is not installed")
    blocks = re.findall(r"```bash\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    install, *lines = blocks[2].splitlines()
    assert install.startswith("pip install")
    assert len(lines) < 10
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    subprocess.run(
        ["bash", "-euc", "\n".join(lines)],
        cwd=tmp_path,
        env={**os.environ, "PATH": path, "MPLBACKEND": "Agg", "HF_HUB_OFFLINE": "1"},
        check=True,
        timeout=240,
    )
    for picture in ("airline.png", "routing.png"):
        assert (tmp_path / picture).read_bytes().startswith(b"\x89PNG")
    assert "Moirai-MoE" in (tmp_path / "report.html").read_text()
    assert len((tmp_path / "forecast.csv").read_text().splitlines()) == 25


@pytest.mark.slow
@pytest.mark.parametrize("page", ["command_line", "cycles"])
def test_a_page_of_commands_is_what_they_print(page: str, tmp_path: Path) -> None:
    """Numbers may be another checkpoint's, and versions others; all else must be the same."""
    pytest.importorskip("plotly", reason="plotly, of the extra report, is not installed")
    script = runpy.run_path(str(ROOT / "docs" / "run_commands.py"))
    (file,) = (file for file in script["PAGES"] if file.stem == page)
    written = file.read_text()
    assert words(script["run_page"](written, tmp_path)) == words(written)


def words(text: str) -> list[str]:
    """Words of the page, but for lines about what is installed."""
    installed = r"^(python|torch|AutoETS|\S+ +not installed|\S+ +[\d.]+$).*$"
    return re.findall(r"[^\W\d]{2,}", re.sub(installed, "", text, flags=re.MULTILINE))
