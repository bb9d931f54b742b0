"""Token clusters are the clusters of what the routers read, and training keeps them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from moirai_moe_forecaster.config import ModelConfig, TrainConfig
from moirai_moe_forecaster.errors import InvalidInputError
from moirai_moe_forecaster.model.attention import attention_mask
from moirai_moe_forecaster.model.network import MoiraiMoE
from moirai_moe_forecaster.model.tokens import TokenBatch
from moirai_moe_forecaster.training.centroids import (
    centroids_from,
    kmeans,
    token_clusters,
    token_representations,
)
from moirai_moe_forecaster.training.data.batches import BatchMaker
from moirai_moe_forecaster.training.data.corpus import Source
from moirai_moe_forecaster.training.pretrain import pretrain
from tiny_network import tiny_network

DENSE: dict[str, int] = {"num_experts": 1, "experts_per_token": 1}
MODEL = replace(tiny_network(**DENSE).config, num_experts=4, experts_per_token=2, router="centroid")
TRAINING = TrainConfig(
    steps=2,
    batch_rows=4,
    row_tokens=16,
    max_points=256,
    synthetic_share=0.0,
    coupled_share=0.0,
)


def waves() -> list[Source]:
    time = np.arange(300)
    series = [np.sin(2 * np.pi * time / period) for period in range(5, 30)]
    points = np.concatenate(series).astype(np.float32)
    return [Source("waves", points, np.arange(0, len(points) + 1, 300), 1.0)]


def batches(count: int = 3, model: ModelConfig = MODEL) -> list[TokenBatch]:
    maker = BatchMaker(waves(), model, TRAINING)
    padded = []
    for step in range(count):
        tokens = maker.batch(step).tokens
        sample_id = tokens.sample_id.clone()
        sample_id[0, -3:] = 0
        padded.append(tokens._replace(sample_id=sample_id))
    return padded


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def blobs(count: int = 6, each: int = 50) -> tuple[Tensor, Tensor]:
    """Points around far-off centres, and the centres."""
    centres = 10 * torch.randn(count, 5, generator=seeded(1))
    noise = 0.1 * torch.randn(each, count, 5, generator=seeded(2))
    return (centres + noise).flatten(0, 1), centres


def inertia(points: Tensor, centroids: Tensor) -> float:
    return float(torch.cdist(points.double(), centroids.double()).amin(1).square().sum())


def test_representations_are_the_normed_outputs_of_self_attention() -> None:
    network: MoiraiMoE = tiny_network(**DENSE)
    tokens = batches(1)[0]
    mask, angles = attention_mask(tokens, tokens), network._angles(tokens)
    x = network.embedding(tokens)
    expected = []
    for block in network.blocks:
        attended, _ = block.attention(block.attention_norm(x), angles, mask)
        expected.append(block.expert_norm(x + attended)[tokens.sample_id > 0])
        x, _, _ = block(x, angles, mask)
    layers = token_representations(network, [tokens, tokens])
    assert len(layers) == len(expected) == 2
    for layer, once in zip(layers, expected, strict=True):
        torch.testing.assert_close(layer, torch.cat((once, once)))


def test_collecting_representations_leaves_the_network_as_it_was() -> None:
    network = tiny_network(**DENSE)
    token_representations(network, batches(1))
    assert not any(block.router._forward_pre_hooks for block in network.blocks)
    with pytest.raises(AttributeError):
        token_representations(network, [None])  # type: ignore[list-item]
    assert not any(block.router._forward_pre_hooks for block in network.blocks)


def test_kmeans_finds_separate_clusters() -> None:
    points, centres = blobs()
    for seed in range(5):
        found = kmeans(points, len(centres), seed)
        distance, match = torch.cdist(centres, found).min(1)
        assert sorted(match.tolist()) == list(range(len(centres)))
        assert distance.max() < 0.1


def test_centroids_are_the_means_of_clusters_none_of_which_is_empty() -> None:
    points = torch.randn(300, 4, generator=seeded(4))
    centroids = kmeans(points, 40, 0, iterations=1000)
    nearest = torch.cdist(points, centroids).argmin(1)
    means = torch.stack([points[nearest == cluster].mean(0) for cluster in range(40)])
    torch.testing.assert_close(centroids, means)


def test_kmeans_depends_on_the_seed_alone() -> None:
    points = torch.randn(500, 4, generator=seeded(5))
    state = torch.random.get_rng_state()
    first, again, other = (kmeans(points, 8, seed) for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(state, torch.random.get_rng_state())


def test_points_that_cannot_be_clustered_are_refused() -> None:
    few = torch.arange(3.0)[:, None].repeat(20, 1)
    assert sorted(kmeans(few, 3, 0).flatten().tolist()) == [0, 1, 2]
    with pytest.raises(InvalidInputError, match="4 clusters need as many distinct points, there a"):
        kmeans(few, 4, 0)
    with pytest.raises(InvalidInputError, match="not finite"):
        kmeans(torch.tensor([[1.0], [torch.nan]]), 1, 0)


def test_each_layer_gets_its_own_clusters() -> None:
    network = tiny_network(**DENSE)
    clusters = token_clusters(network, batches(), 4, seed=0)
    for points, centroids in zip(token_representations(network, batches()), clusters, strict=True):
        alone = kmeans(points, 4, 9)
        assert inertia(points, centroids) < 1.2 * inertia(points, alone)


def test_training_routes_by_the_centroids_and_keeps_them(tmp_path: Path) -> None:
    dense = tiny_network(**DENSE)
    centroids = centroids_from(dense, waves(), MODEL, TRAINING, tokens=300)
    assert {name: tensor.shape for name, tensor in centroids.items()} == {
        "blocks.0.router.centroids": (4, 32),
        "blocks.1.router.centroids": (4, 32),
    }
    options = {"output": tmp_path, "progress": False}
    pretrain(MODEL, TRAINING, waves(), initial=centroids, **options)
    network = pretrain(MODEL, replace(TRAINING, steps=3), waves(), resume=True, **options)
    for name, tensor in centroids.items():
        assert torch.equal(network.state_dict()[name], tensor)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"router": "linear"}, "only router='centroid' has centroids, got 'linear'"),
        ({"d_model": 64}, "the dense network has d_model=32, the model d_model=64"),
        ({"num_layers": 3}, "num_layers=2, the model num_layers=3"),
    ],
)
def test_a_model_that_the_clusters_cannot_fit_is_refused(
    changes: dict[str, object], message: str
) -> None:
    with pytest.raises(InvalidInputError, match=message):
        centroids_from(tiny_network(**DENSE), waves(), replace(MODEL, **changes), TRAINING)
