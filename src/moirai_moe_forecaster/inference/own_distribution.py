"""Series whose forecast is their own distribution: constants, and lumpy ones without any order.

A constant forecasts itself. How sure that is follows from how often it was seen: normal around the
value, with a standard deviation of its size divided by one more than the number of observations (a
single 7 may as well become 3.5 or 10.5, a thousand of them hardly anything else). Zeros have no
unit: their forecast is zero at every level.

Lumpy demand, where more than half of all values are equal and no cycle is known, may come without
any order: each step is a draw from one distribution, and all that can be known is that
distribution. A network's smooth mixture misses its mean and its upper tail. So the forecast is
moved towards the empirical distribution, as far as the series shows no order.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from moirai_moe_forecaster.data.series import Array
from moirai_moe_forecaster.inference.forecast import Marginals
from moirai_moe_forecaster.inference.quantile_grid import NODE_LEVELS, NODE_SCORES
from moirai_moe_forecaster.inference.seasonality.periods import Period

ROUNDING = 1e-13
"""Range of a constant, relative to its size: what arithmetic leaves of equal numbers."""
LAGS = 8
"""Steps apart at which values of a series without order must not correlate."""
CERTAIN = 0.25
"""Probability of as much order by chance from which on there is none."""
FEWEST = 24
"""Observed values from which on a lumpy series has a distribution."""


def with_own_distribution(
    marginals: Marginals, context: Array, periods: Sequence[Sequence[Period]]
) -> Marginals:
    """Correct the forecast of one series where its values alone tell the distribution.

    Parameters
    ----------
    marginals : Marginals
        Of one series; the result has copies of what changes.
    context : ndarray, (variate, time)
        What the network has read.
    periods : sequence of sequence of Period
        That were found in each variate.
    """
    for variate, values in enumerate(context):
        seen = values[~np.isnan(values)]
        if not len(seen):
            continue
        if np.ptp(seen) <= ROUNDING * np.abs(seen).max():
            marginals = _constant(marginals, variate, float(seen[-1]), len(seen))
        elif not periods[variate] and is_lumpy(seen) and (weight := disorder(values)) > 0:
            marginals = _moved(marginals, variate, seen, weight)
    return marginals


def is_lumpy(seen: Array) -> bool:
    """Whether more than half of the observed values are equal, and few are not all there is."""
    if len(seen) < FEWEST:
        return False
    # what more than half of all values are is their median
    return 2 * int((seen == np.median(seen)).sum()) > len(seen)


def disorder(values: Array) -> float:
    """How far a series (time,) shows no order at all, 0 to 1.

    The ranks of its values must neither correlate with those of the next steps nor with time, as
    far as chance alone would let them: the sum of squared scores is judged by its distribution.
    """
    known = ~np.isnan(values)
    _, number, counts = np.unique(values[known], return_inverse=True, return_counts=True)
    ranks = np.zeros(len(values))
    # equal values share a rank; missing ones have that of the middle
    ranks[known] = (counts.cumsum() - (counts - 1) / 2)[number]
    ranks[known] -= ranks[known].mean()
    ranks /= np.sqrt(np.mean(ranks[known] ** 2))
    lags = range(1, min(LAGS, known.sum() // 4) + 1)
    pairs = [(known[lag:] & known[:-lag]).sum() for lag in lags]
    products = [ranks[lag:] @ ranks[:-lag] for lag in lags]
    scores = [p**2 / n for p, n in zip(products, pairs, strict=True) if n]
    time = np.linspace(-1, 1, len(values))
    for curve in (time, time**2):
        curve = curve - curve[known].mean()
        scores.append((ranks @ curve) ** 2 / (curve[known] @ curve[known]))
    chance = torch.special.gammaincc(
        torch.tensor(len(scores) / 2, dtype=torch.float64),
        torch.tensor(sum(scores) / 2, dtype=torch.float64),
    )
    return min(float(chance) / CERTAIN, 1.0)


def _constant(marginals: Marginals, variate: int, value: float, count: int) -> Marginals:
    # the outermost nodes lie at 4 standard deviations, and are numbers still
    room = (np.finfo(np.float64).max - abs(value)) / 8
    deviation = min(abs(value) / (count + 1), room)
    quantiles, mean = marginals.quantiles.copy(), marginals.mean.copy()
    location, scale = marginals.location.copy(), marginals.scale.copy()
    spread = NODE_SCORES if deviation > 0 else np.zeros(len(NODE_SCORES))
    quantiles[..., variate] = spread[:, None]
    mean[..., variate] = 0.0
    location[..., variate] = value
    scale[..., variate] = deviation if deviation > 0 else 1.0
    return marginals._replace(quantiles=quantiles, mean=mean, location=location, scale=scale)


def _moved(marginals: Marginals, variate: int, seen: Array, weight: float) -> Marginals:
    quantiles, mean = marginals.quantiles.copy(), marginals.mean.copy()
    location, scale = marginals.location[0, :, variate], marginals.scale[0, variate]
    own = (np.quantile(seen, NODE_LEVELS)[:, None] - location) / scale
    quantiles[0, ..., variate] += weight * (own - quantiles[0, ..., variate])
    centre = (seen.mean() - location) / scale
    mean[0, :, variate] += weight * (centre - mean[0, :, variate])
    return marginals._replace(quantiles=quantiles, mean=mean)
