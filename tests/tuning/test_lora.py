"""Low-rank adapters change nothing until they are trained, and come off without a trace."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor

from moirai_moe_forecaster.errors import ConfigError
from moirai_moe_forecaster.model.network import MoiraiMoE
from moirai_moe_forecaster.model.tokens import TokenBatch
from moirai_moe_forecaster.tuning.lora import (
    LoraConfig,
    add_lora,
    lora_state,
    merge_lora,
    remove_lora,
)
from tiny_network import OFFICIAL_CONVENTIONS, tiny_network


def tokens() -> TokenBatch:
    generator = torch.Generator().manual_seed(0)
    ids = torch.arange(6).expand(2, 6)
    return TokenBatch(
        torch.randn(2, 6, 16, generator=generator),
        torch.ones(2, 6, 16, dtype=torch.bool),
        ids,
        torch.zeros_like(ids),
        torch.ones_like(ids),
        torch.zeros_like(ids, dtype=torch.bool),
    )


def hidden(network: MoiraiMoE) -> Tensor:
    with torch.no_grad():
        output = network.encode(tokens()).hidden
        return network.projection(output)


def adapted(seed: int = 0, **settings: Any) -> MoiraiMoE:
    """A network whose adapters do something."""
    network = copy.deepcopy(tiny_network())
    add_lora(network, LoraConfig(**settings), seed=seed)
    generator = torch.Generator().manual_seed(seed + 1)
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.requires_grad:
                parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return network


def test_fresh_adapters_change_nothing_and_are_all_that_is_trained() -> None:
    network = copy.deepcopy(tiny_network())
    chosen = add_lora(network, LoraConfig())
    assert torch.equal(hidden(network), hidden(tiny_network()))
    trained = [name for name, p in network.named_parameters() if p.requires_grad]
    assert all(name.endswith((".up", ".down")) for name in trained)
    assert not any("router" in name for name in chosen)
    assert len(trained) == 2 * len(chosen)
    kinds = {name.split(".")[2] for name in chosen if name.startswith("blocks")}
    assert kinds == {"attention", "experts"}


@pytest.mark.parametrize("shared", [False, True])
def test_every_adapter_gets_a_gradient(shared: bool) -> None:
    network = adapted(shared_experts=shared)
    network.projection(network.encode(tokens()).hidden).square().sum().backward()
    for name, parameter in network.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None, name
            assert parameter.grad.abs().sum() > 0, name
        else:
            assert parameter.grad is None, name


@pytest.mark.parametrize("shared", [False, True])
def test_a_merged_network_is_a_plain_one_that_computes_the_same(shared: bool) -> None:
    network = adapted(shared_experts=shared)
    before = hidden(network)
    assert not torch.allclose(before, hidden(tiny_network()))
    merge_lora(network)
    assert torch.equal(hidden(network), before)
    assert network.state_dict().keys() == tiny_network().state_dict().keys()
    assert type(network.blocks[0].experts) is type(tiny_network().blocks[0].experts)


def test_removed_adapters_leave_the_weights_bit_by_bit() -> None:
    network = adapted()
    remove_lora(network)
    for name, tensor in tiny_network().state_dict().items():
        assert torch.equal(network.state_dict()[name], tensor), name


def test_experts_have_pairs_of_their_own_or_share_one() -> None:
    each = lora_state(adapted(targets=("experts",), expert_rank=3, shared_experts=False))
    down = each["blocks.0.experts.weight_in.down"]
    assert down.shape == (4, 3, 32)
    assert not torch.equal(down[0], down[1])
    shared = lora_state(adapted(targets=("experts",), rank=5, shared_experts=True))
    assert shared["blocks.0.experts.weight_in.down"].shape == (5, 32)


def test_the_state_is_what_was_added() -> None:
    network = adapted(alpha=4.0)
    state = lora_state(network)
    merge_lora(network)
    for name, weight in tiny_network().state_dict().items():
        if f"{name}.up" in state:
            added = state[f"{name}.up"] @ state[f"{name}.down"]
            assert torch.equal(network.state_dict()[name], weight + added), name


@pytest.mark.parametrize(
    ("targets", "count"),
    [(("qkv",), 2), (("blocks.1.attention.*",), 2), (("head", "input"), 4), ("attention", 4)],
)
def test_targets_are_groups_modules_or_patterns(targets: Any, count: int) -> None:
    network = copy.deepcopy(tiny_network())
    assert len(add_lora(network, LoraConfig(targets=targets))) == count


def test_it_can_wrap_a_module_that_holds_the_network() -> None:
    holder = torch.nn.ModuleDict({"network": copy.deepcopy(tiny_network())})
    chosen = add_lora(holder, LoraConfig(targets=("experts",)))
    assert all(name.startswith("network.blocks.") for name in chosen)


def test_a_target_without_a_match_is_refused_before_anything_changes() -> None:
    network = copy.deepcopy(tiny_network())
    with pytest.raises(ConfigError, match="'q_proj' matches no weight"):
        add_lora(network, LoraConfig(targets=("attention", "q_proj")))
    assert network.state_dict().keys() == tiny_network().state_dict().keys()


def test_official_conventions_have_the_same_targets() -> None:
    network = copy.deepcopy(tiny_network(d_model=64, num_heads=1, **OFFICIAL_CONVENTIONS))
    before = hidden(network)
    add_lora(network, LoraConfig())
    assert torch.equal(hidden(network), before)


def test_the_seed_decides_the_start_and_no_global_state_is_touched() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    first, second, third = (lora_state(adapted(seed)) for seed in (0, 0, 1))
    assert torch.equal(torch.rand(3), expected)
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not torch.equal(first["projection.weight.down"], third["projection.weight.down"])


def test_names_of_the_field_are_understood() -> None:
    config = LoraConfig.from_dict({"r": 4, "lora_alpha": 8, "target_modules": ["qkv"]})
    assert (config.rank, config.alpha, config.targets) == (4, 8, ("qkv",))
    assert LoraConfig.from_dict(config.to_dict()) == config


@pytest.mark.parametrize(
    "settings", [{"rank": 0}, {"alpha": -1}, {"targets": ()}, {"expert_rank": 1.5}, {"bias": "all"}]
)
def test_wrong_settings_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        LoraConfig.from_dict(settings)
