from __future__ import annotations

import copy
import itertools
import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from numpy.typing import NDArray
from scipy import stats

from moirai_moe_forecaster.errors import InvalidInputError
from moirai_moe_forecaster.inference.forecast import Forecast
from moirai_moe_forecaster.inference.pipeline import MoiraiMoEPipeline
from moirai_moe_forecaster.model.network import MoiraiMoE
from tiny_network import OFFICIAL_CONVENTIONS, tiny_network

Array = NDArray[np.float64]
LEVELS = np.array([0.01, 0.1, 0.25, 0.5, 0.75, 0.9, 0.99])


def random_walk(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).normal(size=shape).cumsum(0)


def assert_same_forecast(one: Forecast, other: Forecast, tolerance: float = 1e-4) -> None:
    """Quantiles agree within a share of the width of the 80 % interval."""
    got, expected = one.quantile(LEVELS), other.quantile(LEVELS)
    assert got.shape == expected.shape
    lower, upper = other.interval(0.8)
    level_axis = got.ndim - lower.ndim - 1 + (0 if other._single else 1)
    width = np.expand_dims(upper - lower, level_axis)
    assert (np.abs(got - expected) / width).max() <= tolerance


# --- what may be passed as y ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("y", "first", "last"),
    [
        (random_walk(50), (), ()),
        (list(random_walk(50)), (), ()),
        (random_walk(50, 1), (), (1,)),
        (random_walk(50, 2), (), (2,)),
        ([random_walk(50)], (1,), ()),
        ([random_walk(n) for n in (50, 3, 70)], (3,), ()),
        ([random_walk(50, 2), random_walk(5, 2)], (2,), (2,)),
        ([random_walk(50, 2), random_walk(5)], (2,), (2,)),
        (pd.Series(random_walk(50)), (), ()),
        (pd.DataFrame(random_walk(50, 2)), (), (2,)),
    ],
)
@pytest.mark.parametrize("horizon", [5, 20])
def test_layout(
    pipeline: MoiraiMoEPipeline, y: Any, first: tuple[int], last: tuple[int], horizon: int
) -> None:
    forecast = pipeline.predict(y, horizon, num_paths=3, num_samples=4)
    assert forecast.mean.shape == (*first, horizon, *last)
    assert forecast.quantile(0.5).shape == (*first, horizon, *last)
    assert forecast.quantile([0.9, 0.1, 0.5]).shape == (*first, 3, horizon, *last)
    assert forecast.samples.shape == (*first, 4, horizon, *last)
    missing = np.isnan(forecast.samples).mean()
    assert missing == (0.25 if isinstance(y, list) and len(np.shape(y[0])) > np.ndim(y[-1]) else 0)


def test_pandas_gives_what_arrays_give(pipeline: MoiraiMoEPipeline) -> None:
    y = random_walk(60, 2)
    dates = pd.date_range("2020-01-01", periods=60)
    index = pd.MultiIndex.from_product([["b", "a"], dates[:30]])
    for given, plain in [
        (pd.Series(y[:, 0], index=dates), y[:, 0]),
        (pd.DataFrame(y, index=dates, columns=["u", "v"]), y),
        (pd.Series(y[:, 0], index=index), [y[:30, 0], y[30:, 0]]),
        (pd.DataFrame(y, index=index), [y[:30], y[30:]]),
    ]:
        one = pipeline.predict(given, 20, random_state=0, num_paths=4)
        other = pipeline.predict(plain, 20, random_state=0, num_paths=4)
        np.testing.assert_array_equal(one.quantile(LEVELS), other.quantile(LEVELS))
        np.testing.assert_array_equal(one.samples, other.samples)


