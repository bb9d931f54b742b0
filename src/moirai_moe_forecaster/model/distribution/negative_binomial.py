"""The negative binomial distribution, a component for counts."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from moirai_moe_forecaster.model.distribution.student_t import positive

LARGEST_COUNT = 2.0**22
SMALL_COUNTS = 64


class NegativeBinomial(NamedTuple):
    """Negative binomial with a real count of failures; `logits` are log-odds of a success."""

    total_count: Tensor
    logits: Tensor

    @classmethod
    def from_raw(cls, raw: Tensor) -> NegativeBinomial:
        """Constrain raw outputs (2, ...)."""
        total_count, logits = raw.unbind(0)
        return cls(positive(total_count), logits)

    def log_prob(self, x: Tensor) -> Tensor:
        """Log mass, continued to real arguments as training needs; minus infinity below 0."""
        possible = x >= 0
        k = torch.where(possible, x, 0.0)
        binomial = (
            torch.lgamma(self.total_count + k)
            - torch.lgamma(1 + k)
            - torch.lgamma(self.total_count)
        )
        log_mass = (
            binomial + self.total_count * F.logsigmoid(-self.logits) + k * F.logsigmoid(self.logits)
        )
        return torch.where(possible, log_mass, -torch.inf)

    def density(self, x: Tensor) -> Tensor:
        """Return 0: all mass sits on the integers."""
        return torch.zeros_like(x + self.logits)

    def cdf(self, x: Tensor) -> Tensor:
        """Distribution function: steps at the integers from 0."""
        successes = x.floor().clamp(0, LARGEST_COUNT)
        below = incomplete_beta(self.total_count, successes + 1, torch.sigmoid(-self.logits))
        return torch.where(x >= 0, below, 0.0)

    def mean(self) -> Tensor:
        """Return the mean."""
        return self.total_count * self.logits.exp()

    def small_heights(self, weights: Tensor, *, summed: bool) -> tuple[Tensor, Tensor]:
        """Distribution function at the counts below `SMALL_COUNTS`, times weights (..., member).

        Returns
        -------
        heights : Tensor, (..., member, count)
            With one member if `summed`, the sum of all.
        below : Tensor, (..., member)
            Probability of these counts.
        """
        chance = torch.sigmoid(self.logits)
        mass = (self.total_count * F.logsigmoid(-self.logits)).exp()
        below, masses = torch.zeros_like(mass), []
        for count in range(SMALL_COUNTS):
            below = below + mass
            weighted = weights * mass
            masses.append(weighted.sum(-1, keepdim=True) if summed else weighted)
            mass = mass * chance * ((self.total_count + count) / (count + 1))
        return torch.stack(masses, -1).cumsum(-1), below

    def sample(self, first: Tensor, second: Tensor) -> Tensor:
        """Invert the cdf at `first`: count small steps one by one, search for large ones."""
        level, total_count, logits = torch.broadcast_tensors(first, self.total_count, self.logits)
        chance = torch.sigmoid(logits)
        mass = (total_count * F.logsigmoid(-logits)).exp()
        draws, below = torch.zeros_like(level), mass
        for count in range(SMALL_COUNTS):
            short = below < level
            draws = draws + short
            mass = mass * chance * ((total_count + count) / (count + 1))
            below = below + mass
        far = draws == SMALL_COUNTS
        if bool(far.any()):
            draws[far] = NegativeBinomial(total_count[far], logits[far])._search(level[far])
        return draws

    def _search(self, level: Tensor) -> Tensor:
        """Double an upper end until its cdf reaches the level, then halve the interval."""
        high = torch.full_like(level, 2.0 * SMALL_COUNTS)
        while bool((short := self.cdf(high) < level).any()) and float(high.max()) < 2**30:
            high = torch.where(short, 2 * high, high)
        low = torch.full_like(high, -1.0)
        while bool((high - low > 1).any()):
            middle = ((low + high) / 2).floor()
            enough = self.cdf(middle) >= level
            low, high = torch.where(enough, low, middle), torch.where(enough, middle, high)
        return high

    def anchors(self, score: Tensor) -> Tensor:
        """Rough quantiles, drawn apart a little so that the outer ones enclose the steps.

        Above the mean Cornish and Fisher's expansion or, if that is further out, the exponential
        tail; below it the normal distribution, which reaches further than the skewed one.
        """
        mean = self.mean()
        deviation = (mean * (1 + self.logits.exp())).sqrt()
        skew = (1 + 2 * self.logits.exp()) / deviation.clamp_min(1e-6)
        above = score.clamp_min(0)
        bend = torch.where(score > 0, skew * (above.square() - 1) / 6, 0.0)
        # the terms left out lengthen the upper tail
        expansion = mean + deviation * (score + bend + above**3 / 100)
        tail = -0.5 * above.square() / F.logsigmoid(self.logits)
        return torch.maximum(expansion, tail).clamp(0, LARGEST_COUNT) + 0.3 * score


def incomplete_beta(a: Tensor, b: Tensor, x: Tensor) -> Tensor:
    """Return the regularised incomplete beta function I_x(a, b), elementwise, by scipy on the CPU.

    torch has none. It is imported late because only the large counts of official checkpoints need
    it, and scipy.special takes a moment to import.
    """
    from scipy.special import betainc

    # in single precision it is off by 1e-5, and infinite at the ends
    parts = (part.detach().cpu().double().numpy() for part in (a, b, x))
    return torch.as_tensor(betainc(*parts), dtype=x.dtype, device=x.device)
