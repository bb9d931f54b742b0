"""One step follows its learning rate, its clipping and its weight decay."""

from __future__ import annotations

from dataclasses import replace

import torch
from test_pretrain import ALONE, MODEL, TRAINING, waves

from moirai_moe_forecaster.config import TrainConfig
from moirai_moe_forecaster.training.data.batches import BatchMaker
from moirai_moe_forecaster.training.objective import micro_batch
from moirai_moe_forecaster.training.state import new_state
from moirai_moe_forecaster.training.step import train_step


def changes(training: TrainConfig, rate: float) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """The parameters before a first step, and by how much it changed them."""
    state = new_state(MODEL, training, ALONE, None)
    before = {name: value.detach().clone() for name, value in state.network.named_parameters()}
    batch = micro_batch(BatchMaker(waves(), MODEL, training).batch(0), MODEL.output_patches)
    train_step(state, [batch], training, rate, ALONE)
    after = dict(state.network.named_parameters())
    return {name: (value, after[name].detach() - value) for name, value in before.items()}


def test_the_first_step_of_adam_is_as_long_as_the_learning_rate() -> None:
    training = replace(TRAINING, weight_decay=0.0)
    for _, change in changes(training, rate=1e-4).values():
        assert change.abs().max() < 1.001e-4
    _, change = changes(training, rate=1e-4)["projection.bias"]
    torch.testing.assert_close(change.abs().median(), torch.tensor(1e-4), rtol=0.01, atol=0)


def test_gradients_are_clipped() -> None:
    """To less than the number that Adam adds to their root mean square, which then rules."""
    training = replace(TRAINING, weight_decay=0.0, clip_norm=1e-12)
    for _, change in changes(training, rate=1e-4).values():
        assert change.abs().max() < 1e-7


def test_weights_of_matrices_decay_and_others_do_not() -> None:
    training = replace(TRAINING, weight_decay=100.0, clip_norm=1e-12)
    decayed = {}
    for name, (before, change) in changes(training, rate=1e-3).items():
        share = -(change * before).sum() / before.square().sum().clamp_min(1e-30)
        decayed[name] = round(float(share), 2)
    assert decayed.pop("projection.weight") == 0.1
    still = {name for name, share in decayed.items() if share == 0}
    ends = ("bias", "norm.weight", "embedding.known_future")
    assert still == {name for name in decayed if name.endswith(ends)}
    assert set(decayed.values()) == {0.0, 0.1}
