"""The objective scores patch t + 1 by the distribution at token t, and nothing else."""

from __future__ import annotations

import pytest
import torch

from moirai_moe_forecaster.config import ModelConfig
from moirai_moe_forecaster.model.network import MoiraiMoE
from moirai_moe_forecaster.model.tokens import TokenBatch, next_patches
from moirai_moe_forecaster.training.objective import next_patch_losses, training_loss

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
    loss = training_loss(network, tokens, scored)
    assert loss.points == scored.sum()
    torch.testing.assert_close(loss.likelihood, losses.sum() / scored.sum())


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
        loss = training_loss(network, tokens, tokens.observed)
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
