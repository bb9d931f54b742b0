"""Which weights of a fine-tuning are kept."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from moirai_moe_forecaster.config import TrainConfig
from moirai_moe_forecaster.tuning.run_state import RunState
from moirai_moe_forecaster.tuning.validation import Evaluation, WindowLosses


def evaluation(step: int, loss: float) -> Evaluation:
    return Evaluation(step=step, wql=loss, scaled=loss, coverage={})


def rows(loss: np.ndarray) -> WindowLosses:
    return WindowLosses(loss=loss, size=np.ones(40), scaled=loss)


def run_state(**found: Any) -> RunState:
    state: Any = SimpleNamespace(trained={}, step=50)
    return RunState(state=state, training=TrainConfig(steps=50), settings={}, **found)


def losses(mean: float) -> WindowLosses:
    """Rows that all agree, so that bootstrap samples see any difference."""
    return rows(np.full(40, mean))


@pytest.mark.parametrize(("loss", "kept"), [(0.80, True), (0.807, True), (0.81, False)])
def test_weights_nearer_to_zero_shot_may_lose_one_per_cent(loss: float, kept: bool) -> None:
    history = [evaluation(0, 1.0), evaluation(50, 0.8)]
    run = run_state(history=history, best_step=50, best_losses=losses(0.8))
    assert run.no_worse(evaluation(50, loss), losses(loss)) is kept


@pytest.mark.parametrize(
    ("gains", "kept"),
    [
        (np.full(40, 0.01), True),
        # less than half a per cent
        (np.full(40, 0.002), False),
        # as much in all as the first, in a single row
        (np.eye(40)[0] * 0.4, False),
    ],
    ids=["all", "small", "one"],
)
def test_a_gain_must_be_large_and_likely(gains: np.ndarray, kept: bool) -> None:
    run = run_state()
    run.add(evaluation(0, 1.0), losses(1.0))
    run.add(evaluation(50, 1 - float(gains.mean())), rows(1 - gains))
    assert (run.best_step == 50) is kept


def test_patience_counts_regular_evaluations_after_the_best() -> None:
    history = [evaluation(step, 1.0) for step in (0, 12, 25, 50, 100, 150)]
    assert run_state(history=history).since_best(50) == 3
    assert run_state(history=history, best_step=25).since_best(50) == 3
    assert run_state(history=history, best_step=100).since_best(50) == 1
