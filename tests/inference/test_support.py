"""Bounds and whole numbers: all that is read off a forecast is of one and the same variable."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from moirai_moe_forecaster.errors import InvalidInputError
from moirai_moe_forecaster.inference.forecast import Forecast
from moirai_moe_forecaster.inference.pipeline import MoiraiMoEPipeline

LEVELS = np.arange(1, 1000) / 1000


@pytest.fixture(scope="module")
def demand() -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.poisson(size, 80).astype(float) for size in (0.4, 3.0, 50.0)]


def forecast(pipeline: MoiraiMoEPipeline, y: Any, **options: Any) -> Forecast:
    return pipeline.predict(y, 20, random_state=0, num_samples=2000, **options)


@pytest.mark.parametrize(
    ("bounds", "integer"),
    [((0, None), False), ((0, 4), False), ((0, None), True), ((None, 45.5), True), (None, True)],
)
def test_everything_is_of_one_variable(
    pipeline: MoiraiMoEPipeline, demand: list[np.ndarray], bounds: Any, integer: bool
) -> None:
    found = forecast(pipeline, demand, bounds=bounds, integer=integer)
    free = forecast(pipeline, demand)
    quantiles = found.quantile(LEVELS)
    expected = free.quantile(LEVELS)
    if bounds is not None:
        low, high = bounds
        expected = expected.clip(low, high if not integer or high is None else np.floor(high))
    if integer:
        expected = np.rint(expected)
    # between two nodes a bound moves the line
    assert (np.abs(quantiles - expected) > 0.02 * np.abs(expected).max()).mean() < 0.01
    assert (np.diff(quantiles, axis=1) >= 0).all()
    for values in (quantiles, found.samples):
        if bounds is not None:
            assert values.min() >= (-np.inf if low is None else low)
            assert values.max() <= (np.inf if high is None else high)
        if integer:
            np.testing.assert_array_equal(values, np.rint(values))
    spread = quantiles.std(1) + 1e-9
    np.testing.assert_array_less(np.abs(found.samples.mean(1) - found.mean), 0.15 * spread + 0.02)
    for index in (50, 500, 900):
        reached = found.cdf(quantiles[:, index])
        assert (reached >= LEVELS[index] - 1e-6).all()
        if integer:
            assert (found.cdf(quantiles[:, index] - 1) <= LEVELS[index] + 1e-6).all()


def test_without_either_nothing_changes(
    pipeline: MoiraiMoEPipeline, demand: list[np.ndarray]
) -> None:
    plain = forecast(pipeline, demand)
    far = forecast(pipeline, demand, bounds=(-1e9, 1e9))
    np.testing.assert_array_equal(plain.mean, forecast(pipeline, demand, bounds=None).mean)
    np.testing.assert_allclose(far.quantile(LEVELS), plain.quantile(LEVELS), rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(far.mean, plain.mean, rtol=1e-9, atol=1e-9)


def test_the_ends_have_all_probability(pipeline: MoiraiMoEPipeline) -> None:
    y = np.random.default_rng(0).uniform(size=80)
    found = forecast(pipeline, y, bounds=(0, 1))
    assert (found.cdf(np.ones(20)) == 1).all()
    assert (found.cdf(np.full(20, -1e-9)) == 0).all()
    assert (found.cdf(np.zeros(20)) > 0).any()


def test_a_part_of_a_batch_keeps_it(pipeline: MoiraiMoEPipeline, demand: list[np.ndarray]) -> None:
    found = forecast(pipeline, demand, bounds=(0, None), integer=True)
    np.testing.assert_array_equal(found[1].median, found.median[1])
    (first, *_) = pipeline.predict_stream(
        demand, 20, random_state=0, num_samples=2000, bounds=(0, None), integer=True
    )
    np.testing.assert_allclose(first.quantile(LEVELS), found[0].quantile(LEVELS))


def test_tables(pipeline: MoiraiMoEPipeline, demand: list[np.ndarray]) -> None:
    times = pd.date_range("2024-01-01", periods=80)
    df = pd.DataFrame({"timestamp": times, "target": demand[0]})
    table = pipeline.predict_df(df, 5, id_column=None, bounds=(0, None), integer=True)
    values = table[["median", "0.1", "0.9"]]
    assert ((values >= 0) & (values == values.round())).all(axis=None)
    assert (table["mean"] >= 0).all()


@pytest.mark.parametrize(
    "options",
    [
        {"bounds": 0},
        {"bounds": (0,)},
        {"bounds": ("a", 1)},
        {"bounds": (float("nan"), 1)},
        {"bounds": (2, 1)},
        {"bounds": (0.2, 0.8), "integer": True},
        {"integer": 1},
    ],
)
def test_what_leaves_no_values_is_an_error(
    pipeline: MoiraiMoEPipeline, options: dict[str, Any]
) -> None:
    with pytest.raises(InvalidInputError, match=r"bounds|integer"):
        pipeline.predict(np.arange(20.0), 3, **options)
