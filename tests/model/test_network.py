from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from moirai_moe_forecaster.config import ModelConfig
from moirai_moe_forecaster.model.distribution.mixture import Mixture
from moirai_moe_forecaster.model.network import MoiraiMoE
from moirai_moe_forecaster.model.tokens import TokenBatch
from tiny_network import OFFICIAL_CONVENTIONS, tiny_config, tiny_network

SIZE = 16
CONVENTIONS: dict[str, dict[str, Any]] = {
    "ours": {},
    "long blocks": {"output_patches": 2},
    "official": OFFICIAL_CONVENTIONS,
    "dense": {"num_experts": 1, "experts_per_token": 1},
}


@pytest.fixture(params=CONVENTIONS)
def network(request: pytest.FixtureRequest) -> MoiraiMoE:
    return tiny_network(**CONVENTIONS[request.param])


def tokens_of(
    variates: int, length: int, sample: int = 1, seed: int = 0, rows: int = 1
) -> TokenBatch:
    """Variate by variate, a fifth of the values missing, the last variate known ahead."""
    generator = torch.Generator().manual_seed(seed)
    count = variates * length
    variate_id = torch.arange(variates).repeat_interleave(length).expand(rows, -1)
    return TokenBatch(
        torch.randn(rows, count, SIZE, generator=generator),
        torch.rand(rows, count, SIZE, generator=generator) > 0.2,
        torch.arange(length).repeat(variates).expand(rows, -1),
        variate_id,
        torch.full((rows, count), sample),
        (variate_id == variates - 1) & (variates > 2),
    )


def select(tokens: TokenBatch, index: Any) -> TokenBatch:
    return TokenBatch(*(part[:, index] for part in tokens))


def join(*batches: TokenBatch) -> TokenBatch:
    return TokenBatch(*(torch.cat(parts, 1) for parts in zip(*batches, strict=True)))


def parameters(network: MoiraiMoE, tokens: TokenBatch) -> Tensor:
    """Everything that describes the tokens' distributions: (token, parameter)."""
    mixture: Mixture = network(tokens)
    every = [*mixture.log_weights, *(p for component in mixture.components for p in component)]
    return torch.stack([part[0, 0].flatten(1) for part in every], -1).flatten(1)


def assert_equal_but_for_rounding(one: Tensor, other: Tensor) -> None:
    torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)


def moved(one: Tensor, other: Tensor) -> list[bool]:
    return ((one - other).abs().amax(-1) > 1e-6).tolist()


def test_every_token_has_a_distribution_of_its_next_patches(network: MoiraiMoE) -> None:
    mixture = network(tokens_of(2, 3, rows=4))
    assert mixture.shape == (4, 6, network.config.output_patches, SIZE)
    output = network.encode(tokens_of(2, 3, rows=4))
    assert output.hidden.shape == (4, 6, network.config.d_model)
    assert len(output.cache) == len(output.routings) == network.config.num_layers
    assert output.routings[0].experts.shape == (24, network.config.experts_per_token)


