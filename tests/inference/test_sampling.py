from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats

from moirai_moe_forecaster.errors import InvalidInputError
from moirai_moe_forecaster.inference.sampling import (
    draw_seed,
    series_seed,
    split,
    stratified,
    uniforms,
)

SEEDS = torch.tensor([0, 1, -1, 2**62, -(2**63)])


def splitmix64(seed: int, count: int) -> list[int]:
    """The published generator, on Python's integers."""
    mask, numbers = 2**64 - 1, []
    state = seed & mask
    for _ in range(count):
        state = (state + 0x9E3779B97F4A7C15) & mask
        z = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & mask
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
        numbers.append(z ^ (z >> 31))
    return numbers


def test_numbers_are_those_of_splitmix64() -> None:
    expected = [[number / 2**64 for number in splitmix64(int(seed), 20)] for seed in SEEDS]
    np.testing.assert_allclose(uniforms(SEEDS, 0, 20), expected, atol=2**-23)
    assert splitmix64(1234567, 1) == [6457827717110365317]  # the value its authors print


def test_numbers_are_uniform_and_within_the_open_interval() -> None:
    numbers = uniforms(SEEDS, 0, 200_000)
    assert numbers.dtype == torch.float32
    assert float(numbers.min()) > 0
    assert float(numbers.max()) < 1
    for row in numbers.numpy():
        assert stats.kstest(row.astype(np.float64), "uniform").pvalue > 1e-3


def test_a_stretch_of_a_stream_does_not_depend_on_what_else_is_drawn() -> None:
    whole = uniforms(SEEDS, 0, 100)
    assert torch.equal(whole[:, 30:50], uniforms(SEEDS, 30, 20))
    assert torch.equal(whole[2:3], uniforms(SEEDS[2:3], 0, 100))
    assert torch.equal(whole.T.unsqueeze(0), uniforms(SEEDS[None], 0, 100).transpose(1, 2))


def test_child_streams_are_many_distinct_and_the_first_ones_stay() -> None:
    few, many = split(SEEDS, 3), split(SEEDS, 1000)
    assert torch.equal(few, many[:, :3])
    assert len(many.unique()) == many.numel()


def test_streams_and_their_children_are_uncorrelated() -> None:
    seeds = torch.cat((torch.arange(8), split(torch.arange(2), 8).flatten()))
    correlation = np.corrcoef(uniforms(seeds, 0, 20_000).numpy())
    off_diagonal = correlation[~np.eye(len(seeds), dtype=bool)]
    assert np.abs(off_diagonal).max() < 5 / np.sqrt(20_000)


def test_a_series_seed_depends_on_the_seed_and_on_every_value() -> None:
    values = np.arange(5.0)
    other = values.copy()
    other[2] = np.nextafter(2.0, 3.0)
    seeds = {
        series_seed(seed, v)
        for seed in (0, 1, -1, 2**70)
        for v in (values, other, values[1:], values[::-1].copy())
    }
    assert len(seeds) == 16
    assert all(-(2**63) <= seed < 2**63 for seed in seeds)
    assert series_seed(0, values) == series_seed(0, values.copy())


def test_integers_are_their_own_seed() -> None:
    assert draw_seed(7) == draw_seed(np.int32(7)) == 7


@pytest.mark.parametrize("kind", [np.random.default_rng, np.random.RandomState])
def test_a_generator_gives_a_new_seed_each_time_and_the_same_again(kind: Any) -> None:
    one, other = kind(3), kind(3)
    seeds = [draw_seed(one) for _ in range(3)]
    assert len(set(seeds)) == 3
    assert seeds == [draw_seed(other) for _ in range(3)]


def test_none_is_fresh_and_leaves_numpys_global_state_alone() -> None:
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    assert len({draw_seed(None) for _ in range(5)}) == 5
    np.testing.assert_array_equal(before, np.random.get_state()[1])  # noqa: NPY002


@pytest.mark.parametrize("random_state", ["0", 1.5, [1], np.array([1, 2]), True])
def test_what_is_no_random_state_is_refused(random_state: Any) -> None:
    with pytest.raises(InvalidInputError, match="random_state"):
        draw_seed(random_state)


def test_of_every_stratified_number_each_path_has_another_part() -> None:
    numbers = stratified(SEEDS, 20, 5, 300)
    assert numbers.shape == (len(SEEDS), 20, 300)
    parts = (numbers * 20).floor().sort(1).values
    assert torch.equal(parts, torch.arange(20.0)[:, None].expand_as(parts))
    within = (numbers * 20 - (numbers * 20).floor()).flatten()
    assert stats.kstest(within.numpy().astype(np.float64), "uniform").pvalue > 1e-3


def test_stratified_numbers_of_different_counters_and_series_are_uncorrelated() -> None:
    numbers = stratified(SEEDS, 500, 0, 8).permute(0, 2, 1).flatten(0, 1)
    correlation = np.corrcoef(numbers.numpy())
    assert np.abs(correlation[~np.eye(len(correlation), dtype=bool)]).max() < 5 / np.sqrt(500)


def test_stratified_numbers_do_not_depend_on_other_series_or_stretches() -> None:
    whole = stratified(SEEDS, 7, 0, 50)
    assert torch.equal(whole[2:3, :, 10:20], stratified(SEEDS[2:3], 7, 10, 10))


def test_a_single_path_is_an_ordinary_draw() -> None:
    numbers = stratified(torch.arange(5000), 1, 0, 1).flatten()
    assert stats.kstest(numbers.numpy().astype(np.float64), "uniform").pvalue > 1e-3
