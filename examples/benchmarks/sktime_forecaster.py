"""The sktime forecaster: in-sample forecasts against refitting, and its overhead on a panel.

    python examples/benchmarks/sktime_forecaster.py [--series 1000]

Errors are relative to those of the last value. Times are of the processor, on one thread.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import numpy as np
import pandas as pd
import torch
from sktime.datasets import load_airline, load_macroeconomic
from sktime.forecasting.base import ForecastingHorizon

from moirai_moe_forecaster import MoiraiMoEForecaster

START = 24
FH = range(1, 25)


def timed(work: Callable[[], pd.Series | pd.DataFrame | list[float]]) -> tuple[np.ndarray, float]:
    started = time.process_time()
    result = work()
    return np.asarray(result, dtype=float).ravel(), time.process_time() - started


def sets() -> dict[str, pd.Series]:
    generator = np.random.default_rng(0)
    steps = np.arange(300)
    noise = generator.normal(size=(3, 300))
    season = 10 * np.sin(steps * np.pi / 6)
    made = {
        "season of 12, noise": 100 + season + 3 * noise[0],
        "random walk": noise[1].cumsum(),
        "exponential growth": np.exp(steps / 60) * (1 + noise[2] / 10),
        "from 5 to 1000": np.where(steps < 100, 5 + noise[0], 1000 + season + noise[1]),
        "begins at the 100th": np.where(steps < 100, np.nan, 1000 + season + noise[1]),
    }
    real = {"airline": load_airline(), "realgdp": load_macroeconomic()["realgdp"]}
    return real | {name: pd.Series(values) for name, values in made.items()}


def in_sample(name: str, y: pd.Series) -> None:
    """Every third point after the start, and after the first that is known."""
    first = max(START, int(y.notna().to_numpy().argmax()) + 1)
    places = range(first, len(y), 3)

    def refitted() -> list[float]:
        fits = (MoiraiMoEForecaster(random_state=0).fit(y.iloc[:place]) for place in places)
        return [fitted.predict([1]).iloc[0] for fitted in fits]

    def at_once() -> pd.Series:
        fh = ForecastingHorizon(y.index, is_relative=False)
        return MoiraiMoEForecaster(random_state=0).fit(y).predict(fh)

    (told, quick), (anew, slow) = timed(at_once), timed(refitted)
    truth = y.to_numpy(dtype=float)
    naive, *errors = (
        np.abs(forecast - truth[places]).mean()
        for forecast in (truth[np.array(places) - 1], told[places], anew)
    )
    ours, theirs = (error / naive for error in errors)
    faster = slow / len(places) / (quick / len(y))
    print(f"| {name} ({len(y)}) | {ours:.3f} | {theirs:.3f} | {quick:.2f} s | {faster:.0f} x |")


def overhead(count: int) -> None:
    generator = np.random.default_rng(0)
    phase = generator.uniform(0, 6, (count, 1))
    values = 10 + 3 * np.sin(np.arange(500) / 6 + phase) + generator.normal(size=(count, 500))
    days = pd.date_range("2020-01-01", periods=500, freq="D")
    pipeline = MoiraiMoEForecaster().fit(pd.Series(values[0])).pipeline_
    for name, late in (("the same days", 0), ("each a day later", 1)):
        parts = {
            key: pd.DataFrame({"y": row}, days + late * key * days.freq)
            for key, row in enumerate(values)
        }
        panel = pd.concat(parts, names=["id", "day"])
        for _ in range(2):
            _, bare = timed(lambda: pipeline.predict(list(values), 24, random_state=0).median)
            _, whole = timed(lambda panel=panel: MoiraiMoEForecaster().fit(panel).predict(FH))
            ratio = f"{whole / bare - 1:+.0%}"
            print(f"{count} series, {name}: pipeline {bare:.2f} s, fit and predict {ratio}")


if __name__ == "__main__":
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--series", type=int, default=1000)
    torch.set_num_threads(1)
    for name, y in sets().items():
        in_sample(name, y)
    overhead(arguments.parse_args().series)
