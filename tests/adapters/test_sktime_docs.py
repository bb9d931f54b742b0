"""What docs/sktime.md shows runs, and the record for sktime's registry is up to date."""

from __future__ import annotations

import inspect
import re
from importlib.metadata import PackageNotFoundError, version
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

from moirai_moe_forecaster import MoiraiMoEForecaster

DOCS = Path(__file__).parents[2] / "docs"


def blocks(page: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", (DOCS / page).read_text(), re.DOTALL)


(RECORD,) = blocks("sktime_registry.md")
BUNDLED = files("moirai_moe_forecaster") / "weights" / "model.safetensors"


@pytest.mark.skipif(not BUNDLED.is_file(), reason="the bundled checkpoint is not in this tree")
def test_the_page_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    for block in blocks("sktime.md"):
        exec(compile(block, "docs/sktime.md", "exec"), names)
    assert names["years"].shape == (1000, 1)


def test_the_record_gives_our_class() -> None:
    try:
        version("moirai-moe-forecaster")
    except PackageNotFoundError:
        pytest.skip("the package is not installed, only on the path")
    names: dict[str, Any] = {}
    exec(compile(RECORD, "moirai_moe.py", "exec"), names)
    assert names["MoiraiMoEForecaster"] is MoiraiMoEForecaster


def test_the_record_has_our_parameters() -> None:
    names: dict[str, Any] = {}
    bare = re.sub(r"^@_placeholder_record.*$", "", RECORD, flags=re.MULTILINE)
    exec(compile(bare, "moirai_moe.py", "exec"), names)
    theirs, ours = (
        {name: value.default for name, value in inspect.signature(cls).parameters.items()}
        for cls in (names["MoiraiMoEForecaster"], MoiraiMoEForecaster)
    )
    assert theirs == ours
    tags, own = names["MoiraiMoEForecaster"]._tags, MoiraiMoEForecaster._tags
    people = {"authors", "maintainers"}
    assert {name: tags.get(name) for name in own.keys() - people} == {
        name: own[name] for name in own.keys() - people
    }
