"""How the points that one pass predicts depend on each other: a Gaussian copula.

The normal scores of two points correlate as ``share * decay**lag``. The share is a series' own: it
rises with how fast the predicted uncertainty changes over the points. Where it stays the same, what
is uncertain is noise, new with every point; where it grows, points inherit most of their deviation
from the one before. Where it grows as that of a random walk, they depend on each other like its
points: a path that jumps about its level would hide from the next pass where it has got to. (Where
it shrinks, held-out windows show that points depend on each other too.) Different variates of a
series are independent within a pass.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from moirai_moe_forecaster.config import ModelConfig
from moirai_moe_forecaster.inference.sampling import BITS
from moirai_moe_forecaster.model.distribution.mixture import Mixture

LARGEST_SHARE = 0.95
LIKE_A_WALK = 4
"""Power of `growth` with which a series passes from noise to a random walk."""


class Shares(NamedTuple):
    """How the points of a series depend on each other; any shape each.

    Attributes
    ----------
    steady : Tensor
        What decays with the lag: ``steady * decay**lag``.
    walk : Tensor or None
        What is inherited from point to point, as by a random walk: ``walk * sqrt(s / t)`` for the
        s-th and a later t-th point. None is 0, without the numbers that it would take.
    """

    steady: Tensor
    walk: Tensor | None = None


@dataclass(frozen=True, kw_only=True)
class Dependence:
    """The fields of `ModelConfig` that begin with ``dependence_``.

    Attributes
    ----------
    share : float
        Share of a series whose uncertainty does not grow.
    growth : float
        How much the share rises per unit of `growth`.
    decay : float
    walk : float, default=0
        Share of a series whose uncertainty grows like that of a random walk.
    """

    share: float
    growth: float
    decay: float
    walk: float = 0.0

    @classmethod
    def of(cls, config: ModelConfig) -> Dependence:
        """Take what a checkpoint carries."""
        return cls(
            share=config.dependence_share,
            growth=config.dependence_growth,
            decay=config.dependence_decay,
            walk=config.dependence_walk,
        )

    @property
    def exists(self) -> bool:
        """Whether points depend on each other at all."""
        return self.share > 0 or self.growth > 0 or self.walk > 0

    def shares(self, mixture: Mixture) -> Shares:
        """Shares (series, path, target) for points (series, path, target, patch, patch_size)."""
        grown = growth(mixture)
        steady = (self.share + self.growth * grown).clamp(0, LARGEST_SHARE)
        if not self.walk:
            return Shares(steady)
        like_a_walk = grown**LIKE_A_WALK
        return Shares((1 - like_a_walk) * steady, like_a_walk * self.walk)


INDEPENDENT = Dependence(share=0.0, growth=0.0, decay=0.0)


def growth(mixture: Mixture) -> Tensor:
    """Logarithm, without its sign and at most 1, of how much wider the last quarter of points is
    than the first eighth: (...) for a plain mixture's points (..., patch, patch_size)."""
    spread = mixture.spread().flatten(-2).log()
    points = spread.shape[-1]
    early, late = max(points // 8, 1), max(points // 4, 1)
    return (spread[..., -late:].mean(-1) - spread[..., :early].mean(-1)).abs().clamp_max(1.0)


def dependent(numbers: Tensor, shares: Shares, decay: float) -> Tensor:
    """Make independent uniform numbers depend on each other along the last axis.

    The first numbers of each part become the directions in which the points vary most, so that
    stratified numbers stratify what matters.

    Parameters
    ----------
    numbers : Tensor, (..., point), or (..., 2 * point) where there is a walk
    shares : Shares, (...) each
    decay : float

    Returns
    -------
    Tensor, (..., point)
        Uniform, with normal scores that correlate as `Shares` says.
    """
    points = numbers.shape[-1] if shares.walk is None else numbers.shape[-1] // 2
    time = torch.arange(1, points + 1, dtype=torch.float64)
    steady, normal = shares.steady[..., None], torch.special.ndtri(numbers)
    variances, axes = _axes(decay ** (time[:, None] - time).abs(), numbers)
    alone = steady * variances + 1 - steady
    if shares.walk is not None:
        alone = alone - shares.walk[..., None]
    scores = (normal[..., :points] * alone.sqrt()) @ axes.mT
    if shares.walk is not None:
        ratio = torch.minimum(time[:, None], time) / torch.maximum(time[:, None], time)
        variances, axes = _axes(ratio.sqrt(), numbers)
        walk = shares.walk[..., None]
        scores = scores + (normal[..., points:] * (walk * variances).sqrt()) @ axes.mT
    edge = 2.0 ** -(BITS + 1)
    return torch.special.ndtr(scores).clamp(edge, 1 - edge)


def _axes(correlations: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
    """Variances, the largest first, along the axes (point, axis) of correlations."""
    variances, axes = torch.linalg.eigh(correlations)
    # an axis is one in both directions: the same on every machine
    axes = axes * torch.where(axes[:1] < 0, -1.0, 1.0)
    return variances.flip(0).clamp_min(0).to(like), axes.flip(1).to(like)
