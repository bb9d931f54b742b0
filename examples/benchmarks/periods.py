"""How often periods are found that are there, and periods that are not.

    python examples/benchmarks/periods.py [CORPUS] [--peers]

CORPUS is a folder of parquet files, a series a row (unique_id, freq, start, y). Synthetic cycles
have a standard deviation of one; noise is white unless said otherwise. A period counts as found if
it is the first of the list and at most 1 % (or half a step) from the true one. ``--peers`` adds
what others find: SeasonalityACF of sktime, check_seasonality of Darts, and the highest peak of
scipy's periodogram where Fisher's g test rejects noise.
"""

# %%
from __future__ import annotations

import argparse
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from moirai_moe_forecaster.inference.seasonality.periods import find_periods

Array = NDArray[np.float64]
Finder = Callable[[Array], int]

SERIES = 100
PERIODS = (2, 3, 4, 5, 7, 12, 24, 37, 52, 96, 144, 168, 288, 365.25, 672, 1000)
CYCLES = (3, 4, 6, 12)
NOISES = (0.1, 0.3, 1.0)
LENGTHS = (30, 100, 512, 2000)
PEER_LENGTH = 300
SERIES_A_FILE = 25
EXPECTED = {
    "5min": (288, 2016),
    "10min": (144, 1008),
    "15min": (96, 672),
    "30min": (48, 336),
    "h": (24, 168),
    "D": (7, 365),
    "W": (52,),
    "W-MON": (52,),
    "MS": (12,),
    "QS": (4,),
    "YS": (),
}


# %% Cycles
def sample_table(rng: np.random.Generator, period: float, points: int) -> Array:
    """Random values, over and over; a fraction of a step is a step more now and then."""
    table = rng.normal(size=int(period))
    return _scaled(table)[(np.arange(points) % period).astype(int) % int(period)]


def sample_wave(shape: str, rng: np.random.Generator, period: float, points: int) -> Array:
    """A sine, square or saw wave from a random phase on."""
    phase = (np.arange(points) / period + rng.random()) % 1
    if shape == "sine":
        return _scaled(np.sin(2 * np.pi * phase))
    if shape == "square":
        return _scaled(np.where(phase < rng.uniform(0.3, 0.7), 1.0, -1.0))
    return _scaled(phase)


def _scaled(values: Array) -> Array:
    return (values - values.mean()) / max(values.std(), 1e-9)


SHAPES = {"table": sample_table} | {
    shape: partial(sample_wave, shape) for shape in ("sine", "square", "saw")
}


# %% Noise
def sample_autoregression(rng: np.random.Generator, points: int, *weights: float) -> Array:
    """Autoregression with the given weights of the last values."""
    from scipy.signal import lfilter

    return lfilter([1.0], [1.0, *(-weight for weight in weights)], rng.normal(size=points + 500))[
        500:
    ]


def sample_pseudo_cycle(
    rng: np.random.Generator, points: int, *, period: float, kept: float
) -> Array:
    """Autoregression that swings with a period, of which it keeps so much from step to step."""
    return sample_autoregression(rng, points, 2 * kept * np.cos(2 * np.pi / period), -(kept**2))


def sample_garch(rng: np.random.Generator, points: int) -> Array:
    """Noise in bursts."""
    noise, value, variance = rng.normal(size=points), np.zeros(points), 1.0
    for step in range(points):
        value[step] = variance**0.5 * noise[step]
        variance = 0.05 + 0.15 * value[step] ** 2 + 0.8 * variance
    return value


def without_nights(values: Array) -> Array:
    """The first quarter of every 24 steps missing."""
    return np.where(np.arange(len(values)) % 24 < 6, np.nan, values)


