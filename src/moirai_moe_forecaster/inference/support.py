"""Which values a variable can take: bounds, and whether it counts.

What lies beyond a bound is moved onto it, and a variable that counts is rounded to the nearest
whole number. Quantiles, samples, means and probabilities are all those of the variable that
results: what a forecast said of negative values is probability of zero, and raises the mean.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from moirai_moe_forecaster.data.series import Array
from moirai_moe_forecaster.inference.quantile_grid import (
    mean,
    normal_cdf,
    quantiles,
    score_at,
)

LEVELS: Array = (np.arange(256) + 0.5) / 256
"""Over which rounding is averaged."""
AT_ONCE = 32
"""Of these levels."""


@dataclass(frozen=True, kw_only=True)
class Support:
    """Values that are possible.

    Parameters
    ----------
    lower, upper : float
        Bounds, infinite if there are none; whole numbers if `integer`.
    integer : bool, default=False
    """

    lower: float = -np.inf
    upper: float = np.inf
    integer: bool = False

    @property
    def is_everything(self) -> bool:
        """Whether every number is possible."""
        return np.isinf(self.lower) and np.isinf(self.upper) and not self.integer

    def bounded(self, values: Array) -> Array:
        """Move values onto the bounds, without rounding: also the nodes of a quantile curve."""
        return np.clip(values, self.lower, self.upper)

    def possible(self, values: Array) -> Array:
        """Move values onto those that are possible."""
        inside = self.bounded(values)
        # + 0.0: no zero is negative
        return np.rint(inside) + 0.0 if self.integer else inside

    def mean(self, before: Array, nodes: Array) -> Array:
        """Mean (...) of what is possible, from that of a marginal (..., node) of all numbers."""
        if self.is_everything:
            return before
        inside = self.bounded(nodes)
        result = before + (mean(inside) - mean(nodes))
        if self.integer:
            for start in range(0, len(LEVELS), AT_ONCE):
                values = self.bounded(quantiles(inside, LEVELS[start : start + AT_ONCE]))
                result = result + (np.rint(values) - values).sum(-1) / len(LEVELS)
        return self.bounded(result)

    def cdf(self, nodes: Array, x: Array) -> Array:
        """Probability (...) that what is possible of marginals (..., node) is at most `x` (...)."""
        inside = self.bounded(nodes)
        if not self.integer:
            level = normal_cdf(score_at(inside, x))
        else:
            # numbers below the middle between two whole ones are rounded down
            level = normal_cdf(score_at(inside, np.floor(x) + 0.5))
        level = np.where(x < self.lower, 0.0, level)
        return np.where(x >= self.upper, 1.0, level)


EVERYTHING = Support()
