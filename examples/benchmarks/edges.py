"""Measure what gaps, typing errors, lumpy demand and borders between passes cost.

    python examples/benchmarks/edges.py [FOLDER] [--series N]

FOLDER holds validation sources, ``SOURCE.parquet`` with the list y of every series, of which
stretches without gaps are taken; without it only made series are scored. Errors are mean absolute
ones relative to the mean absolute difference of neighbours, of which the geometric mean over series
is printed. Gaps are given to the network as a mask, as lines between neighbours, and as the
checkpoint does (`docs/edges.md`).
"""

# %%
from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from moirai_moe_forecaster import MoiraiMoEPipeline

CONTEXT, HORIZON, BORDER = 324, 24, 64


# %%
def pipeline(**changes: object) -> MoiraiMoEPipeline:
    """The bundled checkpoint with other conventions."""
    found = MoiraiMoEPipeline.from_pretrained(device="cpu")
    found.network.config = replace(found.network.config, **changes)
    return found


def made_series(rng: np.random.Generator, count: int, points: int) -> np.ndarray:
    """Cycles under noise, walks, autoregressions and noise: (series, time)."""
    time, noise = np.arange(points), rng.normal(size=(6, count, points))
    start = np.arange(count)[:, None]
    cycles = [50 + 10 * np.sin(2 * np.pi * time / p + start) for p in (7, 12, 24)]
    decay = 0.8 ** np.arange(60)
    memory = np.stack([np.convolve(row, decay)[:points] for row in noise[4]])
    return np.concatenate((*(cycles + noise[:3]), noise[3].cumsum(1), memory, noise[5]))


def real_series(folder: Path, rng: np.random.Generator, count: int, points: int) -> np.ndarray:
    """Stretches without gaps of every source: (series, time)."""
    rows = []
    for file in sorted(folder.glob("*.parquet")):
        series = [np.asarray(y, dtype=float) for y in pd.read_parquet(file, columns=["y"])["y"]]
        for _ in range(20 * count):
            y = series[rng.integers(len(series))]
            if len(y) >= points:
                start = rng.integers(len(y) - points + 1)
                stretch = y[start : start + points]
                if not np.isnan(stretch).any() and np.ptp(stretch[:CONTEXT]) > 0:
                    rows.append((file.stem, stretch))
            if sum(name == file.stem for name, _ in rows) == count:
                break
    return np.array([stretch for _, stretch in rows])


