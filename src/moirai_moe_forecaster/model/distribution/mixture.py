"""The predictive distribution: a mixture of components, and the average of many such mixtures."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from moirai_moe_forecaster.config import Component
from moirai_moe_forecaster.model.distribution.components import KINDS, Distribution
from moirai_moe_forecaster.model.distribution.negative_binomial import NegativeBinomial
from moirai_moe_forecaster.model.distribution.quantiles import quantiles

MARGIN = 0.3  # of normal scores: components' own quantiles are rough
NEWTON_STEPS = 8


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

    def spread(self) -> Tensor:
        """Return a robust standard deviation of every point (*shape) of a plain mixture.

        That of normal distributions with the components' middles and widths.
        """
        one = torch.ones((), device=self.log_weights.device)
        ends = [
            torch.stack([c.anchors(side * one)[0] for side in (-1, 0, 1)]) for c in self.components
        ]
        low, middle, high = (torch.stack(part) for part in zip(*ends, strict=True))
        weights = self.log_weights[:, 0].exp()
        center = (weights * middle).sum(0)
        variance = (weights * ((high - low).square() / 4 + (middle - center).square())).sum(0)
        scale = 1.0 if self.unit is None else self.unit.scale[0]
        return variance.sqrt().clamp_min(1e-12) * scale

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
        draws = torch.empty_like(first)
        for number, component in enumerate(self.components):
            mine = chosen == number
            if isinstance(component, NegativeBinomial):
                # far more costly than the others, so only where it was chosen
                own = NegativeBinomial(*(parameter[mine] for parameter in component))
                draws[mine] = own.sample(first[mine], second[mine])
            else:
                draws = torch.where(mine, component.sample(first, second), draws)
        return self._outer(draws)[0]

    def icdf(self, levels: Tensor) -> Tensor:
        """Quantiles of every point.

        Parameters
        ----------
        levels : Tensor, (level,)
            Ascending, in (0, 1).

        Returns
        -------
        Tensor, (level, *shape)
            Not decreasing along the levels.
        """
        flat = self.map(lambda tensor: tensor.flatten(1).T.contiguous())
        found = quantiles(flat.log_weights.exp(), flat.components, flat.unit, levels)
        return found.reshape(-1, *self.shape)

    def icdf_at(self, levels: Tensor) -> Tensor:
        """One quantile per point of a plain mixture without counts, at levels (*shape).

        Newton steps that may not leave the bracket which the components' own quantiles give.
        """

        def anchors(score: Tensor) -> Tensor:
            return torch.stack([self._outer(c.anchors(score))[0] for c in self.components])

        score = torch.special.ndtri(levels)
        x = (self.log_weights[:, 0].exp() * anchors(score)).sum(0)
        low, high = anchors(score - MARGIN).amin(0), anchors(score + MARGIN).amax(0)
        for _ in range(NEWTON_STEPS):
            gap = self.cdf(x) - levels
            low, high = torch.where(gap < 0, x, low), torch.where(gap < 0, high, x)
            step = x - gap / self.density(x).clamp_min(1e-30)
            x = torch.where((step >= low) & (step <= high), step, (low + high) / 2)
        return x

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
