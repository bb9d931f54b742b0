"""Print the paths by which users, documents and stored files of a version name parts of it.

    PYTHONPATH=FOLDER/src python list_paths.py FOLDER KEPT > import_paths.txt

FOLDER is a checkout of that version, KEPT has the files that `make.py` made with it. A path is a
module, or ``module:name``.
"""

from __future__ import annotations

import importlib
import io
import pickle
import pickletools
import re
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

PACKAGE = "moirai_moe_forecaster"
IMPORT = re.compile(rf"from ({PACKAGE}[\w.]*) import (?:\(([^)]*)\)|([^#`\n]*))")
DOTTED = re.compile(rf"{PACKAGE}(?:\.[A-Za-z_]+)+")


def written(root: Path) -> Iterator[str]:
    """What README, documentation and examples import or name."""
    for file in [root / "README.md", *root.glob("docs/*.md"), *root.glob("examples/**/*.py")]:
        text = file.read_text()
        yield from DOTTED.findall(text)
        for module, block, line in IMPORT.findall(text):
            for name in re.findall(r"[A-Za-z_]\w*", re.sub("#.*", "", block or line)):
                yield f"{module}.{name}"


class Recorder(pickle.Unpickler):
    """Reads a pickle and notes the classes and functions that it names."""

    def __init__(self, data: bytes) -> None:
        super().__init__(io.BytesIO(data))
        self.named: list[str] = []

    def find_class(self, module: str, name: str) -> Any:
        """Note it."""
        self.named.append(f"{module}.{name}")
        return super().find_class(module, name)


def pickled(data: bytes) -> list[str]:
    """Classes and functions that a pickle names."""
    recorder = Recorder(data)
    recorder.load()
    return recorder.named


def stored(folder: Path) -> Iterator[str]:
    """Classes and functions that pickles, and saves of sktime and Darts, name."""
    for file in folder.iterdir():
        if file.suffix == ".pickle":
            yield from pickled(file.read_bytes())
        elif file.name.startswith("sktime"):
            with zipfile.ZipFile(file) as archive:
                for part in archive.namelist():
                    yield from pickled(archive.read(part))
        elif file.name.startswith("darts"):
            with zipfile.ZipFile(file) as archive:
                for code, value, _ in pickletools.genops(archive.read("archive/data.pkl")):
                    if code.name == "GLOBAL":
                        yield str(value).replace(" ", ".")


def resolved(path: str) -> Iterator[str]:
    """Where the module ends and the name begins; nothing if there is none of that name."""
    module, name = path, ""
    while module:
        try:
            value: Any = importlib.import_module(module)
        except ModuleNotFoundError:
            module, _, last = module.rpartition(".")
            name = f"{last}.{name}".strip(".")
            continue
        for part in filter(None, name.split(".")):
            value = getattr(value, part, None)
        if value is not None:
            yield f"{module}:{name}" if name else module
        return


if __name__ == "__main__":
    named = {*written(Path(sys.argv[1])), *stored(Path(sys.argv[2]))}
    ours = {path for path in named if path.startswith(PACKAGE)}
    print(*sorted({path for name in ours for path in resolved(name)}), sep="\n")
