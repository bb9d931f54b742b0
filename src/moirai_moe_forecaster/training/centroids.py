"""Token clusters: the centroids that centroid gating routes by (paper, section 3.2.2).

A dense model is trained first. K-means over what its feed-forward layers read gives every layer its
centroids, and the mixture-of-experts model is trained with these as constants.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from moirai_moe_forecaster.config import ModelConfig, TrainConfig
from moirai_moe_forecaster.errors import InvalidInputError
from moirai_moe_forecaster.model.network import MoiraiMoE
from moirai_moe_forecaster.model.tokens import TokenBatch
from moirai_moe_forecaster.training.data.batches import BatchMaker
from moirai_moe_forecaster.training.data.corpus import Source, hold_out

log = logging.getLogger(__name__)


def centroids_from(
    dense: MoiraiMoE,
    sources: Sequence[Source],
    model: ModelConfig,
    training: TrainConfig,
    *,
    tokens: int = 100_000,
    seed: int = 0,
) -> dict[str, Tensor]:
    """Make the centroids of a model from a trained dense one.

    Parameters
    ----------
    dense : MoiraiMoE
        A trained network of the same width, depth and patch size, usually with one expert.
    sources : sequence of Source
        The corpus of the training; what is held out for validation is not looked at.
    model : ModelConfig
        The model that is to be trained with the centroids.
    training : TrainConfig
        How it is to be trained: the tokens are those of its first batches.
    tokens : int, default=100_000
        About how many to cluster. All layers' are held in memory at once, in float32.
    seed : int, default=0
        Of the first centroids.

    Returns
    -------
    dict of str to Tensor, (num_experts, d_model)
        By its name in the network's state dict, on the CPU: `pretrain` takes it as `initial`.

    Raises
    ------
    InvalidInputError
        If `model` is not gated by centroids, its sizes are not those of `dense`, or the tokens are
        not finite or too few.
    """
    if model.router != "centroid":
        raise InvalidInputError(f"only router='centroid' has centroids, got {model.router!r}")
    for size in ("d_model", "num_layers", "patch_size"):
        ours, its = getattr(model, size), getattr(dense.config, size)
        if ours != its:
            raise InvalidInputError(
                f"the dense network has {size}={its}, the model {size}={ours}: they must be equal"
            )
    kept, _ = hold_out(sources)
    maker = BatchMaker(kept, dense.config, training)
    count = math.ceil(tokens / (training.batch_rows * training.row_tokens))
    batches = (maker.batch(step).tokens for step in range(count))
    clusters = token_clusters(dense, batches, model.num_experts, seed)
    return {
        f"blocks.{layer}.router.centroids": centroids.cpu()
        for layer, centroids in enumerate(clusters)
    }


def token_clusters(
    network: MoiraiMoE, batches: Iterable[TokenBatch], num_experts: int, seed: int
) -> list[Tensor]:
    """Cluster each layer's token representations: per layer, centroids (num_experts, d_model)."""
    generator = torch.Generator().manual_seed(seed)
    layers = token_representations(network, batches)
    log.info("clustering %d tokens of %d layers", len(layers[0]), len(layers))
    return [kmeans(points, num_experts, generator) for points in layers]


@torch.no_grad()
def token_representations(network: MoiraiMoE, batches: Iterable[TokenBatch]) -> list[Tensor]:
    """Collect what each layer's router reads: the normed output of its self-attention.

    Parameters
    ----------
    network : MoiraiMoE
    batches : iterable of TokenBatch
        Moved to the network's device one at a time.

    Returns
    -------
    list of Tensor, (token, d_model)
        Per layer, in float32, without padding tokens.
    """
    device = network.norm.weight.device
    read: list[Tensor] = []
    layers: list[list[Tensor]] = [[] for _ in network.blocks]
    hooks = [
        block.get_submodule("router").register_forward_pre_hook(lambda _, x: read.append(x[0]))
        for block in network.blocks
    ]
    try:
        for batch in batches:
            tokens = batch.to(device)
            read.clear()
            network.encode(tokens)
            valid = (tokens.sample_id > 0).flatten()
            for layer, x in zip(layers, read, strict=True):
                layer.append(x[valid].float())
    finally:
        for hook in hooks:
            hook.remove()
    return [torch.cat(layer) for layer in layers]


