"""Modules of the package import in one direction, also within functions, and names stand once."""

from __future__ import annotations

import ast
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

import moirai_moe_forecaster

ROOT = Path(moirai_moe_forecaster.__file__).parent
PACKAGE = ROOT.name
# a room imports from those above it, and from its own
ROOMS = [
    {"config", "errors", "moved"},
    {"data", "model"},
    {"checkpoint"},
    {"inference"},
    {"training", "evaluation", "plotting"},
    {"tuning", "reports"},
    {"adapters", "distributed", "cli"},
    {"__main__"},
]
# methods for convenience, whose work is done further down, and what costs seconds for few
CONVENIENCE = {
    ("inference.forecast", "plotting"),
    ("inference.pipeline", "reports.routing"),
    ("inference.pipeline", "tuning.fine_tune"),
    ("inference.pipeline", "tuning.fine_tune_config"),
    ("reports.routing", "plotting"),
    ("adapters.sktime.forecaster", "adapters.sktime.distribution"),
    ("adapters.sktime.forecaster", "adapters.sktime.whole_numbers"),
    ("training.synthetic", "training.synthetic.generate"),
}
# --help answers at once: what a command needs is imported when it runs
LATE_ROOMS = {"cli", "__main__"}
# extras, and what few users need of large libraries
LATE_LIBRARIES = {
    *("huggingface_hub", "matplotlib", "plotly", "polars", "pyarrow", "statsforecast"),
    *("pandas", "scipy", "torch"),
}
FRAMEWORKS = {"sktime": "adapters.sktime", "darts": "adapters.darts"}
# beside torch in the network, and beside the adapters
BESIDE = {("model.distribution.negative_binomial", "scipy"), ("cli.demo", "sktime")}
# these are named after what they show or adapt
NAMED_AFTER = {"cli", "plotting", "reports", "adapters", "distributed"}
MOST_LINES = 400


class Import(NamedTuple):
    """One module that another imports, both without the name of the package if they are ours."""

    module: str
    target: str
    ours: bool
    late: bool


def name_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


FILES = {name_of(path): path for path in sorted(ROOT.rglob("*.py"))}
TREES = {name: ast.parse(path.read_text()) for name, path in FILES.items()}


def imports_of(module: str) -> Iterator[Import]:
    """All but those for type checking alone."""
    pending: list[tuple[ast.AST, bool]] = [(TREES[module], False)]
    while pending:
        node, late = pending.pop()
        late |= isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            pending.extend((child, late) for child in node.orelse)
            continue
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module} has a relative import"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        for name in names:
            top, _, rest = name.partition(".")
            if top == PACKAGE:
                yield Import(module, rest if rest in FILES else rest.rpartition(".")[0], True, late)
            else:
                yield Import(module, top, False, late)
        pending.extend((child, late) for child in ast.iter_child_nodes(node))


IMPORTS = [found for module in FILES for found in imports_of(module)]
OURS = {found for found in IMPORTS if found.ours and found.target}


def room(module: str) -> str:
    return module.partition(".")[0]


def height(module: str) -> int:
    return next(number for number, rooms in enumerate(ROOMS) if room(module) in rooms)


def convenient(found: Import) -> bool:
    return found.late and (found.module, found.target) in CONVENIENCE


def test_every_room_imports_from_those_above_it() -> None:
    wrong = [
        f"{found.module} imports {found.target}"
        for found in OURS
        if room(found.module) not in ("", "__main__")
        if height(found.target) > height(found.module) and not convenient(found)
    ]
    assert sorted(wrong) == []


def test_there_is_no_circle_also_through_functions() -> None:
    edges = defaultdict(set)
    for found in OURS:
        if not convenient(found) and found.module != found.target:
            edges[found.module].add(found.target)
    # what imports nothing that is left is in no circle
    left = set(FILES)
    while free := {module for module in left if not edges[module] & left}:
        left -= free
    # and neither is what nothing imports that is left
    while free := {m for m in left if not any(m in edges[other] for other in left)}:
        left -= free
    assert {module: sorted(edges[module] & left) for module in sorted(left)} == {}


def test_late_imports_are_of_extras_and_of_what_is_listed() -> None:
    wrong = [
        f"{found.module} imports {found.target} late"
        for found in IMPORTS
        if found.late and room(found.module) not in LATE_ROOMS
        if found.target not in sys.stdlib_module_names
        if not (convenient(found) if found.ours else found.target in LATE_LIBRARIES)
    ]
    assert sorted(set(wrong)) == []


def test_the_list_of_late_imports_holds_no_others() -> None:
    late = {(found.module, found.target) for found in IMPORTS if found.late}
    assert late >= CONVENIENCE | BESIDE
    assert {target for _, target in late} >= LATE_LIBRARIES


def test_the_network_needs_torch_alone() -> None:
    allowed = {"torch", *sys.stdlib_module_names}
    wrong = {
        f"{found.module} imports {found.target}"
        for found in IMPORTS
        if room(found.module) == "model"
        if not (found.ours or found.target in allowed)
        if (found.module, found.target) not in BESIDE
    }
    assert sorted(wrong) == []


@pytest.mark.parametrize("library", FRAMEWORKS)
def test_a_framework_is_known_to_its_adapter_alone(library: str) -> None:
    wrong = {
        found.module
        for found in IMPORTS
        if found.target == library and not found.module.startswith(FRAMEWORKS[library])
        if (found.module, found.target) not in BESIDE
    }
    assert sorted(wrong) == []


def test_a_class_name_stands_once() -> None:
    homes = defaultdict(list)
    for module, tree in TREES.items():
        for node in tree.body:
            if isinstance(node, ast.ClassDef):
                homes[node.name].append(module)
    assert {name: found for name, found in homes.items() if len(found) > 1} == {}


def test_a_file_name_stands_once() -> None:
    homes = defaultdict(list)
    for module, path in FILES.items():
        if path.stem != "__init__" and room(module) not in NAMED_AFTER:
            homes[path.stem].append(module)
    assert {stem: found for stem, found in homes.items() if len(found) > 1} == {}
    both = [path for path in FILES.values() if path.with_suffix("").is_dir()]
    assert both == [], "a file and a folder of one name"


def test_no_file_is_too_long_to_read() -> None:
    lines = {module: len(path.read_text().splitlines()) for module, path in FILES.items()}
    assert {module: count for module, count in lines.items() if count > MOST_LINES} == {}
