"""Windows of own series look like forecasts: their context ends with a patch."""

from __future__ import annotations

import numpy as np
import pytest

from moirai_moe_forecaster.errors import InvalidInputError
from moirai_moe_forecaster.inference.series import Series
from moirai_moe_forecaster.training.held_out import split_by_time
from moirai_moe_forecaster.training.own_windows import OwnWindows
from tiny_network import OFFICIAL_CONVENTIONS, tiny_config


def series(length: int, targets: int = 1, past: int = 0, future: int = 0) -> Series:
    rng = np.random.default_rng(length)
    return Series(*(rng.normal(size=(count, length)) for count in (targets, past, future)))


def windows(*items: Series, **changes: int) -> OwnWindows:
    options = {"batch_size": 8, "context_length": 512, "series_balance": 0.5, "seed": 0}
    return OwnWindows(items, tiny_config(), **{**options, **changes})  # type: ignore[arg-type]


@pytest.mark.parametrize("length", [3, 5, 15, 16, 17, 40, 300])
def test_every_length_has_something_to_score(length: int) -> None:
    made = windows(series(length))
    for step in range(5):
        tokens, weights = made.batch(step)
        scored = weights > 0
        assert scored.any()
        assert (tokens.observed | ~scored).all()
        # what is scored begins with a patch, so that a whole context comes before
        assert scored[scored.any(-1)][:, 0].all()


def test_covariates_enter_and_bear_no_loss() -> None:
    tokens, weights = windows(series(100, targets=2, past=1, future=1)).batch(0)
    scored = (weights > 0).any(-1)
    assert set(tokens.variate_id[scored].tolist()) == {0, 1}
    present = tokens.sample_id > 0
    assert set(tokens.variate_id[present].tolist()) == {0, 1, 2, 3}
    assert set(tokens.variate_id[tokens.known_future].tolist()) == {3}
    assert tokens.time_id[tokens.known_future].min() == -1


def test_batches_depend_on_seed_and_step_alone() -> None:
    made, again = (windows(series(60), series(90)) for _ in range(2))
    made.batch(0)
    for one, two in zip(made.batch(3).tokens, again.batch(3).tokens, strict=True):
        assert one.equal(two)
    assert not made.batch(3).tokens.values.equal(made.batch(4).tokens.values)


def test_windows_stay_within_the_context_length_and_rows_within_their_limit() -> None:
    tokens, _ = windows(series(900), context_length=64).batch(0)
    assert tokens.time_id.max() <= 64 // 16 + 1
    wide, _ = windows(series(400, targets=200), batch_size=1).batch(0)
    assert wide.sample_id.shape[1] <= 2048


def test_short_series_make_larger_batches() -> None:
    automatic = {"batch_size": None}
    long = windows(series(500), **automatic)  # type: ignore[arg-type]
    short = windows(series(40), **automatic)  # type: ignore[arg-type]
    assert long.batch_size == 33
    assert short.batch_size == 256


def test_official_checkpoints_get_filled_values() -> None:
    gap = series(80)
    gap.target[0, 20:40] = np.nan
    config = tiny_config(d_model=64, num_heads=1, **OFFICIAL_CONVENTIONS)
    tokens, _ = OwnWindows([gap], config, 8, 512, 0.5, 0).batch(0)
    inside = tokens.observed.any(-1) & (tokens.sample_id > 0)
    assert tokens.values[inside].abs().max() < 10


def test_nothing_to_learn_from_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="three observed points"):
        windows(series(2))


def test_a_split_by_time_never_trains_on_what_it_validates_on() -> None:
    items = [series(length) for length in (3, 20, 100, 400)]
    training, held_out = split_by_time(items, 10, None)
    assert [item.target.shape[1] for item in training] == [3, 10, 80, 320]
    assert len(held_out) == 1 + 2 + 8
    for window in held_out:
        assert window.label.shape == (1, 10)
        trained = next(t for t in training if t.target[0, 0] == window.series.target[0, 0])
        assert window.cut >= trained.target.shape[1]


def test_many_series_are_held_out_from_at_three_times_where_a_fifth_has_room() -> None:
    items = [series(length) for length in [60] * 30 + [200] * 70]
    training, held_out = split_by_time(items, 10, None)
    assert [item.target.shape[1] for item in training] == [50] * 30 + [170] * 70
    assert len(held_out) == 30 + 3 * 70


def test_labels_without_a_value_are_not_validated_on() -> None:
    item = series(40)
    item.target[0, -5:] = np.nan
    training, held_out = split_by_time([item], 5, None)
    assert len(held_out) == 0
    assert training[0].target.shape[1] == 35
