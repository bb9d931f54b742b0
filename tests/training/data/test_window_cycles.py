from __future__ import annotations

import numpy as np
import torch

from moirai_moe_forecaster.training.data.window_cycles import LOST_SHARE, WRONG_SHARE, prefix_cycles


def waves(rows: int) -> torch.Tensor:
    time = torch.arange(240.0)
    noise = torch.randn(240, generator=torch.Generator().manual_seed(1))
    return (torch.sin(2 * torch.pi * time / 12) + 0.1 * noise).repeat(rows, 1)


def test_cycles_are_those_of_the_prefix() -> None:
    values = waves(2)
    values[:, 120:] = torch.randn(2, 120, generator=torch.Generator().manual_seed(0))
    found = prefix_cycles(values, np.array([120, 0]), 2, None)
    assert found.length.tolist() == [[12, 0], [0, 0]]
    assert found.strength[0, 0] > 0.5


def test_some_cycles_are_lost_and_some_are_wrong() -> None:
    uniforms = np.random.default_rng(0).random((400, 2))
    found = prefix_cycles(waves(400), np.full(400, 240), 1, uniforms).length[:, 0]
    lost = (found == 0).float().mean().item()
    wrong = ((found != 0) & (found != 12)).float().mean().item()
    assert abs(lost - LOST_SHARE) < 0.05
    assert 0.5 * WRONG_SHARE < wrong < 1.5 * WRONG_SHARE
    assert found[found > 0].min() >= 2
