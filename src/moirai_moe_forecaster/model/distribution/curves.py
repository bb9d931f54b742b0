"""Average cdfs of many members of one kind on a shared grid: the inner loop of quantiles.

A curve holds what can be computed once per member, (point, member, ...) each, so that evaluating
it takes few passes over (point, member, grid). They are steps with two operands, because those
with three are several times slower where an operand is the same along the grid.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from moirai_moe_forecaster.model.distribution.components import (
    FIXED_SCALE,
    Distribution,
    LogNormal,
    NormalFixed,
)
from moirai_moe_forecaster.model.distribution.negative_binomial import (
    LARGEST_COUNT,
    SMALL_COUNTS,
    NegativeBinomial,
)
from moirai_moe_forecaster.model.distribution.student_t import LogGammaRatio, StudentT, polynomial

TINY = 1e-12
FARTHEST = 1e15
LANDMARKS = 5
FEW_MEMBERS = 4
FIRST_STEPS = 10
LARGE_COUNTS = 192
NEGLIGIBLE = 1e-7

Unit = tuple[Tensor, Tensor] | None
"""Location and scale (point, member) of the unit in which the grid is given."""

# Coefficients of 1 / df, (1 / df)^2, ... in those of y and y^2 above and of y below the line.
SCORE_OF_T = (
    (1.16574673e-1, 3.88216031e-1, -2.76834759e-1, 6.40573777e-1, -2.25300390e-2),
    (2.05434768e-6, 9.63072886e-3, 3.55221461e-2, -5.18588395e-3, 8.19381060e-2),
    (1.16578140e-1, 4.04690455e-1, -8.67552415e-2, 5.47762418e-1, 3.12327389e-1),
)


class StudentTCurve(NamedTuple):
    """Student's t, to 4e-5.

    Wallace's normal score of t (1959, Annals of Mathematical Statistics 30), squared, is
    y = df log(1 + t^2 / df). A rational function of y, fitted once over all df above 2, turns it
    into the exact one, relatively to 1e-3 in tails of 1e-4.
    """

    weights: Tensor
    factor: Tensor
    shift: Tensor
    df: Tensor
    inverse: Tensor
    over: Tensor
    under: Tensor

    @classmethod
    def of(cls, weights: Tensor, student: StudentT, unit: Unit) -> StudentTCurve:
        """Prepare; parameters are (point, member) each."""
        df, loc, scale = student
        if unit is not None:
            loc, scale = loc * unit[1] + unit[0], scale * unit[1]
        inverse = 1 / df
        constant = 2 * torch.exp(2 * LogGammaRatio.apply(df / 2)) * inverse
        linear, square, below = (polynomial(inverse, (0.0, *part)) for part in SCORE_OF_T)
        factor, shift, column, inverse = (
            part[..., None] for part in (1 / scale, loc / scale, df, inverse)
        )
        # half of it, because erf(s) is wanted at s = score / sqrt(2)
        over = 0.5 * torch.stack((constant, linear, square))[..., None]
        under = torch.stack((below, square))[..., None]
        return cls(weights, factor, shift, column, inverse, over.movedim(0, 1), under.movedim(0, 1))

    def at(self, x: Tensor) -> Tensor:
        """Weighted sum over members at x (point, grid)."""
        t = (x[:, None] * self.factor).sub_(self.shift).clamp_(-FARTHEST, FARTHEST)
        grown = t.square().mul_(self.inverse).add_(1)
        log = grown.log()
        y = log * self.df
        constant, linear, square = self.over.unbind(1)
        over = (y * square).add_(linear).mul_(y).add_(constant)
        linear, square = self.under.unbind(1)
        under = (y * square).add_(linear).mul_(y).add_(1)
        # log(1 + r) / r, with r from the rounded 1 + r, so that the rounding cancels
        under.mul_(grown.sub_(1).add_(TINY))
        heights = over.mul_(log.add_(TINY)).div_(under).sqrt_().mul_(t).erf_()
        return _average(heights, self.weights)

    def landmarks(self) -> Tensor:
        """Middle and flanks of each member if they are few, (point, landmark); else none."""
        if self.factor.shape[1] > FEW_MEMBERS:
            return self.weights[:, :0]
        t = torch.tensor((-4.0, -1.5, 0.0, 1.5, 4.0), device=self.factor.device)
        return ((self.shift + t) / self.factor).flatten(1)


class NormalCurve(NamedTuple):
    """The normal distribution with the fixed scale."""

    weights: Tensor
    factor: Tensor
    shift: Tensor

    @classmethod
    def of(cls, weights: Tensor, normal: NormalFixed, unit: Unit) -> NormalCurve:
        """Prepare; parameters are (point, member) each."""
        loc, scale = normal.loc, torch.full_like(normal.loc, FIXED_SCALE)
        if unit is not None:
            loc, scale = loc * unit[1] + unit[0], scale * unit[1]
        factor = math.sqrt(0.5) / scale
        return cls(weights, factor[..., None], (loc * factor)[..., None])

    def at(self, x: Tensor) -> Tensor:
        """Weighted sum over members at x (point, grid)."""
        return _average((x[:, None] * self.factor).sub_(self.shift).erf_(), self.weights)

    def landmarks(self) -> Tensor:
        """Both sides of some members' spikes: (point, landmark)."""
        width = math.sqrt(0.5) / self.factor[:, :1, 0]
        spikes = _some((self.shift / self.factor)[..., 0])
        return torch.cat([spikes + side * width for side in (-3, -1, 1, 3)], 1)


