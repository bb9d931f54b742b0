"""Forecasts that carry cycles on: what they gain, what they leave alone, what they depend on."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest

from moirai_moe_forecaster import MoiraiMoEPipeline
from moirai_moe_forecaster.errors import InvalidInputError
from tiny_network import tiny_network

LEVELS = [0.05, 0.25, 0.5, 0.75, 0.95]


@pytest.fixture(scope="module")
def bundled() -> MoiraiMoEPipeline:
    return MoiraiMoEPipeline.from_pretrained(device="cpu")


@pytest.fixture(scope="module")
def tiny() -> MoiraiMoEPipeline:
    return MoiraiMoEPipeline(tiny_network(output_patches=2, find_seasons=True))


def tables(
    count: int, period: int, time: int, noise: float = 0.1, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Random tables of values over and over: with noise, and without."""
    rng = np.random.default_rng(seed)
    clean = rng.normal(size=(count, period))[:, np.arange(time) % period]
    return clean + noise * rng.normal(size=clean.shape), clean


def naive_error(values: np.ndarray, period: int, horizon: int) -> float:
    start = values.shape[1] - horizon
    last = values[:, start - period : start][:, np.arange(horizon) % period]
    return float(np.abs(last - values[:, start:]).mean())


@pytest.mark.parametrize(
    ("period", "context", "most"), [(24, 700, 0.85), (37, 300, 1.0), (7, 200, 0.9)]
)
def test_tables_without_a_formula_are_carried_on(
    bundled: MoiraiMoEPipeline, period: int, context: int, most: float
) -> None:
    values, _ = tables(40, period, context + 48)
    forecast = bundled.predict([*values[:, :context]], 48, random_state=0)
    error = np.abs(forecast.median - values[:, context:]).mean()
    assert error < most * naive_error(values, period, 48)


def test_a_trend_with_a_season(bundled: MoiraiMoEPipeline) -> None:
    rng, time = np.random.default_rng(0), np.arange(264)
    season = np.sin(2 * np.pi * time / 24 + rng.uniform(0, 6, (12, 1)))
    values = 3 * time / 264 + season + 0.1 * rng.normal(size=(12, 264))
    forecast = bundled.predict([*values[:, :168]], 96, random_state=0)
    lower, upper = forecast.interval(0.8)
    labels = values[:, 168:]
    inside = (labels >= lower) & (labels <= upper)
    assert inside[:, 72:].mean() > 0.6
    assert np.abs(forecast.median - labels).mean() < naive_error(values, 24, 96)


@pytest.mark.parametrize("shape", ["square", "saw"])
@pytest.mark.parametrize("period", [60, 168, 365])
def test_long_waves_with_edges(bundled: MoiraiMoEPipeline, shape: str, period: int) -> None:
    rng = np.random.default_rng(period)
    context, horizon = 5 * period, period
    phase = (np.arange(context + horizon) + rng.integers(period, size=(10, 1))) % period / period
    wave = np.where(phase < 0.5, 1.0, -1.0) if shape == "square" else 2 * phase - 1
    values = wave + 0.05 * rng.normal(size=wave.shape)
    forecast = bundled.predict([*values[:, :context]], horizon, random_state=0)
    error = np.abs(forecast.median - values[:, context:]).mean()
    assert error < 1.15 * naive_error(values, period, horizon)


def test_the_history_may_be_longer_than_the_context(bundled: MoiraiMoEPipeline) -> None:
    """A week of 5-minute points, of which the network reads one."""
    period = 2016
    values, _ = tables(2, period, 6 * period)
    context = 5 * period
    forecast = bundled.predict([*values[:, :context]], 96, random_state=0)
    error = np.abs(forecast.median - values[:, context : context + 96]).mean()
    assert error < 0.2
    cut = bundled.predict([*values[:, :context]], 96, random_state=0, context_length=2048)
    assert np.abs(cut.median - values[:, context : context + 96]).mean() > 0.5


def test_what_does_not_repeat_is_forecast_as_without(bundled: MoiraiMoEPipeline) -> None:
    rng = np.random.default_rng(0)
    batch = [rng.normal(size=512).cumsum() for _ in range(20)]
    found = bundled.predict(batch, 48, random_state=0)
    without = bundled.predict(batch, 48, random_state=0, season_length=None)
    alone = found.seasons["period"].isna().to_numpy()
    assert alone.mean() > 0.9
    np.testing.assert_array_equal(found.quantile(LEVELS)[alone], without.quantile(LEVELS)[alone])


def test_a_checkpoint_that_does_not_look_for_seasons(tiny: MoiraiMoEPipeline) -> None:
    values, _ = tables(3, 24, 300)
    plain = MoiraiMoEPipeline(tiny_network(output_patches=2))
    unasked, off, one = (
        pipeline.predict([*values], 40, random_state=0, season_length=season_length)
        for pipeline, season_length in ((plain, "auto"), (tiny, None), (tiny, 1))
    )
    named = plain.predict([*values], 40, random_state=0, season_length=24)
    asked = tiny.predict([*values], 40, random_state=0)
    np.testing.assert_array_equal(unasked.quantile(LEVELS), off.quantile(LEVELS))
    np.testing.assert_array_equal(one.quantile(LEVELS), off.quantile(LEVELS))
    assert np.abs(named.median - off.median).max() > 0.01
    assert (named.seasons["period"] == 24).all()
    assert (asked.seasons["period"] == 24).all()
    assert off.seasons["period"].isna().all()
    assert (off.seasons["plain"] == 1).all()


