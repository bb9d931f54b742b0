"""Sparse mixture of experts: routers choose a few experts for each token, which then run fused."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from moirai_moe_forecaster.config import CentroidChoice

# In float32 on a CPU, products of weights and tokens beat products of tokens and weights for up to
# 128 tokens, up to four times (docs/benchmarks.md): for few tokens if they are contiguous, for more
# if their features are and they fill whole vectors. In bfloat16 it makes no difference.
FEW_TOKENS = range(2, 11)
THIN = range(2, 129)
VECTOR = 8
# in bfloat16 every number of tokens has code of its own, made when it first occurs: the fewer the
# better
BLOCK = 32


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


class Experts(nn.Module):
    """``num_experts`` gated feed-forward networks with their weights fused by expert.

    Parameters
    ----------
    d_model, d_ff, num_experts : int

    Attributes
    ----------
    weight_in : Parameter, (num_experts, 2 * d_ff, d_model)
        The gate's rows above the linear branch's.
    weight_out : Parameter, (num_experts, d_model, d_ff)
    """

    def __init__(self, d_model: int, d_ff: int, num_experts: int) -> None:
        super().__init__()
        self.weight_in = nn.Parameter(torch.empty(num_experts, 2 * d_ff, d_model))
        self.weight_out = nn.Parameter(torch.empty(num_experts, d_model, d_ff))

    def forward(self, x: Tensor, routing: Routing) -> Tensor:
        """Combine the chosen experts' outputs for tokens (token, d_model).

        Tokens are sorted by expert, so that each expert does one product with its group; each
        token's results are summed in its own order of experts, which makes the sum independent of
        the other tokens.
        """
        per_token, num_experts = routing.experts.shape[-1], routing.scores.shape[-1]
        chosen, order = routing.experts.flatten().sort(stable=True)
        expert = torch.arange(num_experts, device=x.device)
        ends = torch.searchsorted(chosen, expert, right=True, out_int32=True)
        swiglu = self._on_gpu if x.is_cuda and hasattr(F, "grouped_mm") else self._on_cpu
        places = torch.empty_like(order).scatter_(
            0, order, torch.arange(len(order), device=x.device)
        )
        grouped = swiglu(_Take.apply(x, order // per_token, places), ends)
        weights = routing.weights.to(grouped.dtype)
        combined: Tensor = _Combine.apply(grouped, weights, places.view_as(weights), order)
        return combined

    def _on_cpu(self, x: Tensor, ends: Tensor) -> Tensor:
        """Apply expert e to the e-th group of rows of `x`, one group after the other."""
        counts = ends.diff(prepend=ends.new_zeros(1)).tolist()
        groups = zip(
            x.split(counts), self.weight_in.unbind(0), self.weight_out.unbind(0), strict=True
        )
        outputs = [_swiglu(*group) for group, count in zip(groups, counts, strict=True) if count]
        return torch.cat(outputs) if outputs else x

    def _on_gpu(self, x: Tensor, ends: Tensor) -> Tensor:
        """Do the same by two grouped products, for which the host need not know the groups."""
        weights = self.weight_in, self.weight_out
        if torch.is_autocast_enabled(x.device.type):
            dtype = torch.get_autocast_dtype(x.device.type)
        else:
            dtype = weights[0].dtype
        weight_in, weight_out = (weight.to(dtype).mT for weight in weights)
        gate, linear = F.grouped_mm(x.to(dtype), weight_in, offs=ends).chunk(2, -1)
        return F.grouped_mm(F.silu(gate) * linear, weight_out, offs=ends)


def _swiglu(x: Tensor, weight_in: Tensor, weight_out: Tensor) -> Tensor:
    """Apply one expert to its tokens."""
    tokens = len(x)
    if extra := _fast_number(x) - tokens:
        x = F.pad(x, (0, 0, 0, extra))
    gate, linear = _product(x, weight_in).chunk(2, -1)
    gated = F.silu(gate) * linear
    return _product(gated.contiguous() if len(x) in FEW_TOKENS else gated, weight_out)[:tokens]


def _fast_number(x: Tensor) -> int:
    """How many tokens take the least time if some are added: not one, nor parts of a vector."""
    tokens = len(x)
    if not _on_cpu_in_float32(x):
        return tokens if x.is_cuda or tokens < BLOCK else -(-tokens // BLOCK) * BLOCK
    if tokens in FEW_TOKENS or tokens > THIN[-1]:
        return tokens
    return 2 if tokens == 1 else max(-(-tokens // VECTOR), 2) * VECTOR


def _product(x: Tensor, weight: Tensor) -> Tensor:
    """Multiply tokens (token, feature) by weights (output, feature) in the order that is fast."""
    if len(x) in THIN and _on_cpu_in_float32(x):
        return (weight @ x.mT).mT
    return F.linear(x, weight)


def _on_cpu_in_float32(x: Tensor) -> bool:
    kind = x.device.type
    return x.dtype == torch.float32 and kind == "cpu" and not torch.is_autocast_enabled(kind)


class _Take(torch.autograd.Function):
    """Rows `index` of `x`, which name each row equally often; `places` tells where, row by row.

    The gradient is a gather like the forward pass: adding it up in place would be slow, and on a
    GPU its order, and so its rounding, would vary.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, index: Tensor, places: Tensor) -> Tensor:
        ctx.save_for_backward(places)
        ctx.rows = len(x)
        return x.index_select(0, index)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (places,) = ctx.saved_tensors
        taken = gradients[0].index_select(0, places)
        return taken.unflatten(0, (ctx.rows, -1)).sum(1), None, None


class _Combine(torch.autograd.Function):
    """Weighted sums of each token's rows of `x`, which lie at `places` (token, expert).

    `order` names the place in (token, expert) of each row. One pass instead of a gather, a product
    and a sum; the gradients are gathers, as in `_Take`.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weights: Tensor, places: Tensor, order: Tensor) -> Tensor:
        ctx.save_for_backward(x, weights, places, order)
        return F.embedding_bag(places, x, per_sample_weights=weights, mode="sum")

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None, None]:
        (gradient,) = gradients
        x, weights, places, order = ctx.saved_tensors
        of_rows = gradient.index_select(0, order // places.shape[1])
        of_x = of_rows * weights.flatten().index_select(0, order)[:, None]
        products = (of_rows * x).sum(-1)
        return of_x, products.index_select(0, places.flatten()).view_as(weights), None, None
