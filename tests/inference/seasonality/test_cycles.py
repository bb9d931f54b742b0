"""The shape of a cycle is learnt whatever lies beside it."""

from __future__ import annotations

import numpy as np
import pytest

from moirai_moe_forecaster.inference.seasonality.cycles import cycle_shape, find_cycles

PERIOD, TIME, AHEAD = 24, 24 * 9 + 7, 30


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape)


def table(period: int = PERIOD, seed: int = 0) -> np.ndarray:
    """One repetition of a cycle without a formula, around 0."""
    values = noise(period, seed=seed)
    return values - values.mean()


def repeated(values: np.ndarray, time: int = TIME, ahead: int = 0) -> np.ndarray:
    """A table of values over and over; its first value follows the end."""
    return values[np.arange(-time, ahead) % len(values)]


@pytest.mark.parametrize("slope", [0.0, 0.3, -2.0])
def test_a_cycle_on_a_line_is_found_exactly(slope: float) -> None:
    values = 100 + slope * np.arange(TIME) + repeated(table())
    found = find_cycles(values, [PERIOD], AHEAD)
    np.testing.assert_allclose(found.first, repeated(table(), TIME, AHEAD), atol=1e-9)
    np.testing.assert_array_equal(found.first, found.all)


def test_a_week_is_found_around_the_day() -> None:
    day, week = table(), table(7 * PERIOD, seed=1)
    time = 7 * PERIOD * 6
    # what a week adds to its days is not itself daily
    week = week - repeated(week.reshape(7, PERIOD).mean(0), 7 * PERIOD)
    values = repeated(day, time) + repeated(week, time)
    found = find_cycles(values, [PERIOD, 7 * PERIOD], AHEAD)
    expected = repeated(day, time, AHEAD) + repeated(week, time, AHEAD)
    assert np.corrcoef(found.all, expected)[0, 1] > 0.97
    assert np.corrcoef(found.first, expected)[0, 1] < 0.9


def test_shifts_and_scales_of_either_sign_pass_through() -> None:
    values = repeated(table()) + noise(TIME, seed=2)
    plain = find_cycles(values, [PERIOD], AHEAD)
    for scale, shift in ((1e6, 3.0), (-1e-6, 1.0), (-2.0, -5e3), (1e300, 0.0), (-1e-300, 0.0)):
        found = find_cycles(scale * values + shift, [PERIOD], AHEAD)
        np.testing.assert_allclose(found.first, scale * plain.first, rtol=1e-6)
        np.testing.assert_allclose(found.spread, plain.spread, rtol=1e-6)
        assert found.level == pytest.approx(scale * plain.level + shift)


def test_nights_without_anything_stay_nights() -> None:
    """Days of very different height, all of them dark at night."""
    heights = np.exp(noise(9, seed=3))[:, None]
    profile = np.maximum(np.sin(np.arange(PERIOD) / PERIOD * 2 * np.pi), 0)
    values = (heights * profile).ravel()
    found = find_cycles(values, [PERIOD], PERIOD)
    night = profile == 0
    rest = (values - found.first[: len(values)]).reshape(-1, PERIOD)[:, night]
    np.testing.assert_allclose(rest, found.level, atol=1e-9)
    assert found.spread[-PERIOD:][night].max() < 0.3
    assert found.spread[-PERIOD:][~night].max() > 1


@pytest.mark.parametrize("gaps", ["nights", "half a repetition", "at random"])
def test_missing_values_bend_no_shape(gaps: str) -> None:
    values = 10 + repeated(table())
    hidden = np.zeros(TIME, dtype=bool)
    if gaps == "nights":
        hidden = np.arange(-TIME, 0) % PERIOD < 6
    elif gaps == "half a repetition":
        hidden[50:62] = hidden[100:112] = True
    else:
        hidden = np.random.default_rng(0).random(TIME) < 0.3
    shape = cycle_shape(np.where(hidden, np.nan, values), PERIOD)
    known = np.array([not hidden[phase - PERIOD * 9 :: PERIOD].all() for phase in range(PERIOD)])
    difference = (shape - table())[known]
    np.testing.assert_allclose(difference, difference.mean(), atol=1e-9)


def test_an_outlier_bends_it_little() -> None:
    values = repeated(table())
    values[100] = 1e6
    assert np.abs(cycle_shape(values, PERIOD) - table()).max() < 1


def test_noise_is_hardly_believed() -> None:
    sizes = [np.std(cycle_shape(noise(TIME, seed=seed), PERIOD)) for seed in range(20)]
    assert np.mean(sizes) < 0.25
    clear = cycle_shape(repeated(table()) + noise(TIME) / 2, PERIOD)
    assert np.std(clear) > 0.9 * np.std(table())


def test_the_latest_repetitions_count_most_where_shapes_change() -> None:
    old, new = table(), table(seed=1)
    values = np.concatenate((repeated(old, 24 * 8), repeated(new, 24 * 4)))
    assert np.corrcoef(cycle_shape(values, PERIOD), new)[0, 1] > 0.95


@pytest.mark.parametrize("length", [0, 1, PERIOD, 2 * PERIOD - 1])
def test_fewer_than_two_repetitions_are_none(length: int) -> None:
    assert not cycle_shape(noise(length), PERIOD).any()
    found = find_cycles(noise(length), [PERIOD], AHEAD)
    assert not found.all.any()
    assert np.isfinite(found.spread).all()


def test_series_without_values_or_variation_have_no_shape() -> None:
    for values in (np.full(TIME, np.nan), np.full(TIME, 3.0)):
        found = find_cycles(values, [PERIOD], AHEAD)
        assert not found.all.any()
        np.testing.assert_array_equal(found.spread, 1.0)


@pytest.mark.parametrize("size", [1e-300, 1e200, 1e300])
def test_values_near_the_limits_of_their_type(size: float) -> None:
    values = repeated(table()) + noise(TIME, seed=2) / 4
    found = find_cycles(size * values, [PERIOD], AHEAD)
    plain = find_cycles(values, [PERIOD], AHEAD)
    np.testing.assert_allclose(found.all / size, plain.all, rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(found.spread, plain.spread, rtol=1e-6)