SERIES: dict[str, Array] = {
    "one point": random_walk(1),
    "one zero": np.zeros(1),
    "two points": random_walk(2),
    "five points": random_walk(5),
    "constant": np.full(40, 7.3),
    "negative constant": np.full(40, -1e5),
    "zeros": np.zeros(40),
    "missing inside": np.where(np.arange(60) % 7 < 3, np.nan, random_walk(60)),
    "missing at the start": np.r_[np.full(37, np.nan), random_walk(20)],
    "missing at the end": np.r_[random_walk(20), np.full(37, np.nan)],
    "one observed": np.r_[np.full(20, np.nan), 3.0, np.full(20, np.nan)],
    "integers": np.arange(50) % 7,
    "small integers": (np.arange(50) % 7).astype(np.int8),
    "booleans": np.arange(50) % 3 == 0,
    "float32": random_walk(50).astype(np.float32),
    "huge": 1e12 * random_walk(50),
    "tiny": 1e-12 * random_walk(50),
    "huge level": 1e12 + random_walk(50),
    "larger than a float32": 1e200 * random_walk(50),
    "smaller than a float32": 1e-200 * random_walk(50),
    "spike": np.r_[np.zeros(49), 1e9],
    "two variates, one constant": np.stack([random_walk(50), np.ones(50)], 1),
    "two variates, different ends": np.stack(
        [np.r_[random_walk(50), [np.nan] * 50], np.r_[[np.nan] * 50, random_walk(50)]], 1
    ),
}


@pytest.mark.parametrize("kind", ["pipeline", "official_pipeline"])
@pytest.mark.parametrize("case", SERIES)
def test_every_series_of_finite_numbers_has_a_finite_forecast(
    case: str, kind: str, request: pytest.FixtureRequest
) -> None:
    pipeline: MoiraiMoEPipeline = request.getfixturevalue(kind)
    y = SERIES[case]
    forecast = pipeline.predict(y, 20, num_paths=2, random_state=0)
    for result in (forecast.mean, forecast.quantile(LEVELS), forecast.samples):
        assert np.isfinite(result).all()
    assert (np.diff(forecast.quantile(LEVELS), axis=0) >= 0).all()


def test_a_series_type_does_not_matter(pipeline: MoiraiMoEPipeline) -> None:
    y = np.arange(50) % 7
    expected = pipeline.predict(y.astype(float), 10).quantile(LEVELS)
    for dtype in (np.int8, np.uint16, np.int64, np.float16, np.float32):
        np.testing.assert_array_equal(
            pipeline.predict(y.astype(dtype), 10).quantile(LEVELS), expected
        )


@pytest.mark.parametrize("kind", ["pipeline", "long_block_pipeline"])
@pytest.mark.parametrize("horizon", [1, 16, 17, 64, 65])
def test_every_horizon(kind: str, horizon: int, request: pytest.FixtureRequest) -> None:
    pipeline: MoiraiMoEPipeline = request.getfixturevalue(kind)
    forecast = pipeline.predict([random_walk(50), random_walk(9)], horizon, num_paths=2)
    quantiles = forecast.quantile(LEVELS)
    assert quantiles.shape == (2, len(LEVELS), horizon)
    assert np.isfinite(quantiles).all()
    assert np.isfinite(forecast.samples).all()


def test_a_long_horizon(pipeline: MoiraiMoEPipeline) -> None:
    forecast = pipeline.predict(random_walk(50), 1000, num_paths=2, num_samples=3)
    assert forecast.quantile(LEVELS).shape == (len(LEVELS), 1000)
    assert np.isfinite(forecast.quantile(LEVELS)).all()
    assert forecast.samples.shape == (3, 1000)


def test_a_longer_horizon_begins_like_a_shorter_one(long_block_pipeline: MoiraiMoEPipeline) -> None:
    y = random_walk(80)
    long = long_block_pipeline.predict(y, 150, random_state=0, num_paths=4).quantile(LEVELS)
    for horizon in (1, 20, 64, 100, 130):
        short = long_block_pipeline.predict(y, horizon, random_state=0, num_paths=4)
        np.testing.assert_allclose(short.quantile(LEVELS), long[:, :horizon], rtol=1e-3, atol=1e-3)


def test_the_users_data_stay_as_they_are_and_may_be_read_only(
    pipeline: MoiraiMoEPipeline, official_pipeline: MoiraiMoEPipeline
) -> None:
    y, past, future = random_walk(40, 2), random_walk(40, 1), random_walk(60, 1)
    y[5:9, 0] = np.nan
    arrays = (y, past, future)
    copies = [array.copy() for array in arrays]
    for array in arrays:
        array.flags.writeable = False
    for each in (pipeline, official_pipeline):
        for normaliser in ("frozen", "reestimated"):
            forecast = each.predict(
                y,
                20,
                past_covariates=past,
                future_covariates=future,
                num_paths=2,
                normaliser=normaliser,
            )
            assert np.isfinite(forecast.samples).all()
    for array, before in zip(arrays, copies, strict=True):
        np.testing.assert_array_equal(array, before)


