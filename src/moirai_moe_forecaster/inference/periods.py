"""Find what repeats in a series: its periods, from the values alone.

A cycle is a comb of lines in the periodogram, random variation of any colour is smooth there. So
the periodogram is divided by its own background, which makes walks, autoregressions and noise alike;
what then correlates with itself one, two, three and four periods later is a cycle. How much of a
series repeats is measured on the values: by how much less they differ over a period than over the
lags around it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

LONGEST_HISTORY = 20_000
FEWEST_POINTS = 8
TAPER = 0.25  # share of the points that the taper fades in and out
LAGS = 4  # a period is judged on this many of its multiples
BACKGROUND = 16.0  # half-width of the window that the background is taken from, in 1/points
GUARD = 1.5  # half-width of a line, which its own background leaves out
DRIFT = 3.0  # lines below this many cycles a series are hard to tell from a drift
DETECTED = 5.0  # standard deviations that noise of many periods rarely reaches
SURE = 10.0


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
        At most so many periods.

    Returns
    -------
    list of Period
        The primary one first; empty where nothing repeats.
    """
    observed, series = _prepare(np.asarray(values, dtype=np.float64)[-LONGEST_HISTORY:])
    if not series.any():
        return []
    plan = _plan(len(series))
    spectrum = _whiten(series, plan)
    found: list[Period] = []
    for _ in range(most):
        correlation = _correlation(spectrum, plan)
        length = _first(correlation, plan)
        if not length:
            break
        for length in _nested(length, _averaged(correlation, plan), plan):
            score = _averaged(correlation, plan)[length] / plan.deviation[length]
            certain = float(np.clip((score - DETECTED) / (SURE - DETECTED), 0, 1))
            strength = certain * _share(series, observed, length, [p.length for p in found])
            if strength > 0 and length not in [p.length for p in found]:
                found.append(Period(length, strength))
        spectrum = _without(spectrum, length, plan)
    return found[:most]


def _prepare(values: Array) -> tuple[NDArray[np.bool_], Array]:
    """Which points are observed, and the series without gaps, outliers and trend; (time,) both."""
    observed = np.isfinite(values)
    known = np.flatnonzero(observed)
    if len(known) < FEWEST_POINTS:
        return observed[:0], values[:0]
    span = slice(known[0], known[-1] + 1)
    observed, series = observed[span], values[span]
    if len(known) < len(series):
        # A line leaves no trace of when values are missing, a constant would: nights, say.
        series = np.interp(np.arange(known[0], known[-1] + 1), known, values[known])
    tail = len(series) // 10
    low, high = np.partition(series, (tail, len(series) - 1 - tail))[[tail, -1 - tail]]
    if high > low:
        series = np.clip(series, 2 * low - high, 2 * high - low)
    series = series - series.mean()
    time = np.arange(len(series)) - (len(series) - 1) / 2
    return observed, series - time * (time @ series / (time @ time))


@dataclass(frozen=True, kw_only=True)
class _Plan:
    """What depends on the number of points alone."""

    taper: Array
    size: int  # of the padded transform
    bounds: tuple[NDArray[np.int64], ...]  # of the background's window, and of the line in it
    weight: Array  # of a bin of the periodogram
    inside: Array  # how many bins the background's window has
    ends: tuple[int, ...]
    pairs: Array
    deviation: Array


