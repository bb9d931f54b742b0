"""Covariates that are known ahead: what they explain leaves the context and enters the forecast.

`inference.regression` says what they explain of a series in its own context. The network is the
judge of it: in one teacher-forced pass each, with and without that part, it forecasts the second
half of the context from the first, and the part is left alone unless that lowers the error.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from moirai_moe_forecaster.data.series import Array, Series
from moirai_moe_forecaster.inference.batching import Load, in_passes
from moirai_moe_forecaster.inference.prompt import make_prompt
from moirai_moe_forecaster.inference.regression import explained
from moirai_moe_forecaster.model.network import MoiraiMoE
from moirai_moe_forecaster.model.tokens import next_patches

LEAST_GAIN = 0.02
"""By which share an effect must lower the error, or it is not used."""


def split_residuals(
    network: MoiraiMoE, batch: Sequence[Series], load: Load, **limits: int | None
) -> tuple[list[Series], list[Array]]:
    """Split series into what known-future covariates explain and the residuals.

    Parameters
    ----------
    network : MoiraiMoE
    batch : sequence of Series
    load : Load
        What the forecast of the residuals asks of the network.
    **limits
        `memory_budget` and `batch_size`, as for `in_passes`.

    Returns
    -------
    residuals : list of Series
        Without known-future covariates. Where something was taken out, only the points that it was
        learnt from: what came before is another series.
    effects : list of ndarray, (variate, time)
        What has to be added to the forecasts of the residuals, as far as the covariates are known.
    """
    length = load.context_length
    plain = [Series(s.target, s.past, s.future[:0, : s.target.shape[1]]) for s in batch]
    effects = [explained(series, length) for series in batch]
    tried = [index for index, effect in enumerate(effects) if effect.any()]
    contexts = [
        series.last(length)
        for index in tried
        for series in (plain[index], _without(plain[index], effects[index]))
    ]
    errors = _errors(network, contexts, load, **limits)
    for number, index in enumerate(tried):
        without, with_effect = errors[2 * number : 2 * number + 2]
        effects[index][with_effect > (1 - LEAST_GAIN) * without] = 0.0
    residuals = [
        _without(series, effect).last(length) if effect.any() else series
        for series, effect in zip(plain, effects, strict=True)
    ]
    return residuals, [
        effect[:, s.target.shape[1] :] for s, effect in zip(batch, effects, strict=True)
    ]


def _without(series: Series, effect: Array) -> Series:
    return series._replace(target=series.target - effect[:, : series.target.shape[1]])


def _errors(
    network: MoiraiMoE, contexts: Sequence[Series], load: Load, **limits: int | None
) -> list[Array]:
    """Mean absolute error (variate,) of each context's second half, as far ahead as forecasts go.

    Zero for contexts of a single patch, on which nothing can be tried.
    """
    found = [np.zeros(len(context.target)) for context in contexts]
    device = next(network.parameters()).device
    long = [i for i, c in enumerate(contexts) if c.target.shape[1] > network.config.patch_size]

    def work(members: list[int]) -> list[Array]:
        return _second_half(network, [contexts[long[index]] for index in members], load)

    for index, result in in_passes([contexts[i] for i in long], load, device, work, **limits):
        found[long[index]] = result
    return found


@torch.inference_mode()
def _second_half(network: MoiraiMoE, contexts: Sequence[Series], load: Load) -> list[Array]:
    size, count = network.config.patch_size, network.config.output_patches
    lengths = np.array([context.target.shape[1] for context in contexts])
    later = np.minimum(-(-lengths // (2 * size)), (lengths - 1) // size)
    prefixes = (lengths - later * size).tolist()
    prompt = make_prompt(contexts, load.horizon, network.config, load.context_length, prefixes)
    tokens = prompt.given().to(next(network.parameters()).device)
    forecasts = network.head(network.encode(tokens).hidden).mean()
    values, observed = next_patches(tokens, count)
    far = torch.arange(count, device=values.device) >= -(-load.horizon // size)
    shape = (-1, prompt.context)
    patch = torch.arange(prompt.context, device=values.device)
    first = prompt.context - 1 - torch.from_numpy(later).to(values.device)
    scored = observed & ~far[:, None] & (values - forecasts).isfinite()
    scored = scored.unflatten(1, shape) & (patch >= first[:, None])[:, None, :, None, None]
    misses = (values - forecasts).abs().unflatten(1, shape)
    errors = torch.where(scored, misses, 0.0).double().sum((2, 3, 4))
    errors = errors / scored.sum((2, 3, 4)).clamp_min(1)
    targets = errors[:, : prompt.targets].cpu() * prompt.normaliser.scale[..., 0]
    return list(targets.numpy())
