"""In-sample forecasts: every point of a context from those before it, in teacher-forced passes.

A causal network gives the forecasts of all patches of a window in one pass. A window here ends
anywhere and its patches are cut from its end, so that sixteen windows, one point apart, forecast
every point one step ahead. What the normaliser and the covariates' effect are estimated from is
the first part of a window, at least half of it and more where a variate begins or jumps after that,
and only points after that part are forecast: no forecast sees its own or a later value.

The first observed value has none before it and takes the forecast of the point that follows it.
Before it nothing is known, and the forecast is the network's for no data: around 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from moirai_moe_forecaster.config import ModelConfig
from moirai_moe_forecaster.inference.batches import Load
from moirai_moe_forecaster.inference.marginal import NODE_LEVELS
from moirai_moe_forecaster.inference.passes import in_passes
from moirai_moe_forecaster.inference.prompt import make_prompt
from moirai_moe_forecaster.inference.regression import explained
from moirai_moe_forecaster.inference.series import Array, Series
from moirai_moe_forecaster.model.network import MoiraiMoE

Positions = NDArray[np.intp]

MORE_OBSERVED = 4
MORE_SPREAD = 2
"""When the first part of a window no longer stands for what lies before a point."""


class Window(NamedTuple):
    """Part of a context that one pass goes over.

    Attributes
    ----------
    owner : int
        Which series it is of.
    series : Series
        From the first point to the one before the last wanted one.
    prefix : int
        How many first points the normaliser sees.
    wanted : list of int
        Positions that are forecast: `prefix` and every `patch_size` after it.
    effect : ndarray, (variate, wanted)
        What the covariates explain of them, which `series` does not hold.
    """

    owner: int
    series: Series
    prefix: int
    wanted: list[int]
    effect: Array


def in_sample_nodes(
    network: MoiraiMoE,
    batch: Sequence[Series],
    positions: Sequence[Positions],
    *,
    regress: bool,
    **limits: int | None,
) -> list[Array]:
    """Forecast points of contexts one step ahead.

    Parameters
    ----------
    network : MoiraiMoE
    batch : sequence of Series
        Contexts of at most what the network reads at once.
    positions : sequence of ndarray of int
        Which points of each to forecast, from 0 on.
    regress : bool
        Whether known-future covariates act through a regression instead of as tokens.
    **limits
        `memory_budget` and `batch_size` (in windows), as for `in_passes`.

    Returns
    -------
    list of ndarray, (position, variate, node)
        Values at the levels of `inference.marginal`.
    """
    config = network.config
    sources = [_sources(s.target, where) for s, where in zip(batch, positions, strict=True)]
    windows = [
        window
        for owner, (series, where) in enumerate(zip(batch, sources, strict=True))
        for window in _windows(owner, series, np.unique(where), config, regress)
    ]
    found: list[dict[int, Array]] = [{} for _ in batch]
    load = Load(config, config.max_seq_len * config.patch_size, 1, 1, False)
    device = next(network.parameters()).device

    def work(members: list[int]) -> list[Array]:
        return _forecast(network, [windows[index] for index in members])

    cuts = [window.series for window in windows]
    for index, nodes in in_passes(cuts, load, device, work, **limits):
        window = windows[index]
        found[window.owner].update(zip(window.wanted, nodes, strict=True))
    return [
        np.array([[at[p][v] for v, p in enumerate(row)] for row in where])
        for at, where in zip(found, sources, strict=True)
    ]


def _sources(target: Array, positions: Positions) -> Positions:
    """Position whose forecast each point and variate takes: (position, variate)."""
    seen = ~np.isnan(target)
    first = np.where(seen.any(1), seen.argmax(1), -1)
    return np.maximum(positions[:, None] + (positions[:, None] == first), 1)


def _windows(
    owner: int, series: Series, positions: Positions, config: ModelConfig, regress: bool
) -> list[Window]:
    """Windows of one series that together forecast all positions once."""
    size = config.patch_size
    reach = size * config.output_patches
    first = _first_parts(series)
    groups: dict[tuple[int, int], list[int]] = {}
    effects: dict[int, Array] = {}
    windows = []
    for position in positions.tolist():
        part = int(first[position])
        groups.setdefault((part, part + (position - part) % size), []).append(position)
    for (part, prefix), wanted in groups.items():
        end = wanted[-1]
        if part not in effects:
            effects[part] = _effect(series, part, regress)
        effect = effects[part]
        cut = Series(
            series.target[:, :end] - effect[:, :end],
            series.past[:, :end],
            series.future[: 0 if regress else None, : end + reach],
        )
        windows.append(Window(owner, cut, prefix, wanted, effect[:, wanted]))
    return windows


def _first_parts(series: Series) -> Positions:
    """How many points each position's first part has at least: (context + 1,).

    A first part serves until it is half of what lies before a position, or tells too little of
    that: until a variate has more than `MORE_OBSERVED` times as many values there, or varies
    `MORE_SPREAD` times as much.
    """
    context = series.target.shape[1]
    variates = np.full((len(series.target) + len(series.past), context), np.nan)
    variates[: len(series.target)] = series.target
    variates[len(series.target) :, : series.past.shape[1]] = series.past
    count, spread = _observed_before(variates)
    parts = np.zeros(context + 1, dtype=np.intp)
    part = 1
    while part <= context:
        outgrown = count[:, part:] > MORE_OBSERVED * count[:, [part]]
        outgrown |= spread[:, part:] > MORE_SPREAD * spread[:, [part]]
        ends = np.flatnonzero(outgrown.any(0))
        length = min(part, int(ends[0])) if len(ends) else part
        parts[part : part + length] = part
        part += length
    return parts


def _observed_before(variates: Array) -> tuple[Array, Array]:
    """How many values lie before each position, and their standard deviation: (variate, 1 + time).

    Sums from the left, so that no later value changes the least of an earlier result.
    """
    seen = ~np.isnan(variates)
    origin = np.take_along_axis(variates, seen.argmax(1)[:, None], 1)
    # values near the limits of their type may overflow, and are then told apart by count alone
    with np.errstate(over="ignore", invalid="ignore"):
        centred = np.where(seen, variates - origin, 0.0)
        count, total, squares = (
            np.pad(terms.cumsum(1), ((0, 0), (1, 0))) for terms in (seen, centred, centred**2)
        )
        least = np.maximum(count, 1)
        return count, np.sqrt(np.maximum(squares / least - (total / least) ** 2, 0.0))


def _effect(series: Series, part: int, regress: bool) -> Array:
    """What covariates explain of a whole series, learnt from its first part."""
    context = series.target.shape[1]
    effect = np.zeros((len(series.target), context + 1))
    if regress and len(series.future):
        first = series._replace(target=series.target[:, :part])
        known = explained(first, part)[:, : context + 1]
        effect[:, : known.shape[1]] = known
    return effect


@torch.inference_mode()
def _forecast(network: MoiraiMoE, windows: Sequence[Window]) -> list[Array]:
    """Nodes (wanted, variate, node) of every window, all of them in one pass."""
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
        (row, prompt.context - 1 - (window.wanted[-1] - position) // config.patch_size)
        for row, window in enumerate(windows)
        for position in window.wanted
    ]
    rows, tokens = torch.tensor(places, device=device).T[..., None]
    variates = torch.arange(prompt.targets, device=device) * prompt.context
    mixture = network.head(hidden[rows, tokens + variates]).map(lambda x: x[..., 0, 0])
    levels = torch.tensor(NODE_LEVELS, dtype=torch.float32, device=device)
    nodes = mixture.icdf(levels).movedim(0, -1).cpu().double().numpy()
    location, scale = (part.numpy()[rows[:, 0].cpu().numpy()] for part in prompt.normaliser)
    split = np.cumsum([len(window.wanted) for window in windows])[:-1]
    return [
        part + window.effect.T[..., None]
        for part, window in zip(np.split(nodes * scale + location, split), windows, strict=True)
    ]
