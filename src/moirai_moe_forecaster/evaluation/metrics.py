"""Scores of forecasts, each a ratio of two sums over series, so that it can be pooled or resampled.

A set's score pools its series as the Chronos benchmark does (arXiv 2403.07815, section 5.1); one
series' score is the ratio of its own two terms. Missing labels count in neither sum.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from moirai_moe_forecaster.errors import InvalidInputError

Array = NDArray[np.float64]

LEVELS: tuple[float, ...] = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
# midpoints of equal shares of probability: the mean pinball loss over them approximates the CRPS
CRPS_LEVELS: tuple[float, ...] = tuple((2 * k + 1) / 40 for k in range(20))
COVERAGES: tuple[int, ...] = (50, 80, 95)
METRICS: tuple[str, ...] = (
    "MASE",
    "RMSSE",
    "MAE",
    "RMSE",
    "WQL",
    "CRPS",
    *(f"coverage_{percent}" for percent in COVERAGES),
)


@dataclass(frozen=True, kw_only=True)
class Terms:
    """One score of many series, as the two sums whose ratio it is.

    Attributes
    ----------
    numerator, denominator : ndarray, (series,)
        Both 0 for a series that does not count.
    root : bool
        Whether the score is the square root of the ratio.
    """

    numerator: Array
    denominator: Array
    root: bool = False

    def each(self) -> Array:
        """Score of every series by itself; NaN where it does not count."""
        usable = self.denominator > 0
        ratio = self.numerator / np.where(usable, self.denominator, np.nan)
        return np.sqrt(ratio) if self.root else ratio

    def pooled(self, weights: NDArray[np.number] | None = None) -> float:
        """Score of all series together, each counted `weights` times; NaN if none counts."""
        share = np.ones(len(self.numerator)) if weights is None else weights
        total = float(share @ self.denominator)
        ratio = float(share @ self.numerator) / total if total > 0 else math.nan
        return math.sqrt(ratio) if self.root else ratio

    def summed(self, groups: NDArray[np.integer]) -> Terms:
        """Add up the terms of series with the same number in `groups`, (series,)."""
        size = int(groups.max()) + 1
        numerator = np.bincount(groups, self.numerator, size).astype(np.float64)
        denominator = np.bincount(groups, self.denominator, size).astype(np.float64)
        return Terms(numerator=numerator, denominator=denominator, root=self.root)


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """What is scored.

    Attributes
    ----------
    levels : tuple of float
    quantiles : ndarray, (series, level, horizon)
    point : ndarray, (series, horizon)
    samples : ndarray, (series, sample, horizon), or None
    """

    levels: tuple[float, ...]
    quantiles: Array
    point: Array
    samples: Array | None = None

    @classmethod
    def of(
        cls, levels: tuple[float, ...], quantiles: Array, samples: Array | None = None
    ) -> Prediction:
        """Take the median, which must be among the levels, for the point forecast."""
        point = quantiles[:, levels.index(0.5)]
        return cls(levels=levels, quantiles=quantiles, point=point, samples=samples)

    def at(self, levels: Collection[float]) -> Array:
        """Return the quantiles at some of the levels, in the order asked for."""
        known = np.array(self.levels)
        return self.quantiles[:, [int(np.abs(known - level).argmin()) for level in levels]]


def expand_metrics(metrics: str | Sequence[str]) -> tuple[str, ...]:
    """Check names of metrics; "coverage" stands for the coverages of `COVERAGES`.

    Raises
    ------
    InvalidInputError
        If a name is none of `METRICS` nor ``coverage_`` with a whole percentage.
    """
    names: list[str] = []
    for name in [metrics] if isinstance(metrics, str) else metrics:
        if name == "coverage":
            names += [f"coverage_{percent}" for percent in COVERAGES]
        elif name in METRICS or _percent(name):
            names.append(name)
        else:
            raise InvalidInputError(
                f"unknown metric {name!r}; choose from {', '.join(METRICS)}, coverage_NN "
                "with another whole percentage, or coverage for all three"
            )
    if not names:
        raise InvalidInputError("metrics is empty; name at least one, such as 'MASE'")
    return tuple(dict.fromkeys(names))


def needed_levels(
    metrics: Sequence[str], quantile_levels: Sequence[float], *, samples: bool
) -> tuple[float, ...]:
    """Return all levels that the metrics look at, sorted; `samples` says if there are any."""
    levels = {0.5, *quantile_levels}
    for name in metrics:
        if percent := _percent(name):
            levels |= set(_edges(percent))
        if name == "CRPS" and not samples:
            levels |= set(CRPS_LEVELS)
    return tuple(sorted(levels))


def score_terms(
    labels: Array,
    contexts: Sequence[Array],
    seasonality: int | Sequence[int],
    prediction: Prediction,
    metrics: Sequence[str] = METRICS,
    quantile_levels: Sequence[float] = LEVELS,
) -> dict[str, Terms]:
    """Compute the terms of some metrics for every series.

    Parameters
    ----------
    labels : ndarray, (series, horizon)
        NaN is missing.
    contexts : sequence of ndarray, (time,)
        What came before, which scales MASE and RMSSE.
    seasonality : int or sequence of int
        Lag of the differences that scale, the same or one for each series.
    prediction : Prediction
        With the levels of `needed_levels`.
    metrics : sequence of str
    quantile_levels : sequence of float
        Those of WQL.
    """

    def terms(name: str) -> Terms:
        if percent := _percent(name):
            lower, upper = prediction.at(_edges(percent)).swapaxes(0, 1)
            return _coverage_terms(labels, lower, upper)
        if name == "WQL":
            return _wql_terms(labels, prediction.at(quantile_levels), quantile_levels)
        if name == "CRPS":
            if prediction.samples is not None:
                return _mean_terms(crps_of_samples(labels, prediction.samples))
            return _mean_terms(crps_of_quantiles(labels, prediction.at(CRPS_LEVELS)))
        return pointwise[name]()

    error = labels - prediction.point
    pointwise: dict[str, Callable[[], Terms]] = {
        "MASE": lambda: _mase_terms(error, seasonal_scale(contexts, seasonality, np.abs)),
        "RMSSE": lambda: _rmsse_terms(error, seasonal_scale(contexts, seasonality, np.square)),
        "MAE": lambda: _mean_terms(np.abs(error)),
        "RMSE": lambda: replace(_mean_terms(error**2), root=True),
    }
    return {name: terms(name) for name in metrics}


def mase(labels: Array, point: Array, contexts: Sequence[Array], seasonality: int) -> float:
    """Mean absolute scaled error over all series and steps.

    Each series' errors are divided by the mean absolute seasonal difference of its whole context
    (difference to the value before, where the context is not longer than a season). Series whose
    scale is 0 and missing labels are left out.

    Parameters
    ----------
    labels, point : ndarray, (series, horizon)
    contexts : sequence of ndarray
    seasonality : int
    """
    return _mase_terms(labels - point, seasonal_scale(contexts, seasonality, np.abs)).pooled()


def weighted_quantile_loss(
    labels: Array, quantiles: Array, levels: Sequence[float] = LEVELS
) -> float:
    """Pinball loss, doubled, over the sum of absolute labels; the mean over levels.

    Parameters
    ----------
    labels : ndarray, (series, horizon)
    quantiles : ndarray, (series, level, horizon)
    levels : sequence of float
    """
    return _wql_terms(labels, quantiles, levels).pooled()


def crps_of_samples(labels: Array, samples: Array) -> Array:
    """Continuous ranked probability score of the samples' empirical distribution.

    The mean distance of a sample from the label, less half the mean distance of two samples
    (Gneiting and Raftery 2007, equation 21), in the unit of the labels.

    Parameters
    ----------
    labels : ndarray, (series, horizon)
    samples : ndarray, (series, sample, horizon)

    Returns
    -------
    ndarray, (series, horizon)
    """
    count = samples.shape[1]
    # in sorted order, the k-th of n is above k - 1 of the others and below n - k
    signs = (2 * np.arange(1, count + 1) - count - 1)[:, None]
    half_distance = (signs * np.sort(samples, axis=1)).sum(1) / count**2
    distance: Array = np.abs(samples - labels[:, None]).mean(1)
    return distance - half_distance


def crps_of_quantiles(labels: Array, quantiles: Array) -> Array:
    """Continuous ranked probability score from quantiles at `CRPS_LEVELS`, by the midpoint rule.

    Parameters
    ----------
    labels : ndarray, (series, horizon)
    quantiles : ndarray, (series, level, horizon)

    Returns
    -------
    ndarray, (series, horizon)
    """
    return _pinball(labels, quantiles, CRPS_LEVELS).mean(1)


def seasonal_scale(
    contexts: Sequence[Array], seasonality: int | Sequence[int], size: Callable[[Array], Array]
) -> Array:
    """Mean `size` of the seasonal differences of every context, (series,).

    A context that is not longer than a season is differenced to the value before. NaN where no
    difference is observed.
    """

    def scale(context: Array, season: int) -> float:
        lag = season if len(context) > season else 1
        differences = size(context[lag:] - context[:-lag])
        observed = differences[~np.isnan(differences)]
        return float(observed.mean()) if len(observed) else math.nan

    seasons = np.broadcast_to(seasonality, len(contexts))
    return np.array([scale(*pair) for pair in zip(contexts, seasons, strict=True)])


def relative(score: float, baseline: float) -> float:
    """Ratio of a score to a baseline's; NaN where the baseline is perfect, as nothing compares."""
    return score / baseline if baseline > 0 else math.nan


