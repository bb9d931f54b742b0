"""What each kind of window and augmentation takes from the corpus."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from moirai_moe_forecaster.config import TrainConfig
from moirai_moe_forecaster.training.data.corpus import Source
from moirai_moe_forecaster.training.data.sampler import (
    FEWEST_STRIDED,
    STRIDES,
    SampledWindows,
    SyntheticPools,
    WindowSampler,
)
from moirai_moe_forecaster.training.data.window_values import mix, read_pieces

WINDOWS = 400
NO_SHARES = dict.fromkeys(
    (
        "synthetic_share",
        "coupled_share",
        "mixing_share",
        "related_share",
        "stride_share",
        "time_flip_share",
        "flip_share",
        "missing_share",
        "long_share",
    ),
    0.0,
)


def ramps(clock: list[int], lengths: list[int]) -> Source:
    """Series that count the steps of their calendar, and 10,000 more each."""
    series = [
        10_000 * number + start + np.arange(length)
        for number, (start, length) in enumerate(zip(clock, lengths, strict=True))
    ]
    points = np.concatenate(series).astype(np.float32)
    offsets = np.append(0, np.cumsum(lengths))
    return Source("ramps", points, offsets, 1.0, np.zeros(len(clock), np.int64), np.array(clock))


LONG = ramps([0, 500], [3000, 2000])


def pools() -> SyntheticPools:
    systems = np.arange(5)[:, None, None] * 1e6 + np.arange(4)[:, None] * 1e4 + np.arange(512)
    return SyntheticPools(
        long=np.full((3, 1, 512), -1, np.float32),
        short=np.full((4, 1, 128), -2, np.float32),
        systems=systems.astype(np.float32),
    )


def sample(source: Source = LONG, **changes: object) -> SampledWindows:
    settings = {"steps": 1, "max_points": 512, "row_tokens": 128, **NO_SHARES, **changes}
    sampler = WindowSampler([source], TrainConfig(**settings), 16)  # type: ignore[arg-type]
    return sampler.sample([np.random.Generator(np.random.Philox(0))], WINDOWS, pools())


def read(sampled: SampledWindows, source: Source = LONG) -> list[np.ndarray]:
    """Values of every window, (variate, time)."""
    points = [source.points, *(pool.reshape(-1) for pool in pools().arrays)]
    values = mix(torch.from_numpy(read_pieces(sampled, points, 2048)), sampled).numpy()
    blocks = np.split(values, sampled.variates.cumsum()[:-1])
    return [block[:, 2048 - n :] for block, n in zip(blocks, sampled.length.tolist(), strict=True)]


def test_a_plain_window_is_a_stretch_of_one_series() -> None:
    sampled = sample()
    for window in read(sampled):
        assert (np.diff(window[0]) == 1).all()
    assert 20 <= sampled.length.min() < 30
    assert 400 < sampled.length.max() <= 512
    assert np.median(sampled.length) == pytest.approx(np.sqrt(20 * 512), rel=0.3)


def test_some_windows_are_as_long_as_can_be() -> None:
    assert (sample(long_share=0.25).length == 512).mean() == pytest.approx(0.25, abs=0.06)
    short = ramps([0], [100])
    assert (sample(short, long_share=1.0).length == 100).all()


def test_windows_come_from_all_of_a_series() -> None:
    starts = np.concatenate([window[0, :1] for window in read(sample())]) % 10_000
    ends = np.concatenate([window[0, -1:] for window in read(sample())]) % 10_000
    assert starts.min() < 100
    assert ends.max() > 2900


def test_a_stride_takes_every_nth_point_or_the_mean_of_n() -> None:
    sampled = sample(stride_share=1.0)
    windows = read(sampled)
    assert set(sampled.step) <= set(STRIDES[STRIDES * FEWEST_STRIDED <= 3000])
    assert len(set(sampled.step)) > 5
    taken = {"points": 0, "means": 0}
    for window, step, block in zip(windows, sampled.step, sampled.block, strict=True):
        np.testing.assert_allclose(np.diff(window[0]), step)
        middle = (window[0] - window[0].round()).any() or block % 2
        assert block in (1, step)
        assert middle or block == 1
        taken["means" if block > 1 else "points"] += 1
    assert min(taken.values()) > 0.4 * WINDOWS
    assert (sample(ramps([0], [100]), stride_share=1.0).step == 1).all()


def test_means_leave_missing_points_out() -> None:
    points = LONG.points.copy()
    points[::2] = np.nan
    sampled = sample(replace(LONG, points=points), stride_share=1.0)
    some = sampled.select(np.flatnonzero(sampled.block > 1))
    for window, step in zip(read(some, replace(LONG, points=points)), some.step, strict=True):
        np.testing.assert_allclose(np.diff(window[0]), step)


def test_a_time_flip_reverses() -> None:
    assert (sample(time_flip_share=0.25).step == -1).mean() == pytest.approx(0.25, abs=0.06)
    plain, flipped = sample(stride_share=0.5), sample(stride_share=0.5, time_flip_share=1.0)
    for forwards, backwards in zip(read(plain), read(flipped), strict=True):
        np.testing.assert_array_equal(forwards[:, ::-1], backwards)


def test_a_sign_flip_negates() -> None:
    plain, flipped = sample(related_share=0.5), sample(related_share=0.5, flip_share=1.0)
    for up, down in zip(read(plain), read(flipped), strict=True):
        np.testing.assert_array_equal(up, -down)


def test_mixtures_are_convex_in_standardised_parts() -> None:
    rng = np.random.default_rng(0)
    noise = Source("noise", rng.normal(5, 3, 20_000).astype(np.float32), np.array([0, 20_000]), 1.0)
    sampled = sample(noise, mixing_share=1.0, long_share=1.0)
    assert sampled.mixed.all()
    assert set(sampled.pieces) == {2, 3}
    np.testing.assert_allclose(sampled.mixing.sum(1), 1)
    assert ((sampled.mixing > 0).sum(1) == sampled.pieces).all()
    expected = np.sqrt(np.square(sampled.mixing).sum(1))  # of independent parts of unit deviation
    deviations = np.array([window.std() for window in read(sampled, noise)])
    np.testing.assert_allclose(deviations, expected, rtol=0.2)
    assert np.abs([window.mean() for window in read(sampled, noise)]).max() < 1e-4


def test_a_mixture_is_flipped_as_a_whole() -> None:
    plain, flipped = sample(mixing_share=1.0), sample(mixing_share=1.0, flip_share=0.5)
    for up, down in zip(read(plain), read(flipped), strict=True):
        assert np.allclose(up, down, atol=1e-5) or np.allclose(up, -down, atol=1e-5)
    assert 0.4 < (flipped.sign[:, 0] > 0).mean() < 0.6


def test_related_variates_are_aligned_in_time() -> None:
    clock = [0, 100, 50, 0, 700, 20]
    source = ramps(clock, [900, 800, 300, 1000, 200, 600])
    sampled = sample(source, related_share=1.0, stride_share=0.3, time_flip_share=0.3)
    windows = read(sampled, source)
    counts = [len(window) for window in windows]
    assert max(counts) == 5
    for window in windows:
        assert len(np.unique(window[:, 0] // 10_000)) == len(window)
        np.testing.assert_array_equal(
            window % 10_000, np.broadcast_to(window[0] % 10_000, window.shape)
        )
    known = sampled.known_future[sampled.pieces > 1]
    assert (known > 0).mean() == pytest.approx(0.3, abs=0.1)
    assert (sampled.known_future < sampled.pieces).all()


def test_series_of_another_relation_are_no_variates() -> None:
    source = replace(ramps([0] * 6, [600] * 6), relation=np.array([0, 1, 2, 0, 1, 2]))
    for window in read(sample(source, related_share=1.0), source):
        first = window[:, 0] // 10_000
        assert len(window) <= 2
        assert (first % 3 == first[0] % 3).all()
    alone = replace(source, relation=None)
    assert (sample(alone, related_share=1.0).pieces == 1).all()


def test_systems_are_cut_whole_and_their_drivers_known_half_the_time() -> None:
    sampled = sample(coupled_share=1.0, time_flip_share=1.0)
    assert set(sampled.pieces) == {2, 3, 4}
    for window in read(sampled):
        assert (np.diff(window, axis=0) == 10_000).all()
        assert (np.diff(window, axis=1) == 1).all()
    assert set(sampled.pieces - sampled.known_future) >= {1}
    assert (sampled.known_future > 0).mean() == pytest.approx(0.5, abs=0.08)
    assert (
        sampled.known_future[sampled.known_future > 0] + 1
        == sampled.pieces[sampled.known_future > 0]
    ).all()


def test_synthetic_windows_come_from_the_pools() -> None:
    sampled = sample(synthetic_share=0.5)
    kinds = np.array([window[0, 0] for window in read(sampled)])
    assert (kinds < 0).mean() == pytest.approx(0.5, abs=0.08)
    assert (sampled.length[kinds == -2] <= 128).all()
    assert (kinds == -1).any()
    assert (kinds == -2).any()


def test_all_variates_fit_into_a_row() -> None:
    sampled = sample(coupled_share=0.5, related_share=1.0, row_tokens=24, long_share=1.0)
    assert (-(-sampled.length // 16) * sampled.variates <= 24).all()
    assert (-(-sampled.length // 16) * sampled.variates > 12).any()


def test_cutting_keeps_the_end_and_the_first_variates() -> None:
    sampled = sample(coupled_share=1.0).select(np.arange(20))
    whole = read(sampled)
    length = np.minimum(sampled.length, 16)
    cut = sampled.cut(np.minimum(sampled.pieces, 2), length)
    for before, after in zip(whole, read(cut), strict=True):
        np.testing.assert_array_equal(after, before[:2, -after.shape[1] :])
    assert (cut.known_future == np.maximum(sampled.known_future - sampled.pieces + 2, 0)).all()


@pytest.mark.parametrize("low", [0.2, 0.4])
def test_the_prefix_share_is_within_its_range(low: float) -> None:
    prefix = sample(prefix_share=(low, 0.5)).prefix
    assert low <= prefix.min() < low + 0.02
    assert 0.48 < prefix.max() <= 0.5


def test_sources_and_series_are_drawn_by_their_weights() -> None:
    source = ramps([0, 0], [400, 1600])
    firsts = np.concatenate([window[0, :1] for window in read(sample(source), source)])
    assert (firsts >= 10_000).mean() == pytest.approx(2 / 3, abs=0.08)


def test_a_seed_samples_what_it_did_in_the_first_version() -> None:
    """A run that is resumed goes on with the windows that it would have had."""
    sampled = sample(
        synthetic_share=0.2,
        coupled_share=0.2,
        related_share=0.4,
        mixing_share=0.3,
        stride_share=0.5,
        time_flip_share=0.3,
        flip_share=0.4,
        missing_share=0.5,
    )
    whole = ("array", "first", "pieces", "known_future", "step", "block", "length", "mixed", "sign")
    sums = [int(getattr(sampled, name).sum()) for name in whole]
    assert sums == [2960, 8691790, 723, 106, 544, 1006, 58450, 61, 680]
    real = ("prefix", "scattered", "stretch", "stretch_at")
    sums = [getattr(sampled, name).sum() for name in real]
    np.testing.assert_allclose(sums, [156.476911, 19.797936, 17.576788, 187.49748], rtol=1e-6)
