from __future__ import annotations

import numpy as np
import pytest

from moirai_moe_forecaster import MoiraiMoEPipeline
from tiny_network import tiny_network

LONGEST = 64
LEVELS = np.array([0.05, 0.3, 0.5, 0.9])
HORIZON = 20


def pipeline_of(mirror_up_to: int = LONGEST) -> MoiraiMoEPipeline:
    return MoiraiMoEPipeline(tiny_network(output_patches=2, mirror_up_to=mirror_up_to))


def walk(length: int, seed: int = 0, variates: int | None = None) -> np.ndarray:
    shape = length if variates is None else (length, variates)
    return np.random.default_rng(seed).normal(size=shape).cumsum(0)


@pytest.mark.parametrize("variates", [None, 2])
def test_a_short_series_turned_upside_down_has_the_forecast_turned_upside_down(
    variates: int | None,
) -> None:
    pipeline, y = pipeline_of(), walk(LONGEST, variates=variates)
    above, below = (pipeline.predict(sign * y, HORIZON, random_state=0) for sign in (1, -1))
    np.testing.assert_allclose(above.quantile(LEVELS), -below.quantile(1 - LEVELS), atol=1e-4)
    np.testing.assert_allclose(above.mean, -below.mean, atol=1e-4)


def test_the_forecast_is_the_average_of_both_views() -> None:
    y, plain = walk(LONGEST), pipeline_of(0)
    views = [
        plain.predict(y, HORIZON).quantile(LEVELS),
        -plain.predict(-y, HORIZON).quantile(1 - LEVELS),
    ]
    got = pipeline_of().predict(y, HORIZON).quantile(LEVELS)
    assert np.abs(views[0] - views[1]).max() > 0.1
    np.testing.assert_allclose(got, np.mean(views, 0), atol=1e-4)


def test_longer_contexts_are_forecast_as_they_are() -> None:
    y = walk(LONGEST + 1)
    both = [pipeline_of(n).predict(y, HORIZON).quantile(LEVELS) for n in (0, LONGEST)]
    np.testing.assert_allclose(*both, atol=1e-5)
    # what counts is what is used of a series
    short = [
        pipeline_of(n).predict(y, HORIZON, context_length=LONGEST).quantile(LEVELS)
        for n in (0, LONGEST)
    ]
    assert np.abs(np.subtract(*short)).max() > 0.1


@pytest.mark.parametrize("horizon", [HORIZON, 100])
def test_a_batch_of_short_and_long_contexts_is_forecast_as_each_alone(horizon: int) -> None:
    pipeline = pipeline_of()
    batch = [walk(length, seed=length) for length in (70, 60, 66, 64, 65)]
    together = pipeline.predict(batch, horizon, random_state=0)
    for index, y in enumerate(batch):
        alone = pipeline.predict(y, horizon, random_state=0)
        np.testing.assert_allclose(
            together[index].quantile(LEVELS), alone.quantile(LEVELS), atol=1e-3
        )
        # rounding may swap the ranks of paths that are as good as equal
        off = np.abs(together[index].samples - alone.samples) > 1e-2
        assert off.mean() < 0.01
    assert len(together) == len(batch)


def test_known_future_covariates_keep_their_direction() -> None:
    y, x = walk(LONGEST), walk(LONGEST + HORIZON, seed=1, variates=1)
    options = {"future_covariates": x, "covariate_use": "tokens"}
    plain = pipeline_of(0)
    views = [
        plain.predict(y, HORIZON, **options).quantile(LEVELS),
        -plain.predict(-y, HORIZON, **options).quantile(1 - LEVELS),
    ]
    got = pipeline_of().predict(y, HORIZON, **options).quantile(LEVELS)
    np.testing.assert_allclose(got, np.mean(views, 0), atol=1e-4)
