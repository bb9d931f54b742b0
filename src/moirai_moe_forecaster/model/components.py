"""The four component distributions of a predictive mixture, each a tuple of its parameters.

Every method works elementwise on tensors that broadcast with the parameters. A component offers
its log density, its cdf, the density of its continuous part (for Newton steps), its mean, draws
from uniform numbers, and `anchors`: rough quantiles at given normal scores, which place the grid
on which a mixture's cdf is inverted.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from moirai_moe_forecaster.config import Component
from moirai_moe_forecaster.model.incomplete_beta import incomplete_beta

FIXED_SCALE = 1e-3
LOG_SQRT_2PI = 0.5 * math.log(2 * math.pi)
LARGEST_EXPONENT = 80.0
LARGEST_COUNT = 2.0**22


class StudentT(NamedTuple):
    """Student's t with degrees of freedom above 2."""

    df: Tensor
    loc: Tensor
    scale: Tensor

    @classmethod
    def from_raw(cls, raw: Tensor) -> StudentT:
        """Constrain raw outputs (3, ...)."""
        df, loc, scale = raw.unbind(0)
        return cls(2 + F.softplus(df), loc, _positive(scale))

    def log_prob(self, x: Tensor) -> Tensor:
        """Log density."""
        z = (x - self.loc) / self.scale
        return (
            _LogGammaRatio.apply(self.df / 2)
            - 0.5 * torch.log(self.df * math.pi)
            - self.scale.log()
            - 0.5 * (self.df + 1) * torch.log1p(z.square() / self.df)
        )

    def density(self, x: Tensor) -> Tensor:
        """Density."""
        return self.log_prob(x).exp()

    def cdf(self, x: Tensor) -> Tensor:
        """Distribution function, to 1e-7: far cheaper than an incomplete beta function.

        Two steps of the recurrence of I_x(df / 2, 1 / 2) (DLMF 8.17.20) lead to df + 4, where
        Hill's expansion in a normal score (1970, Communications of the ACM 13, algorithm 395) is
        that exact for every df above 2.
        """
        z = (x - self.loc) / self.scale
        half = self.df / 2
        ratio = (z.square() / self.df).clamp_max(1e30)
        first = (
            0.5
            * torch.exp(
                _LogGammaRatio.apply(half)
                - half * torch.log1p(ratio)
                - half.log()
                - 0.5 * math.log(math.pi)
            )
            * (ratio / (1 + ratio)).sqrt()
        )
        second = first * (half + 0.5) / ((half + 1) * (1 + ratio))
        tail = first + second + _hill_tail(ratio, self.df + 4)
        return torch.where(z > 0, 1 - tail, tail)

    def mean(self) -> Tensor:
        """Return the location."""
        return self.loc

    def sample(self, first: Tensor, second: Tensor) -> Tensor:
        """Draw by the polar method of Bailey (1994, Mathematics of Computation 62)."""
        radius = torch.expm1(-2 / self.df * first.log()) * self.df
        return self.loc + self.scale * radius.sqrt() * torch.cos(2 * math.pi * second)

    def anchors(self, score: Tensor) -> Tensor:
        """Wallace's approximation (1959, Annals of Mathematical Statistics 30)."""
        factor = ((8 * self.df + 3) / (8 * self.df + 1)).square()
        growth = (score.square() / self.df * factor).clamp_max(LARGEST_EXPONENT)
        return self.loc + self.scale * score.sign() * (self.df * torch.expm1(growth)).sqrt()


class NormalFixed(NamedTuple):
    """Normal with a fixed, small scale: a spike for values that repeat."""

    loc: Tensor

    @classmethod
    def from_raw(cls, raw: Tensor) -> NormalFixed:
        """Take the raw output (1, ...) as it is."""
        return cls(raw[0])

    def log_prob(self, x: Tensor) -> Tensor:
        """Log density."""
        z = (x - self.loc) / FIXED_SCALE
        return -0.5 * z.square() - math.log(FIXED_SCALE) - LOG_SQRT_2PI

    def density(self, x: Tensor) -> Tensor:
        """Density."""
        return self.log_prob(x).exp()

    def cdf(self, x: Tensor) -> Tensor:
        """Distribution function."""
        return torch.special.ndtr((x - self.loc) / FIXED_SCALE)

    def mean(self) -> Tensor:
        """Return the location."""
        return self.loc

    def sample(self, first: Tensor, second: Tensor) -> Tensor:
        """Draw by Box and Muller."""
        return self.loc + FIXED_SCALE * _normal(first, second)

    def anchors(self, score: Tensor) -> Tensor:
        """Quantiles."""
        return self.loc + FIXED_SCALE * score


