"""Windows of own series look like forecasts: their context ends with a patch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from moirai_moe_forecaster.data.series import Series
from moirai_moe_forecaster.errors import InvalidInputError
from moirai_moe_forecaster.inference.batching import Load
from moirai_moe_forecaster.inference.covariates import split_residuals
from moirai_moe_forecaster.inference.pipeline import MoiraiMoEPipeline
from moirai_moe_forecaster.model.tokens import TokenBatch
from moirai_moe_forecaster.training.data.packing import TrainingBatch
from moirai_moe_forecaster.tuning.held_out import split_by_time
from moirai_moe_forecaster.tuning.series_batches import SeriesBatches
from tiny_network import OFFICIAL_CONVENTIONS, tiny_network


def series(length: int, targets: int = 1, past: int = 0, future: int = 0) -> Series:
    rng = np.random.default_rng(length)
    return Series(*(rng.normal(size=(count, length)) for count in (targets, past, future)))


def windows(*items: Series, **changes: Any) -> SeriesBatches:
    conventions = changes.pop("conventions", {})
    config = tiny_network(**conventions).config
    options: dict[str, Any] = {
        "batch_size": 8,
        "context_length": 512,
        "horizon": 24,
        "regress": config.shift_known_future,
        "series_balance": 0.5,
        "seed": 0,
    }
    return SeriesBatches(items, config, **{**options, **changes})


def shown(made: SeriesBatches, step: int, **conventions: Any) -> TrainingBatch:
    return made.batch(step, tiny_network(**conventions))


def driven(length: int) -> Series:
    """A series of which a known-future covariate explains nearly all, with a past one."""
    rng = np.random.default_rng(length)
    known = rng.normal(size=(1, length))
    wave = np.sin(np.arange(length) / 3) + 0.1 * rng.normal(size=length)
    return Series(9 * known + wave, rng.normal(size=(1, length)), known)


@pytest.mark.parametrize("length", [3, 5, 15, 16, 17, 40, 300])
def test_every_length_has_something_to_score(length: int) -> None:
    made = windows(series(length))
    for step in range(5):
        tokens, weights = shown(made, step)
        scored = weights > 0
        assert scored.any()
        assert (tokens.observed | ~scored).all()
        # what is scored begins with a patch, so that a whole context comes before
        assert scored[scored.any(-1)][:, 0].all()


@pytest.mark.parametrize("shift", [True, False])
def test_covariates_that_enter_as_tokens_bear_no_loss(shift: bool) -> None:
    conventions = {"shift_known_future": shift}
    item = series(100, targets=2, past=1, future=1)
    made = windows(item, regress=False, conventions=conventions)
    tokens, weights = shown(made, 0, **conventions)
    scored = (weights > 0).any(-1)
    assert set(tokens.variate_id[scored].tolist()) == {0, 1}
    present = tokens.sample_id > 0
    assert set(tokens.variate_id[present].tolist()) == {0, 1, 2, 3}
    assert set(tokens.variate_id[tokens.known_future].tolist()) == {3}
    assert tokens.time_id[tokens.known_future].min() == (-1 if shift else 0)


def test_a_window_is_what_a_forecast_from_its_context_shows_the_network(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    length = 200
    item = driven(length)
    made = windows(item, batch_size=1)
    batches = (shown(made, step) for step in range(100))
    tokens, weights = next(b for b in batches if b.tokens.observed.sum() == 2 * length)
    horizon = int((weights > 0).sum())
    context = length - horizon
    network, prompts = tiny_network(), list[TokenBatch]()
    encode = type(network).encode

    def remembered(self: Any, given: TokenBatch, *rest: Any, **options: Any) -> Any:
        prompts.append(given)
        return encode(self, given, *rest, **options)

    with monkeypatch.context() as patch:
        patch.setattr(type(network), "encode", remembered)
        MoiraiMoEPipeline(network).predict(
            item.target[0, :context],
            horizon,
            past_covariates=item.past[:, :context].T,
            future_covariates=item.future.T,
            random_state=0,
        )
    (judged, prompt) = prompts[:2]
    assert judged.values.shape[0] == 2
    assert set(tokens.variate_id[tokens.sample_id > 0].tolist()) == {0, 1}
    assert not tokens.known_future.any()
    patches = prompt.values.shape[1] // 2
    for variate in range(2):
        own = (tokens.variate_id[0] == variate) & (tokens.sample_id[0] > 0)
        for mine, theirs in zip(tokens, prompt, strict=True):
            expected = theirs[0, variate * patches : (variate + 1) * patches]
            torch.testing.assert_close(mine[0, own][:patches], expected, rtol=1e-5, atol=1e-5)
    # what follows the context has lost the effect that is added to the forecast
    (rest,), (effect,) = split_residuals(
        network,
        [Series(item.target[:, :context], item.past[:, :context], item.future)],
        Load(
            config=network.config,
            context_length=context,
            horizon=horizon,
            paths=1,
            reestimated=False,
        ),
    )
    left = item.target[0, context:] - effect[0]
    unit = (left - rest.target.mean()) / rest.target.std(ddof=1)
    following = tokens.values[0, (tokens.variate_id[0] == 0) & (tokens.sample_id[0] > 0)][patches:]
    np.testing.assert_allclose(following.flatten()[:horizon], unit, rtol=1e-3, atol=1e-4)
    assert np.abs(left).max() < 0.3 * np.abs(item.target).max()


def test_without_covariates_that_are_known_ahead_the_network_is_not_asked() -> None:
    item = series(90, targets=2, past=1)
    made = windows(item)
    for one, two in zip(
        made.batch(1, tiny_network(0)).tokens, made.batch(1, tiny_network(1)).tokens, strict=True
    ):
        assert one.equal(two)


def test_covariates_that_explain_nothing_leave_a_window_as_it_is() -> None:
    item = series(150, future=1)
    item.future[:] = 7
    alone = windows(item._replace(future=item.future[:0]))
    for one, two in zip(shown(windows(item), 2).tokens, shown(alone, 2).tokens, strict=True):
        assert one.equal(two)


@pytest.mark.parametrize("length", [3, 5, 15, 40])
def test_short_series_with_covariates_and_gaps(length: int) -> None:
    item = driven(length)
    item.target[0, 1] = item.future[0, :2] = np.nan
    several = Series(np.concatenate((item.target, np.full((1, length), np.nan))), *item[1:])
    for step in range(3):
        tokens, weights = shown(windows(item, several, series(length)), step)
        assert tokens.values.isfinite().all()
        assert (weights > 0).any()


def test_batches_depend_on_seed_and_step_alone() -> None:
    made, again = (windows(series(60), series(90)) for _ in range(2))
    shown(made, 0)
    for one, two in zip(shown(made, 3).tokens, shown(again, 3).tokens, strict=True):
        assert one.equal(two)
    assert not shown(made, 3).tokens.values.equal(shown(made, 4).tokens.values)


def test_windows_stay_within_the_context_length_and_rows_within_their_limit() -> None:
    tokens, _ = shown(windows(series(900), context_length=64), 0)
    assert tokens.time_id.max() <= 64 // 16 + 1
    wide, _ = shown(windows(series(400, targets=200), batch_size=1), 0)
    assert wide.sample_id.shape[1] <= 2048


def test_short_series_make_larger_batches() -> None:
    automatic = {"batch_size": None}
    long = windows(series(500), **automatic)
    short = windows(series(40), **automatic)
    assert long.batch_size == 33
    assert short.batch_size == 256
    with_tokens = windows(driven(150), **automatic, regress=False)
    assert windows(driven(150), **automatic).batch_size > with_tokens.batch_size


def test_official_checkpoints_get_filled_values() -> None:
    gap = series(80)
    gap.target[0, 20:40] = np.nan
    official = {"d_model": 64, "num_heads": 1, **OFFICIAL_CONVENTIONS}
    tokens, _ = shown(windows(gap, conventions=official), 0, **official)
    inside = tokens.observed.any(-1) & (tokens.sample_id > 0)
    assert tokens.values[inside].abs().max() < 10


def test_filled_values_are_shown_and_not_learned() -> None:
    gap = series(80)
    gap.target[0, ::2] = np.nan
    official = {"d_model": 64, "num_heads": 1, **OFFICIAL_CONVENTIONS}
    options = {"series_balance": 0.0}
    batch = shown(windows(gap, conventions=official, **options), 0, **official)
    ours = shown(windows(gap, **options), 0)
    assert batch.tokens.observed.sum() > 1.5 * ours.tokens.observed.sum()
    assert torch.equal(batch.weights > 0, ours.weights > 0)


def test_nothing_is_learned_from_a_context_that_is_filled_from_what_follows() -> None:
    sparse = series(300)
    sparse.target[0, np.setdiff1d(np.arange(300), [31, 131, 231])] = np.nan
    official = {"d_model": 64, "num_heads": 1, **OFFICIAL_CONVENTIONS}
    made = windows(sparse, context_length=32, conventions=official)
    tokens, weights = shown(made, 0, **official)
    assert tokens.observed.any()
    assert not weights.any()


def test_around_a_long_gap_there_is_something_to_score() -> None:
    gap = series(2000)
    gap.target[0, 60:1960] = np.nan
    made = windows(gap, batch_size=16)
    assert all(shown(made, step).weights.any() for step in range(20))


def test_nothing_to_learn_from_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="three observed points"):
        windows(series(2))


def test_a_split_by_time_never_trains_on_what_it_validates_on() -> None:
    items = [series(length) for length in (3, 20, 100, 400)]
    training, held_out = split_by_time(items, 10, None, 512)
    assert [item.target.shape[1] for item in training] == [3, 10, 80, 320]
    assert len(held_out) == 1 + 2 + 8
    for window in held_out:
        assert window.label.shape == (1, 10)
        trained = next(t for t in training if t.target[0, 0] == window.series.target[0, 0])
        assert window.cut >= trained.target.shape[1]


def test_many_series_are_held_out_from_at_three_times_where_a_fifth_has_room() -> None:
    items = [series(length) for length in [60] * 30 + [200] * 70]
    training, held_out = split_by_time(items, 10, None, 512)
    assert [item.target.shape[1] for item in training] == [50] * 30 + [170] * 70
    assert len(held_out) == 30 + 3 * 70


def test_windows_after_a_long_gap_are_not_validated_on() -> None:
    gap = series(100)
    gap.target[0, 40:90] = np.nan
    _, held_out = split_by_time([series(100), gap], 10, 0.1, 48)
    assert len(held_out) == 1
    _, held_out = split_by_time([gap], 10, 0.1, 512)
    assert len(held_out) == 1


def test_labels_without_a_value_are_not_validated_on() -> None:
    item = series(40)
    item.target[0, -5:] = np.nan
    training, held_out = split_by_time([item], 5, None, 512)
    assert len(held_out) == 0
    assert training[0].target.shape[1] == 35
