from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from moirai_moe_forecaster.model.moe import (
    CentroidRouter,
    LinearRouter,
    Routing,
    balance_loss,
    expert_counts,
)


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def centroid_router(choice: Any, experts: int = 6, per_token: int = 2) -> CentroidRouter:
    router = CentroidRouter(8, experts, per_token, choice)
    router.centroids.copy_(random(experts, 8, seed=1))
    return router


@pytest.mark.parametrize("choice", ["nearest", "farthest"])
@pytest.mark.parametrize("per_token", [1, 2, 6])
def test_tokens_go_to_the_centroids_of_the_stated_choice(choice: Any, per_token: int) -> None:
    router, x = centroid_router(choice, per_token=per_token), random(50, 8)
    routing = router(x)
    distance = np.linalg.norm(x.numpy()[:, None] - router.centroids.numpy(), axis=-1)
    signed = distance if choice == "farthest" else -distance
    order = np.argsort(-signed, axis=1)[:, :per_token]
    np.testing.assert_array_equal(routing.experts, order)
    top = np.take_along_axis(signed, order, 1)
    weights = np.exp(top) / np.exp(top).sum(1, keepdims=True)
    np.testing.assert_allclose(routing.weights, weights, rtol=1e-5)
    np.testing.assert_allclose(routing.scores, signed, rtol=1e-5)


def test_close_centroids_are_told_apart() -> None:
    """Far from the origin the product form of a distance would lose them."""
    router = CentroidRouter(8, 2, 1, "nearest")
    router.centroids.copy_(torch.full((2, 8), 300.0))
    router.centroids[1, 0] += 1e-2
    x = router.centroids.clone()
    assert router(x).experts.flatten().tolist() == [0, 1]


def linear_router() -> LinearRouter:
    with torch.random.fork_rng(devices=[]):
        router = LinearRouter(8, 6, 2).requires_grad_(False)
    router.projection.weight.copy_(random(6, 8, seed=1))
    return router


def test_linear_gating_takes_the_largest_logits() -> None:
    router, x = linear_router(), random(50, 8)
    routing = router(x)
    logits = x @ router.projection.weight.T
    top, experts = logits.sort(descending=True)
    assert torch.equal(routing.experts, experts[:, :2])
    torch.testing.assert_close(routing.weights, top[:, :2].softmax(-1))
    torch.testing.assert_close(routing.scores, logits)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_weights_are_float32_and_sum_to_one(dtype: torch.dtype) -> None:
    for router in (centroid_router("nearest").to(dtype), linear_router().to(dtype)):
        routing = router(random(20, 8).to(dtype))
        assert routing.weights.dtype == torch.float32
        torch.testing.assert_close(routing.weights.sum(-1), torch.ones(20))


def routing_of(scores: torch.Tensor, per_token: int) -> Routing:
    top, experts = scores.topk(per_token, -1)
    return Routing(experts, top.softmax(-1), scores)


def test_balance_loss_is_one_when_balanced_and_grows_to_the_number_of_experts() -> None:
    tokens = torch.ones(8, dtype=torch.bool)
    balanced = routing_of(20 * torch.eye(4).repeat(2, 1), 1)
    assert float(balance_loss(balanced, tokens)) == pytest.approx(1, abs=1e-5)
    collapsed = routing_of(20 * torch.eye(4)[:1].repeat(8, 1), 1)
    assert float(balance_loss(collapsed, tokens)) == pytest.approx(4, abs=1e-5)


def test_balance_loss_is_its_formula_over_valid_tokens() -> None:
    scores, valid = random(40, 5), torch.arange(40) % 3 > 0
    got = float(balance_loss(routing_of(scores, 2), valid))
    kept = scores[valid].double().numpy()
    probability = (np.exp(kept) / np.exp(kept).sum(1, keepdims=True)).mean(0)
    chosen = np.argsort(-kept, axis=1)[:, :2]
    share = np.bincount(chosen.ravel(), minlength=5) / chosen.size
    assert got == pytest.approx(5 * (share * probability).sum(), rel=1e-5)


def test_balance_losses_of_parts_sum_to_the_loss_of_the_whole() -> None:
    """As when every process holds some of the tokens."""
    scores, valid = random(40, 5), torch.arange(40) % 3 > 0
    whole = balance_loss(routing_of(scores, 2), valid)
    parts = [(routing_of(scores[cut], 2), valid[cut]) for cut in (slice(0, 25), slice(25, 40))]
    counts = sum(expert_counts(*part) for part in parts)
    assert counts.sum() == 2 * valid.sum()
    losses = [balance_loss(*part, counts) for part in parts]
    torch.testing.assert_close(sum(losses), whole)


def test_balance_loss_moves_tokens_away_from_a_crowded_expert() -> None:
    scores = (random(40, 4) + 3 * torch.eye(4)[0]).requires_grad_(True)
    balance_loss(routing_of(scores, 2), torch.ones(40, dtype=torch.bool)).backward()
    assert (scores.grad[:, 0] > 0).all()
    assert torch.isfinite(scores.grad).all()


def test_balance_loss_of_padding_alone_is_finite() -> None:
    loss = balance_loss(routing_of(random(4, 3), 1), torch.zeros(4, dtype=torch.bool))
    assert torch.isfinite(loss)
