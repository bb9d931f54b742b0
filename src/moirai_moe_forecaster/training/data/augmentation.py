"""Changes of training windows that teach what long horizons and gaps ask for (arXiv 2505.23719).

Amplitudes that change, values that are cut off, spikes, and stretches of patches that are hidden
from the network but not from its loss.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from moirai_moe_forecaster.config import TrainConfig
from moirai_moe_forecaster.training.data.corpus import Array, Integers

KNOTS = 4
LARGEST_FACTOR = 3.0
CENSORED = (0.05, 0.3)
SPIKE_PERIODS = np.array([7, 12, 24, 48, 96, 168, 288])
LARGEST_SPIKE = 6.0
LONGEST_HIDDEN = 32
HIDDEN_STRETCHES = 3


def augment(
    values: Array, variates: Integers, training: TrainConfig, random: np.random.Generator
) -> None:
    """Change some windows in place: their amplitude, what they show of it, or by spikes.

    Parameters
    ----------
    values : ndarray, (variate, time)
        NaN where missing.
    variates : ndarray of int64, (window,)
        Only windows of one variate are changed: others must keep what their variates share.
    training : TrainConfig
    random : numpy Generator
    """
    first = variates.cumsum() - variates
    chance = random.random((3, len(variates)))
    shares = (training.amplitude_share, training.censor_share, training.spike_share)
    for change, chances, share in zip((_modulate, _censor, _spike), chance, shares, strict=True):
        for row in first[(chances < share) & (variates == 1)]:
            seen = np.flatnonzero(np.isfinite(values[row]))
            if len(seen):
                change(values[row, seen[0] :], random)


def hidden_patches(
    prefix: Integers, tokens: Integers, width: int, share: float, random: np.random.Generator
) -> NDArray[np.bool_]:
    """Draw stretches of patches that some windows hide from the network.

    Parameters
    ----------
    prefix, tokens : ndarray of int64, (window,)
        Patches of the prefix, which all stay, and of the whole window.
    width : int
        Patches of all rows, at whose right end a window stands.
    share : float
        Of windows.
    random : numpy Generator

    Returns
    -------
    ndarray, (window, patch)
    """
    hidden = np.zeros((len(tokens), width), dtype=bool)
    for window in np.flatnonzero(random.random(len(tokens)) < share):
        free = int(tokens[window] - prefix[window])
        start = width - free
        for _ in range(random.integers(1, HIDDEN_STRETCHES + 1)):
            longest = min(LONGEST_HIDDEN, max(free // 2, 1))
            length = int(np.exp(random.uniform(0, np.log(longest + 1))))
            first = start + random.integers(0, free - length + 1)
            hidden[window, first : first + length] = True
    return hidden


def _modulate(values: Array, random: np.random.Generator) -> None:
    """Let the distance from the mean grow and shrink along a bent line."""
    knots = np.exp(random.uniform(-1, 1, KNOTS) * np.log(LARGEST_FACTOR))
    factor = np.interp(np.linspace(0, KNOTS - 1, len(values)), np.arange(KNOTS), knots)
    mean = np.nanmean(values)
    values[:] = mean + (values - mean) * factor


def _censor(values: Array, random: np.random.Generator) -> None:
    """Cut off the highest or the lowest values."""
    level = random.uniform(*CENSORED)
    if random.random() < 0.5:
        np.minimum(values, np.nanquantile(values, 1 - level), out=values)
    else:
        np.maximum(values, np.nanquantile(values, level), out=values)


def _spike(values: Array, random: np.random.Generator) -> None:
    """Add spikes of one shape that recur, at a period or by chance."""
    deviation = np.nanstd(values)
    size = random.uniform(1, LARGEST_SPIKE) * deviation * random.choice([-1, 1])
    period = int(random.choice(SPIKE_PERIODS))
    if random.random() < 0.5:
        at = np.arange(random.integers(period), len(values), period)
    else:
        at = np.flatnonzero(random.random(len(values)) < 1 / period)
    for offset in range(random.integers(1, 1 + max(period // 8, 1))):
        inside = at[at + offset < len(values)] + offset
        values[inside] += (size * random.uniform(0.7, 1.3, len(inside))).astype(values.dtype)
