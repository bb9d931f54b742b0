"""How far bfloat16 forecasts are from float32 ones, on a folder of benchmark sets.

    python examples/benchmarks/precision.py FOLDER [--model PATH]

Absolute differences of the nine deciles in shares of the 80 % interval's width (float32).
"""

# %%
from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from benchmark_sets.tasks import read_task
from moirai_moe_forecaster import MoiraiMoEPipeline
from moirai_moe_forecaster.evaluation import LEVELS


def main() -> None:
    """Print one row per set, and one over all values."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--model")
    arguments = parser.parse_args()
    exact, rough = (
        MoiraiMoEPipeline.from_pretrained(arguments.model, dtype=dtype)
        for dtype in ("float32", "bfloat16")
    )
    print("| set | median | 90 % of values within |\n|---|---:|---:|")
    found = []
    for file in sorted(arguments.folder.glob("*.parquet")):
        task = read_task(file)
        both = [
            pipeline.predict(task.contexts, task.horizon, random_state=0).quantile(LEVELS)
            for pipeline in (exact, rough)
        ]
        width = both[0][:, -1:] - both[0][:, :1]
        # a constant series has intervals of no width
        shares = (np.abs(both[1] - both[0]) / np.where(width > 0, width, np.nan)).ravel()
        found.append(shares[np.isfinite(shares)])
        print(row(task.name, found[-1]), flush=True)
    print(row("all", np.concatenate(found)))


def row(name: str, shares: np.ndarray) -> str:
    """Format a line of the table."""
    return f"| {name} | {np.median(shares):.2%} | {np.quantile(shares, 0.9):.2%} |"


if __name__ == "__main__":
    main()