# --- random numbers ---------------------------------------------------------------------------


def test_the_same_random_state_gives_the_same_numbers(pipeline: MoiraiMoEPipeline) -> None:
    y = random_walk(40)
    one, same = (pipeline.predict(y, 40, random_state=3) for _ in range(2))
    np.testing.assert_array_equal(one.quantile(LEVELS), same.quantile(LEVELS))
    np.testing.assert_array_equal(one.samples, same.samples)
    generators = [np.random.default_rng(5) for _ in range(2)]
    first = [pipeline.predict(y, 40, random_state=g).samples for g in generators]
    second = [pipeline.predict(y, 40, random_state=g).samples for g in generators]
    np.testing.assert_array_equal(*first)
    np.testing.assert_array_equal(*second)
    assert (first[0] != second[0]).all()


@pytest.mark.parametrize("states", [(None, None), (0, 1), (0, None)])
def test_other_random_states_give_other_paths(
    pipeline: MoiraiMoEPipeline, states: tuple[int | None, int | None]
) -> None:
    one, other = (pipeline.predict(random_walk(40), 40, random_state=state) for state in states)
    np.testing.assert_array_equal(one.quantile(LEVELS)[:, :16], other.quantile(LEVELS)[:, :16])
    assert (one.quantile(0.9)[16:] != other.quantile(0.9)[16:]).all()
    assert (one.samples != other.samples).all()


def test_the_global_random_states_are_left_alone(pipeline: MoiraiMoEPipeline) -> None:
    def states() -> list[Any]:
        return [
            torch.get_rng_state().tolist(),
            np.random.get_state()[1].tolist(),  # noqa: NPY002
            random.getstate(),
        ]

    before = states()
    for random_state in (None, 0):
        pipeline.predict(random_walk(40), 40, random_state=random_state, num_paths=2).samples  # noqa: B018
    assert states() == before


def test_samples_follow_the_quantiles_and_are_joint_paths(pipeline: MoiraiMoEPipeline) -> None:
    forecast = pipeline.predict(random_walk(40), 33, num_samples=640, random_state=0)
    levels = np.stack([forecast.cdf(sample) for sample in forecast.samples])
    for step in levels.T:
        assert stats.kstest(step, "uniform").pvalue > 1e-4


def test_uncertainty_is_carried_across_blocks() -> None:
    """A network that repeats its last patch: what a path drew first, it draws again."""
    network = copy.deepcopy(tiny_network(mixture=("student_t",)))
    _make_persistent(network)
    pipeline = MoiraiMoEPipeline(network)
    forecast = pipeline.predict(random_walk(32), 48, num_paths=400, num_samples=400, random_state=0)
    samples = forecast.samples
    correlation = stats.spearmanr(samples).statistic
    for step in range(16):
        # two and three independent steps of equal size: 1 / sqrt(2) and 1 / sqrt(3)
        assert 0.55 < correlation[step, step + 16] < 0.82
        assert 0.4 < correlation[step, step + 32] < 0.74
    assert np.abs(correlation[:16, :16] - np.eye(16)).max() < 0.25
    lower, upper = forecast.interval(0.8)
    width = (upper - lower).reshape(3, 16).mean(1)
    assert width[0] * 1.1 < width[1] < width[2]


def _make_persistent(network: MoiraiMoE) -> None:
    """The head reads the last patch from the embedding's skip path; blocks add nothing."""
    size = network.config.patch_size
    for block in network.blocks:
        block.attention.out.weight.zero_()
        block.experts.weight_out.zero_()
    embedding, projection = network.embedding, network.projection
    for layer in (embedding.outer, embedding.skip, projection):
        layer.weight.zero_()
        layer.bias.zero_()
    # token = the patch and a large constant, which makes the final norm a fixed scaling
    embedding.skip.weight[:size, :size] = torch.eye(size)
    embedding.skip.bias[size] = 1000.0
    network.norm.weight.fill_(1000 / network.config.d_model**0.5)
    # rows are the logit, then df, loc and scale of every point
    projection.weight[2 * size : 3 * size, :size] = torch.eye(size)
    projection.bias[:size] = 0.0
    projection.bias[size : 2 * size] = 30.0
    projection.bias[3 * size :] = 0.0


