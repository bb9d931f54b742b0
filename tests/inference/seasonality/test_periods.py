from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.signal import lfilter

from moirai_moe_forecaster.inference.seasonality.periods import (
    Period,
    find_all_periods,
    find_periods,
)

Array = NDArray[np.float64]
Rng = np.random.Generator


def table(rng: Rng, period: int, points: int) -> Array:
    values = rng.normal(size=period)
    return ((values - values.mean()) / values.std())[np.arange(points) % period]


def wave(shape: str, rng: Rng, period: float, points: int) -> Array:
    phase = (np.arange(points) / period + rng.random()) % 1
    if shape == "sine":
        return 2**0.5 * np.sin(2 * np.pi * phase)
    return 2.0 * (phase < 0.4) - 1 if shape == "square" else 12**0.5 * (phase - 0.5)


def day_and_week(rng: Rng, day: int, points: int) -> Array:
    week = np.repeat([0.0, 0.1, 0.2, 0.1, 0.3, 1.5, 2.0], day)[np.arange(points) % (7 * day)]
    return 2 * table(rng, day, points) + 1.5 * week + 0.3 * rng.normal(size=points)


def lengths(values: Array) -> list[int]:
    return [period.length for period in find_periods(values)]


def hit_rate(sample: Callable[[Rng], Array], period: float, times: int = 20) -> float:
    rng = np.random.default_rng(0)
    found = [lengths(sample(rng))[:1] for _ in range(times)]
    close = max(0.5, period / 100)
    return float(np.mean([bool(first) and abs(first[0] - period) <= close for first in found]))


# What is there is found


@pytest.mark.parametrize("noise", [0.1, 0.3])
@pytest.mark.parametrize("period", [2, 3, 5, 7, 12, 24, 37, 52, 96, 168, 288])
def test_random_tables_are_found(period: int, noise: float) -> None:
    points = 10 * period
    rate = hit_rate(
        lambda rng: table(rng, period, points) + noise * rng.normal(size=points), period
    )
    assert rate >= (0.95 if period > 2 else 0.9)


@pytest.mark.parametrize("shape", ["sine", "square", "saw"])
@pytest.mark.parametrize("period", [4, 7, 12, 24, 52, 168, 365.25, 1000])
def test_waves_are_found(shape: str, period: float) -> None:
    points = int(8 * period)
    rate = hit_rate(
        lambda rng: wave(shape, rng, period, points) + 0.3 * rng.normal(size=points), period, 10
    )
    assert rate >= 0.95


@pytest.mark.parametrize("period", [7, 24, 168])
def test_cycles_on_a_random_walk_are_found(period: int) -> None:
    points = 10 * period
    rate = hit_rate(
        lambda rng: table(rng, period, points) + 0.2 * rng.normal(size=points).cumsum(), period
    )
    assert rate >= 0.95


@pytest.mark.parametrize(("period", "points"), [(4, 28), (4, 60), (12, 60), (12, 140), (52, 200)])
def test_short_seasonal_series_with_a_trend(period: int, points: int) -> None:
    rate = hit_rate(
        lambda rng: (
            table(rng, period, points)
            + 0.2 * np.arange(points)
            + 0.001 * np.arange(points) ** 2
            + 0.2 * rng.normal(size=points)
        ),
        period,
    )
    assert rate >= 0.9


@pytest.mark.parametrize(("day", "points"), [(24, 700), (24, 2000), (48, 2000), (96, 4000)])
def test_weeks_of_days(day: int, points: int) -> None:
    rng = np.random.default_rng(0)
    assert all(lengths(day_and_week(rng, day, points))[:2] == [day, 7 * day] for _ in range(10))


def test_years_of_weeks() -> None:
    rng, points = np.random.default_rng(0), 2000
    for _ in range(5):
        year = wave("sine", rng, 365.25, points)
        found = lengths(year + table(rng, 7, points) + 0.3 * rng.normal(size=points))
        assert 7 in found
        assert any(abs(length - 365.25) <= 4 for length in found)