class LogNormalCurve(NamedTuple):
    """The log-normal distribution."""

    weights: Tensor
    factor: Tensor
    shift: Tensor
    unit: Unit

    @classmethod
    def of(cls, weights: Tensor, log_normal: LogNormal, unit: Unit) -> LogNormalCurve:
        """Prepare; parameters are (point, member) each."""
        factor = math.sqrt(0.5) / log_normal.scale
        return cls(weights, factor[..., None], (log_normal.loc * factor)[..., None], unit)

    def at(self, x: Tensor) -> Tensor:
        """Weighted sum over members at x (point, grid)."""
        log = _inner(x, self.unit).clamp_min(torch.finfo(x.dtype).tiny).log()
        return _average((log * self.factor).sub_(self.shift).erf_(), self.weights)

    def landmarks(self) -> Tensor:
        """Low quantiles of some members, which a grid finds hard to find: (point, landmark)."""
        scores = (math.sqrt(2) * score for score in (-4, -3, -2, -1))
        low = torch.cat(
            [_some(((self.shift + s / 2) / self.factor)[..., 0].exp()) for s in scores], 1
        )
        return _outer(low, self.unit)


class CountCurve(NamedTuple):
    """The negative binomial distribution, by a table of the heights of its steps.

    It has every small count and few large ones, between which cubics run (Hermite's, from heights
    and slopes). The members' tables are summed where they share their unit.
    """

    table: Tensor
    slopes: Tensor | None
    unit: Unit

    @classmethod
    def of(cls, weights: Tensor, negative_binomial: NegativeBinomial, unit: Unit) -> CountCurve:
        """Prepare; parameters are (point, member) each."""
        summed = unit is None
        small, below = negative_binomial.small_heights(weights, summed=summed)
        far = weights[..., None] if not summed else weights.sum(1, keepdim=True)[..., None]
        far, slopes = far.repeat(1, 1, LARGE_COUNTS), None
        point, member = (weights * (1 - below) > NEGLIGIBLE).nonzero(as_tuple=True)
        if len(point):
            some = NegativeBinomial(*(part[point, member, None] for part in negative_binomial))
            counts, weight = _counts(weights)[SMALL_COUNTS:], weights[point, member, None]
            place = point, 0 * member if summed else member
            far.index_put_(place, weight * (some.cdf(counts) - 1), accumulate=True)
            # between the step to a count and the one after it
            slope = 0.5 * (some.log_prob(counts).exp() + some.log_prob(counts + 1).exp())
            slopes = torch.zeros_like(far).index_put_(place, weight * slope, accumulate=True)
            slopes = torch.cat((torch.zeros_like(small), slopes), -1)
        return cls(torch.cat((small, far), -1), slopes, unit)

    def at(self, x: Tensor) -> Tensor:
        """Weighted sum over members at x (point, grid)."""
        counts, count = _counts(x), _inner(x, self.unit).floor()
        left = torch.searchsorted(counts, count, right=True).sub_(1).clamp_(0, len(counts) - 2)
        start = counts[left]
        width = counts[left + 1] - start
        share = ((count - start) / width).clamp_(0, 1)
        low, high = self.table.gather(-1, left), self.table.gather(-1, left + 1)
        heights = torch.lerp(low, high, share)
        if self.slopes is not None:
            rise = high - low
            first = self.slopes.gather(-1, left) * width - rise
            last = self.slopes.gather(-1, left + 1) * width - rise
            heights += share * (1 - share) * ((1 - share) * first - share * last)
        return torch.where(count >= 0, heights, 0.0).sum(1)

    def landmarks(self) -> Tensor:
        """Both sides of the first steps: (point, landmark)."""
        steps = torch.arange(FIRST_STEPS, device=self.table.device).to(self.table)
        # far enough apart for rounding not to move a point across a step
        margin = 1e-5 * (1 + steps)
        both = torch.cat((steps - margin, steps + margin)).expand(len(self.table), -1)
        return _outer(both, self.unit)


Curve = StudentTCurve | NormalCurve | LogNormalCurve | CountCurve


def curve_of(weights: Tensor, component: Distribution, unit: Unit) -> Curve:
    """Prepare the curve of a component with parameters (point, member)."""
    match component:
        case StudentT():
            return StudentTCurve.of(weights, component, unit)
        case NormalFixed():
            return NormalCurve.of(weights, component, unit)
        case LogNormal():
            return LogNormalCurve.of(weights, component, unit)
        case NegativeBinomial():
            return CountCurve.of(weights, component, unit)


def _counts(like: Tensor) -> Tensor:
    """Counts that have a column in the table of a `CountCurve`."""
    ends = math.log2(SMALL_COUNTS), math.log2(LARGEST_COUNT)
    large = torch.logspace(*ends, LARGE_COUNTS, base=2, device=like.device).round().to(like)
    return torch.cat((torch.arange(SMALL_COUNTS, device=like.device).to(like), large))


def _inner(x: Tensor, unit: Unit) -> Tensor:
    """Values (point, 1 or member, grid) in the members' own unit."""
    x = x[:, None]
    return x if unit is None else (x - unit[0][..., None]) / unit[1][..., None]


def _outer(landmarks: Tensor, unit: Unit) -> Tensor:
    """Landmarks (point, landmark) in the unit of the grid, on average over the members."""
    if unit is None:
        return landmarks
    location, scale = (part.mean(1, keepdim=True) for part in unit)
    return landmarks * scale + location


def _some(values: Tensor) -> Tensor:
    """Choose a few of the members' values (point, member), evenly from small to large."""
    members = values.shape[1]
    chosen = torch.linspace(0, members - 1, min(LANDMARKS, members), device=values.device)
    return values.sort(1).values[:, chosen.long()]


def _average(erf: Tensor, weights: Tensor) -> Tensor:
    """Sum heights (1 + erf) / 2 of (point, member, grid) over the members."""
    return 0.5 * (weights.sum(-1, keepdim=True) + (weights[:, None] @ erf)[:, 0])
