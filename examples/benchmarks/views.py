"""What looking for cycles costs: wall time of forecasts with it, relative to those without.

    python examples/benchmarks/views.py [VALIDATION] [--series 1000] [--threads 2]

Series of 512 points, 48 steps ahead: random tables and sines of 24 steps, random walks, and, with a
folder of validation sources, the ends of their contexts. Hindcasts count. Each time is the best of
three, the variants taking turns.
"""

# %%
from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import torch

from moirai_moe_forecaster import MoiraiMoEPipeline

CONTEXT, HORIZON, PERIOD, NOISE = 512, 48, 24, 0.3
REPEATS = 3


# %%
def made(count: int) -> dict[str, list[np.ndarray]]:
    """Series that repeat, and that do not."""
    rng = np.random.default_rng(0)
    steps = np.arange(CONTEXT)
    noise = NOISE * rng.normal(size=(count, CONTEXT))
    tables = rng.normal(size=(count, PERIOD))[:, steps % PERIOD]
    sines = np.sin(2 * np.pi * steps / PERIOD + rng.uniform(0, 2 * np.pi, (count, 1)))
    walks = rng.normal(size=(count, CONTEXT)).cumsum(1)
    return {
        f"random tables of {PERIOD} steps": [*(tables + noise)],
        f"sines of {PERIOD} steps": [*(sines + noise)],
        "random walks": [*walks],
    }


def real(folder: Path, count: int) -> list[np.ndarray]:
    """Ends of contexts of all tasks alike, over and over if there are too few."""
    from benchmark_sets.validation import read_validation

    contexts = [part[-CONTEXT:] for task in read_validation(folder) for part in task.task.contexts]
    usable = [part for part in contexts if len(part) == CONTEXT and np.isfinite(part).mean() > 0.5]
    chosen = np.random.default_rng(0).permutation(len(usable))
    return [usable[chosen[index % len(usable)]] for index in range(count)]


def seconds(pipeline: MoiraiMoEPipeline, series: list[np.ndarray]) -> tuple[float, float, float]:
    """Best times without and with cycles, and the share of series in which some were found."""
    best = [np.inf, np.inf]
    for _ in range(REPEATS):
        for number, season_length in enumerate((None, "auto")):
            start = time.perf_counter()
            forecast = pipeline.predict(
                series, HORIZON, random_state=0, season_length=season_length
            )
            best[number] = min(best[number], time.perf_counter() - start)
    first = forecast.seasons.drop_duplicates("series")
    return *best, float(first["period"].notna().mean())


def main() -> None:
    """Print one row per kind of series."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("validation", nargs="?", type=Path, help="folder of validation sources")
    parser.add_argument("--series", type=int, default=1000)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    pipeline = MoiraiMoEPipeline.from_pretrained()
    sets = made(arguments.series)
    if arguments.validation is not None:
        sets["ends of validation contexts"] = real(arguments.validation, arguments.series)
    pipeline.predict(sets["random walks"][:50], HORIZON)
    print("| series | with cycles | without, s | with, s | ratio |\n|---|---:|---:|---:|---:|")
    for name, series in sets.items():
        without, found, share = seconds(pipeline, series)
        cells = f"{share:.0%} | {without:.2f} | {found:.2f} | {found / without:.2f}"
        print(f"| {name} | {cells} |", flush=True)


if __name__ == "__main__":
    main()