def geometric_mean(ratios: Sequence[float]) -> float:
    """Aggregate scores that are relative to a baseline."""
    return float(np.exp(np.mean(np.log(ratios))))


def _pinball(labels: Array, quantiles: Array, levels: Sequence[float]) -> Array:
    """Twice the pinball loss: (series, level, horizon)."""
    target, level = labels[:, None], np.array(levels)[:, None]
    loss: Array = 2 * np.abs((target - quantiles) * ((target <= quantiles) - level))
    return loss


def _wql_terms(labels: Array, quantiles: Array, levels: Sequence[float]) -> Terms:
    loss = np.nansum(_pinball(labels, quantiles, levels), axis=2).mean(1)
    return Terms(numerator=loss, denominator=np.nansum(np.abs(labels), axis=1))


def _mean_terms(values: Array) -> Terms:
    return Terms(numerator=np.nansum(values, axis=1), denominator=_count(values))


def _mase_terms(error: Array, scale: Array) -> Terms:
    usable = scale > 0
    total = np.nansum(np.abs(error), axis=1)
    return Terms(
        numerator=np.divide(total, scale, out=np.zeros(len(scale)), where=usable),
        denominator=np.where(usable, _count(error), 0.0),
    )


def _rmsse_terms(error: Array, scale: Array) -> Terms:
    """Root mean squared scaled error of every series (the M5 competition's), to be averaged."""
    count = _count(error)
    usable = (scale > 0) & (count > 0)
    ratio = np.zeros(len(scale))
    np.divide(np.nansum(error**2, axis=1), scale * count, out=ratio, where=usable)
    return Terms(numerator=np.sqrt(ratio), denominator=usable.astype(np.float64))


def _coverage_terms(labels: Array, lower: Array, upper: Array) -> Terms:
    inside = ((lower <= labels) & (labels <= upper)).sum(1).astype(np.float64)
    return Terms(numerator=inside, denominator=_count(labels))


def _count(values: Array) -> Array:
    observed: Array = (~np.isnan(values)).sum(1).astype(np.float64)
    return observed


def _edges(percent: int) -> tuple[float, float]:
    return (50 - percent / 2) / 100, (50 + percent / 2) / 100


def _percent(name: str) -> int:
    """Return the percentage of a coverage's name, or 0 of another name."""
    prefix, _, number = name.partition("_")
    known = prefix == "coverage" and number.isdecimal() and 0 < int(number) < 100
    return int(number) if known else 0
