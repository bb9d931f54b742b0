"""From a context and a horizon to the marginals of all points that the horizon asks for."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sktime.forecasting.base import ForecastingHorizon

from moirai_moe_forecaster.adapters.sktime.context import Context
from moirai_moe_forecaster.adapters.sktime.instances import (
    in_order,
    positions_of,
    target_values,
)
from moirai_moe_forecaster.data.numbers import Array
from moirai_moe_forecaster.data.series import read_series
from moirai_moe_forecaster.inference.engine import forecast
from moirai_moe_forecaster.inference.in_sample import in_sample_nodes
from moirai_moe_forecaster.inference.options import (
    context_points,
    read_options,
    regresses,
    seasons_looked_for,
)
from moirai_moe_forecaster.inference.pipeline import MoiraiMoEPipeline
from moirai_moe_forecaster.inference.quantile_grid import NODE_LEVELS
from moirai_moe_forecaster.inference.support import Support


class Points(NamedTuple):
    """Marginals, in the order of a horizon's rows.

    Attributes
    ----------
    nodes : ndarray, (row, variate, node)
        Values at the levels of `inference.quantile_grid`.
    labels : Index
        Of the rows.
    ranks : ndarray of int, (row, variate, sample), or None
        Of trajectories; those of in-sample points are independent.
    support : Support
        Possible values; the nodes lie within its bounds.
    """

    nodes: Array
    labels: pd.Index
    ranks: NDArray[np.intp] | None
    support: Support


def forecast_points(
    pipeline: MoiraiMoEPipeline,
    context: Context,
    fh: ForecastingHorizon,
    X: pd.DataFrame | None,
    freq: Any,
    options: dict[str, Any],
    *,
    trajectories: bool = False,
) -> Points:
    """Forecast all instances together, at every step that any of them needs.

    Parameters
    ----------
    pipeline : MoiraiMoEPipeline
    context : Context
    fh : ForecastingHorizon
    X : DataFrame, optional
        Exogenous values from the first step after each instance on.
    freq : object
        Frequency of the cutoff, for time stamps that do not tell their own.
    options : dict
        Of `MoiraiMoEPipeline.predict`; needs `num_samples`, `batch_size`, `random_state` and
        `season_length`.
    trajectories : bool, default=False
        Whether to give ranks.
    """
    instances = context.instances(fh, freq)
    horizon = max(len(instance.ahead) for instance in instances)
    past, future = context.covariates(instances, horizon, X)
    # what the network reads; the history before that is for cycles
    longest = context_points(pipeline.config)
    y = [target_values(instance, longest) for instance in instances]
    positions = [positions_of(instance, longest) for instance in instances]
    nodes = np.empty((0, len(context.y.columns), len(NODE_LEVELS)))
    settings = read_options(max(horizon, 1), memory_budget=pipeline.memory_budget, **options)
    batch = read_series(y, horizon, past, future, longest).series
    if any(map(len, positions)):
        parts = in_sample_nodes(
            pipeline.network,
            batch,
            positions,
            regress=regresses(pipeline.config),
            season_length=seasons_looked_for(pipeline.config, settings.season_length),
            **settings.limits,
        )
        nodes = settings.support.bounded(np.concatenate([part for part in parts if len(part)]))
    ranks = None
    if trajectories:
        shape = (*nodes.shape[:2], options["num_samples"])
        generator = np.random.default_rng(abs(options["random_state"]))
        ranks = generator.permuted(np.broadcast_to(np.arange(shape[-1]), shape), axis=-1)
    if horizon:
        ahead = forecast(pipeline.network, batch, settings)
        nodes = in_order(nodes, ahead.nodes, instances)
        if ranks is not None:
            order = ahead.samples.argsort(1).argsort(1)
            ranks = in_order(ranks, np.moveaxis(order, 1, -1), instances)
    return Points(nodes, context.labels(instances), ranks, settings.support)
