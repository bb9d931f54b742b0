from __future__ import annotations

import numpy as np
import pytest

from moirai_moe_forecaster import ModelConfig, TrainConfig
from moirai_moe_forecaster.training.data.augmentation import augment, hidden_patches
from moirai_moe_forecaster.training.data.batches import BatchMaker

TRAINING = TrainConfig(
    steps=1,
    batch_rows=16,
    row_tokens=16,
    max_points=128,
    synthetic_share=1.0,
    coupled_share=0.0,
    synthetic_pool=8,
    missing_share=0.0,
)


def changed(**shares: float) -> TrainConfig:
    return TrainConfig.from_dict({**TRAINING.to_dict(), **shares})


def waves(rows: int = 3) -> np.ndarray:
    values = np.sin(np.arange(200) / 5, dtype=np.float32) + np.zeros((rows, 1), np.float32)
    values[:, :20] = np.nan
    return values


@pytest.mark.parametrize("kind", ["amplitude_share", "censor_share", "spike_share"])
def test_each_change_changes_what_is_observed_and_stays_finite(kind: str) -> None:
    values = waves()
    augment(values, np.ones(3, np.int64), changed(**{kind: 1.0}), np.random.default_rng(0))
    assert np.array_equal(np.isnan(values), np.isnan(waves()))
    assert any((row[20:] != waves()[0, 20:]).any() for row in values)


def test_windows_of_several_variates_stay() -> None:
    values = waves()
    training = changed(amplitude_share=1.0, censor_share=1.0, spike_share=1.0)
    augment(values, np.array([2, 1]), training, np.random.default_rng(0))
    assert np.array_equal(values[:2], waves(2), equal_nan=True)
    assert not np.array_equal(values[2], waves()[2], equal_nan=True)


def test_hidden_patches_lie_between_the_prefix_and_the_end() -> None:
    prefix, tokens = np.array([2, 5, 1]), np.array([10, 6, 2])
    hidden = np.zeros((3, 12), dtype=bool)
    for seed in range(50):
        hidden |= hidden_patches(prefix, tokens, 12, 1.0, np.random.default_rng(seed))
    assert [np.flatnonzero(row).tolist() for row in hidden] == [list(range(4, 12)), [11], [11]]


def test_what_is_hidden_is_not_seen_but_scored() -> None:
    model = ModelConfig.preset("tiny", output_patches=1, reference_periods=1)
    plain, hiding = (
        BatchMaker([], model, changed(hidden_share=share)).batch(0) for share in (0.0, 1.0)
    )
    lost = plain.tokens.observed & ~hiding.tokens.observed
    assert 0.05 < lost.float().mean() < 0.5
    assert (hiding.weights == plain.weights).all()
    assert (hiding.tokens.values == plain.tokens.values).all(), "targets are read from them"


def test_a_batch_is_the_same_however_it_is_divided() -> None:
    model = ModelConfig.preset("tiny", reference_periods=2)
    training = changed(hidden_share=0.5, amplitude_share=0.5, censor_share=0.5, spike_share=0.5)
    maker = BatchMaker([], model, training)
    whole, parts = maker.batch(0), [maker.batch(0, part, 2) for part in range(2)]
    for field in ("observed", "values", "time_id"):
        joined = np.concatenate([getattr(part.tokens, field) for part in parts])
        np.testing.assert_allclose(joined, getattr(whole.tokens, field), atol=1e-5)
