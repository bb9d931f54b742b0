"""A hindcast is the forecast that would have been made."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from moirai_moe_forecaster.data.series import Series
from moirai_moe_forecaster.inference.batching import Load
from moirai_moe_forecaster.inference.hindcast import Hindcast, hindcast_losses, normal_crps
from moirai_moe_forecaster.inference.prompt import make_prompt
from tiny_network import tiny_network

NETWORK = tiny_network(output_patches=2)
PATCH = NETWORK.config.patch_size


def series_of(values: np.ndarray) -> Series:
    target = np.atleast_2d(values)
    return Series(target, np.empty((0, target.shape[1])), np.empty((0, target.shape[1])))


def walk(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).cumsum(-1)


def losses(
    series: list[Series],
    stretches: list[int],
    horizon: int = 2 * PATCH,
    scales: list[np.ndarray] | None = None,
    context: int = 1024,
) -> list[np.ndarray]:
    scales = scales or [
        np.ones((len(s.target), n * PATCH)) for s, n in zip(series, stretches, strict=True)
    ]
    hindcasts = [
        Hindcast(series=s, stretch=n, memory=3.0, scale=scale)
        for s, n, scale in zip(series, stretches, scales, strict=True)
    ]
    load = Load(
        config=NETWORK.config, context_length=context, horizon=horizon, paths=1, reestimated=False
    )
    return hindcast_losses(NETWORK, hindcasts, load)


def by_hand(values: np.ndarray, steps: int) -> float:
    """Score the forecast by its mean and by a spread that comes from the same mixture."""
    context = series_of(values[:-steps])
    prompt = make_prompt([context], steps, NETWORK.config, 1024)
    hidden = NETWORK.encode(prompt.given()).hidden[:, -1]
    mixture = NETWORK.head(hidden).map(lambda x: x[..., 0, :])
    location, scale = (float(part) for part in prompt.normaliser)
    labels = torch.from_numpy((values[-steps:] - location) / scale)
    return scale * float(normal_crps(labels, mixture.mean()[0], mixture.spread()[0]).nanmean())


def test_the_score_is_that_of_a_normal_distribution() -> None:
    rng = np.random.default_rng(0)
    draws = 2 + 3 * rng.normal(size=(2, 200_000))
    for value in (-4.0, 2.0, 7.5):
        score = normal_crps(*(torch.tensor(x) for x in (value, 2.0, 3.0)))
        by_draws = np.abs(draws[0] - value).mean() - np.abs(draws[0] - draws[1]).mean() / 2
        assert float(score) == pytest.approx(by_draws, abs=0.02)


@pytest.mark.parametrize("length", [17, 80, 103])
def test_one_patch_is_the_forecast_from_what_comes_before(length: int) -> None:
    values = walk(length)
    (loss,) = losses([series_of(values)], [1], PATCH)
    assert loss[0] == pytest.approx(by_hand(values, PATCH), rel=1e-3)


def test_what_follows_a_stretch_changes_no_forecast_of_it() -> None:
    """With nothing observed after the first patch of a stretch, only its first origin counts."""
    values = walk(128)
    values[-PATCH:] = np.nan
    (loss,) = losses([series_of(values)], [2])
    (alone,) = losses([series_of(values[:-PATCH])], [1], PATCH)
    # the same origin and points, whose weight cancels
    assert loss[0] == pytest.approx(alone[0], rel=1e-3)


def test_variates_and_batches_are_scored_apart() -> None:
    both = walk(2, 128)
    together = losses([series_of(both), series_of(walk(90, seed=1)), series_of(both)], [2, 1, 3])
    assert together[0].shape == (2,)
    assert together[1].shape == (1,)
    for index, (series, stretch) in enumerate(((both, 2), (walk(90, seed=1), 1), (both, 3))):
        np.testing.assert_allclose(together[index], losses([series_of(series)], [stretch])[0], 1e-4)
    assert not np.allclose(together[0], together[2])


def test_losses_are_in_the_unit_of_the_series_times_its_scale() -> None:
    values = walk(128)
    (plain,) = losses([series_of(values)], [2])
    (larger,) = losses([series_of(1000 * values + 5)], [2])
    (scaled,) = losses([series_of(values)], [2], scales=[np.full((1, 2 * PATCH), 3.0)])
    np.testing.assert_allclose(larger, 1000 * plain, rtol=1e-3)
    np.testing.assert_allclose(scaled, 3 * plain, rtol=1e-6)


def test_a_stretch_without_a_value_has_no_loss() -> None:
    values = walk(128)
    values[-2 * PATCH :] = np.nan
    assert np.isnan(losses([series_of(values)], [2])[0]).all()


def test_only_the_last_points_are_read() -> None:
    values = walk(200)
    changed = np.concatenate((walk(136, seed=1), values[136:]))
    np.testing.assert_array_equal(
        *(losses([series_of(v)], [1], context=64) for v in (values, changed))
    )