@pytest.mark.parametrize(
    "season_length", ["weekly", 0, -24, 2.5, [], [24, "7"], True, [24, None], {"a": 1}]
)
def test_bad_season_lengths_are_refused(tiny: MoiraiMoEPipeline, season_length: Any) -> None:
    with pytest.raises(InvalidInputError, match="season_length"):
        tiny.predict(np.arange(50.0), 4, season_length=season_length)


@pytest.mark.parametrize("horizon", [20, 70])
def test_a_series_has_the_same_forecast_in_any_batch(tiny: MoiraiMoEPipeline, horizon: int) -> None:
    rng = np.random.default_rng(1)
    batch: list[np.ndarray] = [
        *tables(3, 24, 300)[0],
        *tables(2, 7, 90, seed=1)[0],
        rng.normal(size=310).cumsum(),
        np.stack((tables(1, 24, 300, seed=2)[0][0], rng.normal(size=300)), 1),
    ]
    together = tiny.predict(batch, horizon, random_state=0, num_paths=8)
    for options in ({"batch_size": 1}, {"batch_size": 2}):
        other = tiny.predict(batch, horizon, random_state=0, num_paths=8, **options)
        lower, upper = together.interval(0.8)
        share = (
            np.abs(other.quantile(LEVELS) - together.quantile(LEVELS)) / (upper - lower)[:, None]
        )
        share = share[~np.isnan(share)]
        assert (share < 1e-4).mean() > 0.999
        assert share.max() < 0.05
    streamed = list(tiny.predict_stream(batch, horizon, random_state=0, num_paths=8, batch_size=3))
    for index, forecast in enumerate(streamed):
        expected = together[index].quantile(LEVELS)
        got = forecast.quantile(LEVELS)
        width = expected[-1] - expected[0]
        if got.ndim < expected.ndim:
            expected, width = expected[..., 0], width[..., 0]
        assert (np.abs(got - expected) / width).max() < 0.05


def test_units_and_shifts_pass_through(tiny: MoiraiMoEPipeline) -> None:
    values, _ = tables(3, 24, 300)
    plain = tiny.predict([*values], 30, random_state=0)
    for scale, shift in ((1e5, 0.0), (1e-5, 0.0), (3.0, 50.0), (1e300, 0.0), (1e-300, 0.0)):
        moved = tiny.predict([*(scale * values + shift)], 30, random_state=0)
        np.testing.assert_allclose(
            (moved.quantile(LEVELS) - shift) / scale, plain.quantile(LEVELS), atol=2e-3
        )


def test_covariates_may_carry_the_cycle(bundled: MoiraiMoEPipeline) -> None:
    """What temperature explains leaves before cycles are looked for."""
    rng, time = np.random.default_rng(0), 400
    table, noise = rng.normal(size=24), rng.normal(size=time + 24)
    temperature = table[np.arange(time + 24) % 24] + noise
    values = 2 * temperature + 0.1 * rng.normal(size=time + 24)
    forecast = bundled.predict(
        values[:time], 24, future_covariates=temperature[:, None], random_state=0
    )
    assert np.abs(forecast.median - values[time:]).mean() < 0.25
    assert forecast.seasons["period"].isna().all()


def test_seasons_say_what_was_found(tiny: MoiraiMoEPipeline) -> None:
    walk = np.random.default_rng(0).normal(size=300).cumsum()
    forecast = tiny.predict([np.stack((tables(1, 24, 300)[0][0], walk), 1), walk], 10)
    table = forecast.seasons
    assert [*table.columns] == [
        "series",
        "variate",
        "period",
        "strength",
        "plain",
        "cycle",
        "profile",
    ]
    assert table[["series", "variate"]].to_numpy().tolist() == [[0, 0], [0, 1], [1, 0]]
    assert table["period"].tolist()[0] == 24
    assert table["period"].isna().tolist() == [False, True, True]
    assert 0.9 < table["strength"][0] <= 1
    np.testing.assert_allclose(table[["plain", "cycle", "profile"]].sum(axis=1), 1)
    assert forecast[1].seasons["series"].tolist() == [0]
    again = pickle.loads(pickle.dumps(forecast))
    assert again.seasons.equals(table)


def test_paths_and_samples_follow_the_cycle(bundled: MoiraiMoEPipeline) -> None:
    values, clean = tables(1, 24, 700 + 130)
    forecast = bundled.predict(values[0, :700], 130, random_state=0, num_samples=50)
    assert forecast.samples.shape == (50, 130)
    assert np.abs(np.median(forecast.samples, 0) - clean[0, 700:]).mean() < 0.1
    nodes = forecast.quantile([0.01, 0.1, 0.5, 0.9, 0.99])
    assert (np.diff(nodes, axis=0) >= 0).all()


def test_covariates_of_both_kinds_with_more_history_than_the_network_reads() -> None:
    """What covariates explain is known of the context alone; cycles are then learnt from that."""
    pipeline = MoiraiMoEPipeline(tiny_network(output_patches=2, find_seasons=True, max_seq_len=16))
    rng, time, horizon = np.random.default_rng(0), 900, 20
    known = rng.normal(size=(time + horizon, 1))
    past = rng.normal(size=(time, 1))
    y = tables(1, 24, time)[0][0] + 3 * known[:time, 0]
    options: dict[str, Any] = {"random_state": 0}
    whole = pipeline.predict(y, horizon, past_covariates=past, future_covariates=known, **options)
    cut = pipeline.predict(
        y[-256:], horizon, past_covariates=past[-256:], future_covariates=known[-276:], **options
    )
    np.testing.assert_allclose(whole.quantile(LEVELS), cut.quantile(LEVELS), atol=1e-3)
    assert whole.seasons["period"].tolist() == [24]
