"""Cost of 10 to 100,000 series: series a second and memory.

    python examples/benchmarks/many_series.py [--counts 10 100 1000 10000 100000] [--threads 2]

The bundled checkpoint with its defaults, context 512, horizon 48; series stream in from a generator
and their forecasts are dropped, so that memory is what forecasting itself takes.
"""

# %%
from __future__ import annotations

import argparse
import resource
import time
from collections.abc import Iterator

import numpy as np
import torch

from moirai_moe_forecaster import MoiraiMoEPipeline

CONTEXT, HORIZON = 512, 48
LEVELS = [0.1, 0.5, 0.9]


# %%
def walks(count: int) -> Iterator[np.ndarray]:
    """Random walks, made one at a time."""
    rng = np.random.default_rng(0)
    for _ in range(count):
        yield rng.normal(size=CONTEXT).cumsum()


def peak_memory() -> float:
    """Largest resident memory of this process so far, GB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def main() -> None:
    """Print one row per number of series."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--counts", type=int, nargs="+", default=[10, 100, 1000, 10_000, 100_000])
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    pipeline = MoiraiMoEPipeline.from_pretrained()
    list(pipeline.predict_stream(walks(300), HORIZON, random_state=0))
    print("| series | series/s | peak memory of the process, GB |\n|---:|---:|---:|")
    for count in arguments.counts:
        repeats = max(1000 // count, 1)
        start = time.perf_counter()
        for _ in range(repeats):
            for forecast in pipeline.predict_stream(walks(count), HORIZON, random_state=0):
                forecast.quantile(LEVELS)
        rate = count * repeats / (time.perf_counter() - start)
        print(f"| {count:,} | {rate:.0f} | {peak_memory():.2f} |", flush=True)


if __name__ == "__main__":
    main()
