"""Quantiles of mixtures: many levels of many members' average, or one level of each point."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from moirai_moe_forecaster.model.distribution.components import Distribution
from moirai_moe_forecaster.model.distribution.curves import Curve, Unit, curve_of
from moirai_moe_forecaster.model.distribution.negative_binomial import NegativeBinomial

GRID = 32
REFINED_GRID = 48
TAIL_GRID = 4
# of logits: half a hundredth of a logit is an eighth of a hundredth of a level
FAR, BENT = 0.01, 0.005
WIDE = 1e-4
HALVINGS = 14
# with counts the cdf says itself how far it is from a level: of logits, a tenth of a hundredth of a
# level; of coordinates, what float32 resolves
CUTS = 24
NEAR_LEVEL, NARROW = 0.004, 1e-6
STEP_HALVINGS = 24  # more than LARGEST_COUNT takes
MANY_LEVELS = 64
NEAR = (-0.1, -0.01, 0.01, 0.1)
BEYOND = 1.0
LEAST = 1e-7
LARGEST = 1e36
LEAST_WIDTH = 1e-9
CHUNK_ELEMENTS = 2**19


def quantiles(
    weights: Tensor, components: Sequence[Distribution], unit: Unit, levels: Tensor
) -> Tensor:
    """Quantiles of every point of a mixture.

    The average cdf of all members is evaluated on one grid per point, which is first spread over
    all that any component reaches and then gets more points where the quantiles were seen.
    Between grid points the logit of the cdf is taken as linear; where they lie too far apart for
    that, as in a gap between modes, they are brought closer first. Where the cdf jumps, at a count,
    the quantile is that count. Levels never cross.

    Parameters
    ----------
    weights : Tensor, (component, point, member)
        Summing to 1 over components and members.
    components : sequence of Distribution
        Parameters (point, member) each.
    unit : pair of Tensor, (point, member) each, or None
        Location and scale of the quantiles' unit.
    levels : Tensor, (level,)
        Ascending, in (0, 1).

    Returns
    -------
    Tensor, (level, point)
        Not decreasing along the levels.
    """
    counts = any(isinstance(component, NegativeBinomial) for component in components)
    if counts and unit is not None and weights.shape[2] == 1:
        # one member: its counts are whole numbers in its own unit
        return quantiles(weights, components, None, levels) * unit[1].T + unit[0].T
    curves = [curve_of(*part, unit) for part in zip(weights, components, strict=True)]
    targets = levels.logit()
    low, high = targets[0] - BEYOND, targets[-1] + BEYOND
    scale = _Scale.of(weights, components, unit, torch.stack((low, high)).sigmoid())
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
    if counts:
        if unit is None:
            brackets = _beside_steps(cdf, brackets, targets)
        brackets = _cut_often(cdf, brackets, targets)
        values = scale.value(brackets.crossing(targets))
        if unit is None:
            step = scale.is_step(brackets.low, brackets.high)
            values = torch.where(step, scale.counted(brackets.high), values)
    else:
        crossing = brackets.crossing(targets)
        loose = brackets.far(targets, FAR, WIDE) & graph.bent(right)
        some = loose.any(1)
        if bool(some.any()):
            level = _first(loose[some])
            wide = _Brackets._make(part[some].gather(1, level) for part in brackets)
            narrow = _halved(cdf.rows(some), wide, targets[level])
            crossing[some] = crossing[some].scatter(1, level, narrow.crossing(targets[level]))
        values = scale.value(crossing)
    return values.cummax(1).values.T


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

    def far(self, targets: Tensor, distance: float, width: float) -> Tensor:
        """Which brackets are wide, and both their ends far from the level."""
        nearer = torch.minimum(targets - self.low_logit, self.high_logit - targets)
        return (nearer > distance) & (self.high - self.low > width)

    def cut(self, cdf: _Cdf, at: Tensor, where: Tensor, targets: Tensor) -> _Brackets:
        """Cut some of the brackets at coordinates (point, level), and take a part of each."""
        where = where & (at > self.low) & (at < self.high)
        some = where.any(1)
        if not bool(some.any()):
            return self
        level, logit = _first(where[some]), torch.zeros_like(at)
        found = cdf.rows(some).logits(at[some].gather(1, level))
        logit[some] = logit[some].scatter(1, level, found)
        low, high = where & (logit < targets), where & (logit >= targets)
        return _Brackets(
            torch.where(low, at, self.low),
            torch.where(high, at, self.high),
            torch.where(low, logit, self.low_logit),
            torch.where(high, logit, self.high_logit),
        )


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


def _beside_steps(cdf: _Cdf, brackets: _Brackets, targets: Tensor) -> _Brackets:
    """Narrow brackets to a single step of counts each, or to a place without any."""
    scale = cdf.scale
    for _ in range(STEP_HALVINGS):
        first, last = scale.counted(brackets.low), scale.counted(brackets.high)
        if not bool((many := last - first > 1).any()):
            break
        middle = ((first + last) / 2).floor()
        brackets = brackets.cut(cdf, scale.beside(middle, 1), many, targets)
    for side in (-1, 1):
        last = scale.counted(brackets.high)
        one = (last > scale.counted(brackets.low)) & ~scale.is_step(brackets.low, brackets.high)
        brackets = brackets.cut(cdf, scale.beside(last, side), one, targets)
    return brackets


def _cut_often(cdf: _Cdf, brackets: _Brackets, targets: Tensor) -> _Brackets:
    """Cut brackets until one of their ends is close to the level, or both are to each other."""
    for number in range(CUTS):
        loose = brackets.far(targets, NEAR_LEVEL, NARROW)
        if not bool(loose.any()):
            break
        # lines alone would come closer from one side only
        line, middle = brackets.crossing(targets), (brackets.low + brackets.high) / 2
        brackets = brackets.cut(cdf, middle if number % 2 else line, loose, targets)
    return brackets


def _first(loose: Tensor) -> Tensor:
    """Columns that are true in each row (point, level), and others up to the most of any row."""
    most = int(loose.sum(1).max())
    return loose.to(torch.uint8).argsort(1, descending=True)[:, :most]


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

    def counted(self, coordinate: Tensor) -> Tensor:
        """Count at or below a coordinate; -1 below all."""
        return self.value(coordinate).floor().clamp_min(-1)

    def beside(self, count: Tensor, side: int) -> Tensor:
        """Coordinate on one side of a count, so far that rounding does not carry it across."""
        return self.coordinate(count + side * self._margin(count))

    def is_step(self, low: Tensor, high: Tensor) -> Tensor:
        """Whether there is a count between two coordinates and next to nothing else."""
        low, high = self.value(low), self.value(high)
        count = high.floor()
        return (count >= 0) & (count > low) & (high - low < 3 * self._margin(count))

    def _margin(self, count: Tensor) -> Tensor:
        return 1e-5 * (1 + count).clamp_max(2.5e4) + 1e-6 * self.middle.abs()


def _steps(count: int, like: Tensor) -> Tensor:
    return torch.linspace(0, 1, count, dtype=like.dtype, device=like.device)


def _rows(curve: Any, rows: slice | Tensor) -> Any:
    """Take some points of every tensor in a curve."""
    if isinstance(curve, Tensor) or curve is None:
        return curve if curve is None else curve[rows]
    fields = [_rows(field, rows) for field in curve]
    return tuple(fields) if type(curve) is tuple else type(curve)(*fields)
