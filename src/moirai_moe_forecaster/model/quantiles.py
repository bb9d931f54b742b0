"""Quantiles of mixtures: many levels of many members' average, or one level of each point."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from moirai_moe_forecaster.model.components import Distribution
from moirai_moe_forecaster.model.curves import Curve, Unit, curve_of
from moirai_moe_forecaster.model.negative_binomial import NegativeBinomial

if TYPE_CHECKING:
    from moirai_moe_forecaster.model.mixture import Mixture

FIRST_GRID = 32
REFINED_GRID = 48
ROUNDS = 2
TAIL_GRID = 4
FAR = 0.05
# within a step of counts no line is needed
WIDE, WIDE_OF_COUNTS = 1e-4, 0.2
HALVINGS = 14
MANY_LEVELS = 64
NEAR = (-0.1, -0.01, 0.01, 0.1)
BEYOND = 1.0
LEAST = 1e-7
LARGEST = 1e36
CHUNK_ELEMENTS = 2**17
MARGIN = 0.3
NEWTON_STEPS = 8


def quantiles(mixture: Mixture, levels: Tensor) -> Tensor:
    """Quantiles of every point of a mixture.

    The average cdf of all members is evaluated on one grid per point, which is first spread over
    all that any component reaches and then moved to where the last evaluation saw the quantiles.
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
    wanted = levels.logit()
    low, high = wanted[0] - BEYOND, wanted[-1] + BEYOND
    scale = _Scale.of(weights, flat.components, flat.unit, torch.stack((low, high)).sigmoid())
    landmarks = scale.coordinate(torch.cat([curve.landmarks() for curve in curves], 1))
    beside = [wanted] if len(levels) > MANY_LEVELS else [wanted + shift for shift in NEAR]
    tail = _steps(TAIL_GRID, levels)
    tails = [torch.lerp(wanted[0], low, tail), torch.lerp(wanted[-1], high, tail)]
    near = torch.cat(beside + tails).sort().values
    refined = torch.lerp(low, high, _steps(REFINED_GRID, levels))

    grid = torch.lerp(scale.start, scale.stop, _steps(FIRST_GRID, levels))
    for next_levels in (*[refined] * ROUNDS, near, wanted):
        grid = torch.cat((scale.start, grid, scale.stop), 1)
        if landmarks.shape[1]:
            grid = torch.cat((grid, landmarks), 1).sort(1).values
        logits = _logits(curves, weights.shape[2], scale.value(grid))
        brackets = _Brackets.of(grid, logits, next_levels)
        grid = brackets.crossing(next_levels)
    counts = any(isinstance(component, NegativeBinomial) for component in flat.components)
    loose = brackets.loose(wanted, WIDE_OF_COUNTS if counts else WIDE).any(1)
    if bool(loose.any()):
        some = [_rows(curve, loose) for curve in curves]
        wide = _rows(brackets, loose)
        narrow = _halved(some, weights.shape[2], _rows(scale, loose), wide, wanted)
        grid[loose] = narrow.crossing(wanted)
    return scale.value(grid).cummax(1).values.T.reshape(-1, *mixture.shape)


class _Brackets(NamedTuple):
    """Neighbouring grid points between which levels are reached, and their logits: (point, level).

    In a gap between modes the cdf is flat and then rises at once: there a bracket is loose, wide
    in both coordinate and logit, and a straight line across it is wrong.
    """

    low: Tensor
    high: Tensor
    low_logit: Tensor
    high_logit: Tensor

    @classmethod
    def of(cls, grid: Tensor, logits: Tensor, wanted: Tensor) -> _Brackets:
        """Find where logits (point, grid) reach the wanted ones (level,)."""
        right = torch.searchsorted(logits, wanted.expand(len(grid), -1).contiguous())
        right = right.clamp_(1, grid.shape[1] - 1)
        ends = [part.gather(1, index) for part in (grid, logits) for index in (right - 1, right)]
        return cls(*ends)

    def crossing(self, wanted: Tensor) -> Tensor:
        """Coordinates (point, level) at which straight lines reach the wanted logits."""
        rise = (self.high_logit - self.low_logit).clamp_min(1e-9)
        share = (wanted - self.low_logit).div_(rise).clamp_(0, 1)
        return torch.lerp(self.low, self.high, share)

    def loose(self, wanted: Tensor, wide: float) -> Tensor:
        """Which brackets are too wide to draw a line across: levels are far from both ends."""
        distance = torch.minimum(wanted - self.low_logit, self.high_logit - wanted)
        return (distance > FAR) & (self.high - self.low > wide)


def _halved(
    curves: Sequence[Curve], members: int, scale: _Scale, brackets: _Brackets, wanted: Tensor
) -> _Brackets:
    """Halve brackets until they are narrow, whatever the cdf does within."""
    for _ in range(HALVINGS):
        middle = (brackets.low + brackets.high) / 2
        logit = _logits(curves, members, scale.value(middle))
        below = logit < wanted
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


def _logits(curves: Sequence[Curve], members: int, x: Tensor) -> Tensor:
    """Logits of the average cdf at x (point, grid), a few points at a time to stay in the cache."""
    count = max(CHUNK_ELEMENTS // (members * x.shape[1]), 1)
    parts = []
    for first in range(0, len(x), count):
        rows = slice(first, first + count)
        heights = [_rows(curve, rows).at(x[rows]) for curve in curves]
        parts.append(torch.stack(heights).sum(0))
    return torch.cat(parts).clamp_(LEAST, 1 - LEAST).logit_()


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
