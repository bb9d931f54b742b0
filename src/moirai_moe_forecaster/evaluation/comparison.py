"""Whether one forecaster is better than another, or the series happened to suit it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from moirai_moe_forecaster.errors import InvalidInputError
from moirai_moe_forecaster.evaluation.metrics import Terms, geometric_mean

ERRORS = ("MASE", "RMSSE", "MAE", "RMSE", "WQL", "CRPS")


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """How two forecasters' errors compare.

    Attributes
    ----------
    ratio : float
        Error of the first over that of the second; the geometric mean over sets. Below 1, the first
        is better.
    lower, upper : float
        Confidence interval of the ratio.
    probability : float
        Share of resamples in which the first is better.
    sets : int
    series : int
    """

    ratio: float
    lower: float
    upper: float
    probability: float
    sets: int
    series: int


def paired_bootstrap(
    first: Sequence[Terms],
    second: Sequence[Terms],
    *,
    resamples: int = 2000,
    confidence: float = 0.95,
    random_state: int = 0,
) -> Comparison:
    """Compare two forecasters by a bootstrap over series.

    Every resample draws, within each set, as many series as there are, with replacement; both
    forecasters are scored on the same draw, their scores pooled over it as on the whole set, and
    the ratios of the scores averaged geometrically over sets. The interval holds the middle
    `confidence` of the resampled ratios (percentiles; Efron and Tibshirani 1993, chapter 13). It
    answers for other series of the same sets, not for other sets: those are fixed. All windows of a
    series are drawn together. A set of one series has no spread of its own.

    Parameters
    ----------
    first, second : sequence of Terms
        One per set, of the same metric and series in the same order.
    resamples : int, default=2000
    confidence : float, default=0.95
    random_state : int, default=0

    Raises
    ------
    InvalidInputError
        If the two do not have the same sets and series, or a set's score is 0 or undefined.
    """
    sizes = [len(terms.numerator) for terms in first]
    if not sizes or sizes != [len(terms.numerator) for terms in second]:
        raise InvalidInputError(
            f"both need the same sets and series; got sets of {sizes} and of "
            f"{[len(terms.numerator) for terms in second]} series"
        )
    ratios = [a.pooled() / b.pooled() for a, b in zip(first, second, strict=True)]
    if not all(0 < ratio < np.inf for ratio in ratios):
        raise InvalidInputError(f"every score must be above 0; the sets' ratios are {ratios}")
    rng = np.random.default_rng(random_state)
    logs = np.zeros(resamples)
    for a, b, size in zip(first, second, sizes, strict=True):
        for draw in range(resamples):
            counts = rng.multinomial(size, np.full(size, 1 / size))
            # a draw of nothing but series that do not count says nothing, and neither does one
            # that both forecast perfectly
            scores = a.pooled(counts), b.pooled(counts)
            if min(scores) > 0:
                logs[draw] += np.log(scores[0] / scores[1]) / len(sizes)
    tail = (1 - confidence) / 2
    lower, upper = np.exp(np.quantile(logs, [tail, 1 - tail]))
    return Comparison(
        ratio=geometric_mean(ratios),
        lower=float(lower),
        upper=float(upper),
        probability=float((logs < 0).mean()),
        sets=len(sizes),
        series=sum(sizes),
    )


def compare_backtests(
    first: pd.DataFrame, second: pd.DataFrame, metric: str = "WQL", *, random_state: int = 0
) -> Comparison:
    """Compare two results of `backtest` on the same data by `paired_bootstrap`.

    Parameters
    ----------
    first, second : DataFrame
    metric : str, default="WQL"
        A column that both have, but not a coverage. Windows are pooled: MASE, MAE, RMSE and CRPS
        weighted by ``n_test``, WQL by ``abs_test``, RMSSE equally.
    random_state : int, default=0

    Raises
    ------
    InvalidInputError
        If a column is missing or the rows are not those of the same windows.
    """
    check_metric(metric)
    keys = [name for name in ("series", "variate", "window") if name in first.columns]
    for frame in (first, second):
        if absent := [name for name in (*keys, metric) if name not in frame.columns]:
            raise InvalidInputError(f"a result has no columns {absent}; it has {list(frame)}")
    if len(first) != len(second) or not (first[keys].to_numpy() == second[keys].to_numpy()).all():
        raise InvalidInputError("the results must have the same windows in the same order")
    series = pd.factorize(first["series"])[0]
    terms = [[frame_terms(frame, metric).summed(series)] for frame in (first, second)]
    return paired_bootstrap(*terms, random_state=random_state)


def frame_terms(backtest: pd.DataFrame, metric: str) -> Terms:
    """Recover a metric's two sums from the rows of a backtest, to pool them."""
    root = metric == "RMSE"
    weight = np.ones(len(backtest))
    if metric != "RMSSE":
        weight = backtest["abs_test" if metric == "WQL" else "n_test"].to_numpy(dtype=np.float64)
    value = backtest[metric].to_numpy(dtype=np.float64)
    defined = ~np.isnan(value)
    value = np.where(defined, value**2 if root else value, 0.0)
    return Terms(numerator=value * weight, denominator=np.where(defined, weight, 0.0), root=root)


def check_metric(metric: str) -> None:
    """Check that a metric is an error, so that the smaller one is the better.

    Raises
    ------
    InvalidInputError
    """
    if metric not in ERRORS:
        raise InvalidInputError(f"metric must be one of {', '.join(ERRORS)}, got {metric!r}")
