"""Corpora, windows and packing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from moirai_moe_forecaster.config import ModelConfig, TrainConfig
from moirai_moe_forecaster.errors import InvalidInputError
from moirai_moe_forecaster.training.windows import (
    BatchMaker,
    Source,
    Window,
    hold_out,
    pack,
    read_corpus,
    validation_batches,
)

MODEL = ModelConfig(
    d_model=16, d_ff=16, num_layers=1, num_heads=1, num_experts=2, experts_per_token=1
)
TRAINING = TrainConfig(steps=10, batch_rows=4, row_tokens=32, max_points=512)


def sources() -> list[Source]:
    rng = np.random.default_rng(0)
    lengths = rng.integers(5, 600, 60)
    offsets = np.concatenate(([0], lengths.cumsum()))
    points = rng.normal(size=offsets[-1]).cumsum().astype(np.float32)
    points[rng.random(len(points)) < 0.05] = np.nan
    return [Source("walks", points, offsets, 1.0), Source("few", points[:90], offsets[:1], 0.0)][:1]


def test_a_batch_depends_on_seed_and_step_alone() -> None:
    maker = BatchMaker(sources(), MODEL, TRAINING)
    first, second = maker.batch(3), maker.batch(4)
    again = BatchMaker(sources(), MODEL, TRAINING).batch(3)
    assert all(torch.equal(a, b) for a, b in zip(first.tokens, again.tokens, strict=True))
    assert torch.equal(first.scored, again.scored)
    assert not torch.equal(first.tokens.values, second.tokens.values)


def test_batches_leave_the_global_random_states_alone() -> None:
    torch_state = torch.random.get_rng_state()
    numpy_state = np.random.get_state()[1].copy()  # noqa: NPY002
    BatchMaker(sources(), MODEL, TRAINING).batch(0)
    assert torch.equal(torch_state, torch.random.get_rng_state())
    assert (numpy_state == np.random.get_state()[1]).all()  # noqa: NPY002


def test_rows_are_full_and_hold_several_samples() -> None:
    tokens = BatchMaker(sources(), MODEL, TRAINING).batch(0).tokens
    assert (tokens.sample_id > 0).float().mean() > 0.9
    assert tokens.sample_id.amax(1).float().mean() > 1
    assert tokens.values.isfinite().all()


def test_scored_points_are_observed_targets_after_the_prefix() -> None:
    batch = BatchMaker(sources(), MODEL, TRAINING).batch(1)
    assert (batch.scored <= batch.tokens.observed).all()
    assert not batch.scored[batch.tokens.known_future].any()
    assert batch.scored.any()


def test_a_window_is_standardised_by_its_prefix() -> None:
    values = np.concatenate((np.tile([4.0, 6.0], 8), np.full(16, 11.0))).astype(np.float32)
    batch = pack([[Window(values[None], 16, 0)]], 4, MODEL)
    scale = np.tile([4.0, 6.0], 8).std(ddof=1)
    expected = torch.from_numpy((values - 5) / scale).float().view(2, 16)
    torch.testing.assert_close(batch.tokens.values[0, :2], expected)
    assert not batch.scored[0, 0].any()
    assert batch.scored[0, 1].all()


def test_a_window_is_padded_on_the_left() -> None:
    batch = pack([[Window(np.arange(20, dtype=np.float32)[None], 10, 0)]], 3, MODEL)
    assert batch.tokens.observed[0, 0].tolist() == [False] * 12 + [True] * 4
    assert batch.tokens.sample_id[0].tolist() == [1, 1, 0]
    assert batch.scored[0].sum() == 10


def test_known_future_variates_stand_earlier_and_bear_no_loss() -> None:
    values = np.random.default_rng(0).normal(size=(2, 48)).astype(np.float32)
    batch = pack([[Window(values, 16, 1)]], 6, MODEL)
    assert batch.tokens.time_id[0].tolist() == [0, 1, 2, -1, 0, 1]
    assert batch.tokens.known_future[0].tolist() == [False] * 3 + [True] * 3
    assert not batch.scored[0, 3:].any()


def test_held_out_stretches_are_not_trained_on() -> None:
    training, validation = hold_out(sources())
    whole = sources()[0]
    cut = training[0].lengths - whole.lengths
    assert (cut < 0).sum() == len(validation) > 0
    for series in validation:
        assert len(series) in whole.lengths
    batches = validation_batches(validation, MODEL, TRAINING, rows=2)
    assert batches[0].scored.any()


def test_corpora_are_read_from_parquet(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow", reason="needs the extra train")
    import pyarrow.parquet as parquet

    table = pa.table({"unique_id": ["a", "b"], "y": [[1.0, 2.0, np.nan], [5.0]]})
    parquet.write_table(table, tmp_path / "one.parquet")
    (source,) = read_corpus(tmp_path, {"one": 2.0})
    np.testing.assert_array_equal(source.series(0), np.array([1, 2, np.nan], dtype=np.float32))
    np.testing.assert_array_equal(source.series(1), [5])
    (plain,) = read_corpus(tmp_path)
    assert source.weight == 2 * plain.weight
    (less,) = read_corpus(tmp_path, exclude={"one": ["a"]})
    assert less.lengths.tolist() == [1]
    np.testing.assert_array_equal(less.series(0), [5])
    with pytest.raises(InvalidInputError, match="no series"):
        read_corpus(tmp_path, exclude={"one": ["c"]})


def test_missing_corpora_are_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match=r"no \.parquet file"):
        read_corpus(tmp_path)
    with pytest.raises(InvalidInputError, match="there is no corpus"):
        BatchMaker([], MODEL, TRAINING)
