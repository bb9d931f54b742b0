"""Views earn their weights on the end of a context, from what comes before it alone."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from moirai_moe_forecaster.data.series import Series
from moirai_moe_forecaster.inference import view_weights
from moirai_moe_forecaster.inference.batching import Load
from moirai_moe_forecaster.inference.seasonality.periods import Period
from moirai_moe_forecaster.inference.seasons import PLAIN, PROFILE, VIEW_KINDS, Seasons
from moirai_moe_forecaster.inference.view_weights import (
    SURE,
    Rule,
    detect_seasons,
    strengths,
    weigh,
)
from tiny_network import tiny_network

NETWORK = tiny_network(output_patches=2, find_seasons=True)
RULE = Rule(power=2.0, curve=0.0, prior=SURE - 1, growth=0.0, least=0.0)
HORIZON, TIME = 32, 400


def of(*losses: float, strength: float = 1.0, rule: Rule = RULE, passes: float = 1.0) -> np.ndarray:
    trust = np.array([1.0, strength, strength])[:, None]
    return weigh(np.array(losses, dtype=float)[:, None], trust, passes, rule)[:, 0]


class TestWeigh:
    def test_equal_losses_leave_the_prior(self) -> None:
        np.testing.assert_allclose(of(2, 2, 2), 1 / 3)
        half = 0.5 / (SURE - 0.5) * (SURE - 1)
        expected = np.array([1, half, half]) / (1 + 2 * half)
        np.testing.assert_allclose(of(2, 2, 2, strength=0.5), expected)

    def test_weights_fall_with_losses_in_any_unit(self) -> None:
        weights = of(2, 1, 4)
        np.testing.assert_allclose(weights / weights[1], [2**-2, 1, 4**-2])
        np.testing.assert_allclose(of(2e-300, 1e-300, 4e-300), weights)
        np.testing.assert_allclose(of(2e300, 1e300, 4e300), weights)

    def test_large_differences_count_more_than_their_share(self) -> None:
        bent = replace(RULE, curve=1.0)
        near, far = (of(loss, 1, loss, rule=bent)[1] for loss in (1.1, 5))
        assert near == pytest.approx(of(1.1, 1, 1.1)[1], abs=0.01)
        assert far > of(5, 1, 5)[1] + 0.05

    def test_weights_go_to_nothing_with_the_strength(self) -> None:
        trust = np.ones((3, 1001))
        trust[1:] = np.linspace(0, 1, 1001)
        weights = weigh(np.ones((3, 1001)), trust, 5.0)
        np.testing.assert_array_equal(weights[:, 0], [1, 0, 0])
        assert weights[0, -1] < 0.6
        assert np.abs(np.diff(weights)).max() < 0.02
        assert (np.diff(weights[0]) <= 0).all()
        np.testing.assert_allclose(weights.sum(0), 1)

    def test_a_perfect_view_takes_all(self) -> None:
        np.testing.assert_allclose(of(1, 0, 2), [0, 1, 0], atol=1e-12)
        np.testing.assert_allclose(of(0, 0, 0), 1 / 3)

    def test_without_a_hindcast_priors_decide(self) -> None:
        np.testing.assert_allclose(of(np.nan, np.nan, np.nan), 1 / 3)

    def test_far_horizons_favour_cycles(self) -> None:
        rule = replace(RULE, growth=0.5)
        near, far = (of(1, 1, 1, rule=rule, passes=passes)[0] for passes in (1, 9))
        assert far == pytest.approx(1 / 7)
        assert near == pytest.approx(1 / 3)

    def test_little_is_nothing(self) -> None:
        weights = of(1, 1, 3, rule=replace(RULE, least=0.1))
        assert weights[2] == 0
        assert weights.sum() == pytest.approx(1)


def cyclic(seed: int = 0, time: int = TIME, period: int = 24) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.normal(size=period)[np.arange(time) % period] + 0.1 * rng.normal(size=time)


def series_of(*variates: np.ndarray, future: np.ndarray | None = None) -> Series:
    target = np.stack(variates)
    known = np.empty((0, target.shape[1] + HORIZON)) if future is None else future[None]
    return Series(target, np.empty((0, target.shape[1])), known)


def seasons_of(*batch: Series, season_length: Any = "auto", regress: bool = False) -> list[Any]:
    load = Load(
        config=NETWORK.config, context_length=1024, horizon=HORIZON, paths=1, reestimated=False
    )
    return detect_seasons(NETWORK, batch, batch, load, season_length, regress=regress)


def test_one_period_gives_one_view_more_and_two_give_two() -> None:
    one = [[Period(24, 0.5)], []]
    np.testing.assert_array_equal(strengths(one), [[1, 1], [0, 0], [0.5, 0]])
    two = [[Period(24, 0.5), Period(168, 0.2)]]
    np.testing.assert_array_equal(strengths(two), [[1], [0.5], [0.5]])
    assert Seasons(one, np.ones((3, 2))).possible == [PLAIN, PROFILE]
    assert Seasons(two, np.ones((3, 1))).possible == [*VIEW_KINDS]


def test_every_variate_has_periods_and_weights_of_its_own() -> None:
    walk = np.random.default_rng(1).normal(size=TIME).cumsum()
    (seasons,) = seasons_of(series_of(cyclic(), walk, cyclic(2, period=37)))
    assert [[p.length for p in found] for found in seasons.periods] == [[24], [], [37]]
    np.testing.assert_allclose(seasons.weights.sum(0), 1)
    np.testing.assert_array_equal(seasons.weights[:, 1], [1, 0, 0])
    assert (seasons.weights[0, [0, 2]] < 1).all()


def test_a_series_has_the_same_weights_in_any_batch() -> None:
    batch = [series_of(cyclic(seed, 200 + 60 * seed)) for seed in range(5)]
    together = seasons_of(*batch)
    for series, seasons in zip(batch, together, strict=True):
        (alone,) = seasons_of(series)
        assert alone.periods == seasons.periods
        np.testing.assert_allclose(alone.weights, seasons.weights, atol=1e-4)


def test_named_periods_are_used_where_they_are_seen_twice() -> None:
    short, long = series_of(cyclic(time=40)), series_of(cyclic())
    found = seasons_of(short, long, season_length=(24, 100))
    assert [[p.length for p in seasons.periods[0]] for seasons in found] == [[], [24, 100]]
    assert seasons_of(long, season_length=None)[0].periods == [[]]


def test_named_periods_count_more_than_found_ones_of_short_series() -> None:
    series = series_of(cyclic(time=60))
    (found,), (named,) = (seasons_of(series, season_length=length) for length in ("auto", (24,)))
    assert found.weights[-1, 0] < 0.2
    assert named.weights[-1, 0] == pytest.approx(0.5)


def test_a_named_period_must_be_observed_twice() -> None:
    values = cyclic()
    values[:-40] = np.nan
    (seasons,) = seasons_of(series_of(values), season_length=(20, 24))
    assert [p.length for p in seasons.periods[0]] == [20]


@pytest.mark.parametrize("covariates", [False, True])
@pytest.mark.parametrize(("before", "after"), [(300, 0), (0, 150), (70, 30)])
def test_missing_ends_change_no_weight(before: int, after: int, covariates: bool) -> None:
    """A table's rows from before a series began, or from after its last value."""
    known = np.random.default_rng(0).normal(size=before + TIME + after + HORIZON)
    values = cyclic() + (2 * known[before : before + TIME] if covariates else 0)
    padded = np.pad(values, (before, after), constant_values=np.nan)
    (expected,), (seasons,) = (
        seasons_of(series_of(target, future=future if covariates else None), regress=True)
        for target, future in (
            (values, known[before : before + TIME + HORIZON]),
            (padded, known),
        )
    )
    assert seasons.periods == expected.periods
    assert expected.weights[0, 0] < 1
    np.testing.assert_allclose(seasons.weights, expected.weights, atol=1e-6)


