from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

from moirai_moe_forecaster.model.distribution.components import (
    FIXED_SCALE,
    KINDS,
    Distribution,
    LogNormal,
    NegativeBinomial,
    NormalFixed,
    StudentT,
)

X = torch.tensor([-300.0, -20, -3, -1.01, -0.4, -1e-3, 0, 1e-3, 0.02, 0.5, 1, 2, 3.3, 7, 40, 1000])


def columns(*axes: list[float]) -> list[Tensor]:
    """Every combination, one per column."""
    return [axis.flatten() for axis in torch.meshgrid(*map(torch.tensor, axes), indexing="ij")]


def oracle(component: Distribution) -> Any:
    """The same distribution as scipy knows it."""
    parameters = [parameter.double().numpy() for parameter in component]
    match component:
        case StudentT():
            df, loc, scale = parameters
            return stats.t(df, loc, scale)
        case NormalFixed():
            return stats.norm(parameters[0], FIXED_SCALE)
        case LogNormal():
            loc, scale = parameters
            return stats.lognorm(scale, scale=np.exp(loc))
        case NegativeBinomial():
            count, logits = parameters
            return stats.nbinom(count, 1 / (1 + np.exp(logits)))


COMPONENTS: dict[str, Distribution] = {
    "student_t": StudentT(*columns([2.01, 2.5, 4.0, 30.0, 1e4], [-1.0, 0.0, 2.0], [0.1, 1.0, 5.0])),
    "normal_fixed": NormalFixed(torch.tensor([-1.01, 0.0, 1e-3, 1.0])),
    "log_normal": LogNormal(*columns([-2.0, 0.0, 1.5], [0.05, 0.5, 2.0])),
    "negative_binomial": NegativeBinomial(
        *columns([0.05, 0.5, 1.0, 3.0, 20.0, 200.0], [-3.0, -1.0, 0.0, 1.0, 3.0])
    ),
}
NAMES = list(COMPONENTS)
CONTINUOUS = NAMES[:3]


@pytest.mark.parametrize("name", NAMES)
def test_cdf(name: str) -> None:
    component = COMPONENTS[name]
    expected = oracle(component).cdf(X.double().numpy()[:, None])
    np.testing.assert_allclose(component.cdf(X[:, None]), expected, atol=1e-5)


@pytest.mark.parametrize("name", CONTINUOUS)
def test_tails_of_the_cdf(name: str) -> None:
    """Relative to the tail: levels of 0.0001 are asked for."""
    component = COMPONENTS[name]
    for level in (1e-6, 1e-4, 1e-2, 0.3):
        x = torch.tensor(oracle(component).ppf(level)).float()
        expected = oracle(component).cdf(x.double().numpy())
        np.testing.assert_allclose(component.cdf(x), expected, rtol=1e-3, atol=2e-8)


@pytest.mark.parametrize("name", CONTINUOUS)
def test_log_density(name: str) -> None:
    component = COMPONENTS[name]
    expected = oracle(component).logpdf(X.double().numpy()[:, None])
    got = component.log_prob(X[:, None])
    np.testing.assert_allclose(got, expected, rtol=1e-3, atol=2e-4)
    np.testing.assert_allclose(component.density(X[:, None]), got.exp())


def test_log_mass_and_its_continuation() -> None:
    component = COMPONENTS["negative_binomial"]
    whole = torch.arange(0, 60.0)[:, None]
    expected = oracle(component).logpmf(whole.numpy())
    np.testing.assert_allclose(component.log_prob(whole), expected, rtol=1e-3, atol=1e-3)
    from_torch = torch.distributions.NegativeBinomial(
        component.total_count, logits=component.logits, validate_args=False
    )
    real = torch.tensor([0.3, 1.7, 22.2])[:, None]
    torch.testing.assert_close(
        component.log_prob(real), from_torch.log_prob(real), atol=1e-3, rtol=1e-3
    )
    assert (component.log_prob(torch.tensor(-0.1)) == -torch.inf).all()
    assert (component.density(whole) == 0).all()


