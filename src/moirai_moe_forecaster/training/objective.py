"""What training minimises: the negative log-likelihood of the patches that follow each token."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from moirai_moe_forecaster.model.mixture import Mixture
from moirai_moe_forecaster.model.network import MoiraiMoE
from moirai_moe_forecaster.model.routing import balance_loss
from moirai_moe_forecaster.model.tokens import TokenBatch, next_patches


class Loss(NamedTuple):
    """The two terms, and the sum of weights of the points that the first is a mean over."""

    likelihood: Tensor
    balance: Tensor
    points: Tensor


def next_patch_losses(mixture: Mixture, targets: Tensor, counted: Tensor) -> Tensor:
    """Score distributions on the patches that follow their tokens, and on nothing else.

    Parameters
    ----------
    mixture : Mixture
        Points (..., output patch, patch_size).
    targets : Tensor, (..., output patch, patch_size)
        From `next_patches`.
    counted : Tensor of bool, of that shape
        Points that bear loss: observed, of a target, after the prefix that the normaliser was
        estimated from (paper, section 3.3).

    Returns
    -------
    Tensor, of that shape
        Negative log-likelihood, 0 where there is nothing to score.
    """
    losses = -mixture.log_prob(torch.where(counted, targets, 0.0))
    return torch.where(counted, losses, 0.0)


def training_loss(network: MoiraiMoE, tokens: TokenBatch, weights: Tensor) -> Loss:
    """Run the network over packed sequences and return its mean losses.

    Parameters
    ----------
    network : MoiraiMoE
    tokens : TokenBatch
    weights : Tensor, (batch, token, patch_size)
        What a point weighs when a token predicts it; 0 where it bears no loss.
    """
    output = network.encode(tokens)
    count = network.config.output_patches
    targets, counted = next_patches(tokens._replace(observed=weights > 0), count)
    weighing, _ = next_patches(tokens._replace(values=weights.float()), count)
    predicting = counted.flatten(2).any(-1)
    counted = counted[predicting]
    mixture = network.head(output.hidden[predicting])
    losses = next_patch_losses(mixture, targets[predicting], counted)
    weighing = torch.where(counted, weighing[predicting], 0.0)
    points = weighing.sum()
    valid = (tokens.sample_id > 0).flatten()
    balance = torch.stack([balance_loss(routing, valid) for routing in output.routings]).mean()
    likelihood = (weighing * losses).sum() / points.clamp_min(torch.finfo(points.dtype).tiny)
    return Loss(likelihood, balance, points)