def test_one_typing_error_hides_no_cycle() -> None:
    values = cyclic()
    (clean,) = seasons_of(series_of(values))
    values[-20] = 1e6
    (wrong,) = seasons_of(series_of(values))
    np.testing.assert_allclose(wrong.weights, clean.weights, atol=0.1)


def test_a_stretch_leaves_two_cycles_to_learn_from() -> None:
    """A named cycle of 140 in 320 points: a quarter of them would leave less than two."""
    values = cyclic(time=320, period=140)
    (seasons,) = seasons_of(series_of(values), season_length=(140,))
    assert seasons.weights[0, 0] < 0.5


@pytest.mark.parametrize("covariates", [False, True])
def test_no_hindcast_knows_what_it_forecasts(
    covariates: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Everything but the labels is found on what comes before: replaced ones change none of it."""
    rng = np.random.default_rng(0)
    known = rng.normal(size=TIME + HORIZON) if covariates else None
    values = cyclic() + (0 if known is None else 2 * known[:TIME])
    shown: list[Any] = []

    def remembered(network: Any, hindcasts: Any, *args: Any, **limits: Any) -> list[np.ndarray]:
        shown.append(hindcasts)
        return [np.ones(1) for _ in hindcasts]

    monkeypatch.setattr(view_weights, "hindcast_losses", remembered)
    seasons_of(series_of(values, future=known), regress=covariates)
    steps = shown[0][0].stretch * NETWORK.config.patch_size
    replaced = values.copy()
    replaced[-steps:] += 5 * rng.normal(size=steps)
    seasons_of(series_of(replaced, future=known), regress=covariates)
    assert [len(hindcasts) for hindcasts in shown] == [2, 2]
    for before, after in zip(*shown, strict=True):
        one, other = (part.series.target[0] for part in (before, after))
        np.testing.assert_array_equal(one[:-steps], other[:-steps])
        np.testing.assert_array_equal(before.scale, after.scale)
        # and what was taken out of the labels is the same too
        np.testing.assert_allclose(
            (other - one)[-steps:] * after.scale[0], (replaced - values)[-steps:], atol=1e-9
        )