@pytest.mark.parametrize("name", NAMES)
def test_mean(name: str) -> None:
    component = COMPONENTS[name]
    np.testing.assert_allclose(component.mean(), oracle(component).mean(), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("name", NAMES)
def test_draws_follow_the_distribution(name: str) -> None:
    component, count = COMPONENTS[name], 600
    columns_count = component[0].numel()
    first, second = torch.rand(
        2, count, columns_count, generator=torch.Generator().manual_seed(0)
    ).clamp(1e-7, 1 - 1e-7)
    draws = component.sample(first, second).double().numpy()
    reference = oracle(component)
    assert np.isfinite(draws).all()
    if name == "negative_binomial":
        assert (draws == np.round(draws)).all()
        # uniform after randomising within the step
        low, high = reference.cdf(draws - 1), reference.cdf(draws)
        level = low + second.numpy() * (high - low)
    else:
        level = reference.cdf(draws)
    for column in level.T:
        assert stats.kstest(column, "uniform").pvalue > 1e-5


@pytest.mark.parametrize("u", [2.0**-24, 1 - 2.0**-24])
@pytest.mark.parametrize("name", NAMES)
def test_draws_from_the_outermost_uniform_numbers_are_finite(name: str, u: float) -> None:
    component = COMPONENTS[name]
    for second in (2.0**-24, 0.5, 1 - 2.0**-24):
        first = torch.full(component[0].shape, u)
        assert component.sample(first, torch.full_like(first, second)).isfinite().all()


@pytest.mark.parametrize("name", NAMES)
def test_raw_outputs_are_constrained(name: str) -> None:
    raw = torch.tensor([-1000.0, -30.0, -1.0, 0.0, 1.0, 30.0]).expand(KINDS[name].size, 6)
    component = KINDS[name].kind.from_raw(raw)
    assert all(parameter.isfinite().all() for parameter in component)
    match component:
        case StudentT():
            assert (component.df >= 2).all()
            assert (component.df[2:] > 2).all()
            assert (component.scale > 0).all()
            torch.testing.assert_close(component.df[3], 2 + torch.tensor(2.0).log())
            torch.testing.assert_close(component.scale[3], torch.tensor(2.0).log())
            assert torch.equal(component.loc, raw[1])
        case NormalFixed():
            assert torch.equal(component.loc, raw[0])
        case LogNormal():
            assert (component.scale > 0).all()
            assert torch.equal(component.loc, raw[0])
        case NegativeBinomial():
            assert (component.total_count > 0).all()
            torch.testing.assert_close(component.total_count[3], torch.tensor(2.0).log())
            assert torch.equal(component.logits, raw[1])


@pytest.mark.parametrize("name", NAMES)
def test_log_density_has_finite_gradients(name: str) -> None:
    """Also where a value lies outside the support, which must not poison the other components."""
    raw = torch.linspace(-8, 8, 9).expand(KINDS[name].size, 9).clone().requires_grad_(True)
    log_density = KINDS[name].kind.from_raw(raw).log_prob(X[:, None])
    log_density[log_density.isfinite()].sum().backward()
    assert raw.grad is not None
    assert raw.grad.isfinite().all()


@pytest.mark.parametrize("name", NAMES)
def test_far_values_have_a_cdf_of_zero_or_one(name: str) -> None:
    """Another component's quantiles may lie anywhere that a float32 reaches."""
    component = COMPONENTS[name]
    far = torch.tensor([1e15, 1e20, 1e30, 3e38])[:, None]
    np.testing.assert_allclose(component.cdf(far), np.ones((4, component[0].numel())), atol=1e-6)
    np.testing.assert_allclose(component.cdf(-far), np.zeros((4, component[0].numel())), atol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_anchors_enclose_and_rise(name: str) -> None:
    component = COMPONENTS[name]
    score = torch.linspace(-4.7, 4.7, 33)[:, None]
    anchors = component.anchors(score)
    assert anchors.shape == (33, component[0].numel())
    heights = component.cdf(anchors.sort(0).values)
    assert (heights[0] <= 1e-4).all()
    assert (heights[-1] >= 1 - 1e-4).all()


def test_gradients_of_students_t_are_those_of_torch() -> None:
    df, loc, scale = (p.double() for p in COMPONENTS["student_t"])
    parameters = [p.clone().requires_grad_() for p in (df, loc, scale)]
    x = X.double()[:, None]
    got = StudentT(*parameters).log_prob(x)
    expected = torch.distributions.StudentT(*parameters).log_prob(x)
    torch.testing.assert_close(got, expected, atol=1e-6, rtol=1e-6)
    for ours, theirs in zip(
        torch.autograd.grad(got.sum(), parameters),
        torch.autograd.grad(expected.sum(), parameters),
        strict=True,
    ):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)