def test_some_tokens_alone_are_as_among_all_and_leave_the_same_cache(network: MoiraiMoE) -> None:
    tokens, query_index = tokens_of(2, 5, rows=3), torch.tensor([9, 4])
    whole, some = network.encode(tokens), network.encode(tokens, query_index)
    assert_equal_but_for_rounding(some.hidden, whole.hidden[:, query_index])
    assert some.routings[-1].experts.shape[0] == 6
    for one, other in zip(some.cache, whole.cache, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("time", range(5))
def test_a_patch_changes_no_earlier_token_and_all_later_ones(network: MoiraiMoE, time: int) -> None:
    tokens = tokens_of(2, 5)
    values = tokens.values.clone()
    values[0, 5 + time] += 1.0  # in variate 1
    tokens = tokens._replace(observed=torch.ones_like(tokens.observed))
    before, after = (
        parameters(network, tokens._replace(values=v)) for v in (tokens.values, values)
    )
    affected = moved(before, after)
    assert affected == [t >= time for t in range(5)] * 2
    earlier = torch.tensor([t < time for t in range(5)] * 2)
    torch.testing.assert_close(before[earlier], after[earlier], atol=1e-6, rtol=0)


def test_a_longer_sequence_begins_like_a_shorter_one(network: MoiraiMoE) -> None:
    tokens = tokens_of(1, 9)
    whole = parameters(network, tokens)
    for length in (1, 4, 8):
        start = parameters(network, select(tokens, slice(length)))
        assert_equal_but_for_rounding(start, whole[:length])


def test_other_variates_are_seen_at_the_same_time(network: MoiraiMoE) -> None:
    tokens = tokens_of(3, 4)
    changed = tokens.values.clone()
    changed[0, [2 * 4 - 1]] *= -2  # last patch of variate 1
    affected = moved(
        parameters(network, tokens), parameters(network, tokens._replace(values=changed))
    )
    assert affected == [t % 4 == 3 for t in range(12)]


def test_the_order_and_the_numbering_of_variates_do_not_matter(network: MoiraiMoE) -> None:
    tokens = tokens_of(3, 4)._replace(known_future=torch.zeros(1, 12, dtype=torch.bool))
    expected = parameters(network, tokens)
    shuffled = torch.randperm(12, generator=torch.Generator().manual_seed(0))
    assert_equal_but_for_rounding(parameters(network, select(tokens, shuffled)), expected[shuffled])
    renumbered = tokens._replace(variate_id=torch.tensor([7, 0, 3])[tokens.variate_id])
    assert_equal_but_for_rounding(parameters(network, renumbered), expected)


def test_a_variates_own_past_is_told_from_that_of_others(network: MoiraiMoE) -> None:
    tokens = tokens_of(2, 4)
    exchanged = tokens._replace(variate_id=1 - tokens.variate_id)
    same = parameters(network, tokens)
    assert_equal_but_for_rounding(parameters(network, exchanged), same)
    crossed = tokens.variate_id.clone()
    crossed[0, [0, 4]] = crossed[0, [4, 0]]
    assert any(moved(parameters(network, tokens._replace(variate_id=crossed)), same))


def test_packed_samples_are_as_if_alone(network: MoiraiMoE) -> None:
    one, other = tokens_of(2, 4), tokens_of(1, 6, sample=2, seed=1)
    packed = parameters(network, join(one, other))
    assert_equal_but_for_rounding(packed[:8], parameters(network, one))
    alone = parameters(network, other._replace(sample_id=torch.ones_like(other.sample_id)))
    assert_equal_but_for_rounding(packed[8:], alone)


@pytest.mark.parametrize("junk", [0.0, 1e4])
def test_padding_is_never_seen(network: MoiraiMoE, junk: float) -> None:
    tokens = tokens_of(2, 4)
    padding = tokens_of(1, 3, sample=0)
    padding = padding._replace(values=torch.full_like(padding.values, junk))
    expected = parameters(network, tokens)
    assert_equal_but_for_rounding(parameters(network, join(padding, tokens))[3:], expected)
    assert_equal_but_for_rounding(parameters(network, join(tokens, padding))[:8], expected)


def test_rows_of_a_batch_are_independent(network: MoiraiMoE) -> None:
    tokens = tokens_of(2, 4, rows=3)
    together = network(tokens).mean()
    for row in range(3):
        alone = network(TokenBatch(*(part[row : row + 1] for part in tokens))).mean()
        assert_equal_but_for_rounding(alone[0], together[row])


def test_only_differences_in_time_matter(network: MoiraiMoE) -> None:
    tokens = tokens_of(2, 5)
    shifted = tokens._replace(time_id=tokens.time_id + 40)
    torch.testing.assert_close(
        parameters(network, shifted), parameters(network, tokens), atol=1e-3, rtol=1e-3
    )
    stretched = tokens._replace(time_id=tokens.time_id * 3)
    assert any(moved(parameters(network, stretched), parameters(network, tokens)))


def test_missing_values_are_not_numbers_but_are_known_to_be_missing() -> None:
    tokens = tokens_of(1, 4)
    junk = tokens._replace(values=torch.where(tokens.observed, tokens.values, torch.nan))
    ours = tiny_network()
    expected = parameters(ours, tokens)
    assert torch.equal(parameters(ours, junk), expected)
    zeros = tokens._replace(values=torch.where(tokens.observed, tokens.values, 0.0))
    all_observed = zeros._replace(observed=torch.ones_like(tokens.observed))
    assert any(moved(parameters(ours, all_observed), expected))


def test_official_conventions_take_missing_values_for_numbers() -> None:
    network, tokens = tiny_network(**OFFICIAL_CONVENTIONS), tokens_of(1, 4)
    expected = parameters(network, tokens)
    all_observed = tokens._replace(observed=torch.ones_like(tokens.observed))
    assert torch.equal(parameters(network, all_observed), expected)
    filled = tokens._replace(values=torch.where(tokens.observed, tokens.values, 9.0))
    assert any(moved(parameters(network, filled), expected))


def test_covariates_known_ahead_are_marked_under_our_conventions_alone() -> None:
    tokens = tokens_of(1, 4)
    marked = tokens._replace(known_future=torch.ones_like(tokens.known_future))
    ours, official = tiny_network(), tiny_network(**OFFICIAL_CONVENTIONS)
    assert all(moved(parameters(ours, marked), parameters(ours, tokens)))
    assert torch.equal(parameters(official, marked), parameters(official, tokens))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_other_types_give_nearly_the_same(dtype: torch.dtype) -> None:
    network = tiny_network(num_experts=2)
    tokens = tokens_of(2, 4)
    expected = network(tokens).mean()
    other = MoiraiMoE(network.config).requires_grad_(False)
    other.load_state_dict(network.state_dict())
    got = other.to(dtype)(tokens).mean()
    assert got.dtype == torch.float32
    tolerance = 1e-4 if dtype == torch.float64 else 0.3
    torch.testing.assert_close(got, expected, atol=tolerance, rtol=tolerance)


@pytest.mark.parametrize("case", CONVENTIONS)
def test_every_parameter_is_used(case: str) -> None:
    """But for the bias towards other variates where there is one, and centroids, never trained."""
    network = MoiraiMoE(tiny_network(**CONVENTIONS[case]).config)
    network.load_state_dict(tiny_network(**CONVENTIONS[case]).state_dict())
    tokens = tokens_of(3, 6, rows=4)
    mixture = network(tokens)
    target = torch.randn(mixture.shape, generator=torch.Generator().manual_seed(1)).abs()
    mixture.log_prob(target).mean().backward()
    unused = {
        name
        for name, parameter in network.named_parameters()
        if parameter.grad is None or not parameter.grad.abs().sum() > 0
    }
    assert unused <= {"blocks.0.router.projection.weight", "blocks.1.router.projection.weight"}
    assert not unused or case == "dense"
    assert all(p.grad is None or p.grad.isfinite().all() for p in network.parameters())


def test_the_official_small_model_has_its_published_size() -> None:
    with torch.device("meta"):
        small = MoiraiMoE(ModelConfig.official("small"))
    parameters_and_centroids = [*small.parameters(), *small.buffers()]
    assert sum(tensor.numel() for tensor in parameters_and_centroids) == pytest.approx(
        117.03e6, rel=1e-3
    )


def test_a_fresh_network_predicts_something_moderate() -> None:
    """Standardised values in, a distribution of about that size out."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = MoiraiMoE(tiny_config(num_layers=6)).requires_grad_(False)
    tokens = tokens_of(2, 8)
    lower, upper = network(tokens).icdf(torch.tensor([0.1, 0.9]))
    assert (upper - lower).median() < 10
    assert network.encode(tokens).hidden.square().mean() < 4
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        again = MoiraiMoE(tiny_config(num_layers=6))
    assert all(
        torch.equal(one, other)
        for one, other in zip(network.parameters(), again.parameters(), strict=True)
    )


def test_a_token_uses_its_experts_and_everything_that_is_shared() -> None:
    config = tiny_config(num_experts=8, experts_per_token=1)
    network, dense = (MoiraiMoE(c) for c in (config, replace(config, num_experts=1)))
    total, active = network.parameter_counts()
    routers = 7 * config.d_model * config.num_layers
    assert total == sum(parameter.numel() for parameter in network.parameters())
    assert active == sum(parameter.numel() for parameter in dense.parameters()) + routers
