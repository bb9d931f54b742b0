"""The predictive distribution: a mixture of components, and the average of many such mixtures."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from moirai_moe_forecaster.config import Component
from moirai_moe_forecaster.model.components import (
    KINDS,
    Distribution,
    NegativeBinomial,
    StudentT,
)

ANCHORS_PER_COMPONENT = 33
LARGEST_GRID = 160
SMOOTH_STEPS = 3
STEPS = 8
CHUNK_ELEMENTS = 2**18


def raw_size(components: Sequence[Component]) -> int:
    """How many raw network outputs one point's mixture takes."""
    return len(components) + sum(KINDS[name].size for name in components)


class Affine(NamedTuple):
    """A change of unit, ``x * scale + location``, of tensors (member, ...)."""

    location: Tensor
    scale: Tensor


class Mixture(NamedTuple):
    """A mixture distribution per point.

    Attributes
    ----------
    log_weights : Tensor, (component, member, ...)
        Summing to 1 over components and members. One member is a plain mixture; `pool` makes
        several, whose average is again a mixture.
    components : tuple of Distribution
        Parameters (member, ...) each, in the network's standardised unit.
    unit : Affine, optional
        The unit of the values that the methods take and give; by default the standardised one.
    """

    log_weights: Tensor
    components: tuple[Distribution, ...]
    unit: Affine | None = None

    @classmethod
    def from_raw(cls, raw: Tensor, names: Sequence[Component]) -> Mixture:
        """Build from raw network outputs (..., raw_size, point): logits, then parameters."""
        # contiguous, because elementwise work on rows of one patch each is several times slower
        rows = raw.movedim(-2, 0).contiguous().unsqueeze(1)
        logits, *parameters = rows.split([len(names), *(KINDS[name].size for name in names)])
        kinds = [KINDS[name].kind for name in names]
        return cls(
            logits.log_softmax(0),
            tuple(kind.from_raw(rows) for kind, rows in zip(kinds, parameters, strict=True)),
        )

    @property
    def shape(self) -> torch.Size:
        """Shape of the points."""
        return self.log_weights.shape[2:]

    def map(self, function: Callable[[Tensor], Tensor]) -> Mixture:
        """Apply a function to every tensor (member, ...) of weights, parameters and unit."""
        return Mixture(
            torch.stack([function(row) for row in self.log_weights]),
            tuple(type(c)(*map(function, c)) for c in self.components),
            None if self.unit is None else Affine(*map(function, self.unit)),
        )

    def pool(self, dim: int) -> Mixture:
        """Average over axis `dim` of the points of a plain mixture: it becomes the member axis."""
        pooled = self.map(lambda tensor: tensor[0].movedim(dim, 0))
        count = pooled.log_weights.shape[1]
        return pooled._replace(log_weights=pooled.log_weights - math.log(count))

    def log_prob(self, x: Tensor) -> Tensor:
        """Log density at `x` (..., *shape)."""
        inner = self._inner(x)
        parts = [
            weight + component.log_prob(inner)
            for weight, component in zip(self.log_weights, self.components, strict=True)
        ]
        log_density = torch.stack(parts)
        if self.unit is not None:
            log_density = log_density - self.unit.scale.log()
        return log_density.logsumexp((0, self._member_axis))

    def cdf(self, x: Tensor) -> Tensor:
        """Distribution function at `x` (..., *shape)."""
        inner = self._inner(x)
        return self._average([component.cdf(inner) for component in self.components])

    def density(self, x: Tensor) -> Tensor:
        """Density of the continuous part at `x` (..., *shape)."""
        inner = self._inner(x)
        parts = [component.density(inner) for component in self.components]
        if self.unit is not None:
            parts = [part / self.unit.scale for part in parts]
        return self._average(parts)

    def mean(self) -> Tensor:
        """Return the mean of every point (*shape)."""
        return self._average([self._outer(component.mean()) for component in self.components])

    def sample(self, uniforms: Tensor) -> Tensor:
        """Draw one value per point of a plain mixture.

        Parameters
        ----------
        uniforms : Tensor, (3, *shape)
            Independent and uniform on (0, 1): one chooses the component, two make its draw.

        Returns
        -------
        Tensor, (*shape)
        """
        choice, first, second = uniforms[:, None]
        last = len(self.components) - 1
        chosen = (self.log_weights.exp().cumsum(0) < choice).sum(0).clamp_max(last)
        draws = torch.stack([c.sample(first, second) for c in self.components])
        return self._outer(draws.gather(0, chosen[None])[0])[0]

    def icdf(self, levels: Tensor) -> Tensor:
        """Quantiles of every point.

        The cdf is evaluated on a grid that the components' own rough quantiles place; each level
        is bracketed there and polished by Newton steps that may not leave the bracket.

        Parameters
        ----------
        levels : Tensor, (level,)
            Ascending, in (0, 1).

        Returns
        -------
        Tensor, (level, *shape)
            Not decreasing along the levels.
        """
        grid, height = self._grid(levels)
        target = levels.view(-1, *[1] * len(self.shape))
        upper = _first_at_least(height, levels).clamp(1, len(grid) - 1)
        low, high = grid.gather(0, upper - 1), grid.gather(0, upper)
        # linear in the normal score of the height, which tails resemble more than the height itself
        scores = torch.special.ndtri(height.clamp(1e-9, 1 - 1e-7))
        score_low, score_high = scores.gather(0, upper - 1), scores.gather(0, upper)
        share = (torch.special.ndtri(target) - score_low) / (score_high - score_low).clamp_min(1e-9)
        x = low + share.clamp(0, 1) * (high - low)
        smooth = all(isinstance(component, StudentT) for component in self.components)
        for _ in range(SMOOTH_STEPS if smooth else STEPS):
            gap = self._chunked(self.cdf, x) - target
            low, high = torch.where(gap < 0, x, low), torch.where(gap < 0, high, x)
            step = x - gap / self._chunked(self.density, x).clamp_min(1e-30)
            x = torch.where((step >= low) & (step <= high), step, low + 0.5 * (high - low))
        if self.unit is None and any(isinstance(c, NegativeBinomial) for c in self.components):
            x = self._at_steps(x, low, high, target)
        return x.cummax(0).values

    def _at_steps(self, x: Tensor, low: Tensor, high: Tensor, target: Tensor) -> Tensor:
        """Move quantiles (level, *shape) that fall into a step of the cdf onto its integer."""
        integer = low.floor() + 1
        just_below = integer - 1e-6 * (1 + integer.abs())
        jumps = (
            (integer <= high)
            & (self._chunked(self.cdf, just_below) < target)
            & (self._chunked(self.cdf, integer) >= target)
        )
        return torch.where(jumps, integer, x)

    def _grid(self, levels: Tensor) -> tuple[Tensor, Tensor]:
        """Ascending points (grid, *shape) around the levels' quantiles, and the cdf there."""
        edge = torch.special.ndtri(levels[[0, -1]]).abs().max() + 1
        score = edge * torch.linspace(-1, 1, ANCHORS_PER_COMPONENT, device=levels.device)
        score = score.view(-1, *[1] * (len(self.shape) + 1))
        anchors = [component.anchors(score) for component in self.components]
        grid = torch.cat([self._outer(points).flatten(0, 1) for points in anchors])
        grid, order = grid.sort(0)
        if len(grid) > LARGEST_GRID:
            # what each component holds between two of its anchors adds up to a rough cdf of all
            mass = torch.cat(
                [
                    (weight.exp() * _differences(component.cdf(points))).flatten(0, 1)
                    for weight, component, points in zip(
                        self.log_weights, self.components, anchors, strict=True
                    )
                ]
            )
            rough = mass.gather(0, order).cumsum(0)
            beyond = torch.tensor([0.03, 0.1, 0.3], device=levels.device)
            wanted = (levels[0] * beyond, levels, 1 - (1 - levels[-1]) * beyond.flip(0))
            keep = _first_at_least(rough, torch.cat(wanted)).clamp_max(len(grid) - 1)
            grid = torch.cat((grid[:1], grid.gather(0, keep), grid[-1:]))
        return grid, self._chunked(self.cdf, grid).cummax(0).values

    @property
    def _member_axis(self) -> int:
        return -len(self.shape) - 1

    def _inner(self, x: Tensor) -> Tensor:
        """Values in the components' unit, with an axis for the members."""
        x = x.unsqueeze(self._member_axis)
        return x if self.unit is None else (x - self.unit.location) / self.unit.scale

    def _outer(self, x: Tensor) -> Tensor:
        return x if self.unit is None else x * self.unit.scale + self.unit.location

    def _average(self, parts: Sequence[Tensor]) -> Tensor:
        """Weigh and sum tensors (..., member, *shape), one per component."""
        weighted = [
            (weight.exp() * part).sum(self._member_axis)
            for weight, part in zip(self.log_weights, parts, strict=True)
        ]
        return torch.stack(weighted).sum(0)

    def _chunked(self, function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        """Evaluate rows of `x` (row, *shape) in chunks that stay within the caches."""
        rows = max(CHUNK_ELEMENTS // max(self.log_weights[0].numel(), 1), 1)
        return torch.cat([function(part) for part in x.split(rows)])


def _differences(height: Tensor) -> Tensor:
    """Differences along the first axis, the first one to 0."""
    return height.diff(dim=0, prepend=torch.zeros_like(height[:1]))


def _first_at_least(height: Tensor, levels: Tensor) -> Tensor:
    """Index (level, ...) of the first grid point whose `height` (grid, ...) reaches a level."""
    rows = height.movedim(0, -1).contiguous()
    wanted = levels.to(rows.dtype).expand(*rows.shape[:-1], -1).contiguous()
    return torch.searchsorted(rows, wanted).movedim(-1, 0)
