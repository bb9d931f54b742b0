"""The component distributions of a predictive mixture, each a tuple of its parameters.

A component offers its log density, its cdf, the density of its continuous part (for Newton steps),
its mean, draws from uniform numbers, and `anchors`: rough quantiles at given normal scores, from
which a search for quantiles starts. All work elementwise on tensors that broadcast with the
parameters.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from moirai_moe_forecaster.config import Component
from moirai_moe_forecaster.model.distribution.negative_binomial import NegativeBinomial
from moirai_moe_forecaster.model.distribution.student_t import LARGEST_EXPONENT, StudentT, positive

FIXED_SCALE = 1e-3
LOG_SQRT_2PI = 0.5 * math.log(2 * math.pi)


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
        return cls(loc, positive(scale))

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


def _normal(first: Tensor, second: Tensor) -> Tensor:
    """Box and Muller's transform of two uniform numbers."""
    return (-2 * first.log()).sqrt() * torch.cos(2 * math.pi * second)
