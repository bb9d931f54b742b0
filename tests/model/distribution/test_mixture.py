from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

from moirai_moe_forecaster.config import OFFICIAL_MIXTURE, Component
from moirai_moe_forecaster.inference.quantile_grid import NODE_LEVELS
from moirai_moe_forecaster.model.distribution.components import (
    LogNormal,
    NegativeBinomial,
    NormalFixed,
    StudentT,
)
from moirai_moe_forecaster.model.distribution.mixture import Affine, Mixture, raw_size

LEVELS = torch.tensor(
    [1e-4, 1e-3, 0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 0.999, 0.9999]
)
MIXTURES: dict[str, tuple[Component, ...]] = {
    "student": ("student_t",) * 3,
    "one": ("student_t",),
    "positive": ("log_normal", "log_normal"),
    "spike": ("normal_fixed", "student_t"),
    "continuous": ("student_t", "normal_fixed", "log_normal"),
    "counts": ("negative_binomial",),
    "two counts": ("negative_binomial", "negative_binomial"),
    "official": OFFICIAL_MIXTURE,
}
CONTINUOUS = [name for name, parts in MIXTURES.items() if "negative_binomial" not in parts]
COUNTS = ["counts", "two counts"]


def random_mixture(
    names: Sequence[Component], *shape: int, seed: int = 0, size: float = 1.0
) -> Mixture:
    generator = torch.Generator().manual_seed(seed)
    return Mixture.from_raw(
        size * torch.randn(*shape[:-1], raw_size(names), shape[-1], generator=generator), names
    )


def pooled_mixture(name: str, members: int, points: int, seed: int = 0) -> Mixture:
    """Members that differ as paths do: each a little from the point's own parameters."""
    generator = torch.Generator().manual_seed(seed)
    size = raw_size(MIXTURES[name])
    own = torch.randn(1, size, points, generator=generator)
    raw = own + 0.4 * torch.randn(members, size, points, generator=generator)
    return Mixture.from_raw(raw, MIXTURES[name]).pool(0)


def double(mixture: Mixture) -> Mixture:
    return mixture.map(lambda x: x.double())


def oracle_cdf(mixture: Mixture, x: np.ndarray) -> np.ndarray:
    """scipy's, summed over components and members, at x (level, point)."""
    total = np.zeros(x.shape)
    for log_weight, component in zip(mixture.log_weights, mixture.components, strict=True):
        for member, weight in enumerate(log_weight.double().exp().numpy()):
            p = [parameter[member].double().numpy() for parameter in component]
            match component:
                case StudentT():
                    part = stats.t.cdf(x, p[0], p[1], p[2])
                case NormalFixed():
                    part = stats.norm.cdf(x, p[0], 1e-3)
                case LogNormal():
                    part = stats.lognorm.cdf(x, p[1], scale=np.exp(p[0]))
                case NegativeBinomial():
                    part = stats.nbinom.cdf(x, p[0], 1 / (1 + np.exp(p[1])))
            total += weight * part
    return total


def level_error(mixture: Mixture, quantiles: Tensor, slack: float = 2e-4) -> np.ndarray:
    """How far the level is from what the quantile has, relative to the nearer tail.

    A quantile may be off by a share of the 80 % interval's width, and within a step of the cdf
    every level between the two heights has the same quantile.
    """
    x, level = quantiles.double().numpy(), LEVELS.double().numpy()[:, None]
    move = slack * (x[LEVELS == 0.9] - x[LEVELS == 0.1] + np.abs(x)) + 1e-5
    above, below = oracle_cdf(mixture, x + move), oracle_cdf(mixture, x - move)
    return np.maximum(level - above, below - level).clip(0) / np.minimum(level, 1 - level)


def slack_of(name: str) -> float:
    """Steps and spikes are resolved less finely than a smooth distribution."""
    parts = set(MIXTURES[name])
    if parts & {"normal_fixed", "negative_binomial"}:
        return 1e-2
    return 2e-3 if "log_normal" in parts else 2e-4


