"""Forecasts beyond one pass through missing values instead of drawn ones."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from moirai_moe_forecaster import ModelConfig, MoiraiMoE, MoiraiMoEPipeline
from moirai_moe_forecaster.errors import ConfigError

POINTS = 32


def pipeline(**changes: object) -> MoiraiMoEPipeline:
    options = {"num_layers": 1, "output_patches": 2, "mirror_up_to": 0, "beyond_pass": "hidden"}
    config = ModelConfig.preset("tiny", **{**options, **changes})
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = MoiraiMoE(config)
        network.projection.weight.data.mul_(10)
    return MoiraiMoEPipeline(network)


def walk(points: int, variates: int = 1) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(points, variates)).cumsum(0)


@pytest.mark.parametrize("periods", [0, 2])
def test_a_later_block_is_what_a_context_that_ends_with_missing_values_has(periods: int) -> None:
    model, y = pipeline(reference_periods=periods), walk(200)[:, 0]
    whole = model.predict(y, 3 * POINTS, random_state=0).median
    for block in range(3):
        gap = np.concatenate((y, np.full(block * POINTS, np.nan)))
        own = model.predict(gap, POINTS, random_state=0).median
        np.testing.assert_allclose(
            whole[block * POINTS : (block + 1) * POINTS], own, rtol=1e-4, atol=1e-4
        )


def test_series_variates_and_covariates_do_not_mix() -> None:
    model = pipeline()
    ys = [walk(200, 2), walk(150, 2)]
    future = [np.ones((len(y) + 80, 1)).cumsum(0) for y in ys]
    options = {"covariate_use": "tokens", "random_state": 0}
    together = model.predict(ys, 80, future_covariates=future, **options).median
    assert together.shape == (2, 80, 2)
    for y, covariate, forecast in zip(ys, future, together, strict=True):
        alone = model.predict(y, 80, future_covariates=covariate, **options).median
        np.testing.assert_allclose(forecast, alone, rtol=1e-3, atol=1e-3)


def test_paths_that_are_asked_for_are_drawn() -> None:
    model, y = pipeline(), walk(200)[:, 0]
    hidden = model.predict(y, 2 * POINTS, random_state=0)
    drawn = model.predict(y, 2 * POINTS, num_paths=8, random_state=0)
    np.testing.assert_allclose(hidden.median[:POINTS], drawn.median[:POINTS], atol=1e-4)
    assert not np.allclose(hidden.median[POINTS:], drawn.median[POINTS:], atol=1e-4)
    assert hidden.samples.shape == (100, 2 * POINTS)


def test_together_with_the_context_hidden_patches_are_no_more_than_the_network_knows() -> None:
    model, y = pipeline(max_seq_len=16), walk(500)[:, 0]
    half = model.predict(y, 4 * POINTS, random_state=0)
    cut = model.predict(y[-(16 * 16 - 3 * POINTS) :], 4 * POINTS, random_state=0)
    np.testing.assert_allclose(half.median, cut.median, atol=1e-4)
    assert model.predict(y, 20 * POINTS, random_state=0).median.shape == (20 * POINTS,)


def test_networks_that_cannot_see_what_is_missing_need_paths() -> None:
    with pytest.raises(ConfigError, match="observed_mask_input"):
        ModelConfig.preset("tiny", beyond_pass="hidden", observed_mask_input=False)
