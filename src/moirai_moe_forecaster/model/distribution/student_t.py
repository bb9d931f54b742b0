"""Student's t distribution, the component that most of a forecast is made of."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

LARGEST_EXPONENT = 80.0


def positive(raw: Tensor) -> Tensor:
    """Constrain a raw network output to positive numbers."""
    return F.softplus(raw).clamp_min(torch.finfo(raw.dtype).eps)


class StudentT(NamedTuple):
    """Student's t with degrees of freedom above 2."""

    df: Tensor
    loc: Tensor
    scale: Tensor

    @classmethod
    def from_raw(cls, raw: Tensor) -> StudentT:
        """Constrain raw outputs (3, ...)."""
        df, loc, scale = raw.unbind(0)
        return cls(2 + F.softplus(df), loc, positive(scale))

    def log_prob(self, x: Tensor) -> Tensor:
        """Log density."""
        z = (x - self.loc) / self.scale
        return (
            LogGammaRatio.apply(self.df / 2)
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
                LogGammaRatio.apply(half)
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
        """Wallace's approximation."""
        factor = ((8 * self.df + 3) / (8 * self.df + 1)).square()
        growth = (score.square() / self.df * factor).clamp_max(LARGEST_EXPONENT)
        return self.loc + self.scale * score.sign() * (self.df * torch.expm1(growth)).sqrt()


def _hill_tail(ratio: Tensor, df: Tensor) -> Tensor:
    """Upper tail of Student's t at t^2 / df = `ratio`, for df of at least 6."""
    a = df - 0.5
    b = 48 * a.square()
    square = a * torch.log1p(ratio)
    polynomial = ((4 * square + 33) * square + 240) * square + 855
    series = square + 3 - polynomial / (10 * (b + 0.8 * square.square() + 100))
    return torch.special.ndtr(-square.sqrt() * (1 + series / b))


class LogGammaRatio(torch.autograd.Function):
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
        series = inverse * polynomial(square, (-1 / 8, 1 / 192, -1 / 640, 17 / 14336))
        # one logarithm for the two steps and for half of log(y)
        step = x * (x + 1) / ((x + 0.5) * (x + 1.5))
        return torch.log(step * y.sqrt()).add_(series)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        inverse = 1 / (x + 2)
        square = inverse.square()
        slope = 0.5 * inverse - square * polynomial(
            square, (-1 / 8, 3 / 192, -5 / 640, 7 * 17 / 14336)
        )
        # 1 / x - 1 / (x + 1 / 2), and the same one further on
        slope += 0.5 / (x * (x + 0.5)) + 0.5 / ((x + 1) * (x + 1.5))
        return gradients[0] * slope


def polynomial(x: Tensor, coefficients: Sequence[float]) -> Tensor:
    """Evaluate c0 + c1 x + c2 x^2 + ..., by Horner's rule."""
    total = x * coefficients[-1]
    for coefficient in coefficients[-2:0:-1]:
        total.add_(coefficient).mul_(x)
    return total.add_(coefficients[0])