@pytest.mark.parametrize("name", MIXTURES)
def test_raw_outputs_are_logits_and_then_each_components_parameters(name: str) -> None:
    names = MIXTURES[name]
    raw = torch.randn(2, 3, raw_size(names), 5, generator=torch.Generator().manual_seed(0))
    mixture = Mixture.from_raw(raw, names)
    assert mixture.shape == (2, 3, 5)
    assert mixture.log_weights.shape == (len(names), 1, 2, 3, 5)
    expected = raw[:, :, : len(names)].softmax(2).movedim(2, 0)[:, None]
    torch.testing.assert_close(mixture.log_weights.exp(), expected)
    row = len(names)
    for component in mixture.components:
        unconstrained = {"loc", "logits"} & set(component._fields)
        for field, parameter in zip(component._fields, component, strict=True):
            assert parameter.shape == (1, 2, 3, 5)
            if field in unconstrained:
                assert torch.equal(parameter[0], raw[:, :, row])
            row += 1
    assert row == raw.shape[2]


def exact_quantiles(mixture: Mixture, levels: np.ndarray) -> np.ndarray:
    """By bisection of the closed form, which finds the count at a step: (level, point)."""
    low = np.full((len(levels), *mixture.shape), -1e6)
    high = -low
    for _ in range(60):
        middle = (low + high) / 2
        reached = oracle_cdf(mixture, middle) >= levels[:, None]
        low, high = np.where(reached, low, middle), np.where(reached, middle, high)
    return high


@pytest.mark.parametrize("name", ["counts", "two counts", "official"])
@pytest.mark.parametrize("members", [1, 4])
@pytest.mark.parametrize("counts", [0.0, 2.0, 3.5])
def test_quantiles_at_steps_are_exact(name: str, members: int, counts: float) -> None:
    generator, names, points = torch.Generator().manual_seed(1), MIXTURES[name], 24
    raw = torch.randn(1, raw_size(names), points, generator=generator)
    raw = raw + 0.4 * torch.randn(members, raw_size(names), points, generator=generator)
    rows = {"counts": [1, 2], "two counts": [2, 3, 4, 5], "official": [8, 9]}[name]
    raw[:, rows] += counts  # up to means of hundreds
    mixture = Mixture.from_raw(raw, names).pool(0)
    levels = np.array([0.005, 0.05, 0.1, 0.123, 0.3217, 0.5, 0.75, 0.8765, 0.9, 0.95, 0.995])
    found = mixture.icdf(torch.tensor(levels, dtype=torch.float32)).double().numpy()
    width = np.diff(exact_quantiles(mixture, np.array([0.1, 0.9])), axis=0)
    # where the cdf is flat to 1e-4, every value there has the level
    exact = np.stack([exact_quantiles(mixture, levels + side * 1e-4) for side in (-1, 0, 1)])
    near = 1e-3 * width + 1e-6 * np.abs(exact[1])
    assert (found >= exact[0] - near).all()
    assert (found <= exact[2] + near).all()
    # float32 holds values to 1e-6; a tenth of what a quantile may be off by
    around = 1e-6 * (1 + np.abs(found)) + 1e-4 * width
    assert (oracle_cdf(mixture, found + around) >= levels[:, None] - 1e-3).all()
    assert (oracle_cdf(mixture, found - around) <= levels[:, None] + 1e-3).all()
    if name != "official":
        # between two steps only where rounding cannot tell the level from the height there
        assert (found == found.round()).mean() > 0.98


@pytest.mark.parametrize("name", MIXTURES)
@pytest.mark.parametrize("members", [1, 4])
def test_cdf_is_the_weighted_sum(name: str, members: int) -> None:
    mixture = pooled_mixture(name, members, 12)
    x = torch.linspace(-8, 12, 61)[:, None].expand(61, 12) + 1e-4
    expected = oracle_cdf(mixture, x.double().numpy())
    np.testing.assert_allclose(mixture.cdf(x), expected, atol=2e-5)


