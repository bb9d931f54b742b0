"""What training minimises: the negative log-likelihood of the patches that follow each token."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from moirai_moe_forecaster.model.distribution.mixture import Mixture
from moirai_moe_forecaster.model.moe import balance_loss, expert_counts
from moirai_moe_forecaster.model.network import MoiraiMoE
from moirai_moe_forecaster.model.tokens import TokenBatch, next_patches
from moirai_moe_forecaster.training.data.packing import TrainingBatch
from moirai_moe_forecaster.training.distributed import sum_over_processes


class Targets(NamedTuple):
    """What a batch is scored on: only tokens that predict something, so that no work is wasted.

    Attributes
    ----------
    positions : Tensor of int64, (predicting token,)
        Of those tokens among the flattened (row * token).
    values, weights : Tensor, (predicting token, output patch, patch_size)
        Following points, and what they weigh in the loss.
    """

    positions: Tensor
    values: Tensor
    weights: Tensor


class MicroBatch(NamedTuple):
    """Tokens of one pass of the network, and what it is scored on."""

    tokens: TokenBatch
    targets: Targets

    def to(self, device: torch.device) -> MicroBatch:
        """Return the same tensors on another device, without waiting for their arrival."""
        if device.type == "cpu" or self.targets.weights.device == device:
            return self
        tokens, targets = (
            [tensor.pin_memory().to(device, non_blocking=True) for tensor in part] for part in self
        )
        return MicroBatch(TokenBatch(*tokens), Targets(*targets))


class Loss(NamedTuple):
    """The terms of one micro-batch.

    Attributes
    ----------
    likelihood, balance : Tensor, ()
        Summed over micro-batches and processes they are those of the step (`balance`: summed over
        processes, those of the micro-batch). `balance` is 0 for routers that are not trained.
    counts : Tensor of int64, (layer, expert)
        Assignments of tokens, of all processes.
    """

    likelihood: Tensor
    balance: Tensor
    counts: Tensor


class Objective(nn.Module):
    """`training_loss` as a module: what DDP and FSDP wrap, since they act on `forward` alone."""

    def __init__(self, network: MoiraiMoE) -> None:
        super().__init__()
        self.network = network

    def forward(self, batch: MicroBatch, total_weight: Tensor) -> Loss:
        """Return the losses of a micro-batch."""
        return training_loss(self.network, batch, total_weight)


def micro_batch(batch: TrainingBatch, output_patches: int) -> MicroBatch:
    """Find what the tokens of a batch predict; it depends on the batch alone.

    A token inside the prefix predicts only if its next patch reaches beyond it: the normaliser of
    its context has seen what comes before, which no forecast's has.
    """
    tokens, weights = batch
    following, counted = next_patches(tokens._replace(observed=weights > 0), output_patches)
    later, _ = next_patches(tokens._replace(values=weights), output_patches)
    beyond = (weights > 0).any(-1) | counted[:, :, 0].any(-1)
    positions = (counted.flatten(2).any(-1) & beyond).flatten().nonzero()[:, 0]
    values, later = (tensor.flatten(0, 1)[positions] for tensor in (following, later))
    weights = torch.where(counted.flatten(0, 1)[positions], later, 0.0)
    return MicroBatch(tokens, Targets(positions, values, weights))


def next_patch_losses(mixture: Mixture, targets: Tensor, weights: Tensor) -> Tensor:
    """Score distributions on the patches that follow their tokens, and on nothing else.

    Parameters
    ----------
    mixture : Mixture
        Points (..., output patch, patch_size).
    targets : Tensor, (..., output patch, patch_size)
        From `next_patches`.
    weights : Tensor, of that shape
        Above 0 at points that bear loss: observed, of a target, after the prefix that the
        normaliser was estimated from (paper, section 3.3).

    Returns
    -------
    Tensor, of that shape
        Weighted negative log-likelihood, 0 where there is nothing to score.
    """
    counted = weights > 0
    losses = -mixture.log_prob(torch.where(counted, targets, 0.0))
    return torch.where(counted, weights * losses, 0.0)


def training_loss(
    network: MoiraiMoE, batch: MicroBatch, total_weight: Tensor | None = None
) -> Loss:
    """Run the network over packed sequences and return its losses.

    Parameters
    ----------
    network : MoiraiMoE
    batch : MicroBatch
    total_weight : Tensor, (), optional
        Sum of the weights of all points of the step, of which this micro-batch may be a part; by
        default those of this one.
    """
    tokens, targets = batch
    if total_weight is None:
        total_weight = targets.weights.sum()
    output = network.encode(tokens)
    mixture = network.head(output.hidden.flatten(0, 1)[targets.positions])
    losses = next_patch_losses(mixture, targets.values, targets.weights)
    likelihood = losses.sum() / torch.where(total_weight > 0, total_weight, 1.0)
    valid = (tokens.sample_id > 0).flatten()
    counts = torch.stack([expert_counts(routing, valid) for routing in output.routings])
    counts = sum_over_processes(counts)
    balance = torch.zeros_like(likelihood)
    if network.config.router == "linear":
        layers = zip(output.routings, counts, strict=True)
        terms = [balance_loss(routing, valid, sent) for routing, sent in layers]
        balance = torch.stack(terms).mean()
    return Loss(likelihood, balance, counts)
