"""Modules that have moved: pickles of earlier versions name them by where they were."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from functools import partial
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

MOVED = {
    "adapters_file": "checkpoint.adapters",
    "official_layout": "checkpoint.official",
    "model.components": "model.distribution.components",
    "model.experts": "model.moe",
    "model.mixture": "model.distribution.mixture",
    "model.negative_binomial": "model.distribution.negative_binomial",
    "model.student_t": "model.distribution.student_t",
}


class MovedModules(MetaPathFinder, Loader):
    """Finds a module of an old name, which then looks everything up in the one of the new name."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Answer for the names in `MOVED` alone."""
        package, _, name = fullname.partition(".")
        return ModuleSpec(fullname, self) if package == __package__ and name in MOVED else None

    def exec_module(self, module: ModuleType) -> None:
        """Leave all names to the new module."""
        home = MOVED[module.__name__.partition(".")[2]]
        module.__dict__["__getattr__"] = partial(
            getattr, importlib.import_module(f"{__package__}.{home}")
        )
