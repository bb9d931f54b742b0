"""Module-level imports point one way, and importing the package costs next to nothing."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import moirai_moe_forecaster
from moirai_moe_forecaster.errors import MissingExtraError
from moirai_moe_forecaster.moved import MOVED

ROOT = Path(moirai_moe_forecaster.__file__).parent
MODULES = sorted(path.relative_to(ROOT) for path in ROOT.rglob("*.py"))
LAYERS = [
    {"config", "errors", "moved", "__version__"},
    {"data", "model"},
    {"checkpoint"},
    {"inference"},
    {"training", "evaluation", "plotting"},
    {"tuning", "reports"},
    {"adapters", "cli"},
    {"__main__"},
]
ALLOWED_LIBRARIES = {
    "sktime": {"adapters"},
    "skpro": {"adapters"},
    "skbase": {"adapters"},
    "darts": {"adapters"},
    "pandas": {
        "data",
        "inference/dataframe.py",
        "inference/pipeline.py",
        "inference/seasons.py",
        "evaluation",
        "reports",
        "plotting",
        "adapters",
    },
    "matplotlib": set(),
    "pyarrow": set(),
    "huggingface_hub": set(),
    "plotly": set(),
}


def module_level_imports(path: Path) -> Iterator[str]:
    """Names of modules imported when `path` is, leaving out functions and type checking."""
    pending: list[ast.AST] = [ast.parse((ROOT / path).read_text())]
    while pending:
        node = pending.pop()
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} has a relative import"
            assert node.module is not None
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        pending.extend(ast.iter_child_nodes(node))


def layer(name: str) -> int:
    return next(number for number, names in enumerate(LAYERS) if name in names)


@pytest.mark.parametrize("path", MODULES, ids=str)
def test_imports_point_down(path: Path) -> None:
    if path.name == "__init__.py" and len(path.parts) == 1:
        own = 0  # the package itself imports nothing of its own but old module paths
    else:
        own = layer(path.parts[0].removesuffix(".py"))
    for name in module_level_imports(path):
        parts = name.split(".")
        if parts[0] == "moirai_moe_forecaster":
            assert layer(parts[1]) <= own, f"{path} imports {name}"
        elif parts[0] in ALLOWED_LIBRARIES:
            allowed = ALLOWED_LIBRARIES[parts[0]]
            assert str(path) in allowed or path.parts[0] in allowed, f"{path} imports {name}"


@pytest.mark.parametrize("path", [path for path in MODULES if path.parts[0] == "model"], ids=str)
def test_the_network_needs_torch_alone(path: Path) -> None:
    libraries = {name.split(".")[0] for name in module_level_imports(path)}
    ours_and_torch = {"torch", "moirai_moe_forecaster"}
    assert libraries <= ours_and_torch | set(sys.stdlib_module_names)


@pytest.mark.parametrize(("old", "new"), MOVED.items())
def test_old_module_paths_still_import(old: str, new: str) -> None:
    if new.startswith("adapters.darts"):
        pytest.importorskip("darts", reason="needs the extra `darts`")
    prefix = "moirai_moe_forecaster."
    assert importlib.import_module(prefix + old) is importlib.import_module(prefix + new)


STANDARD = set(sys.stdlib_module_names)


def run(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_importing_the_package_loads_nothing_but_itself() -> None:
    code = """
import sys
before = set(sys.modules)
import moirai_moe_forecaster
print(*(set(sys.modules) - before))
"""
    more = {name for name in run(code).split() if name.partition(".")[0] not in STANDARD}
    assert more == {"moirai_moe_forecaster", "moirai_moe_forecaster.moved"}


def test_every_public_name_can_be_imported() -> None:
    names = set(moirai_moe_forecaster.__all__)
    if importlib.util.find_spec("darts") is None:
        names.remove("MoiraiMoEModel")
        with pytest.raises(MissingExtraError, match=r"moirai-moe-forecaster\[darts\]"):
            moirai_moe_forecaster.MoiraiMoEModel  # noqa: B018
    for name in names:
        assert getattr(moirai_moe_forecaster, name)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        moirai_moe_forecaster.nothing  # noqa: B018
    assert set(moirai_moe_forecaster.__all__) <= set(dir(moirai_moe_forecaster))