def kmeans(points: Tensor, count: int, generator: torch.Generator, iterations: int = 100) -> Tensor:
    """Cluster points by Lloyd's algorithm from k-means++ seeds.

    Parameters
    ----------
    points : Tensor, (point, dimension)
    count : int
        How many clusters.
    generator : torch.Generator
        On the CPU, whatever the device of `points`.
    iterations : int, default=100
        At most; fewer if no point changes its cluster any more.

    Returns
    -------
    Tensor, (count, dimension)
        The means of `count` clusters, none of them empty.

    Raises
    ------
    InvalidInputError
        If there are fewer distinct points than clusters, or some are not finite.
    """
    if not points.isfinite().all():
        raise InvalidInputError("cannot cluster points that are not finite; did training diverge?")
    # distances by products are fast, and lose no digits where the points lie around the origin
    middle = points.mean(0)
    points = points - middle
    lengths = points.square().sum(1)
    centroids = _seeds(points, count, generator)
    clusters = torch.full_like(lengths, -1, dtype=torch.long)
    for _ in range(iterations):
        # squared distances, but for the points' own lengths, which change no comparison
        squares = torch.addmm(centroids.square().sum(1), points, centroids.T, alpha=-2)
        smallest, nearest = squares.min(1)
        nearest = _without_empty(nearest, lengths + smallest, count)
        if torch.equal(nearest, clusters):
            break
        clusters = nearest
        # by a product instead of a scattered sum, whose order and so rounding vary on a GPU
        members = F.one_hot(clusters, count).to(points.dtype).T
        centroids = members @ points / members.sum(1, keepdim=True)
    return centroids + middle


def _without_empty(clusters: Tensor, distance: Tensor, count: int) -> Tensor:
    """Give every empty cluster the point that is served worst and not alone in its cluster."""
    clusters, sizes = clusters.clone(), torch.bincount(clusters, minlength=count)
    for empty in (sizes == 0).nonzero().flatten().tolist():
        worst = torch.where(sizes[clusters] > 1, distance, -torch.inf).argmax()
        sizes[clusters[worst]] -= 1
        sizes[empty] += 1
        clusters[worst] = empty
    return clusters


def _seeds(points: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Greedy k-means++: draw candidates by squared distance to the seeds, keep the best of each."""
    trials = 2 + int(math.log(count))
    seeds = points[_draw(torch.ones(len(points), device=points.device), 1, generator)]
    nearest = _squared_distances(points, seeds)[:, 0]
    while len(seeds) < count:
        if not nearest.any():
            raise InvalidInputError(
                f"{count} clusters need as many distinct points, there are {len(seeds)}: "
                "give more tokens"
            )
        candidates = points[_draw(nearest, trials, generator)]
        reduced = torch.minimum(nearest[:, None], _squared_distances(points, candidates))
        best = reduced.sum(0).argmin()
        seeds, nearest = torch.cat((seeds, candidates[best, None])), reduced[:, best]
    return seeds


def _draw(weights: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Draw indices with the given weights."""
    # on the CPU, as some devices know no double precision, which sums of so many weights need
    cumulative = weights.cpu().double().cumsum(0)
    uniform = torch.rand(count, generator=generator, dtype=torch.double)
    drawn = torch.searchsorted(cumulative, uniform * cumulative[-1], right=True)
    return drawn.clamp_max(len(weights) - 1).to(weights.device)


def _squared_distances(points: Tensor, others: Tensor) -> Tensor:
    """Distances that are exactly 0 between equal points: (point, other)."""
    return torch.cdist(points, others, compute_mode="donot_use_mm_for_euclid_dist").square()