# --- batches ----------------------------------------------------------------------------------


def ragged_batch() -> list[Array]:
    shapes: list[tuple[int, ...]] = [(100, 2), (7,), (33,), (512, 2), (100,), (64,), (1,), (17, 2)]
    batch = [random_walk(*shape, seed=i) for i, shape in enumerate(shapes)]
    batch[4][10:30] = np.nan
    return batch


def with_two_variates(quantiles: Array) -> Array:
    """(level, horizon) or (level, horizon, variate), filled up with NaN."""
    matrix = quantiles.reshape(*quantiles.shape[:2], -1)
    return np.pad(matrix, [(0, 0), (0, 0), (0, 2 - matrix.shape[-1])], constant_values=np.nan)


@pytest.mark.parametrize(
    ("kind", "horizon"),
    [
        ("pipeline", 16),
        ("pipeline", 40),
        ("long_block_pipeline", 16),
        ("long_block_pipeline", 70),
        ("official_pipeline", 20),
    ],
)
def test_a_forecast_does_not_depend_on_its_batch(
    kind: str, horizon: int, request: pytest.FixtureRequest
) -> None:
    pipeline: MoiraiMoEPipeline = request.getfixturevalue(kind)
    batch = ragged_batch()[: 4 if kind == "official_pipeline" else None]
    levels = np.array([0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95])

    def quantiles(y: Any, **options: Any) -> Array:
        forecast = pipeline.predict(y, horizon, random_state=1, num_paths=4, **options)
        return forecast.quantile(levels)

    whole = quantiles(batch)
    width = whole[:, [5]] - whole[:, [1]]
    order = np.random.default_rng(0).permutation(len(batch))
    others = {
        "one by one": np.stack([with_two_variates(quantiles(y)) for y in batch]),
        "in twos": quantiles(batch, batch_size=2),
        "in another order": quantiles([batch[i] for i in order])[np.argsort(order)],
        "beside others": quantiles([random_walk(77), *batch, random_walk(400, 2)])[1:-1],
        "twice": quantiles([*batch, *batch])[len(batch) :],
    }
    for name, other in others.items():
        difference = np.abs(other - whole) / width
        np.testing.assert_array_equal(np.isnan(difference), np.isnan(whole))
        difference = difference[~np.isnan(difference)]
        assert (difference <= 1e-4).mean() >= 0.999, (name, difference.max())
        assert difference.max() <= 0.05, (name, difference.max())


def test_samples_of_a_series_are_its_own_in_any_batch(pipeline: MoiraiMoEPipeline) -> None:
    batch = [random_walk(40, seed=seed) for seed in range(4)]
    together = pipeline.predict(batch, 20, random_state=0).samples
    for y, expected in zip(batch, together, strict=True):
        got = pipeline.predict(y, 20, random_state=0).samples
        assert (np.abs(got - expected) < 1e-3 * np.ptp(expected)).mean() > 0.99
    assert (together[0] != together[1]).all()


def test_a_stream_gives_what_a_batch_gives(pipeline: MoiraiMoEPipeline) -> None:
    batch = [random_walk(n, seed=n) for n in (50, 20, 100, 21, 60)]
    together = pipeline.predict(batch, 20, random_state=0, num_paths=4)
    for batch_size in (1, 2, 256):
        stream = pipeline.predict_stream(
            iter(batch), 20, batch_size=batch_size, random_state=0, num_paths=4
        )
        for index, forecast in enumerate(stream):
            assert_same_forecast(forecast, together[index])
            assert forecast.mean.shape == (20,)
        assert index == 4


def test_a_stream_says_what_repeats_in_each_series(pipeline: MoiraiMoEPipeline) -> None:
    series = [random_walk(60, seed=0), np.tile(random_walk(7, seed=1), 20), random_walk(10)]
    stream = pipeline.predict_stream(series, 4, batch_size=2, season_length=7)
    periods = [[*forecast.seasons["period"].fillna(0)] for forecast in stream]
    assert periods == [[7], [7], [0]]


