"""Batches of a step, the kinds of windows in them, and validation."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from moirai_moe_forecaster.config import ModelConfig, TrainConfig
from moirai_moe_forecaster.errors import InvalidInputError
from moirai_moe_forecaster.training.data import batches
from moirai_moe_forecaster.training.data.batches import (
    BatchMaker,
    validation_batches,
)
from moirai_moe_forecaster.training.data.corpus import Source, hold_out
from moirai_moe_forecaster.training.data.packing import TrainingBatch
from moirai_moe_forecaster.training.data.window_values import prefix_points
from moirai_moe_forecaster.training.synthetic.generate import synthesise

MODEL = ModelConfig(
    d_model=16, d_ff=16, num_layers=1, num_heads=1, num_experts=2, experts_per_token=1
)
TRAINING = TrainConfig(steps=10, batch_rows=20, row_tokens=32, max_points=256, synthetic_pool=32)
REAL = TrainConfig(**{**TRAINING.to_dict(), "synthetic_share": 0.0, "coupled_share": 0.0})


def walks(count: int = 60) -> Source:
    rng = np.random.default_rng(0)
    lengths = rng.integers(5, 600, count)
    offsets = np.concatenate(([0], lengths.cumsum()))
    points = rng.normal(size=offsets[-1]).cumsum().astype(np.float32)
    points[rng.random(len(points)) < 0.05] = np.nan
    relation = np.zeros(count, dtype=np.int64)
    return Source("walks", points, offsets, 1.0, relation, rng.integers(0, 100, count))


def same(a: TrainingBatch, b: TrainingBatch) -> bool:
    pairs = zip((*a.tokens, a.weights), (*b.tokens, b.weights), strict=True)
    return all(torch.equal(left, right) for left, right in pairs)


def test_a_batch_depends_on_seed_and_step_alone() -> None:
    maker = BatchMaker([walks()], MODEL, TRAINING)
    first, second = maker.batch(3), maker.batch(4)
    fresh = BatchMaker([walks()], MODEL, TRAINING)
    fresh.batch(200)  # needs other synthetic series
    assert same(fresh.batch(3), first)
    assert not torch.equal(first.tokens.values, second.tokens.values)
    other = BatchMaker([walks()], MODEL, TrainConfig(**{**TRAINING.to_dict(), "seed": 1})).batch(3)
    assert not torch.equal(first.tokens.values, other.tokens.values)


def test_parts_of_a_batch_are_the_groups_of_the_whole() -> None:
    maker = BatchMaker([walks()], MODEL, TRAINING)
    whole = maker.batch(2)
    rows = [range(0, 8), range(8, 16), range(16, 20)]
    for parts, groups in {2: [[0, 2], [1]], 3: [[0], [1], [2]]}.items():
        for part, mine in enumerate(groups):
            index = torch.tensor([row for group in mine for row in rows[group]])
            expected = TrainingBatch(
                type(whole.tokens)(*(column[index] for column in whole.tokens)),
                whole.weights[index],
            )
            assert same(maker.batch(2, part, parts), expected)


def test_groups_of_rows_differ() -> None:
    values = BatchMaker([walks()], MODEL, REAL).batch(0).tokens.values
    assert not torch.equal(values[:8], values[8:16])


def test_synthetic_series_serve_a_stretch_of_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    seeds = []

    def record(count: int, length: int, generator: torch.Generator) -> torch.Tensor:
        seeds.append(generator.initial_seed())
        return synthesise(count, length, generator)

    monkeypatch.setattr(batches, "synthesise", record)
    maker = BatchMaker([walks()], MODEL, TRAINING)
    steps = TRAINING.synthetic_pool * batches.TOKENS_PER_SYNTHETIC // (20 * 32)
    for step in (0, steps - 1, steps, 2 * steps - 1):
        maker.batch(step)
    assert len(seeds) == 4  # long and short ones, twice
    assert len(set(seeds)) == 2


def test_points_and_stretches_are_made_missing() -> None:
    rng = np.random.default_rng(0)
    whole = Source("noise", rng.normal(size=9000).astype(np.float32), np.array([0, 9000]), 1.0)
    shares = {"missing_share": 1.0, "long_share": 1.0, "mixing_share": 0.0, "stride_share": 0.0}
    maker = BatchMaker([whole], MODEL, TrainConfig(**{**REAL.to_dict(), **shares}))
    tokens = maker.batch(0).tokens
    missing = ~tokens.observed.flatten(1)
    assert missing[tokens.sample_id.repeat_interleave(16, 1) > 0].float().mean() == pytest.approx(
        0.175, abs=0.06
    )
    patches_lost = (~tokens.observed).all(-1) & (tokens.sample_id > 0)
    scattered = tokens.observed.any(-1) & ~tokens.observed.all(-1)
    assert patches_lost.any()
    assert scattered.float().mean() > 0.3
    shares["missing_share"] = 0.0
    maker = BatchMaker([whole], MODEL, TrainConfig(**{**REAL.to_dict(), **shares}))
    tokens = maker.batch(0).tokens
    assert (tokens.observed.any(-1) == (tokens.sample_id > 0)).all()


def test_any_seed_makes_batches() -> None:
    for seed in (20250101123456, 2**63 - 1):
        assert BatchMaker([walks()], MODEL, replace(TRAINING, seed=seed)).batch(0).weights.any()


@pytest.mark.parametrize("share", [0.1, 0.6])
def test_the_share_of_a_prefix_bears_no_loss(share: float) -> None:
    rng = np.random.default_rng(0)
    noise = Source("noise", rng.normal(size=9000).astype(np.float32), np.array([0, 9000]), 1.0)
    shares = {"long_share": 1.0, "missing_share": 0.0, "mixing_share": 0.0, "stride_share": 0.0}
    training = replace(REAL, prefix_share=(share, share), **shares)
    batch = BatchMaker([noise], MODEL, training).batch(0)
    scored = (batch.weights > 0).sum() / batch.tokens.observed.sum()
    # prefixes end with a patch, of which these windows have 32
    assert float(scored) == pytest.approx(1 - share, abs=0.03)


def test_prefixes_end_with_a_patch_and_show_enough_for_a_scale() -> None:
    length = np.array([20, 33, 36, 320, 320, 320, 17, 16])
    share = np.array([0.1, 0.1, 0.1, 0.5, 0.01, 0.99, 0.5, 0.5])
    got = prefix_points(share, length, 16)
    # 1 + 16 + 16 points: the first patch alone would be one point
    assert got.tolist() == [4, 17, 4, 160, 16, 304, 1, 16]


def test_windows_no_longer_than_a_patch_are_refused() -> None:
    with pytest.raises(InvalidInputError, match="max_points=16 must be above patch_size=16"):
        BatchMaker([walks()], MODEL, replace(REAL, min_points=5, max_points=16))


def test_more_parts_than_groups_are_refused() -> None:
    maker = BatchMaker([walks()], MODEL, REAL)
    with pytest.raises(InvalidInputError, match="20 rows are 3 groups of 8"):
        maker.batch(0, 3, 4)
    with pytest.raises(InvalidInputError, match="part 2 of 2"):
        maker.batch(0, 2, 2)


def test_batches_leave_the_global_random_states_alone() -> None:
    torch_state = torch.random.get_rng_state()
    numpy_state = np.random.get_state()[1].copy()  # noqa: NPY002
    BatchMaker([walks()], MODEL, TRAINING).batch(0)
    assert torch.equal(torch_state, torch.random.get_rng_state())
    assert (numpy_state == np.random.get_state()[1]).all()  # noqa: NPY002


def test_rows_are_full_and_hold_several_samples() -> None:
    maker = BatchMaker([walks()], MODEL, TRAINING)
    batches = [maker.batch(step) for step in range(5)]
    samples = torch.cat([batch.tokens.sample_id for batch in batches])
    assert (samples > 0).float().mean() > 0.98
    assert samples.amax(1).float().mean() > 1
    assert all(batch.tokens.values.isfinite().all() for batch in batches)


def test_tokens_of_a_variate_stand_beside_each_other_in_order_of_time() -> None:
    tokens = BatchMaker([walks()], MODEL, TRAINING).batch(0).tokens
    same_variate = (tokens.sample_id[:, 1:] == tokens.sample_id[:, :-1]) & (
        tokens.variate_id[:, 1:] == tokens.variate_id[:, :-1]
    )
    same_variate &= tokens.sample_id[:, 1:] > 0
    assert (tokens.time_id.diff(dim=1)[same_variate] == 1).all()
    starts = ~same_variate & (tokens.sample_id[:, 1:] > 0)
    begins = torch.where(tokens.known_future, -MODEL.output_patches, 0)[:, 1:]
    assert torch.equal(tokens.time_id[:, 1:][starts], begins[starts])
    assert tokens.known_future.any()


def test_scored_points_are_observed_targets() -> None:
    batch = BatchMaker([walks()], MODEL, TRAINING).batch(1)
    scored = batch.weights > 0
    assert (scored <= batch.tokens.observed).all()
    assert not scored[batch.tokens.known_future].any()
    assert scored.float().mean() > 0.3


def test_points_may_lie_in_a_file(tmp_path: Path) -> None:
    source = walks()
    mapped = np.memmap(tmp_path / "points", np.float32, "w+", shape=source.points.shape)
    mapped[:] = source.points
    there = BatchMaker([replace(source, points=mapped)], MODEL, REAL).batch(0)
    assert same(there, BatchMaker([source], MODEL, REAL).batch(0))


def test_held_out_stretches_are_not_trained_on_and_validated_on() -> None:
    (kept,), validation = hold_out([walks()])
    points = kept.points.copy()
    for index, length in enumerate(kept.lengths):
        end = kept.offsets[index + 1]
        points[kept.offsets[index] + length : end] = 1e30
    poisoned = replace(kept, points=points)
    maker = BatchMaker([poisoned], MODEL, REAL)
    plain = BatchMaker([kept], MODEL, REAL)
    assert all(same(maker.batch(step), plain.batch(step)) for step in range(5))
    batches = validation_batches(validation, MODEL, TRAINING, rows=2)
    assert set(batches[0].weights.unique().tolist()) == {0.0, 1.0}


def test_validation_is_scored_on_the_last_fifth_of_the_end_of_a_series() -> None:
    series = np.concatenate((np.full(600, 50.0), np.arange(200))).astype(np.float32)
    (batch,) = validation_batches([series], MODEL, TRAINING, rows=2)
    points = batch.tokens.values[batch.tokens.sample_id > 0].flatten()
    assert len(points) == TRAINING.max_points
    assert (points[-200:].diff() > 0).all()
    # 160 points are unseen, of which a window of 256 shows no more than its half
    assert int((batch.weights > 0).sum()) == 128
    (batch,) = validation_batches([series[-200:]], MODEL, TRAINING, rows=2)
    assert int((batch.weights > 0).sum()) == 40


def test_validation_windows_are_cut_to_their_ends_where_rows_are_short() -> None:
    series = [np.arange(400, dtype=np.float32), np.arange(50, dtype=np.float32)]
    training = replace(TRAINING, row_tokens=8)
    (batch,) = validation_batches(series, MODEL, training, rows=4)
    assert batch.tokens.sample_id.sum(1).tolist() == [8, 4]
    assert (batch.weights > 0).flatten(1).sum(1).tolist() == [64, 10]


def test_batches_without_a_corpus_are_synthetic_or_refused() -> None:
    with pytest.raises(InvalidInputError, match="there is no corpus"):
        BatchMaker([], MODEL, TRAINING)
    shares = {"synthetic_share": 0.5, "coupled_share": 0.5}
    synthetic = TrainConfig(**{**TRAINING.to_dict(), **shares})
    tokens = BatchMaker([], MODEL, synthetic).batch(0).tokens
    assert (tokens.variate_id > 0).any()
    assert tokens.known_future.any()
    short = Source("short", np.zeros(12, np.float32), np.array([0, 12]), 1.0)
    with pytest.raises(InvalidInputError, match="min_points = 20"):
        BatchMaker([short], MODEL, REAL)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_batch_made_on_a_gpu_is_that_of_the_cpu() -> None:
    cpu = BatchMaker([walks()], MODEL, REAL).batch(0)
    gpu = BatchMaker([walks()], MODEL, REAL, device="cuda").batch(0).to("cpu")
    for ours, theirs in zip((*cpu.tokens, cpu.weights), (*gpu.tokens, gpu.weights), strict=True):
        torch.testing.assert_close(theirs, ours, rtol=1e-4, atol=1e-4)
