"""Coverage of the 80 % intervals of sums over the horizon, from the samples of a forecast.

    python examples/benchmarks/sums.py FOLDER [--model PATH]

Beside it the coverage that the same marginals would have if points were independent.
"""

# %%
from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np

from benchmark_sets.tasks import read_task
from moirai_moe_forecaster import MoiraiMoEPipeline

SAMPLES = 400


def main() -> None:
    """Print one row per set."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--model")
    arguments = parser.parse_args()
    pipeline = MoiraiMoEPipeline.from_pretrained(arguments.model)
    fitted = pipeline.config
    print("| set | series | 80 % of sums | with independent points |\n|---|---:|---:|---:|")
    for file in sorted(arguments.folder.glob("*.parquet")):
        task, cells = read_task(file), []
        total = task.labels.sum(1)
        for config in (fitted, replace(fitted, dependence_share=0.0, dependence_growth=0.0)):
            pipeline.network.config = config
            forecast = pipeline.predict(
                task.contexts, task.labels.shape[1], num_samples=SAMPLES, random_state=0
            )
            low, high = np.quantile(forecast.samples.sum(2), [0.1, 0.9], axis=1)
            seen = np.isfinite(total)
            inside = (total >= low) & (total <= high)
            cells.append(f"{inside[seen].mean():.1%}")
        print(f"| {task.name} | {len(total)} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
