"""What covariates that are known ahead gain, and what useless ones cost: relative errors.

    python examples/benchmarks/covariates.py [FOLDER]

FOLDER holds parquet files of the training corpus (docs/training.md), from which some pairs of real
series are taken; without it only synthetic data and sktime's macro-economic set are used.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
from sktime.datasets import load_macroeconomic

from moirai_moe_forecaster import MoiraiMoEPipeline

CONTEXT, HORIZON, WINDOWS = 512, 24, 12
Case = tuple[str, np.ndarray, np.ndarray, int]
PAIRS = [
    (
        "PM10, given PM2.5",
        "beijing_air_quality",
        "bj_Aotizhongxin_PM10",
        "bj_Aotizhongxin_PM2.5",
        24,
    ),
    ("NOx, given NO2", "iot_air_heating", "marylebone_nox", "marylebone_no2", 24),
    ("British demand, given transmission", "uk_us_grid", "UKgrid_ND", "UKgrid_TSD", 48),
    (
        "solar roof, given another's",
        "citylearn_real",
        "cl22_Building_1_solar_generation",
        "cl22_Building_10_solar_generation",
        24,
    ),
    (
        "German load, given its forecast",
        "entsoe_load_price",
        "elec_load_LoadActual_DE",
        "elec_load_LoadForecast_DE",
        24,
    ),
    ("load, given temperature", "gefcom2014", "GEF14E_load", "GEF14E_T", 24),
]


def synthetic(rng: np.random.Generator) -> Iterator[Case]:
    steps = np.arange(2000)
    driver, noise = rng.normal(size=(2, 5, 2000))
    yield "2 x + noise", 2 * driver[0] + noise[0] / 3, driver[0, :, None], 1
    walk = driver[1].cumsum()
    yield "random walk x, x + noise", walk + noise[1], walk[:, None], 1
    season = np.sin(steps * 2 * np.pi / 24)
    earlier = np.roll(driver[2], 2)
    yield "season + 3 x two steps before", season + 3 * earlier, driver[2, :, None], 24
    bent = (driver[3] - 0.5) ** 2
    yield "(x - 0.5)^2 + noise", bent + noise[3] / 3, driver[3, :, None], 1
    promotion = (driver[4] > 1.3) * 1.0
    yield "5 promotions + noise", 5 * promotion + noise[4], promotion[:, None], 7


def real(folder: Path | None) -> Iterator[Case]:
    data = load_macroeconomic()
    parts = data[["realcons", "realinv", "realgovt"]].to_numpy()
    yield "national product, given its parts", data["realgdp"].to_numpy(), parts, 4
    for name, file, target, driver, season in PAIRS if folder else ():
        table = pd.read_parquet(folder / f"{file}.parquet").set_index("unique_id")["y"]
        y, x = (np.asarray(table[key], dtype=float)[-9000:] for key in (target, driver))
        yield name, y, x[:, None], season


def useless(cases: list[Case], rng: np.random.Generator) -> Iterator[Case]:
    """Covariates that have nothing to do with it: noise, random walks, another set's series."""
    for number, (name, y, _, season) in enumerate(cases):
        noise = rng.normal(size=(len(y), 3))
        yield f"{name}: noise instead", y, noise, season
        yield f"{name}: random walks instead", y, noise.cumsum(0), season
        other = cases[number - 1][1]
        if len(other) >= len(y):
            yield f"{name}: another target instead", y, other[: len(y), None], season


def relative_error(pipeline: MoiraiMoEPipeline, case: Case) -> tuple[float, float, float]:
    """MASE without covariates, and relative to it with the regression and with tokens."""
    _, y, x, season = case
    horizon = HORIZON if len(y) > 300 else 8
    length = min(CONTEXT, len(y) // 2)
    contexts, known, truths = [], [], []
    for end in np.linspace(length, len(y) - horizon, WINDOWS).astype(int):
        context, truth = y[end - length : end], y[end : end + horizon]
        if np.isfinite(truth).any() and np.isfinite(context).sum() > 2 * season:
            contexts.append(context)
            truths.append(truth)
            known.append(x[end - length : end + horizon])

    def mase(**options: object) -> float:
        forecast = pipeline.predict(contexts, horizon, random_state=0, **options).median
        scales = [np.nanmean(np.abs(c[season:] - c[:-season])) for c in contexts]
        errors = np.nanmean(np.abs(forecast - np.array(truths)), 1)
        return float(np.nanmean(errors / scales))

    without = mase()
    regression = mase(future_covariates=known, covariate_use="regression")
    tokens = mase(future_covariates=known, covariate_use="tokens")
    return without, regression / without, tokens / without


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", nargs="?", type=Path)
    folder = parser.parse_args().folder
    pipeline = MoiraiMoEPipeline.from_pretrained()
    rng = np.random.default_rng(0)
    cases = [*synthetic(rng), *real(folder)]
    for group in (cases, list(useless(cases, rng))):
        rows = [(case[0], *relative_error(pipeline, case)) for case in group]
        columns = ["set", "MASE without", "regression", "tokens"]
        table = pd.DataFrame(rows, columns=columns).set_index("set")
        means = np.exp(np.log(table).mean())
        print(pd.concat([table, means.to_frame("geometric mean").T]).round(3).to_string(), "\n")


if __name__ == "__main__":
    main()
