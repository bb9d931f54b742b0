"""The autocorrelation of a series after its periodogram is divided by its own background.

A cycle is a comb of lines in the periodogram; random variation of any colour is smooth there. Over
its background a walk, an autoregression and noise all look like noise, and what still correlates
with itself one, two, three and four periods later is a cycle.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

MULTIPLES = 4  # a period is judged on its correlation at this many of its multiples
BACKGROUND = 12.0  # largest half-width of the background's window, in cycles per series
ALTERNATION = 1.0  # distance to the fastest cycle where noise that alternates looks like a line
LOG_BIAS = 1.78  # mean of an exponential variable over the exponential of its mean logarithm
LINE = 3.0  # times its background that a harmonic reaches if it is there


@dataclass(frozen=True, kw_only=True)
class Search:
    """What part of the spectrum is searched, and how."""

    part: float  # share of the spectrum, from its low end
    taper: float  # share of the points that fade in or out
    guard: float  # half-width of a line, in cycles per series: no part of its own background
    drift: float  # cycles per series below which a line may as well be a drift
    cycles: float  # fewest that a series must have
    detected: float  # standard deviations that noise seldom reaches at any period


class Correlation(NamedTuple):
    """Correlation of whitened series with themselves, by lag up to half their length.

    Attributes
    ----------
    mean : array, (series, lags)
        Mean over a lag and its next multiples.
    score : array, (series, lags)
        In standard deviations of what noise has; 0 where no dip lies before the lag.
    deviation : array, (lags,)
        Standard deviation of the mean if nothing repeats.
    """

    mean: Array
    score: Array
    deviation: Array

    def of(self, index: int) -> Correlation:
        """Keep one series: all of (lags,)."""
        return Correlation(self.mean[index], self.score[index], self.deviation)


@dataclass(frozen=True, kw_only=True)
class SearchPlan:
    """All that depends on the number of points alone."""

    taper: Array  # (points,)
    size: int  # points of the padded transform
    density: float  # bins per cycle per series
    window: tuple[NDArray[np.int64], ...]  # its ends, and those of the line in it; (bins,) each
    inside: Array  # (bins,) how many bins the background is taken from
    weight: Array  # (bins,)
    overlap: Array  # (lags,) share of the tapered series that a lag leaves
    pairs: Array  # (lags,) the same, summed over the multiples
    deviation: Array  # (lags,)
    shortest: int  # period that the searched part of the spectrum can tell
    longest: int


@lru_cache(maxsize=32)
def plan_for(points: int, search: Search) -> SearchPlan:
    """Lay out a search of a series of so many points."""
    size = _fast_size(2 * points)
    density = size / points
    bins = int(search.part * (size // 2)) + 1
    taper = _taper(points, search.taper)
    overlap = np.fft.irfft(np.abs(np.fft.rfft(taper, size)) ** 2, size)[:points]
    overlap /= overlap[0]
    lags = points // 2 + 1
    pairs = np.zeros(lags)
    for k in range(1, MULTIPLES + 1):
        some = overlap[::k][:lags]
        pairs[: len(some)] += some
    effective = search.part * points * np.mean(taper**2) ** 2 / np.mean(taper**4)

    at = np.arange(bins)
    # At low frequencies the background of a walk is steep: a narrow, symmetric window follows it.
    half = np.clip(at / 2, 3 * density, BACKGROUND * density).astype(np.int64)
    guard = round(search.guard * density)
    low = np.maximum(at - half, int(density))
    high = np.maximum(np.minimum(at + half + 1, bins), low + 1)
    line = np.clip(at - guard, low, high), np.clip(at + guard + 1, low, high)
    return SearchPlan(
        taper=taper,
        size=size,
        density=density,
        window=(low, *line, high),
        inside=np.maximum(high - low - (line[1] - line[0]), 1).astype(np.float64),
        weight=_weight(at / density, size / 2 / density, search.drift) / LOG_BIAS,
        overlap=np.maximum(overlap[:lags], 0.02),
        pairs=np.maximum(pairs, 0.05),
        deviation=1 / np.sqrt(np.maximum(pairs, 0.05) * effective),
        shortest=round(2 / search.part),
        longest=int(points / search.cycles),
    )


def _fast_size(least: int) -> int:
    """Size from ``least`` on that a Fourier transform is fast for."""
    return min(odd << max(0, ((least - 1) // odd).bit_length()) for odd in (1, 3, 5, 9, 15))


def _taper(points: int, share: float) -> Array:
    """Ones that fade in and out along a cosine; (points,)."""
    fade = int(share * points / 2)
    ramp = 0.5 - 0.5 * np.cos(np.pi * (np.arange(fade) + 0.5) / max(fade, 1))
    return np.concatenate((ramp, np.ones(points - 2 * fade), ramp[::-1]))


def _weight(cycles: Array, fastest: float, drift: float) -> Array:
    """Trust in each bin, given its cycles per series: little at both ends; (bins,)."""
    slow = 1 / (1 + (drift / np.maximum(cycles, 0.5)) ** 2)
    fast = 1 / (1 + (ALTERNATION / (fastest - cycles + 0.5)) ** 2)
    return np.where(cycles < 1, 0.0, slow * fast)


def whitened(series: Array, plan: SearchPlan) -> Array:
    """Periodograms over their backgrounds, (series, bins), of series (series, points).

    The background of a bin is the mean logarithm of those around it: lines hardly count there.
    """
    bins = len(plan.weight)
    power = np.abs(np.fft.rfft(series * plan.taper, plan.size)[:, :bins]) ** 2
    total = np.zeros((len(series), bins + 1))
    np.log(power + (1e-9 * power.mean(1, keepdims=True) + 1e-300), out=total[:, 1:])
    total.cumsum(1, out=total)
    low, line_low, line_high, high = (total[:, edge] for edge in plan.window)
    return power * plan.weight / np.exp((high - line_high + line_low - low) / plan.inside)


def autocorrelation(spectra: Array, plan: SearchPlan) -> Correlation:
    """What whitened spectra (series, bins) say of each lag."""
    correlation = np.fft.irfft(spectra, plan.size)[:, : len(plan.taper)]
    correlation /= np.maximum(correlation[:, :1], 1e-300)
    lags = len(plan.pairs)
    mean = np.zeros((len(spectra), lags))
    for k in range(1, MULTIPLES + 1):
        some = correlation[:, ::k][:, :lags]
        mean[:, : some.shape[1]] += some
    mean /= plan.pairs
    # Half a period's multiples are periods every other time: what counts is the lag itself, too.
    mean = np.minimum(mean, 1.5 * correlation[:, :lags] / plan.overlap)
    score = mean / plan.deviation
    score[2 * np.minimum.accumulate(mean, 1) > mean] = 0
    score[:, : plan.shortest] = 0
    score[:, plan.longest + 1 :] = 0
    return Correlation(mean, score, plan.deviation)


def without_period(spectrum: Array, length: int, plan: SearchPlan) -> Array:
    """Whitened spectrum with the background in the place of a period's lines; (bins,)."""
    spacing = plan.size / length
    harmonics = np.arange(1, max(int((len(spectrum) - 1) / spacing), 1) + 1)
    lines = np.minimum(np.rint(harmonics * spacing).astype(int), len(spectrum) - 1)
    # Up to the last harmonic that most before it keep company: a week is no harmonic of a year.
    mostly = np.flatnonzero(2 * np.cumsum(spectrum[lines] > LINE) >= harmonics)
    last = mostly[-1] + 1 if len(mostly) else 1
    order = np.arange(len(spectrum)) / spacing
    width = min(BACKGROUND * plan.density / spacing, 1 / 3)
    near = (np.abs(order - np.rint(order)) <= width) & (order > 0.5) & (order < last + 0.5)
    return np.where(near, plan.weight * LOG_BIAS, spectrum)