def test_a_stream_keeps_the_layout_of_each_series(pipeline: MoiraiMoEPipeline) -> None:
    series = [random_walk(30), random_walk(30, 1), random_walk(30, 2), pd.Series(random_walk(9))]
    shapes = [forecast.mean.shape for forecast in pipeline.predict_stream(series, 3)]
    assert shapes == [pipeline.predict(y, 3).mean.shape for y in series]


def test_a_stream_reads_no_further_than_it_must(pipeline: MoiraiMoEPipeline) -> None:
    read = []

    def endless() -> Iterator[Array]:
        for number in itertools.count():
            read.append(number)
            yield random_walk(20, seed=number)

    stream = pipeline.predict_stream(endless(), 4, batch_size=3)
    assert len(list(itertools.islice(stream, 4))) == 4
    assert len(read) == 6


@pytest.mark.parametrize("batch_size", [0, -1, 1.5, True, "3"])
def test_a_stream_checks_its_batch_size(pipeline: MoiraiMoEPipeline, batch_size: Any) -> None:
    with pytest.raises(InvalidInputError, match="batch_size"):
        list(pipeline.predict_stream([random_walk(20)], 4, batch_size=batch_size))


# --- what a forecast depends on ---------------------------------------------------------------


@pytest.mark.parametrize("factor", [2.0**-60, 1e-12, 0.3, 7.0, 1e12, 2.0**60])
@pytest.mark.parametrize(
    "y", [random_walk(60), random_walk(60, 2), np.full(20, 3.3), random_walk(1)]
)
def test_forecasts_of_a_rescaled_series_are_the_rescaled_forecasts(
    long_block_pipeline: MoiraiMoEPipeline, y: Array, factor: float
) -> None:
    expected = long_block_pipeline.predict(y, 64).quantile(LEVELS)
    got = long_block_pipeline.predict(y * factor, 64).quantile(LEVELS) / factor
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())


@pytest.mark.parametrize("shift", [-1e6, 100.0])
def test_forecasts_of_a_shifted_series_are_the_shifted_forecasts(
    long_block_pipeline: MoiraiMoEPipeline, shift: float
) -> None:
    y = random_walk(60)
    expected = long_block_pipeline.predict(y, 64).quantile(LEVELS)
    got = long_block_pipeline.predict(y + shift, 64).quantile(LEVELS) - shift
    np.testing.assert_allclose(got, expected, atol=1e-4 * np.abs(expected).max())


@pytest.mark.parametrize("horizon", [16, 40])
def test_permuting_variates_permutes_the_forecast(
    pipeline: MoiraiMoEPipeline, horizon: int
) -> None:
    y, order = random_walk(60, 3), [2, 0, 1]
    expected = pipeline.predict(y, horizon, random_state=0).quantile(LEVELS)[..., order]
    got = pipeline.predict(y[:, order], horizon, random_state=0).quantile(LEVELS)
    np.testing.assert_allclose(got, expected, rtol=1e-3, atol=1e-3)


def test_other_variates_are_seen_up_to_their_last_point(pipeline: MoiraiMoEPipeline) -> None:
    y = random_walk(64, 2)
    changed = y.copy()
    changed[[-2, -1], 1] = changed[[-1, -2], 1]  # the statistics stay
    before, after = (pipeline.predict(values, 16).quantile(0.5) for values in (y, changed))
    assert np.abs(after[:, 0] - before[:, 0]).max() > 1e-4


def test_past_covariates_are_seen(pipeline: MoiraiMoEPipeline) -> None:
    y, x = random_walk(64), random_walk(64, 2, seed=1)
    plain = pipeline.predict(y, 16).median
    one = pipeline.predict(y, 16, past_covariates=x).median
    x[[-2, -1], 1] = x[[-1, -2], 1]
    other = pipeline.predict(y, 16, past_covariates=x).median
    assert np.abs(one - plain).max() > 1e-3
    assert np.abs(other - one).max() > 1e-4


