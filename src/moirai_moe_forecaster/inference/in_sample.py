"""In-sample forecasts: every point of a context from those before it, in teacher-forced passes.

A causal network gives the forecasts of all patches of a window in one pass. A window here ends
anywhere and its patches are cut from its end, so that sixteen windows, one point apart, forecast
every point one step ahead. What the normaliser, the covariates' effect and the cycles are
estimated from is the first part of a window, at least half of it and more where a variate begins or
jumps after that, and only points after that part are forecast: no forecast sees its own or a later
value. Where cycles are found, windows are read with and without them (`in_sample_parts`).

The first observed value has none before it and takes the forecast of the point that follows it.
Before it nothing is known, and the forecast is the network's for no data: around 0.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from moirai_moe_forecaster.config import ModelConfig
from moirai_moe_forecaster.data.series import Array, Series
from moirai_moe_forecaster.inference.batching import Load, in_passes
from moirai_moe_forecaster.inference.in_sample_parts import (
    Part,
    Positions,
    first_parts,
    make_parts,
    second_weight,
)
from moirai_moe_forecaster.inference.options import context_points
from moirai_moe_forecaster.inference.prompt import make_prompt
from moirai_moe_forecaster.inference.quantile_grid import NODE_LEVELS
from moirai_moe_forecaster.inference.seasons import SeasonLength
from moirai_moe_forecaster.model.network import MoiraiMoE


@dataclass(frozen=True, kw_only=True)
class InSamplePlan:
    """What is asked of one series.

    Attributes
    ----------
    context : Series
        Of what the network reads at once.
    sources : ndarray of int, (position, variate)
        Whose forecast each point and variate takes.
    first : ndarray of int, (context + 1,)
        Length of the first part of each position.
    parts : dict of int to Part
        By that length.
    """

    context: Series
    sources: Positions
    first: Positions
    parts: dict[int, Part]


@dataclass(frozen=True, kw_only=True)
class InSampleWindow:
    """Part of a context that one pass goes over.

    Attributes
    ----------
    owner, view : int
        Which series it is of, and in which view.
    series : Series
        From the first point to the one before the last query.
    prefix : int
        How many first points the normaliser sees.
    queries : list of int
        Positions that are forecast: `prefix` and every `patch_size` after it.
    effect : ndarray, (variate, query)
        What the view takes out of them, which `series` does not hold.
    """

    owner: int
    view: int
    series: Series
    prefix: int
    queries: list[int]
    effect: Array


def in_sample_nodes(
    network: MoiraiMoE,
    batch: Sequence[Series],
    positions: Sequence[Positions],
    *,
    regress: bool,
    season_length: SeasonLength = None,
    **limits: int | None,
) -> list[Array]:
    """Forecast points of contexts one step ahead.

    Parameters
    ----------
    network : MoiraiMoE
    batch : sequence of Series
        Contexts; what is more than the network reads at once helps to learn cycles only.
    positions : sequence of ndarray of int
        Which points of each to forecast, from 0 on: the first that the network reads.
    regress : bool
        Whether known-future covariates act through a regression instead of as tokens.
    season_length : "auto", None or tuple of int
        Whether periods are found, left out, or named.
    **limits
        `memory_budget` and `batch_size` (in windows), as for `in_passes`.

    Returns
    -------
    list of ndarray, (position, variate, node)
        Values at the levels of `inference.quantile_grid`.
    """
    config = network.config
    load = Load(
        config=config, context_length=context_points(config), horizon=1, paths=1, reestimated=False
    )
    plans = [
        _plan(series, where, load.context_length, season_length, regress=regress)
        for series, where in zip(batch, positions, strict=True)
    ]
    windows = [
        window
        for owner, plan in enumerate(plans)
        for window in _windows(owner, plan, config, regress)
    ]
    found: list[tuple[dict[int, Array], ...]] = [({}, {}) for _ in plans]
    device = next(network.parameters()).device

    def work(members: list[int]) -> list[Array]:
        return _forecast(network, [windows[index] for index in members])

    cuts = [window.series for window in windows]
    for index, nodes in in_passes(cuts, load, device, work, **limits):
        window = windows[index]
        found[window.owner][window.view].update(zip(window.queries, nodes, strict=True))
    return [_averaged(plan, views) for plan, views in zip(plans, found, strict=True)]


def _plan(
    series: Series, positions: Positions, length: int, season_length: SeasonLength, *, regress: bool
) -> InSamplePlan:
    context = series.last(length)
    sources = _sources(context.target, positions)
    first = first_parts(context)
    parts = make_parts(series, first, np.unique(sources), season_length, regress=regress)
    return InSamplePlan(context=context, sources=sources, first=first, parts=parts)


def _sources(target: Array, positions: Positions) -> Positions:
    """Position whose forecast each point and variate takes: (position, variate)."""
    seen = ~np.isnan(target)
    first = np.where(seen.any(1), seen.argmax(1), -1)
    return np.maximum(positions[:, None] + (positions[:, None] == first), 1)


def _windows(
    owner: int, plan: InSamplePlan, config: ModelConfig, regress: bool
) -> list[InSampleWindow]:
    """Windows of one series that together forecast all its positions once in each view."""
    size, series = config.patch_size, plan.context
    trials = (position for part in plan.parts.values() for position in part.trials)
    groups: dict[tuple[int, int], list[int]] = {}
    for position in sorted({*np.unique(plan.sources).tolist(), *trials}):
        part = int(plan.first[position])
        groups.setdefault((part, part + (position - part) % size), []).append(position)
    windows = []
    for (part, prefix), queries in groups.items():
        end = queries[-1]
        past = series.past[:, :end]
        future = series.future[: 0 if regress else None, : end + size * config.output_patches]
        for view, effect in enumerate(plan.parts[part].effects):
            cut = Series(series.target[:, :end] - effect[:, :end], past, future)
            windows.append(
                InSampleWindow(
                    owner=owner,
                    view=view,
                    series=cut,
                    prefix=prefix,
                    queries=queries,
                    effect=effect[:, queries],
                )
            )
    return windows


@torch.inference_mode()
def _forecast(network: MoiraiMoE, windows: Sequence[InSampleWindow]) -> list[Array]:
    """Nodes (query, variate, node) of every window, all of them in one pass."""
    config = network.config
    device = next(network.parameters()).device
    prompt = make_prompt(
        [window.series for window in windows],
        config.output_patches * config.patch_size,
        config,
        config.max_seq_len * config.patch_size,
        [window.prefix for window in windows],
    )
    hidden = network.encode(prompt.given().to(device)).hidden
    places = [
        (row, prompt.context - 1 - (window.queries[-1] - position) // config.patch_size)
        for row, window in enumerate(windows)
        for position in window.queries
    ]
    rows, tokens = torch.tensor(places, device=device).T[..., None]
    variates = torch.arange(prompt.targets, device=device) * prompt.context
    mixture = network.head(hidden[rows, tokens + variates]).map(lambda x: x[..., 0, 0])
    levels = torch.tensor(NODE_LEVELS, dtype=torch.float32, device=device)
    nodes = mixture.icdf(levels).movedim(0, -1).cpu().double().numpy()
    location, scale = (part.numpy()[rows[:, 0].cpu().numpy()] for part in prompt.normaliser)
    split = np.cumsum([len(window.queries) for window in windows])[:-1]
    return [
        part + window.effect.T[..., None]
        for part, window in zip(np.split(nodes * scale + location, split), windows, strict=True)
    ]


def _averaged(plan: InSamplePlan, found: Sequence[Mapping[int, Array]]) -> Array:
    """Nodes (position, variate, node) of one series from those of every position and view."""
    nodes = dict(found[0])
    for length, part in plan.parts.items():
        if len(part.effects) == 1:
            continue
        values = plan.context.target[:, part.trials].T
        tried = np.array([[view[p] for p in part.trials] for view in found])
        weight = second_weight(part, tried.reshape(2, *values.shape, len(NODE_LEVELS)), values)
        for position in nodes:
            if plan.first[position] == length:
                step = found[1][position] - nodes[position]
                nodes[position] = nodes[position] + weight[:, None] * step
    return np.array([[nodes[p][v] for v, p in enumerate(row)] for row in plan.sources])
