"""How the points that one pass predicts depend on each other, fitted to held-out windows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from moirai_moe_forecaster.config import ModelConfig
from moirai_moe_forecaster.inference.dependence import LARGEST_SHARE, growth
from moirai_moe_forecaster.model.network import MoiraiMoE
from moirai_moe_forecaster.training.objective import MicroBatch

COVERAGE_SCORE = 1.2816  # 80 % of a normal distribution lie within
COVERAGE = 0.8
LARGEST_SCORE = 3.0
STRETCHES = (4, 8, 16, 32, 64)
BINS = 8
FEWEST = 32
SHARES = torch.linspace(0, 0.95, 39, dtype=torch.float64)
GROWTHS = torch.linspace(0, 0.95, 39, dtype=torch.float64)
DECAYS = torch.linspace(0.5, 0.995, 100, dtype=torch.float64)


def fitted_dependence(network: MoiraiMoE, held_out: Sequence[MicroBatch]) -> ModelConfig:
    """Return the network's configuration with the dependence that held-out windows show.

    What was observed has normal scores under the distributions that the network predicted. The
    means of a stretch of them vary the more, the more they depend on each other. The dependence is
    chosen such that 80 % intervals of these means cover 80 %, as nearly as possible for stretches
    of all lengths and for predictions whose uncertainty grows little and much: least squares of
    the logarithms of variances. Mixtures with counts, whose scores are not defined, and networks
    without enough held-out windows stay as they are.

    Parameters
    ----------
    network : MoiraiMoE
    held_out : sequence of MicroBatch
        On the network's device.
    """
    if not held_out or "negative_binomial" in network.config.mixture:
        return network.config
    scores, grown = (torch.cat(part) for part in zip(*_scores(network, held_out), strict=True))
    edges = torch.quantile(grown, torch.linspace(0, 1, BINS + 1, dtype=grown.dtype))[1:-1]
    number = torch.bucketize(grown, edges)
    errors = torch.zeros(len(SHARES), len(GROWTHS), len(DECAYS), dtype=torch.float64)
    cells = 0
    for group in range(BINS):
        for length in STRETCHES:
            means = scores[number == group, :length].mean(1)
            known = means.isfinite()
            if length > scores.shape[1] or known.sum() < FEWEST:
                continue
            variance = (torch.quantile(means[known].abs(), COVERAGE) / COVERAGE_SCORE).square()
            shares = SHARES[:, None] + GROWTHS * grown[number == group][known].mean()
            model = _variance_of_means(shares.clamp_max(LARGEST_SHARE), length)
            errors += (model.log() - variance.clamp_min(1e-9).log()).square()
            cells += 1
    if not cells:
        return network.config
    best = torch.unravel_index(errors.argmin(), errors.shape)
    share, rise, decay = (
        round(float(values[index]), 4)
        for values, index in zip((SHARES, GROWTHS, DECAYS), best, strict=True)
    )
    return replace(
        network.config,
        dependence_share=share,
        dependence_growth=rise,
        dependence_decay=decay,
    )


@torch.no_grad()
def _scores(network: MoiraiMoE, held_out: Sequence[MicroBatch]) -> Iterator[tuple[Tensor, Tensor]]:
    """Scores (prediction, point), NaN where nothing was observed, and each prediction's growth."""
    for batch in held_out:
        hidden = network.encode(batch.tokens).hidden.flatten(0, 1)[batch.targets.positions]
        mixture = network.head(hidden)
        level = mixture.cdf(batch.targets.values.float())
        scores = torch.special.ndtri(level).clamp(-LARGEST_SCORE, LARGEST_SCORE).flatten(1)
        seen = batch.targets.weights.flatten(1) > 0
        yield (
            torch.where(seen, scores, torch.nan).double().cpu(),
            growth(mixture).double().cpu(),
        )


def _variance_of_means(share: Tensor, length: int) -> Tensor:
    """Variance of the mean of `length` dependent scores: (share, growth, decay)."""
    lags = torch.arange(1, length, dtype=torch.float64)
    covariance = 2 * ((length - lags) * DECAYS[:, None] ** lags).sum(-1) / length**2
    return 1 / length + share[..., None] * covariance