def test_no_multiple_divisor_or_neighbour_beside_the_period() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        assert lengths(table(rng, 24, 700) + 0.2 * rng.normal(size=700)) == [24]


# What stands in the way


def test_nights_missing() -> None:
    rng, points = np.random.default_rng(0), 144 * 12
    night = np.arange(points) % 144 < 36
    for _ in range(10):
        day = wave("saw", rng, 144, points) + 0.3 * rng.normal(size=points)
        assert lengths(np.where(night, np.nan, day))[:1] == [144]
        walk = 5 + rng.normal(size=points).cumsum()
        assert 144 not in lengths(np.where(night, np.nan, walk))


def spoilt(values: Array, rng: Rng, how: str) -> Array:
    points = len(values)
    values = values.copy()
    if how == "typing error":
        values[points // 3] *= 1e6
    elif how == "spikes":
        values[rng.choice(points, points // 50, replace=False)] += 30
    elif how == "level shift":
        values[points // 2 :] += 8
    elif how == "missing stretch":
        values[points // 4 : points // 2] = np.nan
    elif how == "a third missing":
        values[rng.random(points) < 0.3] = np.nan
    elif how == "bent trend":
        values += np.abs(np.arange(points) - 0.6 * points) * 20 / points
    return values


@pytest.mark.parametrize(
    "how",
    [
        "typing error",
        "spikes",
        "level shift",
        "missing stretch",
        "a third missing",
        "bent trend",
    ],
)
def test_spoilt_series(how: str) -> None:
    rate = hit_rate(
        lambda rng: spoilt(5 + table(rng, 24, 480) + 0.2 * rng.normal(size=480), rng, how), 24
    )
    assert rate >= 0.95


# What is not there is not found

NOISE: dict[str, Callable[[Rng, int], Array]] = {
    "white": lambda rng, n: rng.normal(size=n),
    "walk": lambda rng, n: rng.normal(size=n).cumsum(),
    "AR 0.9": lambda rng, n: lfilter([1], [1, -0.9], rng.normal(size=n + 200))[200:],
    "AR -0.5": lambda rng, n: lfilter([1], [1, 0.5], rng.normal(size=n + 200))[200:],
    "heavy tails": lambda rng, n: rng.standard_t(2, size=n),
    "intermittent": lambda rng, n: (rng.random(n) < 0.3) * np.exp(rng.normal(size=n)),
}


@pytest.mark.parametrize("points", [30, 100, 512])
@pytest.mark.parametrize("kind", NOISE)
def test_false_alarms_are_rare_and_weak(kind: str, points: int) -> None:
    rng = np.random.default_rng(0)
    strengths = [
        max((period.strength for period in find_periods(NOISE[kind](rng, points))), default=0.0)
        for _ in range(60)
    ]
    assert np.mean(np.array(strengths) > 0) <= 0.05
    assert np.mean(strengths) <= 0.02


def test_pseudo_cycles_of_an_autoregression_are_forgotten() -> None:
    rng, weights = np.random.default_rng(0), [1, -2 * 0.95 * np.cos(2 * np.pi / 12), 0.95**2]
    strengths = [
        sum(p.strength for p in find_periods(lfilter([1], weights, rng.normal(size=1200))[200:]))
        for _ in range(40)
    ]
    assert np.mean(strengths) < 0.02


@pytest.mark.parametrize(
    "values",
    [
        [],
        [1.0],
        [1.0, 2.0, 1.0, 2.0, 1.0],
        [np.nan] * 50,
        [3.7] * 50,
        [1e9] * 50,
        list(np.arange(50) * 0.1),
        [0.0] * 49 + [1e6],
        [np.nan] * 30 + [1.0, 2.0, 3.0],
        [np.inf, -np.inf] * 20,
    ],
    ids=str,
)
def test_series_that_say_nothing(values: list[float]) -> None:
    assert find_periods(np.array(values)) == []


@pytest.mark.filterwarnings("error")
def test_any_length_and_any_gaps_have_an_answer() -> None:
    rng = np.random.default_rng(0)
    for points in range(1, 140):
        week = np.tile(rng.integers(0, 9, 7).astype(float), 20)[:points]
        for values in (week, np.where(np.arange(points) % 7 == 3, np.nan, week), week > 6):
            assert all(2 <= length <= points // 2 for length in lengths(values))


# What every answer keeps


def sample() -> Array:
    return day_and_week(np.random.default_rng(0), 24, 1000)


def test_lengths_are_whole_and_strengths_are_shares() -> None:
    found = find_periods(sample())
    assert found
    for period in found:
        assert isinstance(period, Period)
        assert isinstance(period.length, int)
        assert isinstance(period.strength, float)
        assert period.length >= 2
        assert 0 < period.strength <= 1


@pytest.mark.parametrize(("shift", "scale"), [(0.0, 1e-6), (1e3, 1.0), (-50.0, -7.0), (0.0, 1e6)])
def test_shift_and_scale_change_nothing(shift: float, scale: float) -> None:
    before, after = find_periods(sample()), find_periods(shift + scale * sample())
    assert [period.length for period in before] == [period.length for period in after]
    np.testing.assert_allclose([p.strength for p in before], [p.strength for p in after], rtol=1e-6)


def test_missing_ends_change_nothing() -> None:
    ends = np.full(40, np.nan)
    assert find_periods(np.concatenate((ends, sample(), ends))) == find_periods(sample())


def test_the_same_call_finds_the_same_and_leaves_its_argument() -> None:
    values = sample()
    before = values.copy()
    assert find_periods(values) == find_periods(values.astype(np.float64))
    np.testing.assert_array_equal(values, before)


def test_at_most_so_many() -> None:
    assert len(find_periods(sample(), most=1)) == 1
    assert find_periods(sample(), most=1) == find_periods(sample())[:1]
    assert find_periods(sample(), most=0) == []


def test_only_the_last_twenty_thousand_points_count() -> None:
    rng = np.random.default_rng(0)
    late = table(rng, 24, 20_000) + 0.3 * rng.normal(size=20_000)
    assert find_periods(np.concatenate((rng.normal(size=5000), late))) == find_periods(late)


def test_an_exact_cycle_has_strength_one() -> None:
    (period,) = find_periods(table(np.random.default_rng(0), 12, 240))
    assert period.length == 12
    assert period.strength > 0.99


def test_strength_is_the_share_that_repeats() -> None:
    rng = np.random.default_rng(0)
    for share in (0.3, 0.5, 0.8):
        noise = (1 / share - 1) ** 0.5
        found = find_periods(table(rng, 24, 4800) + noise * rng.normal(size=4800))
        assert found[0].length == 24
        assert abs(found[0].strength - share) < 0.08


def test_strength_falls_to_zero_continuously() -> None:
    rng = np.random.default_rng(3)
    cycle, noise = table(rng, 12, 400), rng.normal(size=400)
    found = [find_periods(height * cycle + noise) for height in np.arange(0.15, 1.5, 0.005)]
    strengths = np.array([periods[0].strength if periods else 0.0 for periods in found])
    assert strengths[0] == 0
    assert strengths[-1] > 0.6
    assert np.abs(np.diff(strengths)).max() < 0.03


def test_scipy_is_not_imported() -> None:
    code = (
        "import sys, importlib.util as u; import numpy;"
        "import moirai_moe_forecaster.inference.seasonality.periods;"
        "assert 'scipy' not in sys.modules and 'pandas' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_series_found_together_are_found_as_alone() -> None:
    """Lengths, gaps and what shares a transform with a series change nothing about it."""
    rng = np.random.default_rng(0)
    series = [table(rng, 24, 480) for _ in range(3)] + [rng.normal(size=480).cumsum()]
    series += [np.where(rng.random(300) < 0.1, np.nan, table(rng, 7, 300)), np.full(300, 2.0)]
    series += [np.array([]), np.full(20, np.nan), table(rng, 12, 300)]
    together = find_all_periods(series, 2)
    assert [bool(found) for found in together] == [True] * 3 + [False, True] + [False] * 3 + [True]
    assert together == [find_periods(values, 2) for values in series]
    assert find_all_periods(series[::-1], 2) == together[::-1]
