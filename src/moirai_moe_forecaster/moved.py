"""Module paths of earlier versions, as scripts, pickles and saved models name them."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

PACKAGE = "moirai_moe_forecaster"
# old path -> new path, both within the package
MOVED = {
    "adapters.darts_module": "adapters.darts.module",
    "adapters.distribution": "adapters.sktime.distribution",
    "adapters.sktime_context": "adapters.sktime.context",
    "adapters.sktime_tuning": "adapters.sktime.tuning",
    "adapters_file": "checkpoint.adapters",
    "cli_pretrain": "cli.pretrain",
    "evaluation.panel": "data.items",
    "evaluation.seasonality": "data.times",
    "html_report": "reports.html",
    "inference.arguments": "data.arguments",
    "inference.batches": "inference.batching",
    "inference.cycles": "inference.seasonality.cycles",
    "inference.frame": "inference.dataframe",
    "inference.marginal": "inference.quantile_grid",
    "inference.panel": "data.panel",
    "inference.passes": "inference.batching",
    "inference.periods": "inference.seasonality.periods",
    "inference.randomness": "inference.sampling",
    "inference.references": "inference.seasonality.references",
    "inference.representation": "inference.encode",
    "inference.series": "data.series",
    "inference.shared": "inference.model_cache",
    "inference.whitening": "inference.seasonality.whitening",
    "model.components": "model.distribution.components",
    "model.exchange": "model.refinement",
    "model.experts": "model.moe",
    "model.gated_reference": "model.refinement",
    "model.mixture": "model.distribution.mixture",
    "model.negative_binomial": "model.distribution.negative_binomial",
    "model.norm": "model.attention",
    "model.rotary": "model.attention",
    "model.routing": "model.moe",
    "model.scaler": "model.tokens",
    "model.student_t": "model.distribution.student_t",
    "official_layout": "checkpoint.official",
    "routing_report": "reports.routing",
    "training.continuation": "tuning.likelihood",
    "training.corpus": "training.data.corpus",
    "training.flops": "training.monitoring",
    "training.growth": "training.initial",
    "training.judging": "tuning.validation",
    "training.loop": "training.pretrain",
    "training.lora": "tuning.lora",
    "training.metrics": "training.monitoring",
    "training.processes": "training.distributed",
    "training.tuning_report": "tuning.report",
    "training.windows": "training.data.batches",
}


class MovedModules(MetaPathFinder, Loader):
    """Import a module under its old path as the module that it is now."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return a spec for an old path, and None for any other name."""
        package, _, name = fullname.partition(".")
        return ModuleSpec(fullname, self) if package == PACKAGE and name in MOVED else None

    def exec_module(self, module: ModuleType) -> None:
        """Put the module of the new path in the place of the old one."""
        name = module.__name__
        moved = MOVED[name.removeprefix(f"{PACKAGE}.")]
        sys.modules[name] = importlib.import_module(f"{PACKAGE}.{moved}")


def register() -> None:
    """Make old paths importable; modules that exist go first."""
    if not any(isinstance(finder, MovedModules) for finder in sys.meta_path):
        sys.meta_path.append(MovedModules())