NOISE: dict[str, Callable[[np.random.Generator, int], Array]] = {
    "white": lambda rng, n: rng.normal(size=n),
    "white, nights missing": lambda rng, n: without_nights(5 + rng.normal(size=n)),
    "Student's t, 2 degrees": lambda rng, n: rng.standard_t(2, size=n),
    "GARCH(1, 1)": sample_garch,
    "random walk": lambda rng, n: rng.normal(size=n).cumsum(),
    "random walk, nights missing": lambda rng, n: without_nights(rng.normal(size=n).cumsum()),
    "walk of a walk": lambda rng, n: rng.normal(size=n).cumsum().cumsum(),
    "exponential of a walk": lambda rng, n: np.exp(0.05 * rng.normal(size=n).cumsum()),
    "AR(1), 0.5": lambda rng, n: sample_autoregression(rng, n, 0.5),
    "AR(1), 0.9": lambda rng, n: sample_autoregression(rng, n, 0.9),
    "AR(1), 0.99": lambda rng, n: sample_autoregression(rng, n, 0.99),
    "AR(1), -0.7": lambda rng, n: sample_autoregression(rng, n, -0.7),
    "AR(1), -0.95": lambda rng, n: sample_autoregression(rng, n, -0.95),
    "AR(2), period 12, 0.8": partial(sample_pseudo_cycle, period=12, kept=0.8),
    "AR(2), period 12, 0.9": partial(sample_pseudo_cycle, period=12, kept=0.9),
    "AR(2), period 24, 0.95": partial(sample_pseudo_cycle, period=24, kept=0.95),
    "AR(2), period 10, 0.97": partial(sample_pseudo_cycle, period=10, kept=0.97),
    "counts, 90 % zero": lambda rng, n: (rng.random(n) < 0.1) * rng.poisson(3, n).astype(float),
    "demand, 70 % zero": lambda rng, n: (rng.random(n) < 0.3) * np.exp(rng.normal(size=n)),
    "level shift": lambda rng, n: 10 * (np.arange(n) > rng.integers(n)) + rng.normal(size=n),
}


# %% Who finds
def first_period(values: Array) -> int:
    """The primary period, or 0."""
    found = find_periods(values)
    return found[0].length if found else 0


