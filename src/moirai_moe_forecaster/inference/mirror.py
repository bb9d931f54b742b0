"""Short contexts are forecast as they are and upside down, and both forecasts are averaged.

Up and down should mean nothing to a forecaster of values of any sign, but a network learns it only
approximately; the average of both views errs less. Long contexts of measurements often have a shape
with a meaning (nothing below zero, peaks by day), which their mirror image lacks.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from moirai_moe_forecaster.inference.rollout import Marginal
from moirai_moe_forecaster.inference.series import Series


def short(group: Sequence[Series], context_length: int, longest: int) -> list[int]:
    """Which series have contexts of at most `longest` points (`ModelConfig.mirror_up_to`)."""
    lengths = [min(series.target.shape[1], context_length) for series in group]
    return [index for index, length in enumerate(lengths) if length <= longest]


def mirrored(series: Series) -> Series:
    """Turn the targets upside down; covariates stay."""
    return series._replace(target=-series.target)


def averaged(marginal: Marginal, of: Sequence[int]) -> Marginal:
    """Average forecasts with those of their mirror images.

    Parameters
    ----------
    marginal : Marginal
        Of a group of series, and after them of the mirror images of some, in standardised units.
    of : sequence of int
        Which series the images are of.

    Returns
    -------
    Marginal
        Of the group. Quantiles are averaged level by level, where a level is that of its mirror
        image seen from above: levels must lie evenly on both sides of 0.5. Paths are the series'
        own.
    """
    count = marginal.mean.shape[0] - len(of)
    index = torch.tensor(of, dtype=torch.long, device=marginal.mean.device)
    quantiles, images = marginal.quantiles[:, :count].clone(), marginal.quantiles[:, count:]
    quantiles[:, index] = (quantiles[:, index] - images.flip(0)) / 2
    mean = marginal.mean[:count].clone()
    mean[index] = (mean[index] - marginal.mean[count:]) / 2
    return Marginal(quantiles, mean, marginal.draws[:count], marginal.share[:count])
