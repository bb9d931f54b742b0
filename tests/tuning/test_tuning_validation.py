"""A gain counts if it holds whichever series there are."""

from __future__ import annotations

import numpy as np

from benchmark_sets.tasks import rolling_task, score_pipeline
from moirai_moe_forecaster.data.series import Series
from moirai_moe_forecaster.inference.pipeline import MoiraiMoEPipeline
from moirai_moe_forecaster.tuning.held_out import last_windows
from moirai_moe_forecaster.tuning.validation import Evaluation, WindowLosses, evaluate
from tiny_network import tiny_network


def losses(loss: list[float], scaled: list[float]) -> WindowLosses:
    return WindowLosses(loss=np.array(loss), size=np.ones(len(loss)), scaled=np.array(scaled))


def evaluation(step: int, wql: float, scaled: float) -> Evaluation:
    return Evaluation(step=step, wql=wql, scaled=scaled, coverage={})


def test_the_wql_is_that_of_the_evaluation() -> None:
    rng = np.random.default_rng(0)
    y = [rng.normal(size=60) + 5 for _ in range(3)]
    empty = np.empty((0, 60))
    windows = [w for x in y for w in last_windows(Series(x[None], empty, empty), 6, 2)]
    found, parts = evaluate(tiny_network(), windows, 6, None, 7)
    task = rolling_task("y", y, 1, 6, 2)
    expected = score_pipeline(MoiraiMoEPipeline(tiny_network()), task)
    np.testing.assert_allclose(found.wql, expected.wql)
    assert found.step == 7
    assert len(parts.loss) == 6


def test_a_gain_of_all_rows_is_certain_and_one_of_a_single_row_is_not() -> None:
    zero = losses([1.0] * 40, [1.0] * 40)
    assert losses([0.99] * 40, [0.99] * 40).better_than(zero) == 1
    assert zero.better_than(zero) == 0
    # one large series gains a lot, the others lose a little: half of the samples lack it
    giant, tuned = losses([60.0] + [1.0] * 39, [1.0] * 40), losses([50.0] + [1.01] * 39, [1.0] * 40)
    assert tuned.loss.sum() < 0.95 * giant.loss.sum()
    assert 0.4 < tuned.better_than(giant) < 0.9


def test_both_losses_count_and_a_perfect_or_undefined_one_is_left_out() -> None:
    zero, other = evaluation(0, 0.2, 1.0), evaluation(1, 0.1, 2.0)
    assert other.relative_to(zero) == 1
    assert evaluation(1, 0.1, float("nan")).relative_to(zero) == 0.5


def test_windows_after_constant_contexts_are_judged_by_their_wql() -> None:
    better, worse = (losses([loss] * 40, [np.nan] * 40) for loss in (0.8, 1.0))
    assert better.better_than(worse) == 1.0
    assert worse.better_than(better) == 0.0
