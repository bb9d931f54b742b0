"""The random building blocks obey their definitions."""

import pytest
import torch

from moirai_moe_forecaster.training.synthetic import primitives


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128])
@pytest.mark.parametrize("length", [1, 2, 7, 50])
def test_recursion_equals_a_loop(dtype: torch.dtype, length: int) -> None:
    generator = seeded()
    coefficient = torch.randn(4, length, dtype=dtype, generator=generator)
    shocks = torch.randn(4, length, dtype=dtype, generator=generator)
    lag = torch.tensor([[1], [2], [5], [60]])
    expected = shocks.clone()
    for row in range(4):
        for t in range(int(lag[row]), length):
            expected[row, t] += coefficient[row, t] * expected[row, t - int(lag[row])]
    torch.testing.assert_close(primitives.recursion(coefficient, shocks, lag), expected)


def test_autoregression_is_stationary_and_forgets_at_the_given_pace() -> None:
    generator = seeded()
    memory = torch.full((3000, 1), 10.0)
    series = primitives.autoregression(memory, primitives.normal(generator, 3000, 60))
    deviation = series.std(0)
    assert deviation.min() > 0.94
    assert deviation.max() < 1.06
    correlation = (series[:, 10:] * series[:, :-10]).mean()
    assert correlation == pytest.approx(0.368, abs=0.03)


def test_hold_keeps_values_for_the_mean_segment() -> None:
    generator = seeded()
    values = primitives.normal(generator, 50, 4000)
    held = primitives.hold(torch.tensor(20.0), values, generator)
    changes = (held[:, 1:] != held[:, :-1]).float().mean()
    assert changes == pytest.approx(1 / 20, rel=0.05)
    changed = torch.nn.functional.pad(held[:, 1:] != held[:, :-1], (1, 0))
    assert torch.equal(held[changed], values[changed])


def test_student_has_the_variance_and_the_tails_of_its_freedom() -> None:
    draws = primitives.student(seeded(), torch.tensor([[6.0], [1000.0]]), 2, 400_000)
    variance = draws.square().mean(1)
    kurtosis = draws.pow(4).mean(1) / variance.square()
    assert variance[0] == pytest.approx(1.5, rel=0.03)
    assert kurtosis[0] > 4.5
    assert kurtosis[1] == pytest.approx(3, rel=0.03)


def test_log_uniform_fills_its_range_evenly_in_logarithms() -> None:
    draws = primitives.log_uniform(seeded(), 20_000, low=0.01, high=100)
    assert draws.min() >= 0.0099
    assert draws.max() <= 101
    assert (draws < 1).float().mean() == pytest.approx(0.5, abs=0.02)


def test_standardise_gives_unit_deviation_and_keeps_constants_finite() -> None:
    series = torch.stack([torch.arange(10.0), torch.full((10,), 3.0)])
    standard = primitives.standardise(series)
    assert standard[0].mean() == pytest.approx(0, abs=1e-6)
    assert standard[0].std(correction=0) == pytest.approx(1, rel=1e-5)
    assert torch.equal(standard[1], torch.zeros(10))


def test_bounded_keeps_small_values_and_limits_large_ones() -> None:
    assert primitives.bounded(torch.tensor(0.1)) == pytest.approx(0.1, rel=1e-2)
    assert primitives.bounded(torch.tensor(-1e6)) == pytest.approx(-3)


def test_clock_counts_steps_from_different_origins() -> None:
    time = primitives.clock(20, 100, seeded())
    assert torch.equal(time.diff(dim=1), torch.ones(20, 99))
    assert len(time[:, 0].unique()) > 15


def test_mixture_follows_the_weights() -> None:
    def zeros(count: int, length: int, generator: torch.Generator) -> torch.Tensor:
        return torch.zeros(count, length)

    def ones(count: int, length: int, generator: torch.Generator) -> torch.Tensor:
        return torch.ones(count, length)

    series = primitives.mixture([(zeros, 1), (ones, 3)], 4000, 2, seeded())
    assert series.mean() == pytest.approx(0.75, abs=0.03)
    assert series[:100].std() > 0.3, "the kinds are not spread over the rows"


def test_noise_has_unit_scale_and_varied_tails() -> None:
    series = primitives.noise(300, 2000, seeded())
    deviation = series.std(1)
    assert 0.8 < deviation.median() < 1.3
    assert deviation.max() < 10
    kurtosis = primitives.standardise(series).pow(4).mean(1)
    assert kurtosis.quantile(0.2) < 3.2
    assert kurtosis.quantile(0.9) > 5
