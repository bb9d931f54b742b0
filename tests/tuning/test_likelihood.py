"""The likelihood that fine-tuning through Darts minimises is that of the rollout itself."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from moirai_moe_forecaster.data.series import Series
from moirai_moe_forecaster.inference.prompt import make_prompt
from moirai_moe_forecaster.inference.rollout import frozen_rollout
from moirai_moe_forecaster.model.distribution.mixture import Mixture
from moirai_moe_forecaster.tuning.likelihood import continuation_losses
from tiny_network import OFFICIAL_CONVENTIONS, tiny_network

HORIZON = 75


def group(lengths: tuple[int, ...], targets: int = 2, past: int = 1, future: int = 1) -> list:
    rng = np.random.default_rng(0)
    return [
        Series(
            *(
                rng.normal(size=shape).cumsum(1)
                for shape in ((targets, length), (past, length), (future, length + HORIZON))
            )
        )
        for length in lengths
    ]


def continuation(series: list[Series]) -> torch.Tensor:
    rng = np.random.default_rng(1)
    return torch.from_numpy(rng.normal(size=(len(series), len(series[0].target), HORIZON)))


@pytest.mark.parametrize(
    "conventions", [{}, {"output_patches": 2}, OFFICIAL_CONVENTIONS], ids=["one", "two", "official"]
)
def test_the_factors_are_those_of_a_rollout_that_drew_the_truth(conventions: Any) -> None:
    network = tiny_network(**conventions)
    series = group((96, 70))
    future = continuation(series)
    losses, scored = continuation_losses(network, series, future)

    size = network.config.patch_size * network.config.output_patches
    prompt = make_prompt(series, HORIZON, network.config, 96)
    blocks = -(-HORIZON // size)
    truth = torch.zeros(*future.shape[:2], blocks * size)
    truth[..., :HORIZON] = prompt.normaliser.standardise(future)
    parts = truth.unflatten(2, (blocks, network.config.output_patches, -1))

    def draw(block: int, mixture: Mixture) -> torch.Tensor:
        return parts[:, None, :, block]

    expected = [
        -block.mixture.log_prob(block.draws)[:, 0].flatten(2)
        for block in frozen_rollout(network, prompt, blocks, draw)
    ]
    expected = torch.cat(expected, -1)[..., :HORIZON]
    assert scored.all()
    torch.testing.assert_close(losses, expected, rtol=1e-4, atol=1e-4)


def test_what_is_missing_is_neither_scored_nor_seen() -> None:
    network = tiny_network()
    series = group((64, 64), targets=1, past=0, future=0)
    future = continuation(series)
    future[0, 0, 20] = torch.nan
    losses, scored = continuation_losses(network, series, future)
    assert not scored[0, 0, 20]
    assert scored.sum() == scored.numel() - 1
    assert losses[0, 0, 20] == 0
    assert losses.isfinite().all()


def test_a_target_without_a_context_and_outliers_bear_no_loss() -> None:
    network = tiny_network()
    series = group((64,), targets=2, past=0, future=0)
    series[0].target[1] = np.nan
    future = continuation(series)
    future[0, 0, 3] = 1e9
    losses, scored = continuation_losses(network, series, future)
    assert not scored[0, 1].any()
    assert not scored[0, 0, 3]
    assert losses.isfinite().all()


def test_later_values_do_not_change_the_losses_before_them() -> None:
    network = tiny_network()
    series = group((64,))
    future = continuation(series)
    before, _ = continuation_losses(network, series, future)
    future[..., 40:] += 1
    after, _ = continuation_losses(network, series, future)
    torch.testing.assert_close(before[..., :40], after[..., :40])
    assert not torch.allclose(before[..., 48:], after[..., 48:])
