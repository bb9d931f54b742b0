"""How the points that one pass predicts depend on each other: a Gaussian copula.

The normal scores of two points correlate as ``share * decay**lag``. The share is a series' own: it
rises with how fast the predicted uncertainty changes over the points. Where it stays the same, what
is uncertain is noise, new with every point; where it grows, as for a random walk, points inherit
most of their deviation from the one before. (Where it shrinks, held-out windows show that they do
too.) Different variates of a series are independent within a pass.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from moirai_moe_forecaster.config import ModelConfig
from moirai_moe_forecaster.inference.sampling import BITS
from moirai_moe_forecaster.model.distribution.mixture import Mixture

LARGEST_SHARE = 0.95


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
    """

    share: float
    growth: float
    decay: float

    @classmethod
    def of(cls, config: ModelConfig) -> Dependence:
        """Take what a checkpoint carries."""
        return cls(
            share=config.dependence_share,
            growth=config.dependence_growth,
            decay=config.dependence_decay,
        )

    @property
    def exists(self) -> bool:
        """Whether points depend on each other at all."""
        return self.share > 0 or self.growth > 0

    def shares(self, mixture: Mixture) -> Tensor:
        """Shares (series, path, target) for points (series, path, target, patch, patch_size)."""
        return (self.share + self.growth * growth(mixture)).clamp(0, LARGEST_SHARE)


INDEPENDENT = Dependence(share=0.0, growth=0.0, decay=0.0)


def growth(mixture: Mixture) -> Tensor:
    """Logarithm, without its sign and at most 1, of how much wider the last quarter of points is
    than the first eighth: (...) for a plain mixture's points (..., patch, patch_size)."""
    spread = mixture.spread().flatten(-2).log()
    points = spread.shape[-1]
    early, late = max(points // 8, 1), max(points // 4, 1)
    return (spread[..., -late:].mean(-1) - spread[..., :early].mean(-1)).abs().clamp_max(1.0)


def dependent(numbers: Tensor, share: Tensor, decay: float) -> Tensor:
    """Make independent uniform numbers depend on each other along the last axis.

    The first numbers become the directions in which the points vary most, so that stratified
    numbers stratify what matters.

    Parameters
    ----------
    numbers : Tensor, (..., point)
    share : Tensor, (...)
    decay : float

    Returns
    -------
    Tensor, (..., point)
        Uniform, with normal scores that correlate as ``share * decay**lag``.
    """
    points = torch.arange(numbers.shape[-1], dtype=torch.float64)
    variances, axes = torch.linalg.eigh(decay ** (points[:, None] - points).abs())
    # an axis is one in both directions: the same on every machine
    axes = axes * torch.where(axes[:1] < 0, -1.0, 1.0)
    variances, axes = variances.flip(0).to(numbers), axes.flip(1).to(numbers)
    share = share[..., None]
    scores = torch.special.ndtri(numbers) * (share * variances + 1 - share).sqrt()
    edge = 2.0 ** -(BITS + 1)
    return torch.special.ndtr(scores @ axes.mT).clamp(edge, 1 - edge)
