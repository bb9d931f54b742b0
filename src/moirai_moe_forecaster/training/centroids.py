"""Token clusters: the centroids that centroid gating routes by (paper, section 3.2.2).

A dense model is trained first. K-means over what its feed-forward layers read gives every layer its
centroids, and the mixture-of-experts model is trained with these as constants.
"""

from __future__ import annotations

import logging
import math
import warnings
from collections.abc import Iterable, Sequence

import numpy as np
import torch
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning
from threadpoolctl import threadpool_limits
from torch import Tensor

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
    layers = token_representations(network, batches)
    log.info("clustering %d tokens of %d layers", len(layers[0]), len(layers))
    return [kmeans(points, num_experts, seed) for points in layers]


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


def kmeans(points: Tensor, count: int, seed: int, iterations: int = 100) -> Tensor:
    """Cluster points by scikit-learn's k-means: Lloyd's algorithm from greedy k-means++ seeds.

    Parameters
    ----------
    points : Tensor, (point, dimension)
        On any device.
    count : int
        How many clusters.
    seed : int
        Of the first centroids.
    iterations : int, default=100
        At most; fewer if no point changes its cluster any more.

    Returns
    -------
    Tensor, (count, dimension)
        The means of `count` clusters, none of them empty, on the device of `points`.

    Raises
    ------
    InvalidInputError
        If there are fewer distinct points than clusters, or some are not finite.
    """
    if not points.isfinite().all():
        raise InvalidInputError("cannot cluster points that are not finite; did training diverge?")
    values = points.cpu().numpy()
    algorithm = KMeans(count, n_init=1, max_iter=iterations, tol=0, random_state=seed)
    try:
        # one thread: several sum the members of a cluster in an order that varies between runs
        with threadpool_limits(1), warnings.catch_warnings():
            warnings.simplefilter("error", ConvergenceWarning)
            algorithm.fit(values)
    except (ConvergenceWarning, ValueError) as error:
        raise InvalidInputError(
            f"{count} clusters need as many distinct points, there are "
            f"{len(np.unique(values, axis=0))}: give more tokens"
        ) from error
    return torch.from_numpy(algorithm.cluster_centers_).to(points)
