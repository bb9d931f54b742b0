"""Representations are those of the network, of every series by itself."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from moirai_moe_forecaster.data.series import read_series
from moirai_moe_forecaster.errors import InvalidInputError
from moirai_moe_forecaster.inference.pipeline import MoiraiMoEPipeline
from moirai_moe_forecaster.inference.prompt import make_prompt


def walk(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).cumsum(0)


def test_shapes_follow_the_input(pipeline: MoiraiMoEPipeline) -> None:
    single = pipeline.embed(walk(100))
    assert single.pooled.shape == (32,)
    assert single.tokens.shape == (1, 7, 32)
    batch = pipeline.embed([walk(100), walk(20, 3), walk(33)])
    assert batch.pooled.shape == (3, 32)
    assert [part.shape for part in batch.tokens] == [(1, 7, 32), (3, 2, 32), (1, 3, 32)]
    np.testing.assert_allclose(batch.pooled[1], batch.tokens[1].mean((0, 1)), rtol=1e-6)


def test_tokens_are_the_networks_hidden_states(pipeline: MoiraiMoEPipeline) -> None:
    y = walk(48, 2)
    prompt = make_prompt(read_series(y, 0).series, 0, pipeline.config, 512)
    with torch.inference_mode():
        hidden = pipeline.network.encode(prompt.given()).hidden[0]
    np.testing.assert_allclose(pipeline.embed(y).tokens, hidden.unflatten(0, (2, 3)), rtol=1e-6)


def test_a_series_has_the_same_representation_in_any_batch(pipeline: MoiraiMoEPipeline) -> None:
    series = [walk(length, seed=length) for length in (100, 97, 64, 20, 120, 144)]
    together = pipeline.embed(series).pooled
    for alone, y in zip(together, series, strict=True):
        np.testing.assert_allclose(alone, pipeline.embed(y).pooled, atol=2e-5)


@pytest.mark.parametrize(("budget", "passes"), [(None, 1), (1, 5)])
def test_passes_fit_into_memory(
    pipeline: MoiraiMoEPipeline, monkeypatch: pytest.MonkeyPatch, budget: int | None, passes: int
) -> None:
    calls = []
    encode = pipeline.network.encode
    monkeypatch.setattr(pipeline.network, "encode", lambda x: calls.append(1) or encode(x))
    monkeypatch.setattr(pipeline, "memory_budget", budget)
    pipeline.embed([walk(100, seed=seed) for seed in range(5)])
    assert len(calls) == passes


def test_level_and_scale_leave_no_trace(pipeline: MoiraiMoEPipeline) -> None:
    y = walk(80)
    plain, moved = pipeline.embed(y).pooled, pipeline.embed(5 + 1000 * y).pooled
    np.testing.assert_allclose(plain, moved, atol=1e-4)


def test_covariates_are_seen_but_not_pooled(pipeline: MoiraiMoEPipeline) -> None:
    y = walk(64)
    plain = pipeline.embed(y)
    driven = pipeline.embed(y, past_covariates=walk(64, seed=1))
    ahead = pipeline.embed(y, future_covariates=walk(80, seed=1), horizon=16)
    assert driven.tokens.shape == ahead.tokens.shape == plain.tokens.shape
    assert not np.allclose(plain.pooled, driven.pooled, atol=1e-3)
    assert not np.allclose(plain.pooled, ahead.pooled, atol=1e-3)


def test_bad_input_is_named(pipeline: MoiraiMoEPipeline) -> None:
    with pytest.raises(InvalidInputError, match=r"y\[1\] holds only missing"):
        pipeline.embed([walk(20), np.full(20, np.nan)])
    with pytest.raises(InvalidInputError, match="horizon must be an integer of at least 0"):
        pipeline.embed(walk(20), horizon=-1)
    with pytest.raises(InvalidInputError, match="expected 25"):
        pipeline.embed(walk(20), future_covariates=walk(20), horizon=5)


def test_a_bad_budget_is_refused(
    pipeline: MoiraiMoEPipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline, "memory_budget", 0)
    with pytest.raises(InvalidInputError, match="memory_budget"):
        pipeline.routing(walk(20))
