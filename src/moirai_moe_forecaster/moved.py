"""Where modules of earlier versions are now: pickles, saves and imports that name them still work.

Only names that something outside may hold belong here: those in pickles of fitted forecasters,
saves of Darts and states of training runs, and those that the documentation gave.
"""

from __future__ import annotations

import importlib
import sys
from importlib.abc import Loader
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

PACKAGE = "moirai_moe_forecaster"
MOVED = {
    "adapters.darts_module": "adapters.darts.module",
    "adapters.distribution": "adapters.sktime.distribution",
    "adapters.sktime_context": "adapters.sktime.context",
    "adapters.sktime_tuning": "adapters.sktime.tuning",
    "html_report": "reports.html",
    "routing_report": "reports.routing",
}


class MovedModules(Loader):
    """An importer of last resort: an old name is the module of the new one."""

    @classmethod
    def find_spec(cls, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        """Return a specification for a name that moved, and None for any other."""
        package, _, own = name.partition(".")
        return ModuleSpec(name, cls()) if package == PACKAGE and own in MOVED else None

    def create_module(self, spec: ModuleSpec) -> None:
        """Let Python make an empty module, which is then replaced."""

    def exec_module(self, module: ModuleType) -> None:
        """Put the module that moved in the place of the empty one."""
        name = module.__name__
        own = name.partition(".")[2]
        sys.modules[name] = importlib.import_module(f"{PACKAGE}.{MOVED[own]}")


def install() -> None:
    """Ask for old names where Python finds nothing, so that nothing else costs more."""
    if MovedModules not in sys.meta_path:
        sys.meta_path.append(MovedModules)
