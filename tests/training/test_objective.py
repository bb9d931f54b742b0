"""The objective scores patch t + 1 by the distribution at token t, and nothing else."""

from __future__ import annotations

import pytest
import torch

from moirai_moe_forecaster.config import ModelConfig
from moirai_moe_forecaster.model.network import MoiraiMoE
from moirai_moe_forecaster.model.tokens import TokenBatch, next_patches
from moirai_moe_forecaster.training.data.packing import TrainingBatch
from moirai_moe_forecaster.training.objective import (
    micro_batch,
    next_patch_losses,
    training_loss,
)

TOKENS = 6


def tiny(**changes: object) -> ModelConfig:
    sizes = {
        "d_model": 16,
        "d_ff": 16,
        "num_layers": 2,
        "num_heads": 2,
        "num_experts": 4,
        "experts_per_token": 2,
        "patch_size": 4,
    }
    return ModelConfig(**{**sizes, **changes})  # type: ignore[arg-type]


def network_of(config: ModelConfig) -> MoiraiMoE:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return MoiraiMoE(config).eval()


def one_series(patch_size: int) -> TokenBatch:
    values = torch.randn(1, TOKENS, patch_size, generator=torch.Generator().manual_seed(0))
    return TokenBatch(
        values,
        torch.ones_like(values, dtype=torch.bool),
        torch.arange(TOKENS)[None],
        torch.zeros(1, TOKENS, dtype=torch.long),
        torch.ones(1, TOKENS, dtype=torch.long),
        torch.zeros(1, TOKENS, dtype=torch.bool),
    )


def with_patch(tokens: TokenBatch, token: int, change: float) -> TokenBatch:
    values = tokens.values.clone()
    values[:, token] += change
    return tokens._replace(values=values)


def terms(network: MoiraiMoE, inputs: TokenBatch, targets: TokenBatch) -> torch.Tensor:
    """Loss per (token, output patch) when the network reads one batch and is scored on another."""
    following, counted = next_patches(targets, network.config.output_patches)
    return next_patch_losses(network(inputs), following, counted).sum(-1)[0]


@pytest.mark.parametrize("output_patches", [1, 3])
@pytest.mark.parametrize("changed", range(TOKENS))
@torch.inference_mode()
def test_only_the_distributions_of_earlier_tokens_are_scored_on_a_patch(
    output_patches: int, changed: int
) -> None:
    """Patch t + 1 as a target moves the term of token t (of t + 1 - j for output j), no other."""
    network = network_of(tiny(output_patches=output_patches))
    tokens = one_series(network.config.patch_size)
    before = terms(network, tokens, tokens)
    after = terms(network, tokens, with_patch(tokens, changed, 0.5))
    moved = {tuple(index) for index in (before != after).nonzero().tolist()}
    expected = {(changed - j, j - 1) for j in range(1, output_patches + 1) if changed - j >= 0}
    assert moved == expected


@pytest.mark.parametrize("changed", range(TOKENS))
@torch.inference_mode()
def test_a_patch_is_read_only_by_its_own_and_later_tokens(changed: int) -> None:
    network = network_of(tiny())
    tokens = one_series(network.config.patch_size)
    before = terms(network, tokens, tokens)[:, 0]
    after = terms(network, with_patch(tokens, changed, 0.5), tokens)[:, 0]
    torch.testing.assert_close(after[:changed], before[:changed], rtol=1e-5, atol=1e-5)
    assert (before[changed:-1] != after[changed:-1]).all()


@torch.inference_mode()
def test_the_term_is_the_negative_log_density_of_the_next_patch() -> None:
    network = network_of(tiny())
    tokens = one_series(network.config.patch_size)
    mixture = network(tokens)
    shifted = torch.cat((tokens.values[:, 1:], tokens.values[:, :1]), 1)
    expected = -mixture.log_prob(shifted[:, :, None]).sum((-1, -2))[0]
    torch.testing.assert_close(terms(network, tokens, tokens)[:-1, 0], expected[:-1])


@torch.inference_mode()
def test_the_last_token_and_unscored_points_bear_no_loss() -> None:
    network = network_of(tiny())
    tokens = one_series(network.config.patch_size)
    scored = tokens.observed.clone()
    scored[:, :3] = False
    scored[:, 4, 1] = False
    following, counted = next_patches(tokens._replace(observed=scored), 1)
    losses = next_patch_losses(network(tokens), following, counted)[0, :, 0]
    assert (losses[:2] == 0).all()
    assert (losses[-1] == 0).all()
    assert losses[3, 1] == 0
    assert (losses[2] != 0).all()
    batch = micro_batch(TrainingBatch(tokens, scored.float()), 1)
    assert batch.targets.weights.sum() == scored.sum()
    loss = training_loss(network, batch)
    torch.testing.assert_close(loss.likelihood, losses.sum() / scored.sum())


@pytest.mark.parametrize("output_patches", [1, 3])
@torch.inference_mode()
def test_a_point_counts_by_its_weight_each_time_that_a_token_predicts_it(
    output_patches: int,
) -> None:
    network = network_of(tiny(output_patches=output_patches))
    tokens = one_series(network.config.patch_size)
    weights = torch.rand(tokens.values.shape, generator=torch.Generator().manual_seed(1))
    weights[0, 2] = 0.0
    following, _ = next_patches(tokens, output_patches)
    densities = network(tokens).log_prob(following)
    total = summed = 0.0
    for token in range(TOKENS):
        for ahead in range(1, min(output_patches, TOKENS - 1 - token) + 1):
            weight = weights[0, token + ahead]
            total += float(weight.sum())
            summed -= float((weight * densities[0, token, ahead - 1]).sum())
    loss = training_loss(network, micro_batch(TrainingBatch(tokens, weights), output_patches))
    assert float(loss.likelihood) == pytest.approx(summed / total, rel=1e-5)


