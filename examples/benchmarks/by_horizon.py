"""Scores by how far ahead a step lies, on a folder of benchmark sets.

    python examples/benchmarks/by_horizon.py FOLDER [--model PATH]

WQL relative to seasonal naive within each quarter of the horizon.
"""

# %%
from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from benchmark_sets.tasks import read_task
from moirai_moe_forecaster import MoiraiMoEPipeline
from moirai_moe_forecaster.evaluation import LEVELS, geometric_mean
from moirai_moe_forecaster.evaluation.forecasters import naive_quantiles

QUARTERS = 4


# %%
def losses(labels: np.ndarray, quantiles: np.ndarray) -> np.ndarray:
    """Pinball loss of every step, summed over series and levels."""
    levels = np.array(LEVELS)[:, None]
    error = labels[:, None] - quantiles
    return np.nansum(np.maximum(levels * error, (levels - 1) * error), axis=(0, 1))


def main() -> None:
    """Print one row per set, and their geometric mean."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--model")
    arguments = parser.parse_args()
    pipeline = MoiraiMoEPipeline.from_pretrained(arguments.model)
    print(
        "| set | horizon | first quarter | second | third | last |\n|---|---:|" + "---:|" * QUARTERS
    )
    table = []
    for file in sorted(arguments.folder.glob("*.parquet")):
        task = read_task(file)
        ours = pipeline.predict(task.contexts, task.horizon, random_state=0).quantile(LEVELS)
        naive = naive_quantiles(task.contexts, task.horizon, task.seasonality, LEVELS)
        steps = np.array_split(np.arange(task.horizon), QUARTERS)
        both = [losses(task.labels, quantiles) for quantiles in (ours, naive)]
        table.append([both[0][part].sum() / both[1][part].sum() for part in steps])
        cells = " | ".join(f"{ratio:.3f}" for ratio in table[-1])
        print(f"| {task.name} | {task.horizon} | {cells} |", flush=True)
    means = " | ".join(f"{geometric_mean(list(column)):.3f}" for column in zip(*table, strict=True))
    print(f"| geometric mean | | {means} |")


if __name__ == "__main__":
    main()
