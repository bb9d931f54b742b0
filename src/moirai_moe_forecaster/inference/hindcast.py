"""How well a network would have forecast the end of contexts from what came before it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from moirai_moe_forecaster.inference.batches import Load
from moirai_moe_forecaster.inference.passes import in_passes
from moirai_moe_forecaster.inference.prompt import Prompt, make_prompt
from moirai_moe_forecaster.inference.series import Array, Series
from moirai_moe_forecaster.model.network import MoiraiMoE
from moirai_moe_forecaster.model.tokens import patches

LEVELS = (0.1, 0.5, 0.9)
MOST_ORIGINS = 8


class Hindcast(NamedTuple):
    """A context whose last stretch is to be forecast.

    Attributes
    ----------
    series : Series
    stretch : int
        How many last patches; what comes before is not empty.
    scale : ndarray, (variate, stretch * patch_size)
        What an error counts at each point of the stretch.
    """

    series: Series
    stretch: int
    scale: Array


def hindcast_losses(
    network: MoiraiMoE,
    hindcasts: Sequence[Hindcast],
    load: Load,
    memory: float,
    **limits: int | None,
) -> list[Array]:
    """Pinball losses of forecasts of the last stretches of contexts.

    One teacher-forced pass forecasts a stretch from up to `MOST_ORIGINS` of its patches. The
    normaliser sees only what comes before the stretch.

    Parameters
    ----------
    network : MoiraiMoE
    hindcasts : sequence of Hindcast
    load : Load
        Says how much of a context is read, and how far ahead forecasts go.
    memory : float
        In patches: a forecast that begins so much earlier counts 1/e as much as the latest.
    **limits
        `memory_budget` and `batch_size`, as for `in_passes`.

    Returns
    -------
    list of ndarray, (variate,)
        Mean over points and three levels, in the unit of the series times its scale; NaN where
        no point of the stretch is observed.
    """
    found: dict[int, Array] = {}
    device = next(network.parameters()).device
    contexts = [hindcast.series for hindcast in hindcasts]

    def work(members: list[int]) -> list[Array]:
        return _losses(network, [hindcasts[index] for index in members], load, memory)

    for index, losses in in_passes(contexts, load._replace(paths=1), device, work, **limits):
        found[index] = losses
    return [found[index] for index in range(len(hindcasts))]


@torch.inference_mode()
def _losses(
    network: MoiraiMoE, hindcasts: Sequence[Hindcast], load: Load, memory: float
) -> list[Array]:
    config, device = network.config, next(network.parameters()).device
    size, length = config.patch_size, load.context_length
    contexts = [hindcast.series.last(length) for hindcast in hindcasts]
    stretches = torch.tensor([hindcast.stretch for hindcast in hindcasts])
    prefixes = [
        context.target.shape[1] - hindcast.stretch * size
        for context, hindcast in zip(contexts, hindcasts, strict=True)
    ]
    prompt = make_prompt(contexts, load.horizon, config, length, prefixes)
    most = int(stretches.max())
    age = torch.arange(0, most, -(-most // MOST_ORIGINS)).flip(0)
    # counted from the last token but one: after the last nothing is known
    places = prompt.context - 2 - age
    ahead = places[:, None] + 1 + torch.arange(min(config.output_patches, -(-load.horizon // size)))
    variates = torch.arange(prompt.targets)[:, None]
    wanted = (variates * prompt.context + places).flatten().to(device)
    hidden = network.encode(prompt.given().to(device), wanted).hidden
    mixture = network.head(hidden).map(lambda x: x[..., : ahead.shape[1], :])
    levels = torch.tensor(LEVELS, device=device)
    # (level, series, target, token, patch, point), as all that follows but for the level
    quantiles = mixture.icdf(levels).cpu().unflatten(2, (prompt.targets, len(age)))
    within = (ahead < prompt.context)[..., None]
    ahead = ahead.clamp_max(prompt.context - 1)
    values, observed = (
        part[:, : prompt.targets, ahead] for part in (prompt.values, prompt.observed)
    )
    # forecasts from before a shorter stretch do not count
    weights = (age < stretches[:, None]) * torch.exp(-age / memory)
    weights = observed * within * weights[:, None, :, None, None]
    misses = values - quantiles
    share = torch.tensor(LEVELS).view(-1, 1, 1, 1, 1, 1)
    losses = torch.maximum(share * misses, (share - 1) * misses).mean(0)
    losses = losses * _scales(hindcasts, prompt, size)[:, :, ahead]
    totals = (weights * losses).double().sum((2, 3, 4)) / weights.double().sum((2, 3, 4))
    return list((totals * prompt.normaliser.scale[..., 0]).numpy())


def _scales(hindcasts: Sequence[Hindcast], prompt: Prompt, size: int) -> Tensor:
    """What an error counts: (series, target, position, patch_size)."""
    scales = np.ones((len(hindcasts), prompt.targets, prompt.context * size), dtype=np.float32)
    for row, hindcast in enumerate(hindcasts):
        scales[row, :, scales.shape[2] - hindcast.scale.shape[1] :] = hindcast.scale
    return patches(torch.from_numpy(scales), size)
