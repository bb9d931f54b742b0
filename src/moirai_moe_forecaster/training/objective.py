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
    """The two terms, and how many points the first is a mean over."""

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


def training_loss(network: MoiraiMoE, tokens: TokenBatch, scored: Tensor) -> Loss:
    """Run the network over packed sequences and return its mean losses.

    Parameters
    ----------
    network : MoiraiMoE
    tokens : TokenBatch
    scored : Tensor of bool, (batch, token, patch_size)
        Points that bear loss when a token predicts them.
    """
    output = network.encode(tokens)
    targets, counted = next_patches(tokens._replace(observed=scored), network.config.output_patches)
    predicting = counted.flatten(2).any(-1)
    counted = counted[predicting]
    mixture = network.head(output.hidden[predicting])
    losses = next_patch_losses(mixture, targets[predicting], counted)
    points = counted.sum()
    valid = (tokens.sample_id > 0).flatten()
    balance = torch.stack([balance_loss(routing, valid) for routing in output.routings]).mean()
    return Loss(losses.sum() / points.clamp_min(1), balance, points)
