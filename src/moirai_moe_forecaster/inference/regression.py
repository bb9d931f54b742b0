"""How known-future covariates act: what they explain of a series, found in its own context.

A network reads covariates as tokens; beyond that, a sparse linear regression takes what they
explain out of the context and adds it back to every quantile of the forecast. It is chosen so that
a covariate which explains no more than chance has no effect at all.

1. Terms: every covariate, its values some steps before and after, and where it takes many values
   its excess over its lower and upper tercile, so that effects may bend.
2. Target and terms are filtered by an autoregression of what is not yet explained, so that what is
   compared are innovations: two unrelated series with trends or seasons do not look related
   (Box and Jenkins 1976, chapter 11; Cochrane and Orcutt 1949).
3. Terms enter one by one, the one that explains most first, while the extended Bayesian information
   criterion improves (Chen and Chen 2008).
4. Steps 2 and 3 are repeated with what the chosen terms leave unexplained.
"""

from __future__ import annotations

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from moirai_moe_forecaster.data.series import Array, Series

FEWEST_POINTS = 12
LONGEST_FILTER = 32
LARGEST_SHIFT = 3
MANY_VALUES = 8
ROUNDS = 3
MOST_TERMS = 16


def explained(series: Series, length: int) -> Array:
    """What known-future covariates explain of a series: (variate, context + horizon).

    Parameters
    ----------
    series : Series
    length : int
        How many of the last points of the context to learn from.

    Returns
    -------
    ndarray, (variate, context + horizon)
        In the unit of the target; zeros where nothing is explained.
    """
    context = series.target.shape[1]
    effect = np.zeros((len(series.target), series.future.shape[1]))
    start = max(context - length, 0)
    terms = make_terms(series.future[:, start:], context - start)
    if len(terms):
        for variate, values in enumerate(series.target[:, start:]):
            effect[variate, start:] = fit(values, terms[:, : context - start]) @ terms
    return effect


def make_terms(covariates: Array, context: int) -> Array:
    """Candidate terms (term, time), with mean 0 and variance 1 over the context.

    Missing values are taken from a straight line between their neighbours, at the ends from the
    nearest one. Terms that do not vary are left out.
    """
    rows = []
    for values in covariates:
        largest = np.nanmax(np.abs(values[:context]), initial=0.0)
        # all zero or missing: in a context that never saw it act, nothing is to be learned of it
        if not largest > 0:
            continue
        filled = _without_gaps(values / max(largest, 1e-300))
        shapes = [filled]
        if len(np.unique(filled[:context])) > MANY_VALUES:
            lower, upper = np.quantile(filled[:context], (1 / 3, 2 / 3))
            shapes += [np.maximum(filled - upper, 0.0), np.minimum(filled - lower, 0.0)]
        shifts = range(1, LARGEST_SHIFT + 1)
        shapes += [_shifted(filled, sign * shift) for shift in shifts for sign in (1, -1)]
        rows += shapes
    terms = np.array(rows).reshape(len(rows), covariates.shape[1])
    location = terms[:, :context].mean(1, keepdims=True)
    scale = terms[:, :context].std(1, keepdims=True)
    varies = scale[:, 0] > 1e-9 * np.abs(location[:, 0])
    return (terms[varies] - location[varies]) / scale[varies]


def fit(values: Array, terms: Array) -> Array:
    """Coefficients (term,) of a target (time,) with missing values; 0 of those not chosen."""
    seen = ~np.isnan(values)
    coefficients = np.zeros(len(terms))
    if seen.sum() < FEWEST_POINTS or np.ptp(values[seen]) == 0:
        return coefficients
    # in a unit of the size of the values, whose squares neither overflow nor vanish
    unit = np.abs(values[seen]).max()
    filled = _without_gaps(values / unit)
    filled = filled - filled.mean()
    order = min(LONGEST_FILTER, int(seen.sum()) // 6)
    for _ in range(ROUNDS):
        whitening = _autoregression(filled - coefficients @ terms, order)
        white = _filter(np.vstack((filled, terms)), whitening)[:, seen[order:]]
        chosen, found = _select(white[0], white[1:])
        before = coefficients
        coefficients = np.zeros(len(terms))
        coefficients[chosen] = found
        if np.allclose(before, coefficients):
            break
    return coefficients * unit


def _select(target: Array, terms: Array) -> tuple[list[int], Array]:
    """Enter terms one by one while the criterion improves: their numbers and coefficients."""
    count = len(target)
    chosen: list[int] = []
    residual, left = target, terms
    norms = np.einsum("ij,ij->i", terms, terms)
    most = min(MOST_TERMS, count // 4)
    penalty = np.log(count) + 2 * np.log(len(terms) + 1)
    while len(chosen) < most:
        size = np.einsum("ij,ij->i", left, left)
        gain = np.where(
            size > 1e-6 * norms, (left @ residual) ** 2 / np.where(size > 0, size, 1), 0.0
        )
        best = int(gain.argmax())
        error = residual @ residual
        if error <= 0 or count * np.log1p(-min(gain[best] / error, 1 - 1e-12)) > -penalty:
            break
        chosen.append(best)
        direction = left[best] / np.sqrt(size[best])
        residual = residual - (residual @ direction) * direction
        left = left - (left @ direction)[:, None] * direction
    coefficients = np.linalg.lstsq(terms[chosen].T, target, rcond=None)[0]
    return chosen, coefficients.astype(np.float64)


def _autoregression(values: Array, order: int) -> Array:
    """Prediction-error filter (1, -a_1, ..., -a_order), its coefficients slightly shrunk."""
    windows = sliding_window_view(values - values.mean(), order + 1)
    past, now = windows[:, :order][:, ::-1], windows[:, order]
    gram = past.T @ past
    ridge = 1e-3 * np.trace(gram) / order + 1e-300
    return np.append(1.0, -np.linalg.solve(gram + ridge * np.eye(order), past.T @ now))


def _filter(rows: Array, whitening: Array) -> Array:
    """Apply a filter along time, without the points that have no full past."""
    order = len(whitening) - 1
    shifted = (rows[:, order - lag : rows.shape[1] - lag] for lag in range(order + 1))
    filtered: Array = sum(
        (weight * part for weight, part in zip(whitening, shifted, strict=True)),
        start=np.zeros_like(rows[:, order:]),
    )
    return filtered


def _without_gaps(values: Array) -> Array:
    seen = np.flatnonzero(~np.isnan(values))
    return np.interp(np.arange(len(values)), seen, values[seen])


def _shifted(values: Array, steps: int) -> Array:
    """Values some steps later (before, if negative), the ends held."""
    return values[(np.arange(len(values)) - steps).clip(0, len(values) - 1)]