class LogNormal(NamedTuple):
    """Log-normal, on the positive half line."""

    loc: Tensor
    scale: Tensor

    @classmethod
    def from_raw(cls, raw: Tensor) -> LogNormal:
        """Constrain raw outputs (2, ...)."""
        loc, scale = raw.unbind(0)
        return cls(loc, _positive(scale))

    def log_prob(self, x: Tensor) -> Tensor:
        """Log density; minus infinity at and below 0."""
        positive = x > 0
        log_x = torch.where(positive, x, 1.0).log()
        z = (log_x - self.loc) / self.scale
        log_density = -0.5 * z.square() - self.scale.log() - LOG_SQRT_2PI - log_x
        return torch.where(positive, log_density, -torch.inf)

    def density(self, x: Tensor) -> Tensor:
        """Density."""
        return self.log_prob(x).exp()

    def cdf(self, x: Tensor) -> Tensor:
        """Distribution function."""
        log_x = torch.where(x > 0, x, 1.0).log()
        return torch.where(x > 0, torch.special.ndtr((log_x - self.loc) / self.scale), 0.0)

    def mean(self) -> Tensor:
        """Mean, which may overflow to infinity."""
        return (self.loc + 0.5 * self.scale.square()).exp()

    def sample(self, first: Tensor, second: Tensor) -> Tensor:
        """Draw the exponential of a normal number."""
        return self.anchors(_normal(first, second))

    def anchors(self, score: Tensor) -> Tensor:
        """Quantiles."""
        return (self.loc + self.scale * score).clamp_max(LARGEST_EXPONENT).exp()


class NegativeBinomial(NamedTuple):
    """Negative binomial with a real count of failures; `logits` are log-odds of a success."""

    total_count: Tensor
    logits: Tensor

    @classmethod
    def from_raw(cls, raw: Tensor) -> NegativeBinomial:
        """Constrain raw outputs (2, ...)."""
        total_count, logits = raw.unbind(0)
        return cls(_positive(total_count), logits)

    def log_prob(self, x: Tensor) -> Tensor:
        """Log mass, continued to real arguments as training needs; minus infinity below 0."""
        possible = x >= 0
        k = torch.where(possible, x, 0.0)
        binomial = (
            torch.lgamma(self.total_count + k)
            - torch.lgamma(1 + k)
            - torch.lgamma(self.total_count)
        )
        log_mass = (
            binomial + self.total_count * F.logsigmoid(-self.logits) + k * F.logsigmoid(self.logits)
        )
        return torch.where(possible, log_mass, -torch.inf)

    def density(self, x: Tensor) -> Tensor:
        """Return 0: all mass sits on the integers."""
        return torch.zeros_like(x + self.logits)

    def cdf(self, x: Tensor) -> Tensor:
        """Distribution function: steps at the integers from 0."""
        successes = x.floor().clamp(0, LARGEST_COUNT)
        below = incomplete_beta(self.total_count, successes + 1, torch.sigmoid(-self.logits))
        return torch.where(x >= 0, below, 0.0)

    def mean(self) -> Tensor:
        """Return the mean."""
        return self.total_count * self.logits.exp()

    def sample(self, first: Tensor, second: Tensor) -> Tensor:
        """Invert the cdf at `first`: double an upper end until it holds, then halve."""
        high = torch.ones_like(first * self.logits)
        while bool((short := self.cdf(high) < first).any()) and float(high.max()) < 2**30:
            high = torch.where(short, 2 * high, high)
        low = torch.full_like(high, -1.0)
        while bool((high - low > 1).any()):
            middle = ((low + high) / 2).floor()
            enough = self.cdf(middle) >= first
            low, high = torch.where(enough, low, middle), torch.where(enough, middle, high)
        return high

    def anchors(self, score: Tensor) -> Tensor:
        """Integers near the quantiles, each after the point just before it, where the step is.

        Cornish and Fisher's expansion or, if that is further out, the exponential tail.
        """
        mean = self.mean()
        deviation = (mean * (1 + self.logits.exp())).sqrt()
        skew = (1 + 2 * self.logits.exp()) / deviation.clamp_min(1e-6)
        expansion = mean + deviation * (score + skew * (score.square() - 1) / 6)
        # the terms left out lengthen the upper tail
        expansion = expansion + deviation * score.clamp_min(0) ** 3 / 100
        tail = -0.5 * score.clamp_min(0).square() / F.logsigmoid(self.logits)
        # the expansion turns around far out on the left, where the quantiles are smaller still
        expansion = expansion.flip(0).cummin(0).values.flip(0)
        rough = torch.maximum(expansion, tail).clamp(0, LARGEST_COUNT).round()[::2]
        rough = torch.cat((torch.zeros_like(rough[:1]), rough[1:]))
        number = torch.arange(len(rough), device=score.device).view_as(score[::2])
        step = (rough - number).cummax(0).values.clamp_min(0) + number
        return torch.stack((step - 1e-6 * (1 + step), step), 1).flatten(0, 1)[: len(score)]


