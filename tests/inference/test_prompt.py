from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from moirai_moe_forecaster.data.series import Series
from moirai_moe_forecaster.inference.prompt import causal_mean_fill, make_prompt
from moirai_moe_forecaster.model.tokens import TokenBatch
from tiny_network import OFFICIAL_CONVENTIONS, tiny_config

SIZE = 16


def series_of(
    length: int, horizon: int, targets: int = 1, past: int = 0, future: int = 0, seed: int = 0
) -> Series:
    rng = np.random.default_rng(seed)
    return Series(
        10 + rng.normal(size=(targets, length)),
        rng.normal(size=(past, length)),
        rng.normal(size=(future, length + horizon)),
    )


def observed_points(tokens: TokenBatch, row: int, variate: int) -> dict[int, list[float]]:
    """The observed values of a variate by the time of their patch, of tokens that are present."""
    mine = (tokens.variate_id[row] == variate) & (tokens.sample_id[row] > 0)
    return {
        int(time): values[seen].tolist()
        for time, values, seen in zip(
            tokens.time_id[row, mine],
            tokens.values[row, mine],
            tokens.observed[row, mine],
            strict=True,
        )
    }


def test_contexts_end_together_whatever_their_lengths() -> None:
    group = [series_of(n, 20, seed=n) for n in (5, 16, 37, 48)]
    prompt = make_prompt(group, 20, tiny_config(), 1000)
    assert prompt.context == 3
    tokens = prompt.given()
    raw = prompt.normaliser.restore(prompt.values[:, :1].double().flatten(2))
    for row, series in enumerate(group):
        length = series.target.shape[1]
        np.testing.assert_allclose(raw[row, 0, 48 - length : 48], series.target[0], rtol=1e-6)
        points = observed_points(tokens, row, 0)
        last_patch = (length - 1) % SIZE + 1 if length < SIZE else SIZE
        assert len(points) == -(-length // SIZE)
        assert sum(map(len, points.values())) == length
        assert len(points[2]) == last_patch


def test_observed_values_are_standardised_and_missing_ones_masked() -> None:
    target = np.random.default_rng(0).normal(50, 3, (2, 40))
    target[0, 3:20] = np.nan
    prompt = make_prompt([Series(target, target[:0], target[:0])], 4, tiny_config(), 1000)
    observed = prompt.observed[0].flatten(1)[:, 8:48]
    np.testing.assert_array_equal(observed, ~np.isnan(target))
    for variate, seen in zip(prompt.values[0].flatten(1)[:, 8:48].numpy(), observed, strict=True):
        assert abs(variate[seen].mean()) < 1e-5
        assert variate[seen].std(ddof=1) == pytest.approx(1, abs=1e-5)
    assert not prompt.observed.flatten(2)[..., 48:].any()


@pytest.mark.parametrize("output_patches", [1, 2])
@pytest.mark.parametrize("shift_known_future", [True, False])
def test_a_covariate_reaches_as_far_ahead_as_the_conventions_say(
    shift_known_future: bool, output_patches: int
) -> None:
    config = tiny_config(shift_known_future=shift_known_future, output_patches=output_patches)
    shift = output_patches if shift_known_future else 0
    series = series_of(48, 70, targets=1, past=1, future=1)
    prompt = make_prompt([series], 70, config, 1000)
    given = prompt.given()
    by_time = observed_points(given, 0, 2)
    assert list(by_time) == list(range(-shift, 3))
    assert list(observed_points(given, 0, 0)) == list(observed_points(given, 0, 1)) == [0, 1, 2]
    assert given.known_future[0].tolist() == [int(v) == 2 for v in given.variate_id[0]]
    whole = series.future[0]
    standard = (whole - whole.mean()) / whole.std(ddof=1)
    for time, values in by_time.items():
        start = (time + shift) * SIZE
        np.testing.assert_allclose(values, standard[start : start + SIZE], atol=1e-5)
    # the next step goes on where this ended, with as many patches as were drawn
    step = prompt.step(3, torch.zeros(1, 4, 1, output_patches, SIZE))
    ahead = observed_points(step, 3, 2)
    assert list(ahead) == list(range(3, 3 + output_patches))
    start = (3 + shift) * SIZE
    joined = [value for values in ahead.values() for value in values]
    np.testing.assert_allclose(joined, standard[start : start + len(joined)], atol=1e-5)


def test_a_step_holds_the_draws_of_every_path_as_observed() -> None:
    group = [series_of(20, 60, targets=2, future=1, seed=seed) for seed in range(3)]
    prompt = make_prompt(group, 60, tiny_config(output_patches=2), 1000)
    draws = torch.randn(3, 5, 2, 2, SIZE, generator=torch.Generator().manual_seed(0))
    step = prompt.step(4, draws)
    for series in range(3):
        for path in range(5):
            for target in range(2):
                points = observed_points(step, series * 5 + path, target)
                assert list(points) == [4, 5]
                np.testing.assert_array_equal(list(points.values()), draws[series, path, target])


def test_known_values_beyond_the_horizon_are_absent() -> None:
    config = tiny_config(output_patches=4)
    prompt = make_prompt([series_of(32, 20, future=1)], 20, config, 1000)
    points = observed_points(prompt.given(), 0, 1)
    assert [len(values) for values in points.values()] == [16, 16, 16, 4]


@pytest.mark.parametrize("length", [1, 15, 16, 17, 33])
def test_a_shorter_context_is_that_of_the_last_points(length: int) -> None:
    long, config = series_of(60, 20, 2, 1, 1), tiny_config()
    for one, other in zip(
        make_prompt([long], 20, config, length).given(),
        make_prompt([long.last(length)], 20, config, 1000).given(),
        strict=True,
    ):
        assert torch.equal(one, other)


def test_official_checkpoints_number_patches_from_the_first_observed_one() -> None:
    target = np.random.default_rng(0).normal(size=(1, 64))
    target[:, :20] = np.nan
    target[:, 40:] = np.nan
    series = Series(target, target[:0], target[:0])
    official = make_prompt([series], 32, tiny_config(**OFFICIAL_CONVENTIONS), 1000)
    assert official.time_id.tolist() == [[0, 0, 1, 2, 3, 4]]
    assert make_prompt([series], 32, tiny_config(), 1000).time_id.tolist() == [[0, 1, 2, 3, 4, 5]]


def naive_fill(values: NDArray[np.float64]) -> list[float]:
    """Definition, point by point."""
    first = next(value for value in values if not np.isnan(value))
    carried: list[float] = []
    for value in values:
        carried.append(value if not np.isnan(value) else carried[-1] if carried else first)
    return [
        (np.mean(carried[:i]) if i else first) if np.isnan(value) else value
        for i, value in enumerate(values)
    ]


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9])
@pytest.mark.parametrize("seed", range(4))
def test_causal_mean_fill_is_its_definition(share: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    values = rng.normal(size=30)
    values[rng.random(30) < share] = np.nan
    values[rng.integers(30)] = 1.0
    np.testing.assert_allclose(causal_mean_fill(values), naive_fill(values), rtol=1e-12)
