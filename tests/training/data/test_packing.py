"""Standardisation, loss weights and the layout of rows."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from moirai_moe_forecaster.config import ModelConfig, ScaleRule
from moirai_moe_forecaster.model.tokens import fit_normaliser
from moirai_moe_forecaster.training.data.packing import (
    LOST_SHARE,
    WRONG_SHARE,
    TrainingWindow,
    fill_rows,
    pack,
    prefix_cycles,
)

MODEL = ModelConfig(
    d_model=16, d_ff=16, num_layers=1, num_heads=1, num_experts=2, experts_per_token=1
)


def windowed(values: np.ndarray, prefix: int, known_future: int) -> TrainingWindow:
    return TrainingWindow(values=values, prefix=prefix, known_future=known_future)


def with_rule(rule: ScaleRule) -> ModelConfig:
    return ModelConfig(**{**MODEL.to_dict(), "scale_rule": rule})


@pytest.mark.parametrize("rule", ["relative", "absolute"])
def test_windows_are_standardised_by_the_models_normaliser(rule: ScaleRule) -> None:
    rng = np.random.default_rng(0)
    windows = []
    for length in (12, 16, 40, 100):
        values = 10 * rng.random() + rng.normal(size=(2, length))
        values[rng.random(values.shape) < 0.1] = np.nan
        windows.append(windowed(values.astype(np.float32), int(length * 0.6), 0))
    windows.append(windowed(np.full((1, 30), 7, dtype=np.float32), 12, 0))
    tokens = pack([windows], 40, with_rule(rule)).tokens
    for sample, window in enumerate(windows, start=1):
        for variate, series in enumerate(torch.from_numpy(window.values)):
            among = (tokens.sample_id == sample) & (tokens.variate_id == variate)
            points = tokens.values[among].flatten()[-len(series) :]
            seen = tokens.observed[among].flatten()[-len(series) :]
            prefix = series[: window.prefix]
            expected = fit_normaliser(prefix, prefix.isfinite(), rule).standardise(series)
            assert torch.equal(seen, series.isfinite())
            torch.testing.assert_close(points[seen], expected[seen], rtol=1e-4, atol=1e-4)


def test_a_window_is_standardised_by_its_prefix_and_scored_after_it() -> None:
    values = np.concatenate((np.tile([4.0, 6.0], 8), np.full(16, 11.0))).astype(np.float32)
    batch = pack([[windowed(values[None], 16, 0)]], 4, MODEL)
    scale = np.tile([4.0, 6.0], 8).std(ddof=1)
    expected = torch.from_numpy((values - 5) / scale).float().view(2, 16)
    torch.testing.assert_close(batch.tokens.values[0, :2], expected)
    assert (batch.weights[0, 0] == 0).all()
    assert (batch.weights[0, 1] == 1).all()
    assert (batch.weights[0, 2:] == 0).all()


def test_a_window_is_padded_on_the_left_and_its_first_patch_bears_no_loss() -> None:
    batch = pack([[windowed(np.arange(20, dtype=np.float32)[None], 3, 0)]], 3, MODEL)
    assert batch.tokens.observed[0, 0].tolist() == [False] * 12 + [True] * 4
    assert batch.tokens.sample_id[0].tolist() == [1, 1, 0]
    assert batch.weights[0].count_nonzero(1).tolist() == [0, 16, 0]


def test_missing_points_and_outliers_bear_no_loss_and_inputs_are_bounded() -> None:
    values = np.tile([-1.0, 1.0], 24).astype(np.float32)
    values[[20, 40]] = np.nan, np.inf
    values[[24, 36]] = 30.0, 1e6
    batch = pack([[windowed(values[None], 16, 0)]], 3, MODEL)
    unscored = np.flatnonzero(batch.weights[0].flatten().numpy() == 0)
    assert unscored.tolist() == [*range(16), 20, 24, 36, 40]
    points = batch.tokens.values.flatten()
    assert points.isfinite().all()
    assert points[24] > 20
    assert points[36] == points.max() < 100


def test_the_largest_numbers_leave_a_batch_finite() -> None:
    """Some data have the largest float32 in place of missing values."""
    largest = np.finfo(np.float32).max
    values = np.tile([-1.0, 1.0], 24).astype(np.float32)
    for bad in ([largest, -largest], [-largest, 1.0]):
        values[[3, 5]] = bad
        batch = pack([[windowed(values[None], 16, 0)]], 3, MODEL)
        assert batch.tokens.values.isfinite().all()


def test_a_window_that_shows_nothing_in_its_prefix_bears_no_loss() -> None:
    values = np.sin(np.arange(48, dtype=np.float32))
    values[:20] = np.nan
    assert not pack([[windowed(values[None], 20, 0)]], 3, MODEL).weights.any()
    assert pack([[windowed(values[None], 24, 0)]], 3, MODEL).weights.any()


def test_known_future_variates_stand_earlier_and_bear_no_loss() -> None:
    values = np.random.default_rng(0).normal(size=(2, 48)).astype(np.float32)
    batch = pack([[windowed(values, 16, 1)]], 6, MODEL)
    assert batch.tokens.time_id[0].tolist() == [0, 1, 2, -1, 0, 1]
    assert batch.tokens.known_future[0].tolist() == [False] * 3 + [True] * 3
    assert batch.weights[0, :3].any()
    assert not batch.weights[0, 3:].any()
    covariate = batch.tokens.values[0, 3:].flatten()  # known, and standardised, as a whole
    torch.testing.assert_close(covariate.mean(), torch.tensor(0.0), atol=1e-5, rtol=0)
    torch.testing.assert_close(covariate.std(), torch.tensor(1.0))


@pytest.mark.parametrize("balance", [0.0, 0.5, 1.0])
def test_series_balance_weighs_between_points_and_series(balance: float) -> None:
    rng = np.random.default_rng(0)
    windows = [windowed(rng.normal(size=(1, n)).astype(np.float32), 32, 0) for n in (64, 288)]
    batch = pack([windows], 24, MODEL, balance)
    sums = [batch.weights[batch.tokens.sample_id == sample].sum() for sample in (1, 2)]
    assert sums[1] / sums[0] == pytest.approx((256 / 32) ** (1 - balance))


def test_rows_take_several_windows_each_with_its_sample_id() -> None:
    def window(value: float, variates: int, length: int) -> TrainingWindow:
        return windowed(np.full((variates, length), value, dtype=np.float32), 2, 0)

    rows = [[window(1, 1, 32), window(2, 2, 16)], [window(3, 1, 64)]]
    tokens = pack(rows, 5, MODEL).tokens
    assert tokens.sample_id.tolist() == [[1, 1, 2, 2, 0], [1, 1, 1, 1, 0]]
    assert tokens.variate_id.tolist() == [[0, 0, 0, 1, 0], [0, 0, 0, 0, 0]]
    assert tokens.time_id.tolist() == [[0, 1, 0, 0, 0], [0, 1, 2, 3, 0]]


def test_rows_are_filled_best_fit_first_and_what_does_not_fit_is_shortened() -> None:
    free = [10, 6]
    placed = fill_rows([(4, 1), (8, 1), (9, 1), (5, 1)], free)
    assert placed == [(1, 0, 8, 1), (0, 1, 4, 1), (2, 0, 2, 1), (3, 1, 2, 1)]
    assert free == [0, 0]


def test_no_length_is_preferred() -> None:
    rng = np.random.default_rng(0)
    drawn, kept = [], []
    for _ in range(200):
        tokens = np.exp(rng.uniform(np.log(2), np.log(129), 60)).astype(int).tolist()
        placed = fill_rows([(count, 1) for count in tokens], [128] * 8)
        drawn += tokens
        kept += [tokens[window] for window, *_ in placed]
    for low, high in ((2, 3), (3, 9), (9, 33), (33, 100), (100, 129)):
        shares = [np.mean([low <= count < high for count in counts]) for counts in (drawn, kept)]
        assert shares[1] == pytest.approx(shares[0], rel=0.1)


def test_later_windows_fill_the_gaps() -> None:
    free = [10]
    assert fill_rows([(7, 1), (5, 1), (9, 1)], free) == [(0, 0, 7, 1), (1, 0, 3, 1)]
    assert free == [0]


def test_a_window_loses_variates_where_no_two_tokens_of_each_fit() -> None:
    free = [5]
    assert fill_rows([(8, 4)], free) == [(0, 0, 2, 2)]
    assert free == [1]


def test_windows_that_leave_room_are_all_placed() -> None:
    free = [8, 8]
    assert sorted(fill_rows([(2, 1), (3, 2)], free)) == [(0, 0, 2, 1), (1, 0, 3, 2)]
    assert sorted(free) == [0, 8]


def waves(rows: int) -> torch.Tensor:
    time = torch.arange(240.0)
    noise = torch.randn(240, generator=torch.Generator().manual_seed(1))
    return (torch.sin(2 * torch.pi * time / 12) + 0.1 * noise).repeat(rows, 1)


def test_cycles_are_those_of_the_prefix() -> None:
    values = waves(2)
    values[:, 120:] = torch.randn(2, 120, generator=torch.Generator().manual_seed(0))
    found = prefix_cycles(values, np.array([120, 0]), 2, None)
    assert found.length.tolist() == [[12, 0], [0, 0]]
    assert found.strength[0, 0] > 0.5


def test_some_cycles_are_lost_and_some_are_wrong() -> None:
    uniforms = np.random.default_rng(0).random((400, 2))
    found = prefix_cycles(waves(400), np.full(400, 240), 1, uniforms).length[:, 0]
    lost = (found == 0).float().mean().item()
    wrong = ((found != 0) & (found != 12)).float().mean().item()
    assert abs(lost - LOST_SHARE) < 0.05
    assert 0.5 * WRONG_SHARE < wrong < 1.5 * WRONG_SHARE
    assert found[found > 0].min() >= 2
