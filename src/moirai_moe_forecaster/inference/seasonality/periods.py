"""Find what repeats in a series: its periods, from the values alone.

Whether something repeats is decided on the whitened series, where noise of any colour has a known
distribution (`inference.seasonality.whitening`). Which of a period's multiples and divisors is
meant, and how much of the series repeats, is measured on the values: by how much less they differ
over a period than over the lags around it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import cache, partial
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from moirai_moe_forecaster.inference.seasonality.whitening import (
    Correlation,
    Search,
    autocorrelation,
    plan_for,
    whitened,
    without_period,
)

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

MOST_POINTS = 20_000
POINTS_AT_ONCE = 2**17  # of series that share transforms: more leave a processor's caches
FEWEST_POINTS = 8
# Rough cycles have lines everywhere and need every point; smooth ones have a line or two among
# the lowest frequencies, and need a clean background there.
SEARCHES = (
    Search(part=1.0, taper=0.25, guard=1.5, drift=3.0, cycles=2.0, detected=5.0),
    Search(part=0.125, taper=0.5, guard=2.0, drift=5.0, cycles=3.0, detected=6.0),
)
FEWEST_POINTS_SMOOTH = 128
EASE = 2.25  # standard deviations that a clean cycle needs less
CLEAN = 0.7, 0.9  # share of a series that repeats from where a cycle is clean
SURE = 3.0  # standard deviations beyond detection where a period counts in full
LEAST_SHARE = 0.05  # what repeats less is not worth a cycle
NESTED = 5  # a multiple from here on is a cycle of cycles (days in a week), below the same cycle
LEAST_INNER = 0.25  # of what repeats with a period, part that must with a divisor of it
FORGOTTEN, LASTING = 0.15, 0.4  # of what repeats after a period, part that does after many
MANY = 24  # seasons change in time: no further back
LEAST_GAIN = 0.3  # of what is left that a cycle of cycles explains


class Period(NamedTuple):
    """One period of a series.

    Attributes
    ----------
    length : int
        In steps, at least 2.
    strength : float
        0 to 1: how much of what is left (after trend and the cycles before it in the list) repeats
        with this period. It falls to 0 continuously where detection ends.
    """

    length: int
    strength: float


def find_periods(values: Array, most: int = 3) -> list[Period]:
    """Find the periods of one series.

    Parameters
    ----------
    values : array (time,)
        NaN is missing. Of very long series the last 20,000 points count.
    most : int
        Find no more periods than this.

    Returns
    -------
    list of Period
        The primary one first; empty where nothing repeats.
    """
    return find_all_periods([values], most)[0]


def find_all_periods(signals: Iterable[Array], most: int = 3) -> list[list[Period]]:
    """Find the periods of many series, each as `find_periods` does.

    Series of equal lengths share their transforms.
    """
    parts = [_observed(np.asarray(values, dtype=np.float64)[-MOST_POINTS:]) for values in signals]
    found: list[list[Period]] = [[] for _ in parts]
    alike: dict[int, list[int]] = {}
    for index, (_, series) in enumerate(parts):
        alike.setdefault(len(series), []).append(index)
    for points, members in alike.items():
        at_once = max(POINTS_AT_ONCE // max(points, 1), 1)
        for start in range(0, len(members) if points else 0, at_once):
            some = members[start : start + at_once]
            rows = _standardised(np.stack([parts[index][1] for index in some]))
            kept = np.flatnonzero(rows.any(1))
            masks = [parts[some[row]][0] for row in kept]
            for row, periods in zip(kept, _search(rows[kept], masks, most), strict=True):
                found[some[row]] = periods
    return found


def _search(rows: Array, observed: Sequence[Mask], most: int) -> list[list[Period]]:
    """Periods of standardised series (series, points)."""
    searches = SEARCHES if rows.shape[1] >= FEWEST_POINTS_SMOOTH else SEARCHES[:1]
    plans = [plan_for(rows.shape[1], search) for search in searches]
    spectra = [whitened(rows, plan) for plan in plans]
    variograms = [
        cache(partial(_variogram, series, mask))
        for series, mask in zip(rows, observed, strict=True)
    ]
    found: list[list[Period]] = [[] for _ in rows]
    active = np.arange(len(rows)) if most else np.arange(0)
    while len(active):
        correlations = [
            autocorrelation(spectrum[active], plan)
            for spectrum, plan in zip(spectra, plans, strict=True)
        ]
        margins = np.stack(
            [
                correlation.score.max(1) - search.detected
                for correlation, search in zip(correlations, searches, strict=True)
            ]
        )
        going = []
        for place, row in enumerate(active):
            best = int(margins[:, place].argmax())
            chain, certain = _detected(
                rows[row],
                correlations[best].of(place),
                correlations[0].of(place),
                float(margins[best, place]),
                variograms[row],
                first=not found[row],
            )
            longest = chain[-1][0] if chain else 0
            new = chain and _measured(chain, certain, variograms[row](longest), found[row])
            if not new:
                continue
            found[row] += new
            if len(found[row]) < most:
                going.append(row)
                for spectrum, plan in zip(spectra, plans, strict=True):
                    spectrum[row] = without_period(spectrum[row], longest, plan)
        active = np.array(going, dtype=np.intp)
    return [periods[:most] for periods in found]


def _detected(
    series: Array,
    correlation: Correlation,
    rough: Correlation,
    margin: float,
    variogram: Callable[[int], Array],
    *,
    first: bool,
) -> tuple[list[tuple[int, float]], float]:
    """Cycles that nest into each other around the best lag, and how certain they are, 0 to 1.

    `margin` is what the best score lies above detection; `rough` is the first search's.
    """
    length = int(correlation.score.argmax())
    if margin < SURE:
        margin += _ease(series, length, variogram)
    if margin <= 0:
        return [], 0.0
    chain = _cycles(length, correlation, variogram(length))
    if first:
        chain = _inner(chain[0][0], rough, variogram(chain[0][0])) + chain
    return chain, min(margin / SURE, 1.0)


def _ease(series: Array, length: int, variogram: Callable[[int], Array]) -> float:
    """Standard deviations that a period needs less of because its values nearly repeat.

    A few clean cycles have too few points for a certain correlation.
    """
    if length < 2:
        return 0.0
    change = series[length:] - series[:-length]
    # Dear to look at closely, and mostly not worth it.
    if np.mean(change**2) > np.mean(series**2):
        return 0.0
    share = _shares(variogram(length))[length]
    return EASE * float(np.clip((share - CLEAN[0]) / (CLEAN[1] - CLEAN[0]), 0, 1))


def _observed(values: Array) -> tuple[Mask, Array]:
    """Which points are observed, and the series without gaps, from its first one to its last."""
    observed = np.isfinite(values)
    known = np.flatnonzero(observed)
    if len(known) < FEWEST_POINTS:
        return observed[:0], values[:0]
    span = slice(known[0], known[-1] + 1)
    # squares neither overflow nor vanish; a power of two changes no digit
    values = np.ldexp(values, -np.frexp(np.abs(values[known]).max())[1])
    observed, series = observed[span], values[span]
    if len(known) < len(series):
        # A line leaves no trace of when values are missing; a constant would, of nights, say.
        series = np.interp(np.arange(known[0], known[-1] + 1), known, values[known])
    return observed, series


def _standardised(rows: Array) -> Array:
    """Take outliers and trend out of series (series, points), and their unit; 0 if no more is."""
    points = rows.shape[1]
    largest = np.abs(rows).max(1, keepdims=True)
    tail = points // 10
    ordered = np.partition(rows, (tail, points - 1 - tail), axis=1)
    low, high = ordered[:, [tail]], ordered[:, [-1 - tail]]
    spread = high - low
    rows = np.where(spread > 0, np.clip(rows, low - spread, high + spread), rows)
    rows = rows - rows.mean(1, keepdims=True)
    time = np.arange(points) - (points - 1) / 2
    rows = rows - (rows * time).sum(1, keepdims=True) / (time @ time) * time
    sizes = np.abs(rows).max(1, keepdims=True)
    # What rounding leaves of a constant or a line is no series.
    some = sizes > 1e-9 * largest
    return np.where(some, rows / np.where(some, sizes, 1.0), 0.0)


def _cycles(length: int, correlation: Correlation, variogram: Array) -> list[tuple[int, float]]:
    """Lengths that nest into each other, shortest first, and how sure each is beside the period."""
    mean, score, _ = correlation
    share = _shares(variogram)
    divisors = np.rint(length / np.arange(1, length // 2 + 1)).astype(int)
    alike = mean[divisors] >= 0.8 * mean[length]
    alike |= (share[divisors] >= 0.8 * share[length]) & (mean[divisors] >= 0.25 * mean[length])
    length = int(divisors[alike & (score[divisors] > 0)][-1])

    chain = [(_refined(length, variogram), 1.0)]
    while True:
        times, certain = _multiple(chain[-1][0], correlation, share)
        if not times:
            break
        longer = times * chain[-1][0]
        if times < NESTED:
            certain = chain.pop()[1]
        chain.append((longer, certain))
    return chain


def _inner(length: int, correlation: Correlation, variogram: Array) -> list[tuple[int, float]]:
    """Divisor of a period that a good part of it repeats with, and how sure it is, if there is one.

    The lines of a week outnumber those of its days; still the day may be the greater part.
    """
    share = _shares(variogram)
    divisors = np.rint(length / np.arange(NESTED, length // 2 + 1)).astype(int)
    whole = max(float(share[length]), LEAST_SHARE)
    divisors = divisors[(correlation.score[divisors] > 0) & (share[divisors] > LEAST_INNER * whole)]
    divisors = divisors[np.argsort(-share[divisors], kind="stable")][:4]
    best, certain = 0, 0.0
    for divisor in map(int, divisors):
        days = 1 - variogram[divisor:length:divisor].mean() / variogram[1:length].mean()
        # Six standard deviations of what random values in place of the period would have.
        chance = 6 * (2 * divisor) ** 0.5 / length
        beyond = float(days) / whole - max(chance, LEAST_INNER)
        sure = float(np.clip(beyond / LEAST_INNER, 0, 1))
        if sure > certain:
            best, certain = _refined(divisor, variogram), sure
    return [(best, certain)] if best else []


def _multiple(length: int, correlation: Correlation, share: Array) -> tuple[int, float]:
    """Multiple of a period that explains markedly more, or 0, and how sure it is."""
    mean, deviation, share = (
        values[::length] for values in (correlation.mean, correlation.deviation, share)
    )
    halves = (1 - share <= 0.5 * (1 - share[1])) & (share > share[1] + 0.1) & (mean >= mean[1])
    halves[:2] = halves[NESTED:] = False
    if halves.any():
        return int(halves.argmax()), 1.0
    if len(mean) < 4:
        return 0, 0.0
    # A multiple of the right length correlates more than the multiples next to it.
    beside = (mean[1:-2] + mean[3:]) / 2
    contrast = mean[2:-1] - beside
    score = contrast / deviation[2:-1] / 1.5**0.5 - SEARCHES[0].detected
    gain = contrast / np.maximum(1 - beside, 0.05) - LEAST_GAIN
    best = int(score.argmax())
    if score[best] <= 0 or gain[best] <= 0:
        return 0, 0.0
    first = int(np.argmax((contrast >= 0.7 * contrast[best]) & (score > 0)))
    return first + 2, float(min(score[first] / SURE, max(gain[first], 0) / LEAST_GAIN, 1.0))


def _measured(
    chain: list[tuple[int, float]], certain: float, variogram: Array, found: list[Period]
) -> list[Period]:
    """Periods of a chain that were not found before, with their strength."""
    lengths = [period.length for period in found]
    new = []
    for length, sure in chain:
        if length in lengths:
            continue
        step = max((other for other in lengths if 2 * other <= length), default=1)
        strength = float(certain * sure * _strength(variogram, length, step))
        if strength > 0:
            new.append(Period(length, strength))
            lengths.append(length)
    return new


def _variogram(series: Array, observed: Mask, window: int) -> Array:
    """Mean squared difference of observed points, by lag up to 3/4 of the series; (lags,).

    The running mean over a window is taken out first, so that what wanders slowly counts little.
    """
    points = len(series)
    total = np.concatenate(([0.0], np.cumsum(series)))
    level = (total[window:] - total[:-window]) / window
    middle = np.clip(np.arange(points) - window // 2, 0, points - window)
    values = np.where(observed, series - level[middle], 0.0)
    lags = 3 * (points // 2) // 2 + 1
    squares, pairs = _differences(values, observed, lags)
    variogram = np.maximum(squares, 0) / np.maximum(pairs, 0.5)
    variogram[pairs < 0.5] = 2 * (values @ values) / np.count_nonzero(observed)
    return variogram


def _differences(values: Array, observed: Mask, lags: int) -> tuple[Array, Array]:
    """Sums of squared differences of observed points, by lag, and how many there are; (lags,)."""
    points, size = len(values), plan_for(len(values), SEARCHES[0]).size
    if not observed.all():
        known, value, square = np.fft.rfft([observed, values, values**2], size)
        cross = 2 * (known.conj() * square).real - 2 * np.abs(value) ** 2
        squares, pairs = np.fft.irfft([cross, np.abs(known) ** 2], size)[:, :lags]
        return squares, pairs
    # without gaps, the squares on either side of a lag are cumulative sums
    products = np.fft.irfft(np.abs(np.fft.rfft(values, size)) ** 2, size)[:lags]
    total = np.concatenate(([0.0], np.cumsum(values**2)))
    lag = np.arange(lags)
    return total[points - lag] + total[-1] - total[lag] - 2 * products, points - lag.astype(float)


def _shares(variogram: Array) -> Array:
    """How much less values differ over a lag than over those from 1/2 to 3/2 of it; (lags,)."""
    total = np.concatenate(([0.0], np.cumsum(variogram)))
    lag = np.arange(-(-2 * (len(variogram) - 1) // 3) + 1)
    low, high = (lag + 1) // 2, 3 * lag // 2 + 1
    around = (total[high] - total[low]) / (high - low)
    return np.clip(1 - variogram[: len(lag)] / np.maximum(around, 1e-300), 0, 1)


def _strength(variogram: Array, length: int, step: int) -> float:
    """How much repeats with a length of what cycles of ``step`` leave, if it goes on repeating."""
    around = np.arange(-(-length // 2 // step) * step, 3 * length // 2 + 1, step)
    around = around[(around > 0) & (around != length) & (around < len(variogram))]
    level = float(variogram[around].mean()) if len(around) else 0.0
    drop = level - float(variogram[length])
    if drop <= 0:
        return 0.0
    share = max(drop / level - LEAST_SHARE, 0.0) / (1 - LEAST_SHARE)
    return share * _lasting(variogram, length, drop) if step == 1 else share


def _lasting(variogram: Array, length: int, drop: float) -> float:
    """Whether values also differ less over many periods; an autoregression forgets its cycle."""
    half = length // 2
    times = np.arange(1, (len(variogram) - 1 - half) // length + 1)
    times = times[(times <= MANY) & (2 * times >= min(len(times), MANY))]
    if not len(times):
        return 1.0
    # Years of 365.25 days, months of 30.4: a small error grows with the number of cycles.
    exact = length + np.linspace(-1, 1, 21) * min(0.5, length / 200)
    far = np.minimum(np.rint(exact[:, None] * times).astype(int), len(variogram) - 1)
    level = float(variogram[times[0] * length - half : times[-1] * length + half + 1].mean())
    kept = (level - float(variogram[far].mean(1).min())) / drop
    return float(np.clip((kept - FORGOTTEN) / (LASTING - FORGOTTEN), 0, 1))


def _refined(length: int, variogram: Array) -> int:
    """Length within a tenth over whose multiples values differ least."""
    longest = -(-2 * (len(variogram) - 1) // 3)
    near = np.arange(max(2, length - length // 10), min(length + length // 10, longest) + 1)
    times = np.arange(1, min(max((len(variogram) - 1) // int(near[-1]), 1), 12) + 1)
    return int(near[variogram[near[:, None] * times].mean(1).argmin()])