def seasonality_acf(values: Array) -> int:
    """Period of sktime's SeasonalityACF, differenced once as its documentation advises, or 0."""
    import pandas as pd
    from sktime.param_est.seasonality import SeasonalityACF

    estimator = SeasonalityACF(nlags=len(values) // 2, p_threshold=0.01)
    period = int(estimator.fit(pd.Series(np.diff(values))).get_fitted_params()["sp"])
    return period if period > 1 else 0


def darts_seasonality(values: Array) -> int:
    """Period of Darts' check_seasonality, or 0."""
    from darts import TimeSeries
    from darts.utils.statistics import check_seasonality

    series = TimeSeries.from_values(values)
    seasonal, period = check_seasonality(series, max_lag=len(values) // 2, alpha=0.01)
    return int(period) if seasonal else 0


def periodogram_peak(values: Array) -> int:
    """Period of the highest peak of the detrended periodogram if noise has none as high, or 0."""
    from scipy.signal import periodogram

    frequency, power = periodogram(values, detrend="linear")
    peak = int(power[1:].argmax()) + 1
    share = power[peak] / power[1:].sum()
    chance = (len(power) - 1) * (1 - share) ** (len(power) - 2)
    return round(1 / frequency[peak]) if chance < 0.01 else 0


PEERS: dict[str, Finder] = {
    "find_periods": first_period,
    "SeasonalityACF (sktime)": seasonality_acf,
    "check_seasonality (Darts)": darts_seasonality,
    "periodogram (scipy)": periodogram_peak,
}


# %% Tables
def is_right(found: int, period: float) -> bool:
    """At most 1 % or half a step off."""
    return abs(found - period) <= max(0.5, period / 100)


def hit_rate(finder: Finder, samples: Iterator[Array], period: float) -> float:
    """Share of samples whose period is found."""
    return float(np.mean([is_right(finder(sample), period) for sample in samples]))


def sample_cycles(
    shape: str, period: float, points: int, noise: float, *, walk: bool = False
) -> Iterator[Array]:
    """Cycles under noise, or on a random walk whose steps are as large."""
    rng = np.random.default_rng(0)
    for _ in range(SERIES if points < 2000 else SERIES // 4):
        wander = rng.normal(size=points)
        yield SHAPES[shape](rng, period, points) + noise * (wander.cumsum() if walk else wander)


def print_hits() -> None:
    """One row per period and number of cycles; cells are noise 0.1 / 0.3 / 1."""
    print(f"\n| period | cycles | {' | '.join(SHAPES)} |\n|---:|---:|" + "---:|" * len(SHAPES))
    for period in PERIODS:
        for cycles in CYCLES:
            points = int(cycles * period)
            if points < 12:
                continue
            cells = []
            for shape in SHAPES:
                if shape != "table" and period < 4:
                    cells.append("")
                    continue
                rates = [
                    hit_rate(first_period, sample_cycles(shape, period, points, noise), period)
                    for noise in NOISES
                ]
                cells.append(" / ".join(f"{rate:.2f}" for rate in rates))
            print(f"| {period} | {cycles} | {' | '.join(cells)} |", flush=True)


def print_hits_on_walks() -> None:
    """The same on random walks, 10 cycles."""
    print(f"\n| period, on a walk | {' | '.join(SHAPES)} |\n|---:|" + "---:|" * len(SHAPES))
    for period in (4, 7, 12, 24, 52, 96, 168, 365.25):
        cells = []
        for shape in SHAPES:
            rates = [
                hit_rate(
                    first_period,
                    sample_cycles(shape, period, int(10 * period), noise, walk=True),
                    period,
                )
                for noise in (0.1, 0.3)
            ]
            cells.append(" / ".join(f"{rate:.2f}" for rate in rates))
        print(f"| {period} | {' | '.join(cells)} |", flush=True)


def print_false_alarms() -> None:
    """One row per kind of noise; cells are the share with a period and the mean strength."""
    print(f"\n| noise | {' | '.join(map(str, LENGTHS))} |\n|---|" + "---:|" * len(LENGTHS))
    for name, sample in NOISE.items():
        cells = []
        for points in LENGTHS:
            rng = np.random.default_rng(1)
            found = [find_periods(sample(rng, points)) for _ in range(3 * SERIES)]
            strength = np.mean([periods[0].strength if periods else 0.0 for periods in found])
            cells.append(f"{np.mean([bool(periods) for periods in found]):.1%} ({strength:.3f})")
        print(f"| {name} | {' | '.join(cells)} |", flush=True)


def print_peers() -> None:
    """Hits, false alarms and time of others on series of 300 points."""
    noises = ("white", "random walk", "AR(1), 0.9", "AR(2), period 12, 0.9", "demand, 70 % zero")
    cases = (("table", 7, 0.3), ("table", 24, 0.3), ("sine", 24, 0.3), ("saw", 52, 0.3))
    names = [f"{shape} {period}" for shape, period, _ in cases]
    print(f"\n| | {' | '.join(names)} | table 24 on a walk | {' | '.join(noises)} | ms |")
    print("|---|" + "---:|" * (len(names) + len(noises) + 2))
    for name, finder in PEERS.items():
        finder(NOISE["AR(1), 0.5"](np.random.default_rng(0), PEER_LENGTH))  # imports and plans
        start = time.perf_counter()
        rates = [
            hit_rate(finder, sample_cycles(shape, period, PEER_LENGTH, noise), period)
            for shape, period, noise in cases
        ]
        walks = sample_cycles("table", 24, PEER_LENGTH, 0.3, walk=True)
        rates.append(hit_rate(finder, walks, 24))
        for noise_name in noises:
            rng = np.random.default_rng(2)
            samples = (NOISE[noise_name](rng, PEER_LENGTH) for _ in range(SERIES))
            rates.append(float(np.mean([finder(sample) > 0 for sample in samples])))
        took = (time.perf_counter() - start) / (SERIES * len(rates)) * 1e3
        print(
            f"| {name} | {' | '.join(f'{rate:.2f}' for rate in rates)} | {took:.1f} |", flush=True
        )


def print_times() -> None:
    """Milliseconds a series, the best of 50: without and with a period."""
    print("\n| points | no period | 24 and 168 |\n|---:|---:|---:|")
    for points in (100, 512, 2048, 16_000):
        rng = np.random.default_rng(3)
        noise = rng.normal(size=points)
        cycle = sample_table(rng, 24, points) + 0.5 * sample_table(rng, 168, points) + 0.3 * noise
        cells = []
        for values in (noise, cycle):
            times = []
            for _ in range(50):
                start = time.perf_counter()
                find_periods(values)
                times.append(time.perf_counter() - start)
            cells.append(f"{min(times) * 1e3:.2f}")
        print(f"| {points:,} | {' | '.join(cells)} |", flush=True)


# %% Corpus
def corpus_series(folder: Path) -> Iterator[tuple[str, Array]]:
    """Frequency and values of some series of every file."""
    import pyarrow.parquet as pq

    rng = np.random.default_rng(0)
    for path in sorted(folder.glob("*.parquet")):
        table = pq.read_table(path, columns=["freq", "y"])
        freqs = np.array(table["freq"].to_pylist())
        for freq in np.unique(freqs):
            rows = rng.permutation(np.flatnonzero(freqs == freq))[:SERIES_A_FILE]
            for row in rows:
                values = np.array(table["y"][int(row)].as_py(), dtype=np.float64)
                if len(values) >= 20:
                    yield str(freq), values


def is_seasonal(values: Array, period: int) -> bool:
    """Whether the other cycles' mean explains a fifth of a cycle's values (running mean out)."""
    known = np.isfinite(values)
    count = len(values) // period
    if count < 3 or not known.any():
        return False
    at = np.arange(len(values))
    filled = np.interp(at, at[known], values[known])
    low, high = np.quantile(filled, (0.005, 0.995))
    filled = filled.clip(low - (high - low), high + (high - low))
    padded = np.pad(filled, (period // 2, period - 1 - period // 2), mode="edge")
    level = np.convolve(padded, np.full(period, 1 / period), "valid")
    cycles = (filled - level)[-count * period :].reshape(count, period)
    others = (cycles.sum(0) - cycles) / (count - 1)
    return bool(((cycles - others) ** 2).sum() < 0.8 * (cycles**2).sum())


def print_corpus(folder: Path) -> None:
    """One row per frequency."""
    found = defaultdict(list)
    for freq, values in corpus_series(folder):
        if freq in EXPECTED:
            expected = EXPECTED[freq]
            seasonal = bool(expected) and is_seasonal(values[-20_000:], expected[0])
            found[freq].append((seasonal, [period.length for period in find_periods(values)]))
    columns = "expected | series | main | second | another first | none | of seasonal ones | others"
    print(f"\n| freq | {columns} |\n|---|---|---:|---:|---:|---:|---:|---:|---|")
    for freq, expected in EXPECTED.items():
        rows = found[freq]
        has = [
            [any(is_right(length, period) for length in lengths) for period in expected]
            for _, lengths in rows
        ]
        other = [
            lengths[0]
            for _, lengths in rows
            if lengths and not any(is_right(lengths[0], period) for period in expected)
        ]
        hits = [hit[0] for (seasonal, _), hit in zip(rows, has, strict=True) if seasonal]
        cells = [
            " and ".join(map(str, expected)),
            str(len(rows)),
            f"{np.mean([hit[0] for hit in has]):.2f}" if expected else "",
            f"{np.mean([hit[1] for hit in has]):.2f}" if len(expected) > 1 else "",
            f"{len(other) / len(rows):.2f}",
            f"{np.mean([not lengths for _, lengths in rows]):.2f}",
            f"{sum(hits)} of {len(hits)}" if expected else "",
            ", ".join(f"{length} ({count})" for length, count in Counter(other).most_common(4)),
        ]
        print(f"| {freq} | {' | '.join(cells)} |", flush=True)


# %%
def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("corpus", nargs="?", type=Path, help="folder of parquet files")
    parser.add_argument("--peers", action="store_true", help="compare with other libraries")
    arguments = parser.parse_args()
    print_times()
    print_false_alarms()
    print_hits()
    print_hits_on_walks()
    if arguments.peers:
        print_peers()
    if arguments.corpus:
        print_corpus(arguments.corpus)


if __name__ == "__main__":
    main()
