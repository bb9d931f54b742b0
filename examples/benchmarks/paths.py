"""How many paths quantiles need: averaged mixtures against raw draws.

    python examples/benchmarks/paths.py [--model PATH] [--reference 10000]

Prints the mean error of the nine deciles beyond the first pass, in shares of the 80 % interval's
width, against the deciles of the averaged mixtures of very many paths. Series are made here: trend,
seasons and noise in different proportions.
"""

# %%
from __future__ import annotations

import argparse

import numpy as np

from moirai_moe_forecaster import MoiraiMoEPipeline
from moirai_moe_forecaster.evaluation import LEVELS

SERIES = 8
CONTEXT = 256
PASSES = 3
REPEATS = 4
PATHS = (4, 8, 16, 24, 32, 48, 64, 100)


# %%
def series(seed: int) -> np.ndarray:
    """Trend, two seasons, a random walk and noise."""
    rng, time = np.random.default_rng(seed), np.arange(CONTEXT)
    parts = (
        rng.normal() * time / CONTEXT,
        np.sin(2 * np.pi * time / 12 + rng.uniform(0, 6)),
        np.sin(2 * np.pi * time / 50 + rng.uniform(0, 6)),
        rng.normal(size=CONTEXT).cumsum() / 8,
        rng.normal(size=CONTEXT),
    )
    return rng.dirichlet(np.ones(len(parts))) @ np.stack(parts)


def main() -> None:
    """Print one row per number of paths."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model")
    parser.add_argument("--reference", type=int, default=10_000)
    arguments = parser.parse_args()
    pipeline = MoiraiMoEPipeline.from_pretrained(arguments.model)
    first = pipeline.config.output_patches * pipeline.config.patch_size
    horizon, contexts = PASSES * first, [series(seed) for seed in range(SERIES)]

    def averaged(paths: int, seed: int) -> np.ndarray:
        """Deciles of averaged mixtures."""
        forecast = pipeline.predict(contexts, horizon, num_paths=paths, random_state=seed)
        return forecast.quantile(LEVELS)[..., first:]

    def trajectory(seed: int) -> np.ndarray:
        """A single raw draw of every series: of one path, and of its last distribution."""
        options = {"num_paths": 1, "num_samples": 1, "random_state": seed}
        return pipeline.predict(contexts, horizon, **options).samples[:, 0, first:]

    truth = averaged(arguments.reference, 10_000)
    width = truth[:, -1:] - truth[:, :1]
    pool = np.stack([trajectory(seed) for seed in range(REPEATS * PATHS[-1])])
    print("| paths | averaged mixtures | raw draws |\n|---:|---:|---:|")
    for paths in PATHS:
        found = [averaged(paths, seed) for seed in range(REPEATS)]
        draws = [pool[k * paths : (k + 1) * paths] for k in range(REPEATS)]
        raw = [np.quantile(draw, LEVELS, axis=0).swapaxes(0, 1) for draw in draws]
        cells = [np.mean([np.abs(x - truth) / width for x in some]) for some in (found, raw)]
        print(f"| {paths} | {cells[0]:.2%} | {cells[1]:.2%} |", flush=True)


if __name__ == "__main__":
    main()