@pytest.mark.parametrize("output_patches", [1, 2])
@pytest.mark.parametrize("shift_known_future", [True, False])
def test_a_known_future_patch_is_seen_by_the_block_that_predicts_it(
    shift_known_future: bool, output_patches: int
) -> None:
    """The values of one patch change places, so that the covariate's statistics stay."""
    network = tiny_network(shift_known_future=shift_known_future, output_patches=output_patches)
    pipeline = MoiraiMoEPipeline(network)
    block, horizon = 16 * output_patches, 48 * output_patches
    y, x = random_walk(40), random_walk(40 + horizon, 1, seed=1)

    def blocks(x: Array) -> Array:
        use = {"covariate_use": "tokens", "random_state": 0}
        forecast = pipeline.predict(y, horizon, future_covariates=x, **use)
        return forecast.quantile(0.5).reshape(3, block)

    before = blocks(x)
    for number in range(3):
        changed = x.copy()
        inside = slice(40 + number * block, 40 + (number + 1) * block)
        changed[inside] = changed[inside][::-1]
        moved = np.abs(blocks(changed) - before).max(1) > 1e-4
        first_moved = number if shift_known_future else number + 1
        assert moved.tolist() == [index >= first_moved for index in range(3)]


@pytest.mark.parametrize("kind", ["pipeline", "official_pipeline"])
@pytest.mark.parametrize("length", [1, 15, 16, 50, 99, 100, 1000])
def test_a_context_length_keeps_the_last_points(
    kind: str, length: int, request: pytest.FixtureRequest
) -> None:
    pipeline: MoiraiMoEPipeline = request.getfixturevalue(kind)
    y, x = random_walk(100), random_walk(120, seed=1)
    options: dict[str, Any] = {"random_state": 0, "num_paths": 2}
    got = pipeline.predict(y, 20, context_length=length, future_covariates=x, **options)
    cut = max(100 - length, 0)
    expected = pipeline.predict(y[cut:], 20, future_covariates=x[cut:], **options)
    np.testing.assert_array_equal(got.quantile(LEVELS), expected.quantile(LEVELS))


def test_a_context_is_never_longer_than_the_network_was_made_for() -> None:
    pipeline = MoiraiMoEPipeline(tiny_network(max_seq_len=4))
    assert pipeline.max_context_length == 64
    y = random_walk(100)
    expected = pipeline.predict(y[-64:], 16).quantile(LEVELS)
    for length in (None, 64, 80):
        got = pipeline.predict(y, 16, context_length=length).quantile(LEVELS)
        np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize("missing_end", [20, 64])
def test_a_context_without_an_observed_value_is_refused(
    pipeline: MoiraiMoEPipeline, missing_end: int
) -> None:
    """Values that lie before it do not count: nothing would be known of level and scale."""
    y = np.r_[random_walk(50), np.full(missing_end, np.nan)]
    with pytest.raises(InvalidInputError, match=r"y\[1\].*missing"):
        pipeline.predict([random_walk(50), y], 4, context_length=20)


@pytest.mark.parametrize("kind", ["pipeline", "long_block_pipeline", "official_pipeline"])
def test_both_normalisers_agree_on_the_first_block(
    kind: str, request: pytest.FixtureRequest
) -> None:
    pipeline: MoiraiMoEPipeline = request.getfixturevalue(kind)
    size = 16 * pipeline.config.output_patches
    batch = [random_walk(60, 2), random_walk(25, 2, seed=1)]
    options: dict[str, Any] = {"random_state": 0, "num_paths": 3}
    frozen = pipeline.predict(batch, size + 5, **options).quantile(LEVELS)
    anew = pipeline.predict(batch, size + 5, normaliser="reestimated", **options).quantile(LEVELS)
    np.testing.assert_allclose(anew[:, :, :size], frozen[:, :, :size], rtol=5e-3, atol=1e-2)
    assert np.isfinite(anew).all()
    assert np.abs(anew[:, :, size:] - frozen[:, :, size:]).max() > 1e-3


def test_more_paths_change_nothing_within_the_first_block(pipeline: MoiraiMoEPipeline) -> None:
    y = random_walk(40)
    few, many = (
        pipeline.predict(y, 32, num_paths=paths, random_state=0).quantile(LEVELS)
        for paths in (2, 40)
    )
    np.testing.assert_array_equal(few[:, :16], many[:, :16])
    assert (few[:, 16:] != many[:, 16:]).any()


