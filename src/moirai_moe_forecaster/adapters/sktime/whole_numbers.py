"""The predictive distribution of what counts, as skpro's discrete distributions are used."""

from __future__ import annotations

from typing import Any

import numpy as np
from skpro.distributions.base import BaseDistribution

from moirai_moe_forecaster.adapters.sktime.distribution import ForecastDistribution
from moirai_moe_forecaster.inference import quantile_grid
from moirai_moe_forecaster.inference.quantile_grid import Array
from moirai_moe_forecaster.inference.support import LEVELS, Support

ROUNDED = Support(integer=True)


class WholeNumbers(ForecastDistribution):
    """What a `ForecastDistribution` becomes when its values are rounded to whole numbers.

    Probabilities and quantiles are exact; the mean and the variance are averages of what rounding
    changes over 256 levels.

    Parameters
    ----------
    values : array, (row, column, node), or (node,) for a single point
        Before they are rounded, as for `ForecastDistribution`.
    ranks : array of int, (row, column, trajectory) or (trajectory,), optional (default=None)
    random_state : int or numpy Generator, optional (default=None)
    index, columns : pd.Index, optional (default=None)

    Examples
    --------
    >>> from moirai_moe_forecaster.adapters.sktime.whole_numbers import WholeNumbers
    >>> from moirai_moe_forecaster.inference.quantile_grid import NODE_SCORES
    >>> count = WholeNumbers(10 + 2 * NODE_SCORES)
    >>> print(count.ppf(0.7), round(count.pmf(10), 4))
    11.0 0.1974
    """

    _tags = {  # noqa: RUF012
        "capabilities:approx": ["mean", "var", "energy", "pdfnorm"],
        "capabilities:exact": ["pmf", "log_pmf", "cdf", "ppf"],
        "distr:measuretype": "discrete",
    }

    pdfnorm = BaseDistribution.pdfnorm

    def _mean(self) -> Array:
        return ROUNDED.mean(quantile_grid.mean(self._nodes), self._nodes)

    def _var(self) -> Array:
        values = quantile_grid.quantiles(self._nodes, LEVELS)
        change = np.rint(values).var(-1) - values.var(-1)
        return np.maximum(quantile_grid.variance(self._nodes) + change, 0.0)

    def _cdf(self, x: Array) -> Array:
        return ROUNDED.cdf(self._nodes, np.asarray(x, dtype=np.float64))

    def _pmf(self, x: Array) -> Array:
        x = np.asarray(x, dtype=np.float64)
        return np.where(np.floor(x) == x, self._cdf(x) - self._cdf(x - 1), 0.0)

    def _log_pmf(self, x: Array) -> Array:
        with np.errstate(divide="ignore"):
            return np.log(self._pmf(x))

    def _ppf(self, p: Array) -> Array:
        return ROUNDED.possible(super()._ppf(p))

    def _sample(self, n_samples: int | None = None) -> Any:
        # no zero is negative
        return super()._sample(n_samples).round() + 0.0
