from __future__ import annotations

import pytest
import torch

from moirai_moe_forecaster import ModelConfig, MoiraiMoE
from moirai_moe_forecaster.errors import ConfigError
from moirai_moe_forecaster.model.distribution.mixture import raw_size
from moirai_moe_forecaster.model.reference import reference_width
from moirai_moe_forecaster.model.refinement import GatedReference
from moirai_moe_forecaster.model.tokens import TokenBatch

CONFIG = ModelConfig.preset(
    "tiny", patch_size=4, output_patches=2, reference_periods=1, exchange_channels=8
)
LOCATIONS = [4, 7, 10]


def features(known: bool) -> torch.Tensor:
    found = torch.full((3, reference_width(CONFIG)), torch.nan)
    if known:
        found[:, :8] = torch.arange(8.0)
    return found


def raw() -> torch.Tensor:
    return torch.randn(
        3, 2, raw_size(CONFIG.mixture), 4, generator=torch.Generator().manual_seed(0)
    )


def test_gates_begin_closed() -> None:
    network, hidden = MoiraiMoE(CONFIG), torch.randn(3, CONFIG.d_model)
    assert network.reference is not None
    assert torch.equal(network.reference(raw(), hidden, features(True)), raw())


def test_an_open_gate_replaces_locations_by_the_last_cycle_and_nothing_else() -> None:
    gated = GatedReference(CONFIG)
    gated.gate.weight.data.zero_()
    # (output patch, component, channel): the first channel is the last cycle
    gated.gate.bias.data = torch.tensor([1.0, 0.0]).repeat(6)
    moved = gated(raw(), torch.randn(3, CONFIG.d_model), features(True))
    expected = torch.arange(8.0).view(2, 1, 4).expand(3, 2, 3, 4)
    torch.testing.assert_close(moved[:, :, LOCATIONS], expected)
    others = [row for row in range(raw_size(CONFIG.mixture)) if row not in LOCATIONS]
    assert torch.equal(moved[:, :, others], raw()[:, :, others])


def test_where_nothing_is_known_gates_do_nothing() -> None:
    gated = GatedReference(CONFIG)
    moved = gated(raw(), torch.randn(3, CONFIG.d_model), features(False))
    assert torch.equal(moved, raw())
    assert not gated.embedding(features(False)).any()


def tokens(reference: torch.Tensor) -> TokenBatch:
    generator = torch.Generator().manual_seed(1)
    values = torch.randn(1, 3, 4, generator=generator)
    ids = torch.arange(3)[None]
    return TokenBatch(
        values,
        torch.ones_like(values, dtype=torch.bool),
        ids,
        0 * ids,
        0 * ids + 1,
        torch.zeros_like(ids, dtype=torch.bool),
        reference,
    )


def test_unknown_references_leave_gradients_finite() -> None:
    network = MoiraiMoE(CONFIG)
    network(tokens(features(False)[None])).log_prob(torch.zeros(1, 3, 2, 4)).sum().backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in network.parameters())


def test_a_reference_of_one_token_does_not_reach_earlier_ones() -> None:
    network = MoiraiMoE(CONFIG)
    changed = features(True)
    changed[2] += 1
    one, other = (network(tokens(f[None])).mean() for f in (features(True), changed))
    assert torch.equal(one[:, :2], other[:, :2])
    assert not torch.equal(one[:, 2], other[:, 2])


def test_the_convolution_begins_at_zero_and_stays_within_a_token() -> None:
    network = MoiraiMoE(CONFIG)
    assert network.exchange is not None
    assert torch.equal(network.exchange(raw(), features(True)), raw())
    network.exchange.second.weight.data.normal_()
    changed = raw()
    changed[0, 0, 0, 0] += 1
    one, other = (network.exchange(x, features(True)) for x in (raw(), changed))
    assert torch.equal(one[1:], other[1:])
    assert not torch.equal(one[0, 1], other[0, 1]), "points of other patches hear of it"


def test_references_need_locations() -> None:
    with pytest.raises(ConfigError, match="student_t"):
        ModelConfig.preset("tiny", reference_periods=1, mixture=("log_normal",))