@pytest.mark.parametrize("conventions", [{}, OFFICIAL_CONVENTIONS])
def test_bfloat16_is_close_to_float32(conventions: dict[str, Any]) -> None:
    network = tiny_network(**conventions)
    y = [random_walk(100), random_walk(40)]
    exact = MoiraiMoEPipeline(network).predict(y, 16)
    half = MoiraiMoEPipeline(copy.deepcopy(network).to(torch.bfloat16))
    lower, upper = exact.interval(0.8)
    difference = np.abs(half.predict(y, 16).median - exact.median) / (upper - lower)
    assert np.median(difference) < 0.1
    assert np.isfinite(half.predict(y, 40, num_paths=3).samples).all()


def test_a_network_keeps_its_mode_and_gets_no_gradients() -> None:
    network = copy.deepcopy(tiny_network()).requires_grad_(True).train()
    pipeline = MoiraiMoEPipeline(network)
    pipeline.predict(random_walk(40), 20, num_paths=2)
    assert network.training
    assert all(parameter.grad is None for parameter in network.parameters())


# --- bad input --------------------------------------------------------------------------------

WALK = random_walk(20)
BAD_ARGUMENTS: dict[str, tuple[dict[str, Any], str]] = {
    **{
        f"horizon {value!r}": ({"horizon": value}, "horizon")
        for value in (0, -1, 1.5, True, "3", None, np.float64(2), [3])
    },
    **{
        f"{name} {value!r}": ({name: value}, name)
        for name in ("num_samples", "num_paths", "batch_size", "context_length")
        for value in (0, -5, 2.5, False, "3")
    },
    "normaliser": ({"normaliser": "running"}, "normaliser"),
    "normaliser none": ({"normaliser": None}, "normaliser"),
    "random_state": ({"random_state": "seed"}, "random_state"),
    "empty": ({"y": np.array([])}, "empty"),
    "no series": ({"y": []}, "no series"),
    "all missing": ({"y": [WALK, WALK * np.nan]}, r"y\[1\]"),
    "infinite": ({"y": [WALK, np.r_[WALK, np.inf]]}, r"y\[1\]"),
    "strings": ({"y": ["a", "b"]}, "numbers"),
    "objects": ({"y": np.array([object()] * 3)}, "numbers"),
    "complex": ({"y": WALK * 1j}, "numbers"),
    "dates": ({"y": np.array(["2020-01-01"], dtype="M8[D]")}, "numbers"),
    "three dimensions": ({"y": np.zeros((2, 3, 4))}, "dimensions"),
    "short future": ({"future_covariates": np.zeros(20)}, "future_covariates"),
    "long past": ({"past_covariates": np.zeros(24)}, "past_covariates"),
    "list of covariates": ({"future_covariates": [np.zeros(24)]}, "future_covariates"),
}


@pytest.mark.parametrize("case", BAD_ARGUMENTS)
def test_bad_input_is_refused_before_any_computation(
    pipeline: MoiraiMoEPipeline, case: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise AssertionError("the network ran")

    monkeypatch.setattr(MoiraiMoE, "encode", fail)
    changes, message = BAD_ARGUMENTS[case]
    arguments = {"y": WALK, "horizon": 4, **changes}
    with pytest.raises(InvalidInputError, match=message) as caught:
        pipeline.predict(**arguments)
    assert isinstance(caught.value, ValueError)


@pytest.mark.parametrize("device", ["nonsense", "cpu:x", "", None, 1.5])
def test_an_unknown_device_is_refused(device: Any) -> None:
    with pytest.raises(InvalidInputError, match="device"):
        MoiraiMoEPipeline.from_pretrained("no/such/place", device=device)


@pytest.mark.parametrize("dtype", ["float33", "nn", "int32", torch.int8, 1.5, "", 0, np.float32])
def test_an_unknown_dtype_is_refused(dtype: Any) -> None:
    with pytest.raises(InvalidInputError, match="dtype"):
        MoiraiMoEPipeline.from_pretrained("no/such/place", dtype=dtype)


def test_an_unknown_option_is_refused(pipeline: MoiraiMoEPipeline) -> None:
    with pytest.raises(TypeError, match="horizons"):
        pipeline.predict(WALK, 4, horizons=3)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="horizons"):
        next(pipeline.predict_stream([WALK], 4, horizons=3))