def test_log_density_and_mean_are_those_of_torch() -> None:
    mixture = random_mixture(("student_t",) * 3, 40)
    (df, loc, scale) = (
        torch.stack([component[i][0] for component in mixture.components], -1) for i in range(3)
    )
    reference = torch.distributions.MixtureSameFamily(
        torch.distributions.Categorical(logits=mixture.log_weights[:, 0].T),
        torch.distributions.StudentT(df, loc, scale),
    )
    x = torch.linspace(-9, 9, 31)[:, None].expand(31, 40)
    torch.testing.assert_close(mixture.log_prob(x), reference.log_prob(x), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(mixture.mean(), reference.mean, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(
        mixture.density(x), reference.log_prob(x).exp(), atol=1e-5, rtol=1e-3
    )


@pytest.mark.parametrize("name", CONTINUOUS)
@pytest.mark.parametrize("unit", [None, Affine(torch.full((3, 1), 5.0), torch.full((3, 1), 0.2))])
def test_density_integrates_to_one_and_to_the_cdf(name: str, unit: Affine | None) -> None:
    for seed in range(3):
        mixture = double(pooled_mixture(name, 3, 1, seed=seed)._replace(unit=unit))
        shift, scale = (float(part[0]) for part in unit) if unit else (0.0, 1.0)
        edges = {0.0, *np.geomspace(1e-6, 1e5, 60), *-np.geomspace(1e-6, 1e5, 60)}
        for component in mixture.components:
            if isinstance(component, NormalFixed):
                for spike in component.loc.flatten().tolist():
                    edges |= {spike + step for step in np.linspace(-0.008, 0.008, 9)}
        # a rule of 20 points between every two edges
        edge = shift + scale * torch.tensor(sorted(edges), dtype=torch.float64)
        node, weight = (torch.from_numpy(part) for part in np.polynomial.legendre.leggauss(20))
        half = edge.diff()[:, None] / 2
        x = (edge[:-1, None] + half * (1 + node)).flatten()
        density = mixture.log_prob(x[:, None]).exp()[:, 0].view(-1, 20)
        torch.testing.assert_close(
            (density * weight * half).sum(1).cumsum(0),
            (mixture.cdf(edge[1:, None]) - mixture.cdf(edge[:1, None]))[:, 0],
            atol=1e-5,
            rtol=0,
        )
        assert float((density * weight * half).sum()) == pytest.approx(1, abs=1e-4)


def test_a_component_whose_support_excludes_a_value_adds_nothing_to_its_density() -> None:
    mixture = random_mixture(("student_t", "log_normal", "negative_binomial"), 10)
    x = torch.full((10,), -0.5)
    alone = mixture.components[0].log_prob(x) + mixture.log_weights[0]
    torch.testing.assert_close(mixture.log_prob(x), alone[0])


@pytest.mark.parametrize("name", MIXTURES)
@pytest.mark.parametrize("members", [1, 4, 32])
def test_quantiles_have_their_levels(name: str, members: int) -> None:
    mixture = pooled_mixture(name, members, 40)
    quantiles = mixture.icdf(LEVELS)
    assert quantiles.shape == (len(LEVELS), 40)
    assert (quantiles.diff(dim=0) >= 0).all()
    error = level_error(mixture, quantiles, slack_of(name)).max(1)
    smooth = slack_of(name) < 1e-2
    assert error[3:-3].max() < (0.05 if smooth else 0.5), error
    assert error.max() < (0.1 if smooth else 2.0), error


@pytest.mark.parametrize("size", [0.1, 2.0])
@pytest.mark.parametrize("name", ["student", "continuous", "official"])
def test_quantiles_of_narrow_and_of_wide_mixtures_have_their_levels(name: str, size: float) -> None:
    mixture = random_mixture(MIXTURES[name], 100, size=size)
    error = level_error(mixture, mixture.icdf(LEVELS), slack_of(name)).max()
    assert error < (0.15 if name == "student" else 0.5)


@pytest.mark.parametrize("in_unit", [False, True])
def test_quantiles_of_counts_are_those_of_scipy(in_unit: bool) -> None:
    count, logits = (
        part.flatten()
        for part in torch.meshgrid(
            torch.tensor([0.001, 0.05, 0.3, 1.0, 4.0, 30.0]),
            torch.tensor([-4.0, -1.0, 0.5, 2.0, 4.0]),
            indexing="ij",
        )
    )
    mixture = Mixture(torch.zeros(1, 1, 30), (NegativeBinomial(count[None], logits[None]),))
    if in_unit:
        mixture = mixture._replace(unit=Affine(torch.full((1, 30), 3.0), torch.full((1, 30), 0.5)))
    got = mixture.icdf(LEVELS).numpy()
    got = (got - 3) / 0.5 if in_unit else got
    level = LEVELS.double().numpy()[:, None]
    chance = 1 / (1 + np.exp(logits.double().numpy()))
    # a level may be rounded onto the next step, and steps far apart from 0 are not told apart
    rounding = 1e-6 + 1e-4 * np.minimum(level, 1 - level)
    low = stats.nbinom.ppf(level - rounding, count, chance)
    high = stats.nbinom.ppf(level + rounding, count, chance)
    step = 1.0 if in_unit else 1e-3
    allowed = np.maximum(step, np.where(high > 9, np.maximum(1, 2e-2 * high), 0))
    assert ((got >= low - allowed) & (got <= high + allowed)).all()
    small = (high < 10) & (low == high)
    assert small.sum() > 100
    if not in_unit:
        np.testing.assert_allclose(got[small], low[small], atol=1e-3)


@pytest.mark.parametrize("name", CONTINUOUS)
def test_cdf_undoes_icdf_at_fine_levels(name: str) -> None:
    levels = torch.linspace(0.005, 0.995, 199)
    mixture = random_mixture(MIXTURES[name], 30)
    quantiles = mixture.icdf(levels)
    assert (quantiles.diff(dim=0) >= 0).all()
    error = (mixture.cdf(quantiles) - levels[:, None]).abs()
    assert error.mean() < 1e-4
    assert error.max() < (3e-4 if name in ("student", "one") else 1e-2)


def test_one_level_is_enough() -> None:
    mixture = random_mixture(("student_t",) * 3, 20)
    several = mixture.icdf(torch.tensor([0.1, 0.5, 0.9]))
    torch.testing.assert_close(
        mixture.icdf(torch.tensor([0.5]))[0], several[1], atol=1e-4, rtol=1e-4
    )


@pytest.mark.parametrize("members", [16, 100])
@pytest.mark.parametrize("far", [10.0, 100.0, 1000.0])
def test_a_mode_that_few_members_share_is_found(members: int, far: float) -> None:
    loc = 0.1 * torch.randn(members, 1, generator=torch.Generator().manual_seed(0))
    loc[[1, 2, 3]] += far
    student = StudentT(torch.full_like(loc, 5.0), loc, torch.full_like(loc, 0.3))
    mixture = Mixture(torch.zeros(1, 1, members, 1), (student._make(p[None] for p in student),))
    pooled = mixture.pool(0)
    for levels in (torch.arange(1, 100) / 100, torch.tensor(NODE_LEVELS).float()):
        quantiles = pooled.icdf(levels)[:, 0]
        moved = 1e-3 * (1 + quantiles.abs())
        low, high = (pooled.cdf((quantiles + side * moved)[:, None])[:, 0] for side in (-1, 1))
        assert (low <= levels + 2e-3).all()
        assert (high >= levels - 2e-3).all()


def test_components_that_lie_far_apart() -> None:
    """Half of the mass at -1000, half within a thousandth of 1000."""
    mixture = Mixture(
        torch.full((2, 1, 1), 0.5).log(),
        (
            StudentT(*(torch.tensor([[value]]) for value in (5.0, -1000.0, 1.0))),
            NormalFixed(torch.tensor([[1000.0]])),
        ),
    )
    levels = torch.tensor([0.1, 0.25, 0.4, 0.6, 0.75, 0.9])
    expected = [
        *stats.t.ppf([0.2, 0.5, 0.8], 5, -1000, 1),
        *stats.norm.ppf([0.2, 0.5, 0.8], 1000, 1e-3),
    ]
    np.testing.assert_allclose(mixture.icdf(levels)[:, 0], expected, rtol=5e-5)


def test_a_pool_is_the_average() -> None:
    mixture = random_mixture(OFFICIAL_MIXTURE, 3, 6, 4)
    pooled = mixture.pool(1)
    assert pooled.shape == (3, 4)
    torch.testing.assert_close(pooled.log_weights.exp().sum((0, 1)), torch.ones(3, 4))
    x = torch.linspace(-5, 5, 21)[:, None, None].expand(21, 3, 4) + 1e-3
    every = x[:, :, None].expand(21, 3, 6, 4)
    torch.testing.assert_close(pooled.cdf(x), mixture.cdf(every).mean(2), atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(pooled.mean(), mixture.mean().mean(1), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(
        pooled.log_prob(x).exp(), mixture.log_prob(every).exp().mean(2), rtol=1e-4, atol=1e-6
    )


def test_equal_members_change_nothing() -> None:
    one = random_mixture(("student_t",) * 3, 1, 10)
    many = one.map(lambda x: x.expand(1, 8, 10)).pool(0)
    levels = LEVELS[1:-1]
    torch.testing.assert_close(many.icdf(levels), one.pool(0).icdf(levels), rtol=1e-2, atol=1e-3)


@pytest.mark.parametrize("name", ["student", "continuous"])
def test_a_change_of_unit_is_a_change_of_variable(name: str) -> None:
    plain = random_mixture(MIXTURES[name], 20)
    shift, scale = torch.linspace(-5, 5, 20)[None], torch.linspace(0.1, 9, 20)[None]
    other = plain._replace(unit=Affine(shift, scale))
    x = torch.linspace(-4, 4, 15)[:, None].expand(15, 20) + 1e-3
    y = x * scale + shift
    torch.testing.assert_close(other.cdf(y), plain.cdf(x), atol=1e-4, rtol=1e-3)
    torch.testing.assert_close(
        other.mean(), (plain.mean() * scale + shift)[0], rtol=1e-4, atol=1e-4
    )
    quantiles = other.icdf(LEVELS[2:-2])
    expected = plain.icdf(LEVELS[2:-2]) * scale + shift
    torch.testing.assert_close(quantiles, expected, rtol=2e-3, atol=2e-3)
    uniforms = torch.rand(3, 20, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(other.sample(uniforms), plain.sample(uniforms) * scale[0] + shift[0])
    student = random_mixture(MIXTURES["student"], 20)
    moved = student._replace(unit=Affine(shift, scale))
    torch.testing.assert_close(
        moved.log_prob(y), student.log_prob(x) - scale[0].log(), atol=1e-3, rtol=1e-3
    )
    torch.testing.assert_close(moved.density(y), student.density(x) / scale, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("name", MIXTURES)
def test_draws_follow_the_cdf(name: str) -> None:
    count = 4000
    mixture = random_mixture(MIXTURES[name], 6)
    uniforms = torch.rand(3, count, 6, generator=torch.Generator().manual_seed(1)).clamp_min(1e-7)
    draws = mixture.map(lambda x: x[:, None].expand(1, count, 6)).sample(uniforms)
    assert draws.shape == (count, 6)
    x = draws.double().numpy()
    below, at = oracle_cdf(mixture, x - 1e-9), oracle_cdf(mixture, x)
    level = below + np.random.default_rng(0).random(x.shape) * (at - below)
    for column in level.T:
        assert stats.kstest(column, "uniform").pvalue > 1e-4


@pytest.mark.parametrize("name", COUNTS)
def test_draws_of_counts_are_integers(name: str) -> None:
    mixture = random_mixture(MIXTURES[name], 500)
    draws = mixture.sample(torch.rand(3, 500, generator=torch.Generator().manual_seed(0)))
    assert torch.equal(draws, draws.round())
    assert (draws >= 0).all()
    assert len(draws.unique()) > 3


def test_the_last_component_takes_what_rounding_leaves() -> None:
    mixture = random_mixture(("student_t",) * 3, 50)
    draws = mixture.sample(torch.tensor([1 - 2.0**-24, 0.5, 0.5])[:, None].expand(3, 50))
    assert draws.isfinite().all()


@pytest.mark.parametrize("scale", [1e-6, 6.0, 15.0])
def test_a_component_of_extreme_spread_leaves_quantiles_finite(scale: float) -> None:
    parameters: list[Any] = [torch.full((1, 4), value) for value in (3.0, 0.0, 1e-5)]
    mixture = Mixture(
        torch.full((2, 1, 4), 0.5).log(),
        (StudentT(*parameters), LogNormal(torch.zeros(1, 4), torch.full((1, 4), scale))),
    )
    quantiles = mixture.icdf(LEVELS)
    assert quantiles.isfinite().all()
    error = level_error(mixture, quantiles)
    assert error[2:-2].max() < 0.02


@pytest.mark.parametrize("name", ["student", "one", "positive"])
def test_one_level_per_point_is_undone_by_the_cdf(name: str) -> None:
    mixture = random_mixture(MIXTURES[name], 2000)
    levels = torch.linspace(0.001, 0.999, 2000)
    error = (mixture.cdf(mixture.icdf_at(levels)) - levels).abs()
    assert error.median() < 1e-4
    assert error.mean() < 2e-3


def test_one_level_per_point_in_another_unit() -> None:
    plain = random_mixture(("student_t",), 50)
    moved = plain._replace(unit=Affine(torch.full((1, 50), 7.0), torch.full((1, 50), 3.0)))
    levels = torch.linspace(0.01, 0.99, 50)
    torch.testing.assert_close(
        moved.icdf_at(levels), 7 + 3 * plain.icdf_at(levels), rtol=1e-3, atol=1e-3
    )
