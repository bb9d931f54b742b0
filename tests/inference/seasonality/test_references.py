"""Forecasts of networks that read what repeats, without training: gates set by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from moirai_moe_forecaster import ModelConfig, MoiraiMoE, MoiraiMoEPipeline


def repeating_network() -> MoiraiMoE:
    """A network all of whose locations are the last cycle, with narrow components around it."""
    config = ModelConfig.preset(
        "tiny", num_layers=1, output_patches=2, reference_periods=1, mirror_up_to=0
    )
    network = MoiraiMoE(config).eval()
    assert network.reference is not None
    with torch.no_grad():
        network.projection.weight.zero_()
        network.projection.bias.fill_(-9.0)
        network.reference.gate.bias.copy_(torch.tensor([1.0, 0.0]).repeat(6))
    return network


@pytest.mark.parametrize("horizon", [20, 32, 100])
def test_cycles_go_on_through_all_passes(horizon: int) -> None:
    shape = np.random.default_rng(0).normal(size=24)
    y = np.tile(shape, 12)
    forecast = MoiraiMoEPipeline(repeating_network()).predict(y, horizon, random_state=0)
    expected = np.tile(shape, 12)[:horizon]
    np.testing.assert_allclose(forecast.median, expected, atol=0.02)


def test_each_series_of_a_batch_has_its_own_period() -> None:
    rng = np.random.default_rng(0)
    shapes = [rng.normal(size=period) for period in (12, 24)]
    ys = [np.tile(shape, 240 // len(shape))[: 240 - 5 * i] for i, shape in enumerate(shapes)]
    pipeline = MoiraiMoEPipeline(repeating_network())
    together = pipeline.predict(ys, 40, random_state=0).median
    for y, forecast in zip(ys, together, strict=True):
        alone = pipeline.predict(y, 40, random_state=0).median
        np.testing.assert_allclose(forecast, alone, atol=1e-4)


def test_a_series_without_a_period_is_forecast() -> None:
    forecast = MoiraiMoEPipeline(repeating_network()).predict(np.arange(30.0), 40, random_state=0)
    assert np.isfinite(forecast.median).all()


def test_references_reach_targets_and_other_variates_and_embeddings() -> None:
    y = np.random.default_rng(0).normal(size=(100, 2))
    future = np.random.default_rng(1).normal(size=(140, 1))
    pipeline = MoiraiMoEPipeline(repeating_network())
    forecast = pipeline.predict(
        y, 40, future_covariates=future, covariate_use="tokens", random_state=0
    )
    assert forecast.median.shape == (40, 2)
    assert pipeline.embed(y).pooled.shape == (192,)
