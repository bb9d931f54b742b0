from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from moirai_moe_forecaster.data.series import Series
from moirai_moe_forecaster.errors import InvalidInputError, OutOfMemoryError
from moirai_moe_forecaster.inference import batches
from moirai_moe_forecaster.inference.batching import Load, automatic_budget, groups
from moirai_moe_forecaster.inference.pipeline import MoiraiMoEPipeline
from moirai_moe_forecaster.model.network import MoiraiMoE
from tiny_network import tiny_config


def series_of(lengths: Sequence[int], variates: int = 1) -> list[Series]:
    return [Series(np.zeros((variates, n)), np.empty((0, n)), np.empty((0, n))) for n in lengths]


def load(horizon: int = 48, paths: int = 32, context_length: int = 1024) -> Load:
    return Load(
        config=tiny_config(),
        context_length=context_length,
        horizon=horizon,
        paths=paths,
        reestimated=False,
    )


def test_every_series_is_in_one_group_of_its_kind() -> None:
    lengths = np.random.default_rng(0).integers(1, 1500, 300)
    series = [*series_of(lengths[:200]), *series_of(lengths[200:], variates=2)]
    found = list(groups(series, load(), 2**24, 500, 16))
    assert sorted(index for group in found for index in group) == list(range(300))
    assert all(len(group) <= 16 for group in found)
    assert all(len({len(series[i].target) for i in group}) == 1 for group in found)


@pytest.mark.parametrize("longest", [40, 300, 3000])
def test_little_is_padding(longest: int) -> None:
    series = series_of(np.random.default_rng(1).integers(1, longest, 500))
    work = load()
    widths = [[work.width(series[i]) for i in g] for g in groups(series, work, 2**40, None, None)]
    padded = sum(max(group) * len(group) for group in widths)
    assert padded <= 1.15 * sum(map(sum, widths))


def test_a_budget_bounds_every_group_of_more_than_one() -> None:
    series, work = series_of([512] * 100), load()
    one = work.bytes(series[0])
    assert {len(g) for g in groups(series, work, 10 * one, None, None)} == {10}
    assert {len(g) for g in groups(series, work, one // 2, None, None)} == {1}
    assert {len(g) for g in groups(series, work, 2**40, 320, None)} == {10}


def test_the_estimate_grows_with_all_that_takes_memory() -> None:
    (one,) = series_of([512])
    plain = load().bytes(one)
    assert load(horizon=16, paths=1000).bytes(one) == load(horizon=16).bytes(one) < plain
    assert load(paths=64).bytes(one) > 1.5 * plain
    assert load(horizon=480).bytes(one) > plain
    assert load().bytes(*series_of([512], variates=3)) > 3 * plain
    assert replace(load(), reestimated=True).bytes(one) > 3 * plain


def test_the_automatic_budget_is_a_share_of_what_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    assert 2**28 <= automatic_budget(torch.device("cpu")) <= 2**29

    def unknown(name: str) -> int:
        raise ValueError(name)

    monkeypatch.setattr(batches.os, "sysconf", unknown)
    assert automatic_budget(torch.device("cpu")) == 2**28


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes"),
        torch.OutOfMemoryError("CUDA out of memory"),
        RuntimeError("MPS backend out of memory"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate"),
    ],
)
def test_where_memory_runs_out_halves_are_tried(
    pipeline: MoiraiMoEPipeline, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    walks = list(np.random.default_rng(0).normal(size=(7, 50)).cumsum(1))
    expected = pipeline.predict(walks, 40, num_paths=4, random_state=0)
    encode, sizes = MoiraiMoE.encode, []

    def short_of_memory(network: MoiraiMoE, tokens: Any, query_index: Any) -> Any:
        sizes.append(len(tokens.values))
        if len(tokens.values) > 2:
            raise error
        return encode(network, tokens, query_index)

    monkeypatch.setattr(MoiraiMoE, "encode", short_of_memory)
    got = pipeline.predict(walks, 40, num_paths=4, random_state=0)
    assert sizes[0] == 7
    assert sum(size for size in sizes if size <= 2) == 7
    np.testing.assert_allclose(
        got.quantile([0.1, 0.5, 0.9]), expected.quantile([0.1, 0.5, 0.9]), rtol=1e-3
    )


def test_later_passes_are_no_larger_than_what_fitted(
    pipeline: MoiraiMoEPipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    walks = list(np.random.default_rng(0).normal(size=(24, 50)).cumsum(1))
    encode, sizes = MoiraiMoE.encode, []

    def short_of_memory(network: MoiraiMoE, tokens: Any, query_index: Any) -> Any:
        sizes.append(len(tokens.values))
        if len(tokens.values) > 2:
            raise MemoryError
        return encode(network, tokens, query_index)

    monkeypatch.setattr(MoiraiMoE, "encode", short_of_memory)
    pipeline.predict(walks, 8, batch_size=8, random_state=0)
    assert sizes == [8, 4, *[2] * 2, 4, *[2] * 2, *[2] * 8]


@pytest.mark.parametrize("budget", [0, -5, "1GB"])
def test_a_memory_budget_is_a_number_of_bytes(
    pipeline: MoiraiMoEPipeline, walk: Any, budget: Any
) -> None:
    limited = MoiraiMoEPipeline(pipeline.network)
    limited.memory_budget = budget
    with pytest.raises(InvalidInputError, match="memory_budget"):
        limited.predict(walk, 8)


def test_a_single_series_that_does_not_fit_says_what_to_do(
    pipeline: MoiraiMoEPipeline, monkeypatch: pytest.MonkeyPatch, walk: Any
) -> None:
    def fail(network: MoiraiMoE, tokens: Any, query_index: Any) -> Any:
        raise MemoryError

    monkeypatch.setattr(MoiraiMoE, "encode", fail)
    with pytest.raises(OutOfMemoryError, match="num_paths"):
        pipeline.predict(walk, 8)


def test_other_runtime_errors_pass_through(
    pipeline: MoiraiMoEPipeline, monkeypatch: pytest.MonkeyPatch, walk: Any
) -> None:
    def fail(network: MoiraiMoE, tokens: Any, query_index: Any) -> Any:
        raise RuntimeError("shapes do not match")

    monkeypatch.setattr(MoiraiMoE, "encode", fail)
    with pytest.raises(RuntimeError, match="shapes"):
        pipeline.predict([walk, walk], 8)


def test_the_memory_budget_does_not_change_the_forecast(pipeline: MoiraiMoEPipeline) -> None:
    walks = list(np.random.default_rng(0).normal(size=(6, 60)).cumsum(1))
    small = MoiraiMoEPipeline(pipeline.network)
    small.memory_budget = 1
    one, other = (p.predict(walks, 40, num_paths=4, random_state=0) for p in (pipeline, small))
    width = np.subtract(*one.interval(0.8)[::-1])
    gap = np.abs(one.quantile([0.1, 0.5, 0.9]) - other.quantile([0.1, 0.5, 0.9])) / width[:, None]
    assert np.quantile(gap, 0.999) < 1e-3
