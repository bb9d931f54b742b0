"""From checked series to forecasts: every series in its views, group by group, brought together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from moirai_moe_forecaster.config import ModelConfig
from moirai_moe_forecaster.data.series import Array, Series
from moirai_moe_forecaster.inference.batching import Load, in_passes
from moirai_moe_forecaster.inference.covariates import split_residuals
from moirai_moe_forecaster.inference.dependence import Dependence
from moirai_moe_forecaster.inference.forecast import Forecast, Marginals
from moirai_moe_forecaster.inference.gaps import gap_at_end, without_end
from moirai_moe_forecaster.inference.options import (
    ForecastOptions,
    history_points,
    regresses,
    seasons_looked_for,
)
from moirai_moe_forecaster.inference.outliers import without_outliers
from moirai_moe_forecaster.inference.own_distribution import with_own_distribution
from moirai_moe_forecaster.inference.prompt import make_prompt
from moirai_moe_forecaster.inference.quantile_grid import NODE_LEVELS
from moirai_moe_forecaster.inference.rollout import (
    Draw,
    Marginal,
    frozen_rollout,
    hidden_rollout,
    marginalise,
    no_draw,
    reestimated_rollout,
    seeded_draw,
)
from moirai_moe_forecaster.inference.sampling import series_seed
from moirai_moe_forecaster.inference.seasons import VIEW_KINDS, Seasons
from moirai_moe_forecaster.inference.view_weights import detect_seasons
from moirai_moe_forecaster.inference.views import View, bring_together, make_views
from moirai_moe_forecaster.model.network import MoiraiMoE


def forecast(
    network: MoiraiMoE,
    batch: Sequence[Series],
    options: ForecastOptions,
    done: Callable[[], object] = lambda: None,
) -> Forecast:
    """Forecast series.

    Parameters
    ----------
    network : MoiraiMoE
        On any device; it stays as it is.
    batch : sequence of Series
        With all the history that cycles may be learnt from, and covariates over the horizon.
    options : ForecastOptions
    done : callable
        Called after every series.

    Returns
    -------
    Forecast
        With a series axis and a variate axis.
    """
    steps = np.array([_steps_before(network.config, series) for series in batch])
    found: dict[int, tuple[Marginals, Seasons]] = {}
    for gap in np.unique(steps).tolist():
        members = np.flatnonzero(steps == gap).tolist()
        own = [without_end(batch[index], gap) for index in members]
        longer = replace(options, horizon=options.horizon + gap)
        results = _from_last_observed(network, own, longer, done)
        for index, (marginals, seasons) in zip(members, results, strict=True):
            found[index] = marginals.from_step(gap), seasons
    results = [found[index] for index in range(len(batch))]
    return Forecast(
        _stack([marginals for marginals, _ in results]),
        single=False,
        univariate=False,
        num_samples=options.num_samples,
        decay=network.config.dependence_decay,
        seasons=[seasons for _, seasons in results],
        support=options.support,
    )


def _steps_before(config: ModelConfig, series: Series) -> int:
    """Steps between the last observed one and the horizon that are forecast too."""
    if not config.fill_gaps:
        return 0
    return gap_at_end(without_outliers(series) if config.drop_outliers else series)


def _from_last_observed(
    network: MoiraiMoE,
    batch: Sequence[Series],
    options: ForecastOptions,
    done: Callable[[], object],
) -> list[tuple[Marginals, Seasons]]:
    """Forecast series of which something is observed at the last step."""
    config, limits = network.config, options.limits
    load, season_length = options.load(config), seasons_looked_for(config, options.season_length)
    regress = regresses(config, options.covariate_use)
    if season_length is not None:
        history = history_points(config, options.context_length, season_length)
        batch = [series.last(history) for series in batch]
    residuals = [without_outliers(s) for s in batch] if config.drop_outliers else [*batch]
    effects = None
    if regress and any(len(series.future) for series in batch):
        residuals, effects = split_residuals(network, residuals, load, **limits)
    seasons = detect_seasons(
        network, batch, residuals, load, season_length, regress=regress, **limits
    )
    flipped = [_is_short(series, load) for series in residuals]
    counts = [
        len(found.kinds) * (2 if twice else 1)
        for found, twice in zip(seasons, flipped, strict=True)
    ]

    def work(members: list[int]) -> list[Marginals]:
        views, weights = [], []
        for index in members:
            some, shares = _views(residuals[index], seasons[index], load, flipped[index])
            views.append(some)
            weights.append(shares)
        rows = [view.series for some in views for view in some]
        parts = iter(_marginals(network, rows, load, options.seed))
        together = [
            bring_together([next(parts) for _ in some], some, shares)
            for some, shares in zip(views, weights, strict=True)
        ]
        if not config.own_distribution:
            return together
        return [
            with_own_distribution(
                marginals, residuals[index].last(load.context_length).target, seasons[index].periods
            )
            for index, marginals in zip(members, together, strict=True)
        ]

    found: dict[int, Marginals] = {}
    device = next(network.parameters()).device
    for index, marginals in in_passes(residuals, load, device, work, counts, **limits):
        found[index] = marginals if effects is None else marginals.moved(effects[index].T)
        done()
    return [(found[index], seasons[index]) for index in range(len(batch))]


def _is_short(series: Series, load: Load) -> bool:
    """Whether a context is forecast with its sign flipped too: see `ModelConfig.mirror_up_to`."""
    return min(series.target.shape[1], load.context_length) <= load.config.mirror_up_to


def _views(series: Series, seasons: Seasons, load: Load, flipped: bool) -> tuple[list[View], Array]:
    """Views of a series that count, and their weights (view, variate)."""
    fill = load.config.fill_gaps
    views = make_views(series, seasons.periods, seasons.kinds, load.horizon, fill=fill)
    weights = seasons.weights[[VIEW_KINDS.index(kind) for kind in seasons.kinds]]
    if flipped:
        views = [*views, *(view.sign_flipped() for view in views)]
        weights = np.concatenate((weights, weights)) / 2
    return views, weights


@torch.inference_mode()
def _marginals(
    network: MoiraiMoE, rows: Sequence[Series], load: Load, seed: int
) -> list[Marginals]:
    """Forecast alike contexts in one pass and summarise each."""
    config, horizon = network.config, load.horizon
    blocks = -(-horizon // (config.output_patches * config.patch_size))
    read = [series.last(load.context_length).target for series in rows]
    seeds = np.array([[series_seed(seed, values) for values in target] for target in read])
    device = next(network.parameters()).device
    dependence = Dependence.of(config)
    joint = blocks > 1 and load.paths > 0
    draw: Draw = no_draw
    if joint:
        draw = seeded_draw(torch.from_numpy(seeds).to(device), load.paths, dependence)
    prompt = make_prompt(rows, horizon, config, load.context_length)
    if not load.paths:
        rollout = hidden_rollout(network, prompt, blocks, draw)
    elif load.reestimated:
        rollout = reestimated_rollout(network, rows, horizon, blocks, draw, load.context_length)
    else:
        rollout = frozen_rollout(network, prompt, blocks, draw)
    levels = torch.tensor(NODE_LEVELS, dtype=torch.float32, device=device)
    marginal = marginalise(rollout, horizon, levels, dependence)
    location, scale = (part[..., 0].numpy() for part in prompt.normaliser)
    return _split(marginal, location, scale, seeds, joint=joint)


def _split(
    marginal: Marginal,
    location: NDArray[np.float64],
    scale: NDArray[np.float64],
    seeds: NDArray[np.int64],
    *,
    joint: bool,
) -> list[Marginals]:
    """One summary per series of a group, each with a series axis of length 1."""
    quantiles = marginal.quantiles.permute(1, 0, 3, 2).cpu().numpy().astype(np.float32)
    mean = marginal.mean.transpose(1, 2).cpu().numpy().astype(np.float32)
    steady, like_a_walk = marginal.shares
    share = steady.cpu().numpy().astype(np.float32)
    walk = None if like_a_walk is None else like_a_walk.cpu().numpy().astype(np.float32)
    ranks = _ranks(marginal.draws).transpose(2, 3).cpu().numpy().astype(np.int32) if joint else None
    return [
        Marginals(
            quantiles[i : i + 1],
            mean[i : i + 1],
            np.repeat(location[i : i + 1, None], mean.shape[1], 1),
            scale[i : i + 1],
            None if ranks is None else ranks[i : i + 1],
            seeds[i : i + 1],
            share[i : i + 1],
            None if walk is None else walk[i : i + 1],
        )
        for i in range(len(mean))
    ]


def _ranks(draws: Tensor) -> Tensor:
    """Rank of every path among the paths (axis 1); of equal ones the earlier path is lower."""
    return draws.argsort(dim=1, stable=True).argsort(1)


def _stack(summaries: Sequence[Marginals]) -> Marginals:
    """Join summaries along the series axis; series with fewer variates are filled up with NaN."""
    variates = max(summary.scale.shape[1] for summary in summaries)
    ranks = next((summary.ranks for summary in summaries if summary.ranks is not None), None)

    def joined(field: str) -> Any:
        arrays = [getattr(summary, field) for summary in summaries]
        if field == "ranks" and ranks is not None:
            # one pass may reach the horizon of a series, and not that of one with a gap before it
            none = np.full((*ranks.shape[:3], variates), -1, ranks.dtype)
            arrays = [none if array is None else array for array in arrays]
        if arrays[0] is None:
            return None
        if all(array.shape[-1] == variates for array in arrays):
            return np.concatenate(arrays)
        filler = np.nan if arrays[0].dtype.kind == "f" else 0
        widths = [[(0, 0)] * (a.ndim - 1) + [(0, variates - a.shape[-1])] for a in arrays]
        return np.concatenate(
            [np.pad(a, w, constant_values=filler) for a, w in zip(arrays, widths, strict=True)]
        )

    return Marginals(*(joined(field) for field in Marginals._fields))
