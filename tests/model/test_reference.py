from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from moirai_moe_forecaster import ModelConfig
from moirai_moe_forecaster.model.reference import (
    DECAY,
    Cycles,
    Reference,
    patch_references,
    reference,
    reference_width,
    split_reference,
)

CONFIG = ModelConfig.preset("tiny", patch_size=4, output_patches=2, reference_periods=2)
AHEAD = 8


def cycles(*lengths: int) -> Cycles:
    return Cycles(torch.tensor([lengths]), torch.full((1, len(lengths)), 0.5))


def of_last(signal: Tensor, seen: Tensor, periods: Cycles, end: int | None = None) -> Reference:
    """Reference of one token that ends at `end`."""
    stop = signal.shape[1] if end is None else end
    row, ends = torch.tensor([0]), torch.tensor([stop])
    return split_reference(reference(signal, seen, periods, row, ends, AHEAD), CONFIG)


@pytest.mark.parametrize("period", [1, 3, 5, 8, 11])
def test_the_last_cycle_is_repeated(period: int) -> None:
    signal = torch.randn(1, 24, generator=torch.Generator().manual_seed(0))
    found = of_last(signal, torch.ones(1, 24, dtype=torch.bool), cycles(period, 0))
    expected = [signal[0, 24 - period + step % period] for step in range(AHEAD)]
    assert found.values[0, 0].tolist() == expected


def test_what_repeats_exactly_is_its_own_mean_cycle() -> None:
    signal = torch.randn(5, generator=torch.Generator().manual_seed(0)).repeat(6)[None]
    found = of_last(signal, torch.ones_like(signal, dtype=torch.bool), cycles(5, 0))
    torch.testing.assert_close(found.values[0, 1], found.values[0, 0])


def test_a_mean_cycle_forgets_and_passes_over_what_is_missing() -> None:
    signal = torch.arange(12.0)[None]
    seen = torch.ones(1, 12, dtype=torch.bool)
    seen[0, 8] = False
    found = of_last(signal, seen, cycles(4, 0))
    assert found.values[0, 0, :2].tolist() == [4.0, 9.0]
    mean = (DECAY * 4 + DECAY**2 * 0) / (DECAY + DECAY**2)
    assert found.values[0, 1, 0].item() == pytest.approx(mean)


def test_a_token_sees_nothing_after_its_end() -> None:
    signal = torch.randn(1, 32, generator=torch.Generator().manual_seed(0))
    seen = torch.ones(1, 32, dtype=torch.bool)
    changed = torch.cat((signal[:, :16], signal[:, 16:] + 100), 1)
    one, other = (of_last(x, seen, cycles(3, 7), 16) for x in (signal, changed))
    assert torch.equal(one.values, other.values)


def test_without_a_period_nothing_is_known() -> None:
    signal = torch.randn(1, 16)
    found = of_last(signal, torch.ones(1, 16, dtype=torch.bool), cycles(4, 0))
    assert found.known[0, :2].all()
    assert not found.known[0, 2:].any()
    assert not found.values[0, 2:].any()
    assert found.facts.tolist() == [[0.5, pytest.approx(math.log(4)), 0.0, 0.0]]


def test_a_period_longer_than_the_past_is_known_as_far_as_it_reaches() -> None:
    signal = torch.arange(6.0)[None]
    found = of_last(signal, torch.ones(1, 6, dtype=torch.bool), cycles(9, 0))
    assert found.known[0, 0].tolist() == [False] * 3 + [True] * 5
    assert found.values[0, 0, 3:].tolist() == [0.0, 1.0, 2.0, 3.0, 4.0]


def test_patches_of_signals_have_their_own_references() -> None:
    signal = torch.randn(2, 12, generator=torch.Generator().manual_seed(0))
    seen = torch.ones(2, 12, dtype=torch.bool)
    periods = Cycles(torch.tensor([[2, 0], [5, 3]]), torch.rand(2, 2))
    found = patch_references(signal, seen, periods, range(1, 3), 4, AHEAD)
    assert found.shape == (2, 2, reference_width(CONFIG))
    own = Cycles(periods.length[1:], periods.strength[1:])
    one = reference(signal[1:], seen[1:], own, torch.tensor([0]), torch.tensor([8]), AHEAD)
    assert torch.equal(found[1, 0].nan_to_num(), one[0].nan_to_num())


def test_networks_without_references_have_no_features() -> None:
    assert reference_width(ModelConfig.preset("tiny")) == 0
    none = Cycles(torch.zeros(2, 0, dtype=torch.long), torch.zeros(2, 0))
    signal = torch.randn(2, 8)
    assert patch_references(signal, signal > 0, none, range(2), 4, AHEAD).shape == (2, 2, 0)
