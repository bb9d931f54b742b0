"""Gating: which experts a token is sent to, and with which weights (paper, section 3.2)."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from moirai_moe_forecaster.config import CentroidChoice


class Routing(NamedTuple):
    """The gating decision for a stretch of tokens.

    Attributes
    ----------
    experts : Tensor of int64, (token, experts_per_token)
    weights : Tensor, (token, experts_per_token)
        Non-negative, summing to 1.
    scores : Tensor, (token, num_experts)
        What the decision was made from: larger is chosen first.
    """

    experts: Tensor
    weights: Tensor
    scores: Tensor


class LinearRouter(nn.Module):
    """Gate by a learned projection of the token; trained with `balance_loss`."""

    def __init__(self, d_model: int, num_experts: int, experts_per_token: int) -> None:
        super().__init__()
        self.experts_per_token = experts_per_token
        self.projection = nn.Linear(d_model, num_experts, bias=False)

    def forward(self, x: Tensor) -> Routing:
        """Route tokens (token, d_model)."""
        # in float32 under autocast too: rounding would decide between experts that are close
        with torch.autocast(x.device.type, enabled=False):
            scores = F.linear(x.float(), self.projection.weight.float())
        return _choose(scores, self.experts_per_token)


class CentroidRouter(nn.Module):
    """Gate by Euclidean distance to clusters of token representations, which are not trained.

    The centroids come from k-means over a dense model's tokens. Official checkpoints send a token
    to its two *farthest* centroids, the farther with the larger weight; "nearest" does the reverse.
    """

    centroids: Tensor

    def __init__(
        self, d_model: int, num_experts: int, experts_per_token: int, choice: CentroidChoice
    ) -> None:
        super().__init__()
        self.experts_per_token = experts_per_token
        self.sign = 1.0 if choice == "farthest" else -1.0
        self.register_buffer("centroids", torch.zeros(num_experts, d_model))

    def forward(self, x: Tensor) -> Routing:
        """Route tokens (token, d_model)."""
        return _choose(
            self.sign * _distances(x.float(), self.centroids.float()), self.experts_per_token
        )


def _distances(x: Tensor, centroids: Tensor) -> Tensor:
    """Euclidean distances (token, centroid) by one matrix product.

    Measured from the middle of the centroids, because the digits that the product form loses are
    those of the distance to the origin.
    """
    middle = centroids.mean(0)
    x, centroids = x - middle, centroids - middle
    # twice as fast on a CPU as the sum of squares, which it is
    length = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
    squares = length.square() + centroids.square().sum(-1)
    return torch.addmm(squares, x, centroids.mT, alpha=-2).clamp_min(0).sqrt()


def _choose(scores: Tensor, count: int) -> Routing:
    top, experts = scores.topk(count, -1)
    return Routing(experts, top.softmax(-1), scores)


def expert_counts(routing: Routing, valid: Tensor) -> Tensor:
    """Count the valid tokens that were sent to each expert: int64, (num_experts,)."""
    counts = torch.zeros(routing.scores.shape[-1], dtype=torch.long, device=valid.device)
    sent = valid[:, None].expand_as(routing.experts).flatten().long()
    return counts.scatter_add_(0, routing.experts.flatten(), sent)


def balance_loss(routing: Routing, valid: Tensor, counts: Tensor | None = None) -> Tensor:
    """Return the load-balancing loss of linear gating: 1 when perfectly balanced.

    The number of experts times the sum over experts of (share of tokens sent there) x (mean
    probability of it), over valid tokens (arXiv 2101.03961, equation 4).

    Parameters
    ----------
    routing : Routing
    valid : Tensor of bool, (token,)
        False for padding.
    counts : Tensor, (num_experts,), optional
        `expert_counts` of all tokens of which these are a part, as when every process holds some.
        The losses of the parts then sum to the loss of the whole. By default of these tokens.
    """
    num_experts, per_token = routing.scores.shape[-1], routing.experts.shape[-1]
    counts = expert_counts(routing, valid) if counts is None else counts
    assignments = counts.sum().clamp_min(1)
    probability = torch.where(valid[:, None], routing.scores.softmax(-1), 0.0).sum(0)
    mean = probability * per_token / assignments
    return num_experts * (counts / assignments * mean).sum()
