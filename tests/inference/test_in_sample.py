"""In-sample forecasts with cycles: learnt from earlier values alone, used as far as they help."""

from __future__ import annotations

import numpy as np
import pytest

from moirai_moe_forecaster import MoiraiMoEPipeline
from moirai_moe_forecaster.data.series import Array, Series, read_series
from moirai_moe_forecaster.inference.in_sample import in_sample_nodes
from moirai_moe_forecaster.inference.in_sample_parts import Positions, first_parts, make_parts
from moirai_moe_forecaster.inference.quantile_grid import NODE_LEVELS
from moirai_moe_forecaster.inference.seasons import SeasonLength
from moirai_moe_forecaster.model.network import MoiraiMoE
from tiny_network import tiny_network

MEDIAN = int(np.argmin(np.abs(NODE_LEVELS - 0.5)))


@pytest.fixture(scope="module")
def network() -> MoiraiMoE:
    return tiny_network().eval()


@pytest.fixture(scope="module")
def bundled() -> MoiraiMoE:
    return MoiraiMoEPipeline.from_pretrained(device="cpu").network


def table(points: int, length: int = 24, noise: float = 0.1, seed: int = 0) -> Array:
    generator = np.random.default_rng(seed)
    values = np.resize(generator.normal(size=length), points)
    return values + noise * generator.normal(size=points)


def walk(points: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).normal(size=points).cumsum()


def series_of(*variates: Array, future: Array | None = None) -> Series:
    return read_series([np.stack(variates, 1)], 0, None, None if future is None else [future])[0][0]


def nodes(
    network: MoiraiMoE,
    series: Series,
    season_length: SeasonLength = "auto",
    positions: Positions | None = None,
) -> Array:
    where = np.arange(series.target.shape[1]) if positions is None else positions
    [found] = in_sample_nodes(network, [series], [where], regress=True, season_length=season_length)
    return found


def assert_equal(one: Array, other: Array) -> None:
    """But for rounding, which depends on what else is in a pass, and may flip a choice of experts.

    In units of the interval's width; the outermost nodes say little.
    """
    lower, upper = (int(np.argmin(np.abs(NODE_LEVELS - level))) for level in (0.1, 0.9))
    width = (one[..., upper] - one[..., lower])[..., None]
    apart = (np.abs(other - one) / width)[..., lower : upper + 1]
    assert np.mean(apart > 1e-4) < 1e-3
    assert apart.max() < 0.05


def misses(found: Array, values: Array, since: int) -> float:
    return float(np.abs(found[since:, 0, MEDIAN] - values[since:]).mean())


@pytest.mark.parametrize("changed_from", [100, 255, 256, 300, 399])
@pytest.mark.parametrize("season_length", ["auto", (24,), (7, 24)])
def test_no_forecast_sees_its_own_or_a_later_value(
    network: MoiraiMoE, changed_from: int, season_length: SeasonLength
) -> None:
    known = np.random.default_rng(3).normal(size=(400, 1))
    series = series_of(table(400) + 2 * known[:, 0], walk(400), future=known)
    changed = series._replace(target=series.target.copy())
    changed.target[0, changed_from:] = 5 * table(400, 7, seed=1)[changed_from:] - 9
    changed.target[1, changed_from:] = table(400, 12, seed=2)[changed_from:]
    one, other = (nodes(network, some, season_length) for some in (series, changed))
    assert np.isfinite(one).all()
    upto = changed_from + 1
    assert_equal(other[:upto], one[:upto])
    if upto < 400:
        assert not np.allclose(other[upto:], one[upto:], rtol=1e-2)


def test_history_before_what_the_network_reads_is_learnt_from(network: MoiraiMoE) -> None:
    longest = network.config.max_seq_len * network.config.patch_size
    values = table(longest + 200, 48)
    early = np.arange(20, 60)
    assert longest >= 60
    plain = nodes(network, series_of(values), None, early)
    np.testing.assert_array_equal(nodes(network, series_of(values[200:]), None, early), plain)
    got = nodes(network, series_of(values), positions=early)
    assert misses(got, values[220:260], 0) < 0.7 * misses(plain, values[220:260], 0)
    values[260:] = -values[260:]
    later = nodes(network, series_of(values), positions=early)
    assert_equal(later, got)


def test_some_positions_are_those_of_all(network: MoiraiMoE) -> None:
    series = series_of(table(400), walk(400))
    every = nodes(network, series)
    for positions in ([399], [130, 131, 300], [0, 5, 257]):
        some = nodes(network, series, positions=np.array(positions))
        assert_equal(some, every[positions])


def test_without_cycles_nothing_changes(network: MoiraiMoE) -> None:
    series = series_of(walk(500), walk(500, seed=1), np.full(500, 3.0))
    np.testing.assert_array_equal(nodes(network, series), nodes(network, series, None))


def test_variates_without_cycles_do_not_change(network: MoiraiMoE) -> None:
    series = series_of(table(400), walk(400))
    got, plain = nodes(network, series), nodes(network, series, None)
    assert_equal(got[:, 1], plain[:, 1])
    assert not np.allclose(got[200:, 0], plain[200:, 0], rtol=1e-2)


def test_what_it_costs() -> None:
    """Every position is forecast at most twice, and to weigh the views needs no others."""
    series = series_of(table(1_000))
    first = first_parts(series)
    parts = make_parts(series, first, np.arange(1, 1_000), "auto", regress=True)
    assert list(parts) == np.unique(first[1:1_000]).tolist()
    cyclic = [length for length, part in parts.items() if len(part.effects) == 2]
    assert cyclic == [length for length in parts if length > 100]
    assert [length for length, part in parts.items() if part.trials] == cyclic[1:]


@pytest.mark.parametrize("missing", [0.0, 0.3])
def test_a_random_table_is_learnt(bundled: MoiraiMoE, missing: float) -> None:
    values = table(700)
    seen = np.where(np.random.default_rng(9).random(700) < missing, np.nan, values)
    plain, got = (nodes(bundled, series_of(seen), found) for found in (None, "auto"))
    assert misses(got, values, 256) < 0.4 * misses(plain, values, 256)
    assert np.isfinite(got).all()


def test_a_useless_period_does_little_harm(bundled: MoiraiMoE) -> None:
    """Named by a user, for a walk that has none."""
    values = walk(700)
    plain, got = (nodes(bundled, series_of(values), named) for named in (None, (24,)))
    assert misses(got, values, 64) < 1.05 * misses(plain, values, 64)


@pytest.mark.parametrize("scale", [1e-100, 1e100])
def test_any_unit(network: MoiraiMoE, scale: float) -> None:
    values = table(300)
    expected = nodes(network, series_of(values))
    got = nodes(network, series_of(values * scale))
    np.testing.assert_allclose(got / scale, expected, rtol=1e-3, atol=1e-3)