def packed(rows: int) -> TrainingBatch:
    values = torch.randn(rows, TOKENS, 4, generator=torch.Generator().manual_seed(2))
    batch = one_series(4)
    repeated = TokenBatch(*(tensor.expand(rows, *tensor.shape[1:]) for tensor in batch))
    tokens = repeated._replace(values=values)
    return TrainingBatch(
        tokens, torch.rand(values.shape, generator=torch.Generator().manual_seed(3)) + 0.1
    )


def rows_of(batch: TrainingBatch, rows: slice) -> TrainingBatch:
    tokens = TokenBatch(*(tensor[rows] for tensor in batch.tokens))
    return TrainingBatch(tokens, batch.weights[rows])


def test_losses_of_parts_by_the_weight_of_all_sum_to_the_loss_of_the_whole() -> None:
    network = network_of(tiny(router="centroid"))
    batch = packed(4)
    expected = training_loss(network, micro_batch(batch, 1))
    expected.likelihood.backward()
    gradient = network.projection.weight.grad
    network.zero_grad()
    parts = [micro_batch(rows_of(batch, rows), 1) for rows in (slice(0, 1), slice(1, 4))]
    total = sum(part.targets.weights.sum() for part in parts)
    losses = [training_loss(network, part, total) for part in parts]  # type: ignore[arg-type]
    for loss in losses:
        loss.likelihood.backward()
    torch.testing.assert_close(sum(loss.likelihood for loss in losses), expected.likelihood)
    torch.testing.assert_close(network.projection.weight.grad, gradient)
    assert torch.equal(losses[0].counts + losses[1].counts, expected.counts)


def test_a_batch_without_targets_has_no_loss_and_zero_gradients() -> None:
    network = network_of(tiny())
    batch = packed(2)
    none = micro_batch(batch._replace(weights=torch.zeros_like(batch.weights)), 1)
    loss = training_loss(network, none)
    (loss.likelihood + loss.balance).backward()
    assert loss.likelihood.item() == 0
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name


@torch.inference_mode()
def test_only_trained_routers_are_balanced() -> None:
    batch = micro_batch(packed(2), 1)
    assert float(training_loss(network_of(tiny(router="centroid")), batch).balance) == 0
    assert float(training_loss(network_of(tiny()), batch).balance) > 0.5


@torch.inference_mode()
def test_samples_and_variates_are_not_scored_on_each_other() -> None:
    tokens = one_series(4)
    packed = tokens._replace(
        sample_id=torch.tensor([[1, 1, 1, 2, 2, 0]]), variate_id=torch.tensor([[0, 0, 1, 0, 0, 0]])
    )
    _, counted = next_patches(packed, 2)
    follows = counted[0, :, :, 0].tolist()
    assert follows == [
        [True, False],
        [False, False],
        [False, False],
        [True, False],
        [False, False],
        [False, False],
    ]


def test_a_tiny_model_learns_a_periodic_series() -> None:
    """A sequence of period 6 with patches of 4 points: predictable to the digit from its phase."""
    network = network_of(tiny(d_model=32, d_ff=32)).train()
    generator = torch.Generator().manual_seed(1)
    optimiser = torch.optim.AdamW(network.parameters(), lr=5e-3)
    scale = torch.tensor([0.0, 1.0, -1.5, 0.7, 2.0, -0.6])

    def batch(rows: int) -> TokenBatch:
        phase = torch.randint(6, (rows, 1), generator=generator)
        values = scale[(phase + torch.arange(32)) % 6].unflatten(1, (8, 4))
        ids = torch.ones(rows, 8, dtype=torch.long)
        seen = torch.ones_like(values, dtype=torch.bool)
        time = torch.arange(8).expand(rows, 8)
        return TokenBatch(values, seen, time, 0 * ids, ids, torch.zeros_like(ids, dtype=torch.bool))

    for _ in range(250):
        tokens = batch(32)
        weights = tokens.observed.float()
        loss = training_loss(network, micro_batch(TrainingBatch(tokens, weights), 1))
        optimiser.zero_grad()
        (loss.likelihood + 0.01 * loss.balance).backward()
        optimiser.step()
    network.eval()
    with torch.inference_mode():
        tokens = batch(16)
        medians = network(tokens).icdf(torch.tensor([0.5]))[0]
        targets, counted = next_patches(tokens, 1)
    error = (medians - targets).abs()[counted].mean()
    assert error < 0.05


def test_a_token_inside_the_prefix_predicts_only_if_its_next_patch_reaches_beyond() -> None:
    tokens = one_series(4)
    weights = torch.ones_like(tokens.values)
    weights[:, :3] = 0  # the prefix: three patches and the first point of the fourth
    weights[:, 3, 0] = 0
    weights[:, 4] = 0  # missing, which ends nothing
    batch = micro_batch(TrainingBatch(tokens, weights), 3)
    assert batch.targets.positions.tolist() == [2, 3, 4]
    assert (batch.targets.weights[0] > 0).sum(-1).tolist() == [3, 0, 4]
