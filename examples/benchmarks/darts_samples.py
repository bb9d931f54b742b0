"""Sampling through the Darts model against Darts' own loop over samples, on the same module.

    python examples/benchmarks/darts_samples.py [--series 64] [--samples 100] [--threads 1]

Darts' own loop calls `forward` once per sample and batch; `MoiraiMoEModel` encodes each context
once. Both run in turn in this process, on the same weights and series, in Darts' default batches of
32, and through the same `predict`: the ratio is of what a user waits for.
"""

# %%
from __future__ import annotations

import argparse
import logging
import time
import warnings

import numpy as np
import pandas as pd
import torch
from darts import TimeSeries
from darts.models.forecasting.pl_forecasting_module import PLForecastingModule
from darts.utils.likelihood_models.torch import QuantileRegression

from moirai_moe_forecaster import MoiraiMoEModel

CONTEXT, HORIZON = 512, 24
LEVELS = [0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95]


# %%
def panel(count: int) -> list[TimeSeries]:
    """Daily seasons, random walks and noise, hourly."""
    rng, hours = np.random.default_rng(0), np.arange(CONTEXT)
    index = pd.date_range("2024", periods=CONTEXT, freq="h")
    return [
        TimeSeries.from_times_and_values(
            index,
            (
                np.sin(2 * np.pi * hours / 24 + rng.uniform(0, 6))
                + 0.1 * rng.normal(size=CONTEXT).cumsum()
                + 0.3 * rng.normal(size=CONTEXT)
            ).astype(np.float32),
        )
        for _ in range(count)
    ]


def seconds(model: MoiraiMoEModel, series: list[TimeSeries], **options: int) -> float:
    """Time of one call."""
    start = time.perf_counter()
    forecasts = model.predict(HORIZON, series=series, random_state=0, **options)
    assert len(forecasts) == len(series)
    return time.perf_counter() - start


def main() -> None:
    """Print one row per way to draw the samples."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--series", type=int, default=64)
    parser.add_argument("--samples", type=int, default=100)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    warnings.simplefilter("ignore")
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    series = panel(arguments.series)
    trainer = {"enable_progress_bar": False, "accelerator": "cpu"}
    model = MoiraiMoEModel(
        CONTEXT, HORIZON, likelihood=QuantileRegression(LEVELS), pl_trainer_kwargs=trainer
    ).fit(series)
    seconds(model, series[:2], num_samples=2)
    ours = [seconds(model, series, num_samples=arguments.samples) for _ in range(3)]

    module = model.model
    module.__class__ = type(
        "OwnLoop", (type(module),), {"predict_step": PLForecastingModule.predict_step}
    )
    seconds(model, series[:2], num_samples=2)
    loop = seconds(model, series, num_samples=arguments.samples)
    print("| | seconds |\n|---|---:|")
    print(f"| Darts' own loop | {loop:.2f} |\n| `MoiraiMoEModel` | {min(ours):.2f} |")
    print(f"| ratio | {loop / min(ours):.0f} |")


if __name__ == "__main__":
    main()