def patterns(rng: np.random.Generator) -> dict[str, np.ndarray]:
    """What is missing, by name."""
    time = np.arange(CONTEXT)
    blocks = np.isin(time // 30, (2, 5, 8))
    return {
        "none": time < 0,
        "10 % at random": rng.random(CONTEXT) < 0.1,
        "30 % at random": rng.random(CONTEXT) < 0.3,
        "every second": time % 2 == 1,
        "two of three": time % 3 != 0,
        "two of seven": time % 7 >= 5,
        "six of 24": time % 24 < 6,
        "blocks of 30": blocks,
        "the last 10": time >= CONTEXT - 10,
        "the last 24": time >= CONTEXT - 24,
    }


def score(forecaster: MoiraiMoEPipeline, contexts: list[np.ndarray], y: np.ndarray) -> str:
    """Error and coverage of the 80 % interval."""
    forecast = forecaster.predict(contexts, HORIZON, random_state=0)
    unit = np.abs(np.diff(y[:, :CONTEXT])).mean(1, keepdims=True)
    label = y[:, CONTEXT:]
    lower, upper = forecast.interval(0.8)
    errors = (np.abs(forecast.median - label) / unit).mean(1)
    # one series is as good as another, and some are forecast without an error
    error = np.exp(np.log(errors + 1e-3).mean())
    return f"{error:.3f}, {((label >= lower) & (label <= upper)).mean():.0%}"


# %%
def gaps(y: np.ndarray) -> None:
    """Print errors under every pattern."""
    ours, masked = pipeline(), pipeline(fill_gaps=False)
    print("\n| missing | mask | lines | filled |\n|---|---:|---:|---:|")
    for name, gap in patterns(np.random.default_rng(1)).items():
        context = [np.where(gap, np.nan, row[:CONTEXT]) for row in y]
        lines = [pd.Series(row).interpolate(limit_direction="both").to_numpy() for row in context]
        scores = [score(*pair, y) for pair in ((masked, context), (masked, lines), (ours, context))]
        print(f"| {name} | {' | '.join(scores)} |", flush=True)


def outliers(y: np.ndarray) -> None:
    """Print errors with one value of each series multiplied."""
    ours, naive = pipeline(), pipeline(drop_outliers=False)
    print("\n| one value times | read as it is | dropped |\n|---:|---:|---:|")
    where = np.random.default_rng(2).integers(20, CONTEXT, len(y))
    for factor in (1.0, 100.0, 1e3, 1e6, 1e8):
        context = y[:, :CONTEXT].copy()
        context[np.arange(len(y)), where] *= factor
        print(f"| {factor:g} | {score(naive, [*context], y)} | {score(ours, [*context], y)} |")


def lumpy(count: int) -> None:
    """Print means and upper quantiles of demand without order, relative to the true ones."""
    ours, smooth = pipeline(), pipeline(own_distribution=False)
    rng = np.random.default_rng(3)
    print("\n| steps with demand | mean | 0.99 quantile | with its own: mean | 0.99 quantile |")
    print("|---:|---:|---:|---:|---:|")
    for share in (0.05, 0.1, 0.2, 0.4):
        sizes = rng.geometric(0.25, (count + 2000, CONTEXT))
        demand = (rng.random(sizes.shape) < share) * sizes.astype(float)
        true = demand.mean(), np.quantile(demand, 0.99)
        cells = []
        for forecaster in (smooth, ours):
            forecast = forecaster.predict([*demand[:count]], HORIZON, random_state=0)
            cells += [forecast.mean.mean() / true[0], forecast.quantile(0.99).mean() / true[1]]
        print(f"| {share:.0%} | {' | '.join(f'{cell:.2f}' for cell in cells)} |", flush=True)


def borders(count: int) -> None:
    """Print how widths go on from pass to pass, and coverage up to 256 steps."""
    rng, steps = np.random.default_rng(5), 256
    noise = rng.normal(size=(count, CONTEXT + steps))
    walks = noise.cumsum(1)
    season = 8 * np.sin(np.arange(CONTEXT + steps) * 2 * np.pi / 24)
    kinds = {"walks": walks, "with drift": walks + 0.3 * np.arange(CONTEXT + steps)}
    kinds["with a season"] = walks + season
    print("\n| series | dependence | width at 64, 128, 192 | under 0.97 | coverage by eighth |")
    print("|---|---|---:|---:|---:|")
    for name, y in kinds.items():
        for label, changes in (("as before", {"dependence_walk": 0.0}), ("of a walk", {})):
            forecast = pipeline(**changes).predict([*y[:, :CONTEXT]], steps, random_state=0)
            lower, upper = forecast.interval(0.8)
            width = upper - lower
            ratios = np.stack([width[:, k] / width[:, k - 1] for k in (64, 128, 192)])
            inside = (y[:, CONTEXT:] >= lower) & (y[:, CONTEXT:] <= upper)
            covered = inside.reshape(count, 8, -1).mean((0, 2))
            cells = (
                ", ".join(f"{r:.3f}" for r in ratios.mean(1)),
                f"{(ratios < 0.97).mean():.0%}",
                " ".join(f"{c:.0%}" for c in covered),
            )
            print(f"| {name} | {label} | {' | '.join(cells)} |", flush=True)


# %%
def main() -> None:
    """Print all tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", nargs="?", type=Path)
    parser.add_argument("--series", type=int, default=8, help="of each kind or source")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rng, points = np.random.default_rng(0), CONTEXT + HORIZON
    sets = {"made series": made_series(rng, arguments.series, points)}
    if arguments.folder is not None:
        sets["real series"] = real_series(arguments.folder, rng, arguments.series, points)
    for name, y in sets.items():
        print(f"\n### {name}: {len(y)}")
        gaps(y)
        outliers(y)
    print("\n### lumpy demand")
    lumpy(5 * arguments.series)
    print("\n### borders")
    borders(8 * arguments.series)


if __name__ == "__main__":
    main()
