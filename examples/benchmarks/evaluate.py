"""Score a checkpoint on airline passengers and on a folder of benchmark sets.

    python examples/benchmarks/evaluate.py FOLDER [--model PATH]

Each set is ``NAME.parquet`` (unique_id, ds, y) beside ``NAME.json`` (seasonality, horizon, offset).
Prints a table with scores relative to seasonal naive and their geometric means.
"""

# %%
from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from pathlib import Path

from sktime.datasets import load_airline

from moirai_moe_forecaster import MoiraiMoEPipeline
from moirai_moe_forecaster.evaluation import (
    Task,
    geometric_mean,
    read_task,
    score_naive,
    score_pipeline,
    split_task,
)


# %%
def tasks(folder: Path) -> Iterator[Task]:
    """Airline passengers with their last 36 months held out, then every set of the folder."""
    yield split_task("airline", [load_airline().to_numpy(dtype=float)], 12, 36, -36)
    yield from (read_task(file) for file in sorted(folder.glob("*.parquet")))


def main() -> None:
    """Print one row per set."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--model", help="directory or Hub name; by default the bundled checkpoint")
    arguments = parser.parse_args()
    pipeline = MoiraiMoEPipeline.from_pretrained(arguments.model)
    header = ("set", "series", "MASE", "WQL", "relative MASE", "relative WQL", "seconds")
    print("| " + " | ".join(header) + " |\n|---" + "|---:" * (len(header) - 1) + "|")
    ratios = []
    for task in tasks(arguments.folder):
        naive = score_naive(task)
        started = time.perf_counter()
        ours = score_pipeline(pipeline, task)
        seconds = time.perf_counter() - started
        ratio = ours.mase / naive.mase, ours.wql / naive.wql
        ratios.append(ratio)
        print(
            f"| {task.name} | {len(task.labels)} | {ours.mase:.3f} | {ours.wql:.4f} "
            f"| {ratio[0]:.3f} | {ratio[1]:.3f} | {seconds:.1f} |",
            flush=True,
        )
    for name, part in (("all", ratios), ("all but airline", ratios[1:])):
        if part:
            means = [geometric_mean(column) for column in zip(*part, strict=True)]
            print(f"| geometric mean, {name} | | | | {means[0]:.3f} | {means[1]:.3f} | |")


if __name__ == "__main__":
    main()
