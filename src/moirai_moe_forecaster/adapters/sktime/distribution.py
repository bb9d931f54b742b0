"""The predictive distribution of a table of points, as skpro's distributions are used."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from skpro.distributions.base import BaseDistribution

from moirai_moe_forecaster.errors import InvalidInputError
from moirai_moe_forecaster.inference import quantile_grid
from moirai_moe_forecaster.inference.quantile_grid import Array


def _positions(labels: pd.Index, key: Any) -> Any:
    """Positions that pandas' loc selects: one, several or, for no key, None."""
    if key is None:
        return None
    # skpro takes a label that is not there for the last one
    places = pd.Series(np.arange(len(labels)), labels)
    if isinstance(key, list) and labels.nlevels > 1 and all(isinstance(k, tuple) for k in key):
        # which may be the first levels of rows only
        return np.concatenate([np.atleast_1d(places.loc[one]) for one in key])
    found = places.loc[key]
    return found.to_numpy() if isinstance(found, pd.Series) else found


class ForecastDistribution(BaseDistribution):  # type: ignore[misc]
    """Marginal distributions of a forecast, with the dependence between its points for sampling.

    Everything but the dependence is exact: quantiles, distribution function, density, moments and
    energy of one and the same marginal per point. It is stored as its values at fixed levels and
    is piecewise normal: between two levels, and beyond the last, the value is linear in the normal
    score of the level.

    Parameters
    ----------
    values : array, (row, column, node), or (node,) for a single point
        Values at the levels `moirai_moe_forecaster.inference.quantile_grid.NODE_LEVELS`, rising.
    ranks : array of int, (row, column, trajectory) or (trajectory,), optional (default=None)
        Rank of every trajectory among all at its point. Samples depend on each other across points
        as the trajectories do; without them points are independent.
    random_state : int or numpy Generator, optional (default=None)
        Of ``sample``. A generator goes on from call to call and is shared with parts of the
        distribution; None is a fresh one. numpy's global random state is never used.
    index, columns : pd.Index, optional (default=None)
        Labels of rows and columns, by default ranges.

    Examples
    --------
    >>> from moirai_moe_forecaster.adapters.sktime.distribution import ForecastDistribution
    >>> from moirai_moe_forecaster.inference.quantile_grid import NODE_SCORES
    >>> normal = ForecastDistribution(10 + 2 * NODE_SCORES)
    >>> print(round(normal.mean(), 6), round(normal.var(), 6), round(normal.ppf(0.5), 6))
    10.0 4.0 10.0
    """

    _tags = {  # noqa: RUF012
        "authors": ["The moirai-moe-forecaster developers"],
        "capabilities:approx": [],
        "capabilities:exact": [
            "mean",
            "var",
            "energy",
            "pdfnorm",
            "pdf",
            "log_pdf",
            "cdf",
            "ppf",
        ],
        "distr:measuretype": "continuous",
        "distr:paramtype": "nonparametric",
    }

    def __init__(
        self,
        values: Any,
        ranks: Any = None,
        random_state: int | np.random.Generator | None = None,
        index: pd.Index | None = None,
        columns: pd.Index | None = None,
    ) -> None:
        self.values = values
        self.ranks = ranks
        self.random_state = random_state
        self._nodes = np.asarray(values, dtype=np.float64)
        nodes = len(quantile_grid.NODE_LEVELS)
        if self._nodes.ndim not in (1, 3) or self._nodes.shape[-1] != nodes:
            raise InvalidInputError(
                f"values has the shape {self._nodes.shape}; "
                f"expected ({nodes},) or (row, column, {nodes})"
            )
        self._ranks = None if ranks is None else np.asarray(ranks)
        self._generator = np.random.default_rng(random_state)
        if self._nodes.ndim == 3:
            rows, width = self._nodes.shape[:2]
            index = pd.RangeIndex(rows) if index is None else index
            columns = pd.RangeIndex(width) if columns is None else columns
        super().__init__(index=index, columns=columns)

    def _loc(self, rowidx: Any = None, colidx: Any = None) -> ForecastDistribution:
        # where rows have several levels, skpro takes the keys of rows and columns for one of a row
        if colidx is None and isinstance(rowidx, tuple) and len(rowidx) == 2:
            every = slice(None)
            if any(isinstance(key, list | slice | np.ndarray) for key in rowidx):
                keys = [None if isinstance(k, slice) and k == every else k for k in rowidx]
                rowidx, colidx = keys
        return self._iloc(_positions(self.index, rowidx), _positions(self.columns, colidx))

    def _at(self, rowidx: Any = None, colidx: Any = None) -> ForecastDistribution:
        rows, columns = _positions(self.index, rowidx), _positions(self.columns, colidx)
        part: ForecastDistribution = self._iat(rows, columns)
        return part

    def _iloc(self, rowidx: Any = None, colidx: Any = None) -> ForecastDistribution:
        # skpro takes masks for positions and no slices
        rows, columns = (
            key if key is None else np.arange(length)[key]
            for key, length in zip((rowidx, colidx), self.shape, strict=True)
        )
        part: ForecastDistribution = super()._iloc(rows, columns)
        return part

    def _subset_params(
        self, rowidx: Any, colidx: Any, coerce_scalar: bool = False
    ) -> dict[str, Any]:
        def part(array: Any) -> Any:
            if array is None:
                return None
            array = array if rowidx is None else array[rowidx]
            if coerce_scalar:
                return array[colidx]
            return array if colidx is None else array[:, colidx]

        return {
            "values": part(self._nodes),
            "ranks": part(self._ranks),
            "random_state": self._generator,
        }

    def _mean(self) -> Array:
        return quantile_grid.mean(self._nodes)

    def _var(self) -> Array:
        return quantile_grid.variance(self._nodes)

    def _pdf(self, x: Array) -> Array:
        return quantile_grid.density(self._nodes, np.asarray(x, dtype=np.float64))

    def _log_pdf(self, x: Array) -> Array:
        with np.errstate(divide="ignore"):
            return np.log(self._pdf(x))

    def _cdf(self, x: Array) -> Array:
        return quantile_grid.normal_cdf(
            quantile_grid.score_at(self._nodes, np.asarray(x, dtype=np.float64))
        )

    def _ppf(self, p: Array) -> Array:
        return quantile_grid.value_at(
            self._nodes, quantile_grid.normal_score(np.asarray(p, dtype=np.float64))
        )

    def pdfnorm(self, a: float = 2) -> Any:
        """Integral of each density to the power `a`.

        Parameters
        ----------
        a : float, default=2

        Returns
        -------
        DataFrame, or float of a single point
        """
        # skpro has no inner method for it: it draws samples, and mixes the rows of an instance
        norms = quantile_grid.density_norm(self._nodes, a)
        return pd.DataFrame(norms, self.index, self.columns) if self.ndim else norms

    def _energy_self(self) -> Array:
        return self._row_sums(quantile_grid.self_energy(self._nodes))

    def _energy_x(self, x: Array) -> Array:
        return self._row_sums(quantile_grid.energy(self._nodes, np.asarray(x, dtype=np.float64)))

    def _row_sums(self, energies: Array) -> Array:
        return energies.sum(1) if energies.ndim else energies

    def _sample(self, n_samples: int | None = None) -> Any:
        """Draw trajectories: a stored one gives the ranks, and the draw lies within its rank."""
        count = 1 if n_samples is None else n_samples
        level = self._generator.uniform(size=(count, *self.shape))
        if self._ranks is not None:
            trajectories = self._ranks.shape[-1]
            chosen = self._generator.integers(trajectories, size=count)
            level = (np.moveaxis(self._ranks[..., chosen], -1, 0) + level) / trajectories
        score = quantile_grid.normal_score(level.clip(1e-12, 1 - 1e-12))
        draws = quantile_grid.value_at(
            np.broadcast_to(self._nodes, (*score.shape, self._nodes.shape[-1])), score
        )
        if self.ndim == 0:
            return draws[0] if n_samples is None else pd.DataFrame(draws)
        tables = [pd.DataFrame(draw, self.index, self.columns) for draw in draws]
        return tables[0] if n_samples is None else pd.concat(tables, keys=range(count))

    @classmethod
    def get_test_params(cls, parameter_set: str = "default") -> list[dict[str, Any]]:
        """Return testing parameter settings for the distribution.

        Parameters
        ----------
        parameter_set : str, default="default"
            Name of the set of test parameters; there is only one.

        Returns
        -------
        list of dict
        """
        scores = quantile_grid.NODE_SCORES
        shift = np.arange(6.0).reshape(3, 2, 1)
        skewed = np.exp(scores / 2) + shift
        ranks = np.arange(5) * np.ones((3, 2, 1), dtype=int)
        return [
            {"values": skewed, "ranks": ranks, "random_state": 0},
            {
                "values": 3 * scores * (1 + shift),
                "index": pd.Index([1, 2, 5]),
                "columns": ["a", "b"],
            },
            {"values": scores - 1},
        ]
