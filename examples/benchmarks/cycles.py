"""How well cycles without a formula are continued: random tables of values, over and over.

    python examples/benchmarks/cycles.py [--model PATH]

Real daily and weekly rhythms are mostly smooth. These are not, so that they can only be copied;
what remains of a perfect forecast's error is the noise. Errors are relative to seasonal naive's.
"""

# %%
from __future__ import annotations

import argparse

import numpy as np

from moirai_moe_forecaster import MoiraiMoEPipeline

SERIES = 200
# period, points of the context, horizon
CASES = ((4, 100, 8), (7, 400, 28), (12, 60, 12), (12, 240, 18), (24, 700, 48), (24, 2000, 48))
NOISES = (0.1, 0.3)


# %%
def main() -> None:
    """Print one row per period, context and noise."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", help="directory of a checkpoint, instead of the bundled one")
    pipeline = MoiraiMoEPipeline.from_pretrained(parser.parse_args().model)
    rng = np.random.default_rng(0)
    print("| period | context | noise | model | perfect |\n|---:|---:|---:|---:|---:|")
    for period, context, horizon in CASES:
        for noise in NOISES:
            cycles = rng.normal(size=(SERIES, period))
            clean = cycles[:, np.arange(context + horizon) % period]
            series = clean + noise * rng.normal(size=clean.shape)
            labels = series[:, context:]
            found = pipeline.predict([*series[:, :context]], horizon, random_state=0).median
            last = series[:, context - period : context][:, np.arange(horizon) % period]
            naive, perfect, ours = (
                np.abs(forecast - labels).mean() for forecast in (last, clean[:, context:], found)
            )
            cells = f"{ours / naive:.2f} | {perfect / naive:.2f}"
            print(f"| {period} | {context:,} | {noise} | {cells} |", flush=True)


if __name__ == "__main__":
    main()