Distribution = StudentT | NormalFixed | LogNormal | NegativeBinomial


class _Kind(NamedTuple):
    size: int
    kind: type[Distribution]


KINDS: dict[Component, _Kind] = {
    "student_t": _Kind(3, StudentT),
    "normal_fixed": _Kind(1, NormalFixed),
    "negative_binomial": _Kind(2, NegativeBinomial),
    "log_normal": _Kind(2, LogNormal),
}


def _positive(raw: Tensor) -> Tensor:
    return F.softplus(raw).clamp_min(torch.finfo(raw.dtype).eps)


def _normal(first: Tensor, second: Tensor) -> Tensor:
    """Box and Muller's transform of two uniform numbers."""
    return (-2 * first.log()).sqrt() * torch.cos(2 * math.pi * second)


def _hill_tail(ratio: Tensor, df: Tensor) -> Tensor:
    """Upper tail of Student's t at t^2 / df = `ratio`, for df of at least 6."""
    a = df - 0.5
    b = 48 * a.square()
    square = a * torch.log1p(ratio)
    polynomial = ((4 * square + 33) * square + 240) * square + 855
    series = square + 3 - polynomial / (10 * (b + 0.8 * square.square() + 100))
    return torch.special.ndtr(-square.sqrt() * (1 + series / b))


class _LogGammaRatio(torch.autograd.Function):
    """log(Gamma(x + 1/2) / Gamma(x)) for x >= 1, with its derivative in closed form.

    Two steps of the recurrence bring x to at least 3, where the asymptotic series (DLMF 5.11.13)
    is exact to 1e-8: far cheaper than two log-gammas and their derivatives.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        y = x + 2
        inverse = 1 / y
        square = inverse.square()
        series = inverse * _polynomial(square, (-1 / 8, 1 / 192, -1 / 640, 17 / 14336))
        # one logarithm for the two steps and for half of log(y)
        step = x * (x + 1) / ((x + 0.5) * (x + 1.5))
        return torch.log(step * y.sqrt()).add_(series)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        inverse = 1 / (x + 2)
        square = inverse.square()
        slope = 0.5 * inverse - square * _polynomial(
            square, (-1 / 8, 3 / 192, -5 / 640, 7 * 17 / 14336)
        )
        # 1 / x - 1 / (x + 1 / 2), and the same one further on
        slope += 0.5 / (x * (x + 0.5)) + 0.5 / ((x + 1) * (x + 1.5))
        return gradients[0] * slope


def _polynomial(x: Tensor, coefficients: Sequence[float]) -> Tensor:
    """Evaluate c0 + c1 x + c2 x^2 + ..., by Horner's rule."""
    total = x * coefficients[-1]
    for coefficient in coefficients[-2:0:-1]:
        total.add_(coefficient).mul_(x)
    return total.add_(coefficients[0])
