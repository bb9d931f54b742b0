"""How likely a network finds what followed a context: the likelihood of its own forecasts."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from moirai_moe_forecaster.data.series import Array, Series
from moirai_moe_forecaster.inference.batching import Load
from moirai_moe_forecaster.inference.covariates import split_residuals
from moirai_moe_forecaster.inference.prompt import Prompt, make_prompt
from moirai_moe_forecaster.model.network import MoiraiMoE
from moirai_moe_forecaster.model.tokens import TokenBatch, patches
from moirai_moe_forecaster.training.data.packing import LARGEST_INPUT, LARGEST_TARGET


def continuation_losses(
    network: MoiraiMoE, group: Sequence[Series], future: Tensor
) -> tuple[Tensor, Tensor]:
    """Score a network on the values that followed contexts, in one pass.

    The factors are those of a rollout: the end of the context predicts the first `output_patches`
    patches, and the end of these, now with their true values (teacher forcing), the next ones.

    Parameters
    ----------
    network : MoiraiMoE
    group : sequence of Series
        With equal numbers of variates and covariates of each kind.
    future : Tensor of float64 on the CPU, (series, target, time)
        NaN where it is missing or bears no loss.

    Returns
    -------
    losses : Tensor, (series, target, time)
        Negative log-likelihood in the unit of each context's normaliser; 0 where not scored.
    scored : Tensor of bool, of that shape
        False where the value or the whole context is missing, and beyond `LARGEST_TARGET` standard
        deviations of the context.
    """
    config = network.config
    device = next(network.parameters()).device
    horizon, points = future.shape[2], config.output_patches * config.patch_size
    blocks = -(-horizon // points)
    length = max(series.target.shape[1] for series in group)
    prompt = make_prompt(group, horizon, config, length)

    known = torch.tensor([[not np.isnan(v).all() for v in series.target] for series in group])
    values = F.pad(prompt.normaliser.standardise(future), (0, blocks * points - horizon))
    observed = F.pad(future.isfinite() & known[..., None], (0, blocks * points - horizon))
    values = torch.where(observed, values, 0.0)
    scored = (observed & (values.abs() < LARGEST_TARGET)).to(device)
    values = values.clamp(-LARGEST_INPUT, LARGEST_INPUT).float().to(device)

    prompt = prompt.to(device)
    given = prompt.given()
    fed = (blocks - 1) * config.output_patches
    tokens = given
    if fed:
        new = _following(prompt, values, observed.to(device), fed, config.patch_size)
        tokens = TokenBatch(*(torch.cat(pair, 1) for pair in zip(given, new, strict=True)))
    hidden = network.encode(tokens).hidden
    target = torch.arange(prompt.targets, device=device)[:, None]
    block = torch.arange(1, blocks, device=device)
    last_given = (target + 1) * prompt.context - 1
    last_fed = given.values.shape[1] + target * fed + block * config.output_patches - 1
    mixture = network.head(hidden[:, torch.cat((last_given, last_fed), 1)])
    losses = -mixture.log_prob(torch.where(scored, values, 0.0).view(mixture.shape))
    losses = torch.where(scored, losses.flatten(2), 0.0)
    return losses[..., :horizon], scored[..., :horizon]


def residual_continuations(
    network: MoiraiMoE, contexts: Sequence[Series], futures: Sequence[Array], horizon: int
) -> tuple[list[Series], list[Array]]:
    """Leave what a forecast's regression on known-future covariates does not explain.

    A network that is to forecast residuals has to learn from residuals: one that was shown the
    covariates as tokens would come to rely on what it is not given later.

    Parameters
    ----------
    network : MoiraiMoE
        Whether an effect is subtracted depends, as in a forecast, on whether that helps it.
    contexts : sequence of Series
    futures : sequence of ndarray, (target, time)
        What followed each context, as far as its known-future covariates reach.
    horizon : int
        Steps ahead that will be forecast.

    Returns
    -------
    residuals : list of Series
        Of the contexts, without known-future covariates.
    continuations : list of ndarray, (target, time)
        Of the futures.
    """
    length = max(series.target.shape[1] for series in contexts)
    load = Load(
        config=network.config, context_length=length, horizon=horizon, paths=1, reestimated=False
    )
    residuals, effects = split_residuals(network, contexts, load)
    return residuals, [future - effect for future, effect in zip(futures, effects, strict=True)]


def _following(
    prompt: Prompt, values: Tensor, observed: Tensor, count: int, patch_size: int
) -> TokenBatch:
    """Tokens of the first `count` patches after the context, by their true values."""
    truth, seen = (patches(part, patch_size)[:, None, :, :count] for part in (values, observed))
    return prompt.step(prompt.context, truth, seen=seen)
