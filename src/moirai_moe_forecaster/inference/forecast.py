"""A probabilistic forecast: quantiles at any level, mean, samples, without the network."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from moirai_moe_forecaster.errors import InvalidInputError
from moirai_moe_forecaster.inference.dependence import Shares, dependent
from moirai_moe_forecaster.inference.quantile_grid import (
    Array,
    between_nodes,
    normal_score,
)
from moirai_moe_forecaster.inference.sampling import uniforms
from moirai_moe_forecaster.inference.seasons import Seasons, seasons_frame
from moirai_moe_forecaster.inference.support import EVERYTHING, Support

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes


class Marginals(NamedTuple):
    """What a forecast stores; the unit is a series' own standardised one.

    Attributes
    ----------
    quantiles : ndarray of float32, (series, node, horizon, variate)
        At `NODE_LEVELS`; NaN for variates that a series of a ragged batch does not have.
    mean : ndarray of float32, (series, horizon, variate)
    location : ndarray, (series, horizon, variate)
    scale : ndarray, (series, variate)
        Back to raw values: ``standardised * scale + location``.
    ranks : ndarray of int32, (series, path, horizon, variate), or None
        Rank of each path among the paths of its step: how steps and variates depend on each other.
        -1 for a series without paths among others that have them.
    seeds : ndarray of int64, (series, variate)
        Streams from which samples are drawn.
    share : ndarray of float32, (series, variate)
        How steps depend on each other: where there are no ranks their normal scores correlate as
        ``share * decay**lag``.
    walk : ndarray of float32, (series, variate), or None
        How much they depend on each other like a random walk besides: `dependence.Shares`.
    """

    quantiles: NDArray[np.float32]
    mean: NDArray[np.float32]
    location: Array
    scale: Array
    ranks: NDArray[np.int32] | None
    seeds: NDArray[np.int64]
    share: NDArray[np.float32]
    walk: NDArray[np.float32] | None = None

    def moved(self, effect: Array) -> Marginals:
        """Add a raw value (horizon, variate) to every step."""
        return self._replace(location=self.location + effect)

    def from_step(self, first: int) -> Marginals:
        """Leave out the steps before one."""
        ranks = None if self.ranks is None else self.ranks[:, :, first:]
        return self._replace(
            quantiles=self.quantiles[:, :, first:],
            mean=self.mean[:, first:],
            location=self.location[:, first:],
            ranks=ranks,
        )

    def of_series(self, index: int) -> Marginals:
        """Return one series, with a series axis of length 1 and only its own variates."""
        present = ~np.isnan(self.scale[index])
        return Marginals(
            self.quantiles[index][None, ..., present],
            self.mean[index][None, ..., present],
            self.location[index][None, :, present],
            self.scale[index][None, present],
            None if self.ranks is None else self.ranks[index][None, ..., present],
            self.seeds[index][None, present],
            self.share[index][None, present],
            None if self.walk is None else self.walk[index][None, present],
        )


class Forecast:
    """Predictive distribution of every step of a horizon.

    `MoiraiMoEPipeline.predict` makes it. The layout of all results is (series, level or sample,
    horizon, variate). The series axis is dropped when one series was forecast that was not in a
    list, the level axis when a single level was asked for, and the variate axis when the input was
    one-dimensional.

    Parameters
    ----------
    marginals : Marginals
    single, univariate : bool
        Whether results drop the series and the variate axis.
    num_samples : int
        How many trajectories `samples` holds.
    decay : float, default=0
        With the marginals' shares, how steps depend on each other.
    seasons : sequence of Seasons, optional
        What repeats in each series.
    support : Support, optional
        Which values are possible; by default all numbers.
    """

    # of forecasts that were pickled before seasons were looked for, and before there were bounds
    _seasons: Sequence[Seasons] = ()
    _support: Support = EVERYTHING

    def __init__(
        self,
        marginals: Marginals,
        *,
        single: bool,
        univariate: bool,
        num_samples: int,
        decay: float = 0.0,
        seasons: Sequence[Seasons] = (),
        support: Support = EVERYTHING,
    ) -> None:
        self._marginals = marginals
        self._single = single
        self._univariate = univariate
        self._num_samples = num_samples
        self._decay = decay
        self._seasons = [*seasons]
        self._support = support

    def __repr__(self) -> str:
        series, _, horizon, variates = self._marginals.quantiles.shape
        return f"Forecast(series={series}, horizon={horizon}, variates={variates})"

    def __len__(self) -> int:
        """Return the number of series."""
        return len(self._marginals.quantiles)

    def __getitem__(self, index: int) -> Forecast:
        """Return the forecast of one series of a batch, with no series axis."""
        return self.of_series(index, univariate=self._univariate)

    def with_axes(self, *, single: bool, univariate: bool) -> Forecast:
        """Return the same forecast, whose results drop the series or the variate axis."""
        return Forecast(
            self._marginals,
            single=single,
            univariate=univariate,
            num_samples=self._num_samples,
            decay=self._decay,
            seasons=self._seasons,
            support=self._support,
        )

    def of_series(self, index: int, *, univariate: bool) -> Forecast:
        """Return the forecast of one series, its variate axis dropped if `univariate`."""
        return Forecast(
            self._marginals.of_series(index),
            single=True,
            univariate=univariate,
            num_samples=self._num_samples,
            decay=self._decay,
            seasons=[self._seasons[index]] if self._seasons else [],
            support=self._support,
        )

    @property
    def horizon(self) -> int:
        """Number of steps."""
        return self._marginals.quantiles.shape[2]

    @property
    def mean(self) -> Array:
        """Mean of every step: (series, horizon, variate)."""
        mean = self._restore(self._marginals.mean.astype(np.float64))
        if not self._support.is_everything:
            nodes = np.moveaxis(self._restore(self._marginals.quantiles.astype(np.float64)), 1, -1)
            mean = self._support.mean(mean, nodes)
        return self._drop(mean)

    @property
    def median(self) -> Array:
        """Median of every step: (series, horizon, variate)."""
        return self.quantile(0.5)

    @property
    def seasons(self) -> pd.DataFrame:
        """What repeats in each series, and how much each view of it counts in the forecast.

        One row per series, variate and period, the primary period first, or one row without a
        period where nothing repeats: ``series`` and ``variate`` are positions, ``period`` is in
        steps, ``strength`` says from 0 to 1 how much of a variate repeats with it. The other
        columns are the weights of the variate's views (`inference.views`), which sum to 1.
        """
        return seasons_frame(self._seasons)

    @property
    def nodes(self) -> Array:
        """Values at the levels of `inference.quantile_grid`: (series, horizon, variate, node).

        Within the bounds, but not yet rounded where the variable counts.
        """
        values = self._restore(self._marginals.quantiles.astype(np.float64))
        values = self._drop(self._support.bounded(values))
        return np.moveaxis(values, 0 if self._single else 1, -1)

    def quantile(self, levels: ArrayLike) -> Array:
        """Quantiles at any levels.

        Between the stored levels the values are linear in the normal score of the level, and
        beyond the outermost (0.0001 and 0.9999) the last such line goes on.

        Parameters
        ----------
        levels : float or sequence of float
            In (0, 1), in any order.

        Returns
        -------
        ndarray, (series, level, horizon, variate)

        Raises
        ------
        InvalidInputError
            If a level is not a number within (0, 1).
        """
        checked = check_levels(levels)
        left, share = between_nodes(normal_score(np.atleast_1d(checked)))
        share = share[:, None, None]
        nodes = self._marginals.quantiles
        values = self._drop(self._between(nodes[:, left], nodes[:, left + 1], share))
        if checked.ndim:
            return values
        return values[0] if self._single else values[:, 0]

    def interval(self, coverage: float) -> tuple[Array, Array]:
        """Central interval.

        Parameters
        ----------
        coverage : float
            Probability that the interval holds, in (0, 1).

        Returns
        -------
        lower, upper : ndarray, (series, horizon, variate)
        """
        if check_levels(coverage).ndim:
            raise InvalidInputError(f"coverage must be one number in (0, 1), got {coverage!r}")
        half = float(coverage) / 2
        return self.quantile(0.5 - half), self.quantile(0.5 + half)

    def cdf(self, values: ArrayLike) -> Array:
        """Probability that a step's value is at most `values`.

        Parameters
        ----------
        values : array
            Broadcasts with (series, horizon, variate), less the dropped axes.

        Returns
        -------
        ndarray
            Of that shape.
        """
        nodes = self.nodes
        x = np.broadcast_to(np.asarray(values, dtype=np.float64), nodes.shape[:-1])
        return self._support.cdf(nodes, x)

    @property
    def samples(self) -> Array:
        """Trajectories: (series, sample, horizon, variate).

        Drawn when asked for, always the same ones. Each is a draw from every step's marginal, and
        its steps depend on each other as the checkpoint says (`inference.dependence`). Where
        several passes were needed, its steps are ranked like those of one of the rollout's paths,
        and the dependence acts between the ranks: the more paths, the surer are statements about
        several steps. Different variates of a series depend on each other only by those ranks.
        """
        quantiles, ranks = self._marginals.quantiles, self._marginals.ranks
        horizon = self.horizon
        streams = torch.from_numpy(self._marginals.seeds)
        share, walk = self._marginals.share, self._marginals.walk
        each = horizon if walk is None else 2 * horizon
        draws = uniforms(streams, 2**40, self._num_samples * each).unflatten(-1, (-1, each))
        if share.any() or walk is not None:
            like_a_walk = None if walk is None else torch.from_numpy(walk)[..., None]
            shares = Shares(torch.from_numpy(share)[..., None], like_a_walk)
            draws = dependent(draws, shares, self._decay)
        level = draws.numpy().transpose(0, 2, 3, 1)
        if ranks is not None:
            paths = ranks.shape[1]
            chosen = np.arange(self._num_samples) % paths
            rank = ranks[:, chosen].astype(np.float64)
            level = np.where(rank < 0, level, (rank + level) / paths)
        left, part = between_nodes(normal_score(level.astype(np.float64)))
        low = np.take_along_axis(quantiles, left, 1)
        high = np.take_along_axis(quantiles, left + 1, 1)
        return self._drop(self._between(low, high, part))

    def plot(self, history: ArrayLike | None = None, **options: Any) -> Axes:
        """Draw the median and bands; `moirai_moe_forecaster.plotting.plot_forecast` has options."""
        from moirai_moe_forecaster.plotting import plot_forecast

        return plot_forecast(self, history, **options)

    def _between(self, low: NDArray[np.float32], high: NDArray[np.float32], share: Array) -> Array:
        """Possible raw values on the lines between standardised ones of two nodes."""
        below = low.astype(np.float64)
        if self._support.is_everything:
            return self._restore(below + share * (high - below))
        below, above = (
            self._support.bounded(self._restore(part.astype(np.float64))) for part in (low, high)
        )
        return self._support.possible(below + share * (above - below))

    def _restore(self, values: Array) -> Array:
        """Map standardised (series, [level,] horizon, variate) back to raw values."""
        location, scale = self._marginals.location, self._marginals.scale[:, None]
        if values.ndim == 4:
            location, scale = location[:, None], scale[:, None]
        return values * scale + location

    def _drop(self, values: Array) -> Array:
        values = values[..., 0] if self._univariate else values
        return values[0] if self._single else values


def check_levels(levels: ArrayLike) -> Array:
    try:
        wanted = np.asarray(levels, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InvalidInputError(f"levels must be numbers in (0, 1), got {levels!r}") from error
    if wanted.ndim > 1 or wanted.size == 0 or not ((wanted > 0) & (wanted < 1)).all():
        raise InvalidInputError(
            f"levels must be one or more numbers strictly between 0 and 1, got {levels!r}"
        )
    return wanted
