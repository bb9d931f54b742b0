"""Score checkpoints, or one with several options of `predict`, on a folder of validation sources.

    python examples/benchmarks/validation.py FOLDER [--model PATH ...] [--options JSON ...]
        [--output FOLDER] [--tasks SUBSTRING] [--threads N]

    python examples/benchmarks/validation.py FOLDER --options '{"season_length": null}' '{}'

FOLDER is as `benchmark_sets.validation` reads it. Every model is run with every set of options.
Prints, relative to seasonal naive: scores by source, frequency and term, and geometric means by
group; of several variants also the ratios of their errors to the first one's, worst first. With
``--output``, results are stored there as they come, and a second run goes on.
"""

# %%
from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from benchmark_sets.results import evaluate_sets
from benchmark_sets.validation import read_validation
from benchmark_sets.validation_tables import (
    group_ratios,
    group_table,
    ratio_table,
    task_ratios,
    task_scores,
    task_table,
)
from moirai_moe_forecaster import MoiraiMoEPipeline
from moirai_moe_forecaster.evaluation import Variant

BUNDLED = "bundled"
METRICS = ("MASE", "WQL", "coverage_80")


# %%
def variants(models: Sequence[str], options: Sequence[dict[str, Any]]) -> dict[str, Variant]:
    """Every model with every set of options, by name."""
    found = {}
    for model in models:
        pipeline = MoiraiMoEPipeline.from_pretrained(None if model == BUNDLED else model)
        for chosen in options:
            words = [f"{name}={value!r}" for name, value in chosen.items()]
            found[", ".join([model, *words])] = Variant(pipeline, chosen)
    return found


def print_ratios(scores: pd.DataFrame, model: str, base: str) -> None:
    """Print how much better or worse a variant is than the first, by group and by task."""
    for kind, ratios in (
        ("group", group_ratios(scores, model, base)),
        ("task", task_ratios(scores, model, base)),
    ):
        print(f"\n### {model} / {base}, by {kind}\n\n{ratio_table(ratios, kind)}")


def main() -> None:
    """Evaluate, then print all tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument(
        "--model",
        nargs="+",
        default=[BUNDLED],
        help="directories or Hub names; by default the bundled checkpoint",
    )
    parser.add_argument(
        "--options",
        nargs="+",
        type=json.loads,
        default=[{}],
        help="""keyword arguments of predict, such as '{"season_length": null}'""",
    )
    parser.add_argument("--output", type=Path, help="folder of results to go on with")
    parser.add_argument("--tasks", default="", help="only those whose name contains this")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    tasks = read_validation(arguments.folder, arguments.tasks)
    forecasters = variants(arguments.model, arguments.options)
    results = evaluate_sets(
        [item.task for item in tasks],
        forecasters,
        metrics=METRICS,
        folder=arguments.output,
        progress=not arguments.quiet,
    )
    scores, names = task_scores(tasks, results), list(forecasters)
    print(f"\n### By task: relative MASE / WQL\n\n{task_table(scores, names)}")
    print(f"\n### By group: relative MASE / WQL\n\n{group_table(scores, names)}")
    for name in names[1:]:
        print_ratios(scores, name, names[0])


if __name__ == "__main__":
    main()