@lru_cache(maxsize=16)
def _plan(points: int) -> _Plan:
    size = _fast_size(2 * points)
    ratio = size / points
    fade = int(TAPER * points / 2)
    taper = np.ones(points)
    ramp = 0.5 - 0.5 * np.cos(np.pi * (np.arange(fade) + 0.5) / max(fade, 1))
    taper[:fade], taper[points - fade :] = ramp, ramp[::-1]
    window = np.fft.irfft(np.abs(np.fft.rfft(taper, size)) ** 2, size)[:points]
    window /= window[0]

    bins = size // 2 + 1
    at = np.arange(bins)
    half = np.clip(at / 2, 3 * ratio, BACKGROUND * ratio).astype(int)
    guard = round(GUARD * ratio)
    low = np.maximum(at - half, int(ratio))
    high = np.maximum(np.minimum(at + half + 1, bins), low + 1)
    line_low, line_high = np.clip(at - guard, low, high), np.clip(at + guard + 1, low, high)
    inside = np.maximum(high - low - (line_high - line_low), 1)
    cycles = np.maximum(at, 1) / ratio
    mirrored = np.maximum(bins - 1 - at, 0.5) / ratio
    weight = 1 / (1.78 * (1 + (DRIFT / cycles) ** 2))
    weight[: int(ratio)] = 0

    lags = points // 2 + 1
    pairs = np.zeros(lags)
    ends = []
    for k in range(1, LAGS + 1):
        end = min(lags, (points - 1) // k + 1)
        ends.append(end)
        pairs[:end] += window[: k * end : k][:end]
    pairs = np.maximum(pairs, 0.05)
    effective = points * np.mean(taper**2) ** 2 / np.mean(taper**4)
    return _Plan(
        taper=taper,
        size=size,
        bounds=(low, line_low, line_high, high),
        weight=weight,
        inside=inside,
        ends=tuple(ends),
        pairs=pairs,
        deviation=1 / np.sqrt(pairs * effective),
    )


def _fast_size(least: int) -> int:
    return min(odd << max(0, ((least - 1) // odd).bit_length()) for odd in (1, 3, 5, 9, 15))


def _whiten(series: Array, plan: _Plan) -> Array:
    """Periodogram over its background."""
    power = np.abs(np.fft.rfft(series * plan.taper, plan.size)) ** 2
    total = np.concatenate(([0.0], np.cumsum(np.log(power + 1e-9 * power.mean()))))
    low, line_low, line_high, high = plan.bounds
    around = total[high] - total[line_high] + total[line_low] - total[low]
    return power * plan.weight / np.exp(around / plan.inside)


def _correlation(spectrum: Array, plan: _Plan) -> Array:
    correlation = np.fft.irfft(spectrum, plan.size)[: len(plan.taper)]
    return correlation / correlation[0]


def _averaged(correlation: Array, plan: _Plan) -> Array:
    """Mean correlation over the first multiples of each lag."""
    total = np.zeros(len(plan.pairs))
    for k, end in enumerate(plan.ends, 1):
        total[:end] += correlation[: k * end : k]
    return total / plan.pairs


def _first(correlation: Array, plan: _Plan) -> int:
    """Period that stands out most, or its shortest divisor that explains half as much; or 0."""
    crossing = int((correlation <= 0).argmax())
    mean = _averaged(correlation, plan)
    start = max(crossing, 2)
    if not crossing or start >= len(mean):
        return 0
    score = mean / plan.deviation
    best = start + int(score[start:].argmax())
    if score[best] < DETECTED:
        return 0
    divisors = np.rint(best / np.arange(1, best // start + 1)).astype(int)
    enough = (mean[divisors] >= 0.75 * mean[best]) & (score[divisors] >= DETECTED)
    short = int(divisors[enough].min())
    low = max(start, short - short // 10)
    return low + int(mean[low : short + short // 10 + 1].argmax())


def _nested(length: int, mean: Array, plan: _Plan) -> list[int]:
    chain = [length]
    while True:
        multiples = mean[:: chain[-1]]
        contrast = multiples[2:-1] - (multiples[1:-2] + multiples[3:]) / 2
        if not len(contrast):
            return chain
        deviation = plan.deviation[:: chain[-1]][2:-1] * 1.5**0.5
        gain = contrast / np.maximum(1 - (multiples[1:-2] + multiples[3:]) / 2, 0.05)
        score = contrast / deviation
        best = int(score.argmax())
        if score[best] < DETECTED or gain[best] < 0.3:
            return chain
        good = np.flatnonzero((contrast >= 0.7 * contrast[best]) & (score >= DETECTED))
        times = int(good[0]) + 2
        longer = times * chain[-1]
        if times <= 4:
            chain.pop()
        chain.append(longer)


def _without(spectrum: Array, length: int, plan: _Plan) -> Array:
    spacing = plan.size / length
    harmonics = np.arange(1, length // 2 + 1)
    strong = spectrum[np.rint(harmonics * spacing).astype(int)] > 3
    mostly = np.flatnonzero(np.cumsum(strong) >= 0.5 * harmonics)
    last = mostly[-1] + 1 if len(mostly) else 1
    at = np.arange(len(spectrum)) / spacing
    width = min(BACKGROUND * plan.size / len(plan.taper) / spacing, 1 / 3)
    near = (np.abs(at - np.rint(at)) <= width) & (at > 0.5) & (at < last + 0.5)
    return np.where(near, np.minimum(1.0, plan.weight * 1.78), spectrum)


def _share(series: Array, observed: NDArray[np.bool_], length: int, earlier: list[int]) -> float:
    step = max([p for p in earlier if p < length], default=1)
    around = np.arange(-(-length // 2 // step) * step, 3 * length // 2 + 1, step)
    around = around[(around > 0) & (around != length) & (around <= len(series) - 2)]
    around = around[:: max(1, len(around) // 12)]
    mean = np.mean([_variogram(series, observed, int(lag)) for lag in around])
    return float(np.clip(1 - _variogram(series, observed, length) / mean, 0, 1)) if mean else 0.0


def _variogram(series: Array, observed: NDArray[np.bool_], lag: int) -> float:
    difference = (series[lag:] - series[:-lag])[observed[lag:] & observed[:-lag]]
    return float(difference @ difference) / max(len(difference), 1)
