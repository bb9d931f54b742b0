"""Quantiles of mixtures: many levels of many members' average, or one level of each point."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from moirai_moe_forecaster.model.distribution.components import Distribution
from moirai_moe_forecaster.model.distribution.curves import Curve, Unit, curve_of
from moirai_moe_forecaster.model.distribution.negative_binomial import NegativeBinomial

if TYPE_CHECKING:
    from moirai_moe_forecaster.model.distribution.mixture import Mixture

GRID = 32
REFINED_GRID = 48
TAIL_GRID = 4
# of logits: half a hundredth of a logit is an eighth of a hundredth of a level
FAR, BENT = 0.01, 0.005
# within a step of counts no line is needed
WIDE, WIDE_OF_COUNTS = 1e-4, 0.2
HALVINGS = 14
MANY_LEVELS = 64
NEAR = (-0.1, -0.01, 0.01, 0.1)
BEYOND = 1.0
LEAST = 1e-7
LARGEST = 1e36
LEAST_WIDTH = 1e-9
CHUNK_ELEMENTS = 2**19
MARGIN = 0.3
NEWTON_STEPS = 8


def quantiles(mixture: Mixture, levels: Tensor) -> Tensor:
    """Quantiles of every point of a mixture.

    The average cdf of all members is evaluated on one grid per point, which is first spread over
    all that any component reaches and then gets more points where the quantiles were seen.
    Between grid points the logit of the cdf is taken as linear; where they lie too far apart for
    that, as in a gap between modes, they are halved first. Levels never cross.

    Parameters
    ----------
    mixture : Mixture
        Points (*shape).
    levels : Tensor, (level,)
        Ascending, in (0, 1).

    Returns
    -------
    Tensor, (level, *shape)
        Not decreasing along the levels.
    """
    flat = mixture.map(lambda tensor: tensor.flatten(1).T.contiguous())
    weights = flat.log_weights.exp()
    parts = zip(weights, flat.components, strict=True)
    curves = [curve_of(weight, component, flat.unit) for weight, component in parts]
    targets = levels.logit()
    low, high = targets[0] - BEYOND, targets[-1] + BEYOND
    scale = _Scale.of(weights, flat.components, flat.unit, torch.stack((low, high)).sigmoid())
    landmarks = scale.coordinate(torch.cat([curve.landmarks() for curve in curves], 1))
    beside = [targets] if len(levels) > MANY_LEVELS else [targets + shift for shift in NEAR]
    tail = _steps(TAIL_GRID, levels)
    tails = [torch.lerp(targets[0], low, tail), torch.lerp(targets[-1], high, tail)]
    near = torch.cat(beside + tails).sort().values
    refined = torch.lerp(low, high, _steps(REFINED_GRID, levels))

    even = torch.lerp(scale.start, scale.stop, _steps(GRID, levels))
    cdf = _Cdf(curves, weights.shape[2], scale)
    graph = cdf.graph(torch.cat((even, landmarks), 1).sort(1).values)
    for next_levels in (refined, near):
        more = graph.brackets(graph.reached(next_levels)).crossing(next_levels)
        graph = graph.merged(cdf.graph(more))
    right = graph.reached(targets)
    brackets = graph.brackets(right)
    crossing = brackets.crossing(targets)
    counts = any(isinstance(component, NegativeBinomial) for component in flat.components)
    loose = brackets.far(targets, WIDE_OF_COUNTS if counts else WIDE) & graph.bent(right)
    some = loose.any(1)
    if bool(some.any()):
        # the loose levels of each such point, and others up to the most that any point has
        most = int(loose.sum(1).max())
        level = loose[some].to(torch.uint8).argsort(1, descending=True)[:, :most]
        wide = _Brackets._make(part[some].gather(1, level) for part in brackets)
        narrow = _halved(cdf.rows(some), wide, targets[level])
        crossing[some] = crossing[some].scatter(1, level, narrow.crossing(targets[level]))
    return scale.value(crossing).cummax(1).values.T.reshape(-1, *mixture.shape)


class _Cdf(NamedTuple):
    """The average cdf of all members, over the coordinates of a scale."""

    curves: Sequence[Curve]
    members: int
    scale: _Scale

    def logits(self, grid: Tensor) -> Tensor:
        """Evaluate at coordinates (point, grid), a few points at a time to stay in the cache."""
        x = self.scale.value(grid)
        count = max(CHUNK_ELEMENTS // (self.members * x.shape[1]), 1)
        parts = []
        for first in range(0, len(x), count):
            rows = slice(first, first + count)
            heights = [_rows(curve, rows).at(x[rows]) for curve in self.curves]
            parts.append(torch.stack(heights).sum(0))
        return torch.cat(parts).clamp_(LEAST, 1 - LEAST).logit_()

    def graph(self, grid: Tensor) -> _Graph:
        """Evaluate at coordinates (point, grid) that ascend."""
        return _Graph(grid, self.logits(grid))

    def rows(self, some: Tensor) -> _Cdf:
        """Take some of the points."""
        curves = [_rows(curve, some) for curve in self.curves]
        return _Cdf(curves, self.members, _rows(self.scale, some))


class _Graph(NamedTuple):
    """Logits of the cdf at coordinates that ascend, (point, grid) each."""

    grid: Tensor
    logits: Tensor

    def merged(self, other: _Graph) -> _Graph:
        """Hold the points of both."""
        grid, order = torch.cat((self.grid, other.grid), 1).sort(1)
        return _Graph(grid, torch.cat((self.logits, other.logits), 1).gather(1, order))

    def reached(self, targets: Tensor) -> Tensor:
        """Index of the first point that reaches each level, but never of the first of all."""
        right = torch.searchsorted(self.logits, targets.expand(len(self.grid), -1).contiguous())
        return right.clamp_(1, self.grid.shape[1] - 1)

    def brackets(self, right: Tensor) -> _Brackets:
        """Points (point, level) and those before them."""
        return _Brackets(*(part.gather(1, end) for part in self for end in (right - 1, right)))

    def bent(self, right: Tensor) -> Tensor:
        """Tell where a straight line may be far from the graph between the ends of a bracket.

        By the difference of its slope and those of the lines beside it.
        """
        width = self.grid.diff(dim=1)
        slope = self.logits.diff(dim=1) / width.clamp_min(LEAST_WIDTH)
        change = F.pad(slope.diff(dim=1).abs(), (1, 1))
        error = torch.maximum(change[:, :-1], change[:, 1:]).mul_(width).div_(8)
        return error.gather(1, right - 1) > BENT


class _Brackets(NamedTuple):
    """Neighbouring points of a graph between which levels are reached: (point, level) each.

    In a gap between modes the cdf is flat and then rises at once: there a bracket is loose, its
    ends far apart and the graph between them bent, and a straight line across it is wrong.
    """

    low: Tensor
    high: Tensor
    low_logit: Tensor
    high_logit: Tensor

    def crossing(self, targets: Tensor) -> Tensor:
        """Coordinates at which straight lines reach the target logits ([point,] level)."""
        rise = (self.high_logit - self.low_logit).clamp_min(1e-9)
        share = (targets - self.low_logit).div_(rise).clamp_(0, 1)
        return torch.lerp(self.low, self.high, share)

    def far(self, targets: Tensor, wide: float) -> Tensor:
        """Which brackets are wide, and both their ends far from the level."""
        distance = torch.minimum(targets - self.low_logit, self.high_logit - targets)
        return (distance > FAR) & (self.high - self.low > wide)


def _halved(cdf: _Cdf, brackets: _Brackets, targets: Tensor) -> _Brackets:
    """Halve brackets until they are narrow, whatever the cdf does within."""
    for _ in range(HALVINGS):
        middle = (brackets.low + brackets.high) / 2
        logit = cdf.logits(middle)
        below = logit < targets
        brackets = _Brackets(
            torch.where(below, middle, brackets.low),
            torch.where(below, brackets.high, middle),
            torch.where(below, logit, brackets.low_logit),
            torch.where(below, brackets.high_logit, logit),
        )
    return brackets


class _Scale(NamedTuple):
    """Coordinates in which the grid of a point is laid: equal steps of the logarithm far out.

    A value is ``middle + width * sinh(coordinate)``; all fields are (point, 1). All quantiles lie
    between `start` and `stop`.
    """

    middle: Tensor
    width: Tensor
    start: Tensor
    stop: Tensor

    @classmethod
    def of(
        cls, weights: Tensor, components: Sequence[Distribution], unit: Unit, ends: Tensor
    ) -> _Scale:
        def anchors(score: Tensor) -> Tensor:
            rough = torch.stack([component.anchors(score) for component in components])
            return rough if unit is None else rough * unit[1] + unit[0]

        def average(values: Tensor) -> Tensor:
            return (weights * values).sum((0, 2))[:, None]

        low, high = torch.special.ndtri(ends)
        one = torch.ones_like(low)
        middle = average(anchors(0 * one))
        width = average((anchors(one) - anchors(-one)).clamp_min(1e-9).log()).exp() / 2
        bottom, top = anchors(low).amin((0, 2))[:, None], anchors(high).amax((0, 2))[:, None]
        plain = cls(middle, width, bottom, top)
        return plain._replace(start=plain.coordinate(bottom), stop=plain.coordinate(top))

    def value(self, coordinate: Tensor) -> Tensor:
        return coordinate.sinh().mul_(self.width).add_(self.middle)

    def coordinate(self, value: Tensor) -> Tensor:
        return ((value - self.middle) / self.width).clamp(-LARGEST, LARGEST).asinh()


def _steps(count: int, like: Tensor) -> Tensor:
    return torch.linspace(0, 1, count, dtype=like.dtype, device=like.device)


def _rows(curve: Any, rows: slice | Tensor) -> Any:
    """Take some points of every tensor in a curve."""
    if isinstance(curve, Tensor) or curve is None:
        return curve if curve is None else curve[rows]
    fields = [_rows(field, rows) for field in curve]
    return tuple(fields) if type(curve) is tuple else type(curve)(*fields)


def quantiles_at(mixture: Mixture, levels: Tensor) -> Tensor:
    """One quantile per point of a plain mixture of continuous components.

    Newton steps that may not leave the bracket which the components' own quantiles give.

    Parameters
    ----------
    mixture : Mixture
        Points (*shape), one member each.
    levels : Tensor, (*shape)
        In (0, 1).

    Returns
    -------
    Tensor, (*shape)
    """

    def anchors(score: Tensor) -> Tensor:
        rough = torch.stack([component.anchors(score)[0] for component in mixture.components])
        return rough if mixture.unit is None else rough * mixture.unit.scale + mixture.unit.location

    score = torch.special.ndtri(levels)
    x = (mixture.log_weights[:, 0].exp() * anchors(score)).sum(0)
    low, high = anchors(score - MARGIN).amin(0), anchors(score + MARGIN).amax(0)
    for _ in range(NEWTON_STEPS):
        gap = mixture.cdf(x) - levels
        low, high = torch.where(gap < 0, x, low), torch.where(gap < 0, high, x)
        step = x - gap / mixture.density(x).clamp_min(1e-30)
        x = torch.where((step >= low) & (step <= high), step, (low + high) / 2)
    return x
