"""In-sample forecasts: every point of a context from those before it, in teacher-forced passes.

A causal network gives the forecasts of all patches of a window in one pass. A window here ends
anywhere and its patches are cut from its end, so that sixteen windows, one point apart, forecast
every point one step ahead. What the normaliser and the covariates' effect are estimated from is
the first part of a window, at least half of it, and only points after that part are forecast:
no forecast sees its own or a later value.

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
    prefixes: dict[int, list[int]] = {}
    effects: dict[int, Array] = {}
    windows = []
    for position in positions.tolist():
        half = _first_part(position, size)
        prefixes.setdefault(half + (position - half) % size, []).append(position)
    for prefix, wanted in prefixes.items():
        half, end = _first_part(prefix, size), wanted[-1]
        if half not in effects:
            effects[half] = _effect(series, half, regress)
        effect = effects[half]
        cut = Series(
            series.target[:, :end] - effect[:, :end],
            series.past[:, :end],
            series.future[: 0 if regress else None, : end + reach],
        )
        windows.append(Window(owner, cut, prefix, wanted, effect[:, wanted]))
    return windows


def _first_part(position: int, size: int) -> int:
    """Largest power of two times the patch size up to a position; the position if there is none."""
    patches = position // size
    return size << (patches.bit_length() - 1) if patches else position


def _effect(series: Series, half: int, regress: bool) -> Array:
    """What covariates explain of a whole series, learnt from its first part."""
    context = series.target.shape[1]
    effect = np.zeros((len(series.target), context + 1))
    if regress and len(series.future):
        first = series._replace(target=series.target[:, :half])
        known = explained(first, half)[:, : context + 1]
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
