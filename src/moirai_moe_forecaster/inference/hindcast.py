"""How well a network would have forecast the end of contexts from what came before it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from moirai_moe_forecaster.data.series import Array, Series
from moirai_moe_forecaster.inference.batching import Load, in_passes
from moirai_moe_forecaster.inference.prompt import Prompt, make_prompt
from moirai_moe_forecaster.model.network import MoiraiMoE
from moirai_moe_forecaster.model.tokens import patches

MOST_ORIGINS = 8


@dataclass(frozen=True, kw_only=True)
class Hindcast:
    """A context whose last stretch is to be forecast.

    Attributes
    ----------
    series : Series
    stretch : int
        How many last patches; what comes before is not empty.
    memory : float
        In patches: a forecast that begins so much earlier counts 1/e as much as the latest.
    scale : ndarray, (variate, stretch * patch_size)
        What an error counts at each point of the stretch.
    """

    series: Series
    stretch: int
    memory: float
    scale: Array


def hindcast_losses(
    network: MoiraiMoE,
    hindcasts: Sequence[Hindcast],
    load: Load,
    **limits: int | None,
) -> list[Array]:
    """Score forecasts of the last stretches of contexts.

    One teacher-forced pass forecasts a stretch from up to `MOST_ORIGINS` of its patches. The
    normaliser sees only what comes before the stretch.

    Parameters
    ----------
    network : MoiraiMoE
    hindcasts : sequence of Hindcast
    load : Load
        Says how much of a context is read, and how far ahead forecasts go.
    **limits
        `memory_budget` and `batch_size`, as for `in_passes`.

    Returns
    -------
    list of ndarray, (variate,)
        Mean over points of `normal_crps`, in the unit of the series times its scale; NaN where no
        point of the stretch is observed.
    """
    found: dict[int, Array] = {}
    device = next(network.parameters()).device
    # where forecasts begin must not depend on what else is in a pass
    for stretch in sorted({hindcast.stretch for hindcast in hindcasts}):
        alike = [i for i, hindcast in enumerate(hindcasts) if hindcast.stretch == stretch]
        contexts = [hindcasts[index].series for index in alike]

        def work(members: list[int], alike: list[int] = alike) -> list[Array]:
            return _losses(network, [hindcasts[alike[index]] for index in members], load)

        for index, losses in in_passes(contexts, replace(load, paths=1), device, work, **limits):
            found[alike[index]] = losses
    return [found[index] for index in range(len(hindcasts))]


@torch.inference_mode()
def _losses(network: MoiraiMoE, hindcasts: Sequence[Hindcast], load: Load) -> list[Array]:
    config, device = network.config, next(network.parameters()).device
    size, length = config.patch_size, load.context_length
    contexts = [hindcast.series.last(length) for hindcast in hindcasts]
    stretch = hindcasts[0].stretch
    prefixes = [context.target.shape[1] - stretch * size for context in contexts]
    prompt = make_prompt(contexts, load.horizon, config, length, prefixes)
    age = torch.arange(0, stretch, -(-stretch // MOST_ORIGINS)).flip(0)
    # counted from the last token but one: after the last nothing is known
    places = prompt.context - 2 - age
    ahead = places[:, None] + 1 + torch.arange(min(config.output_patches, -(-load.horizon // size)))
    variates = torch.arange(prompt.targets)[:, None]
    query_index = (variates * prompt.context + places).flatten().to(device)
    hidden = network.encode(prompt.given().to(device), query_index).hidden
    mixture = network.head(hidden).map(lambda x: x[..., : ahead.shape[1], :])
    # (series, target, token, patch, point), as all that follows
    mean, spread = (
        part.cpu().unflatten(1, (prompt.targets, len(age)))
        for part in (mixture.mean().nan_to_num(), mixture.spread())
    )
    within = (ahead < prompt.context)[..., None]
    ahead = ahead.clamp_max(prompt.context - 1)
    values, observed = (
        part[:, : prompt.targets, ahead] for part in (prompt.values, prompt.observed)
    )
    losses = normal_crps(values, mean, spread) * _scales(hindcasts, prompt, size)[:, :, ahead]
    # (series, target, token): sums over what a forecast is scored on
    scored = (observed & within).double().sum((3, 4))
    totals = torch.where(observed & within, losses, 0.0).double().sum((3, 4))
    memories = torch.tensor([hindcast.memory for hindcast in hindcasts], dtype=torch.float64)
    weights = torch.exp(-age / memories[:, None])[:, None]
    means = (weights * totals).sum(2) / (weights * scored).sum(2)
    return list((means * prompt.normaliser.scale[..., 0]).numpy())


def normal_crps(values: Tensor, mean: Tensor, spread: Tensor) -> Tensor:
    """Continuous ranked probability score of normal distributions (Gneiting and Raftery 2007, 5).

    Quantiles of mixtures would cost more than the pass that predicts them.
    """
    z = (values - mean) / spread
    density = torch.exp(-z.square() / 2) / math.sqrt(2 * math.pi)
    score = z * torch.erf(z / math.sqrt(2)) + 2 * density - 1 / math.sqrt(math.pi)
    return spread * score


def _scales(hindcasts: Sequence[Hindcast], prompt: Prompt, size: int) -> Tensor:
    """What an error counts: (series, target, position, patch_size)."""
    scales = np.ones((len(hindcasts), prompt.targets, prompt.context * size), dtype=np.float32)
    for row, hindcast in enumerate(hindcasts):
        scales[row, :, scales.shape[2] - hindcast.scale.shape[1] :] = hindcast.scale
    return patches(torch.from_numpy(scales), size)
