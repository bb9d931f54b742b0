"""How the points that one pass predicts depend on each other, fitted to held-out windows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from moirai_moe_forecaster.config import ModelConfig
from moirai_moe_forecaster.model.network import MoiraiMoE
from moirai_moe_forecaster.training.objective import MicroBatch

LARGEST_SCORE = 3.0
LAGS = 32
SHARES = torch.linspace(0, 0.98, 50, dtype=torch.float64)
DECAYS = torch.linspace(0, 0.99, 100, dtype=torch.float64)


def fitted_dependence(network: MoiraiMoE, held_out: Sequence[MicroBatch]) -> ModelConfig:
    """Return the network's configuration with the dependence that held-out windows show.

    The normal scores of what was observed, under the distributions that the network predicted,
    are correlated over lags within the patches of one pass; ``share * decay**lag`` is fitted to
    the correlations by least squares, every lag weighted by its number of pairs. Mixtures with
    counts, whose scores are not defined, and networks without held-out windows stay as they are.

    Parameters
    ----------
    network : MoiraiMoE
    held_out : sequence of MicroBatch
        On the network's device.
    """
    if not held_out or "negative_binomial" in network.config.mixture:
        return network.config
    correlations, pairs = _correlations(network, held_out)
    models = SHARES[:, None, None] * DECAYS[:, None] ** torch.arange(1, len(pairs) + 1)
    error = (pairs * (models - correlations).square()).sum(-1)
    best = int(error.argmin())
    share, decay = SHARES[best // len(DECAYS)], DECAYS[best % len(DECAYS)]
    return replace(
        network.config,
        dependence_share=round(float(share), 4),
        dependence_decay=round(float(decay), 4),
    )


@torch.no_grad()
def _correlations(network: MoiraiMoE, held_out: Sequence[MicroBatch]) -> tuple[Tensor, Tensor]:
    """Correlation of scores at lags 1, 2, ..., and the number of pairs at each."""
    points = network.config.output_patches * network.config.patch_size
    lags = range(min(LAGS, points - 1) + 1)
    products, pairs = torch.zeros(2, len(lags), dtype=torch.float64)
    for batch in held_out:
        hidden = network.encode(batch.tokens).hidden.flatten(0, 1)[batch.targets.positions]
        level = network.head(hidden).cdf(batch.targets.values.float())
        scores = torch.special.ndtri(level).clamp(-LARGEST_SCORE, LARGEST_SCORE)
        seen = batch.targets.weights.flatten(1) > 0
        scores = torch.where(seen, scores.flatten(1), 0.0).double().cpu()
        mask = seen.double().cpu()
        for lag in lags:
            products[lag] += (scores[:, lag:] * scores[:, : points - lag]).sum()
            pairs[lag] += (mask[:, lag:] * mask[:, : points - lag]).sum()
    mean = products / pairs.clamp_min(1)
    return mean[1:] / mean[0].clamp_min(1e-9), pairs[1:]
