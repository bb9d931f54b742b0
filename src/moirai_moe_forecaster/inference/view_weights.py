"""What repeats in each series, and how far forecasts that carry it on are to be trusted.

Periods come from the values alone (`inference.periods`) or are named by the user. The weights of
the views with and without cycles are earned: the network forecasts the last stretch of the context
from what comes before it in each view, with everything (periods, cycles, covariates' effect,
normaliser) found anew on that part. A view's weight falls with the loss that it had there, and with
the strength of its cycle, to nothing where detection ends.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from moirai_moe_forecaster.inference.batches import Load
from moirai_moe_forecaster.inference.covariates import take_out
from moirai_moe_forecaster.inference.hindcast import Hindcast, hindcast_losses
from moirai_moe_forecaster.inference.periods import Period, find_periods
from moirai_moe_forecaster.inference.seasons import (
    KINDS,
    PLAIN,
    SeasonLength,
    Seasons,
    plain_alone,
)
from moirai_moe_forecaster.inference.series import Array, Series
from moirai_moe_forecaster.inference.views import make_views
from moirai_moe_forecaster.model.network import MoiraiMoE

MOST_PERIODS = 2
AT_ONCE = 256
"""Series whose views are held in memory together."""
LONGEST_HISTORY = 16_384
"""In points: what cycles are learnt from at most."""
LONGEST_STRETCH = 512
LONGEST_HINDCAST = 1024
"""In points: what is forecast to weigh views, and what is read of it at most."""


class Rule(NamedTuple):
    """How losses and strengths of cycles become weights, chosen on held-out data.

    Attributes
    ----------
    power : float
        A view's weight is proportional to its loss to the power -`power`.
    prior : float
        What a view of full strength counts relative to the plain one if both lose the same.
    growth : float
        Power of the horizon, in passes of the network, with which that rises.
    memory : float
        Of hindcasts, in horizons.
    least : float
        Weight that is taken off every view: what is left of none is not forecast.
    """

    power: float = 4.0
    prior: float = 1.0
    growth: float = 0.5
    memory: float = 1.0
    least: float = 0.05


RULE = Rule()


def find_seasons(
    network: MoiraiMoE,
    batch: Sequence[Series],
    rests: Sequence[Series],
    load: Load,
    season_length: SeasonLength,
    *,
    regress: bool,
    **limits: int | None,
) -> list[Seasons]:
    """Find periods, and weigh the views that they make possible.

    Parameters
    ----------
    network : MoiraiMoE
    batch : sequence of Series
    rests : sequence of Series
        Of which what covariates explain was taken out.
    load : Load
    season_length : "auto", None or tuple of int
        Whether periods are found, not wanted, or named.
    regress : bool
        Whether known-future covariates act through a regression.
    **limits
        `memory_budget` and `batch_size`, as for `in_passes`.
    """
    found = []
    for series in rests:
        periods = [periods_of(values, season_length) for values in series.target]
        found.append(Seasons(periods, plain_alone(len(periods))))
    tried = [index for index, seasons in enumerate(found) if any(seasons.periods)]
    size = network.config.patch_size * network.config.output_patches
    for start in range(0, len(tried), AT_ONCE):
        chunk = tried[start : start + AT_ONCE]
        parts = [batch[index] for index in chunk]
        for index, losses in zip(
            chunk, _losses(network, parts, load, season_length, regress, limits), strict=True
        ):
            strengths = [sum(p.strength for p in ps[:1]) for ps in found[index].periods]
            weights = weigh(losses, np.array(strengths), load.horizon / size)
            found[index] = found[index]._replace(weights=weights)
    return found


def weigh(losses: Array, strengths: Array, passes: float, rule: Rule = RULE) -> Array:
    """Weights (kind, variate) of views.

    Parameters
    ----------
    losses : ndarray, (kind, variate)
        In a hindcast; NaN where none could be made.
    strengths : ndarray, (variate,)
        Of the first cycle; 0 where there is none.
    passes : float
        Horizon, in passes of the network.
    """
    priors = np.full(losses.shape, rule.prior * strengths * max(passes, 1.0) ** rule.growth)
    priors[KINDS.index(PLAIN)] = 1.0
    best = np.nanmin(losses, 0, initial=np.inf)
    # in units of the smallest, so that neither overflows; views without a loss are alike
    with np.errstate(invalid="ignore", divide="ignore"):
        relative = np.where(best > 0, losses / best, np.where(losses > 0, np.inf, 1.0))
    earned = np.where(np.isnan(relative).any(0), 1.0, relative**-rule.power)
    weights = priors * earned
    weights = weights / weights.sum(0)
    weights = np.maximum(weights - rule.least, 0.0)
    return weights / weights.sum(0)


def periods_of(values: Array, season_length: SeasonLength) -> list[Period]:
    """Periods of one variate (time,); of named ones those that it holds twice."""
    if season_length is None:
        return []
    if season_length == "auto":
        return find_periods(values, MOST_PERIODS)
    return [Period(length, 1.0) for length in season_length if 2 * length <= len(values)]


def _losses(
    network: MoiraiMoE,
    batch: Sequence[Series],
    load: Load,
    season_length: SeasonLength,
    regress: bool,
    limits: dict[str, int | None],
) -> list[Array]:
    """Losses (kind, variate) on the last stretch of each series; NaN where none can be tried."""
    size = network.config.patch_size
    stretches = [
        min(series.target.shape[1] // 4, LONGEST_STRETCH, max(4 * load.horizon, 64)) // size * size
        for series in batch
    ]
    tried = [index for index, steps in enumerate(stretches) if steps]
    firsts = [_first(batch[index], stretches[index]) for index in tried]
    effects = [np.zeros((len(first.target), 1)) for first in firsts]
    if regress and any(len(series.future) for series in firsts):
        firsts, effects = take_out(network, firsts, load, **limits)
    found = [np.full((len(KINDS), len(series.target)), np.nan) for series in batch]
    hindcasts, places = [], []
    for index, first, effect in zip(tried, firsts, effects, strict=True):
        steps = stretches[index]
        lengths = [
            [period.length for period in periods_of(values, season_length)]
            for values in first.target
        ]
        kinds: Sequence[str] = KINDS if any(lengths) else (PLAIN,)
        last = batch[index].target[:, -steps:] - effect
        for kind, view in zip(kinds, make_views(first, lengths, kinds, steps), strict=True):
            target = np.concatenate((view.series.target, (last - view.effect) / view.scale), 1)
            series = Series(target, batch[index].past, first.future)
            hindcasts.append(Hindcast(series.last(LONGEST_HINDCAST), steps // size, view.scale))
            places.append((index, KINDS.index(kind)))
    memory = max(RULE.memory * load.horizon / size, 1.0)
    for (index, number), loss in zip(
        places, hindcast_losses(network, hindcasts, load, memory, **limits), strict=True
    ):
        # without cycles all kinds look like the plain one
        found[index][number:] = loss
    return found


def _first(series: Series, steps: int) -> Series:
    """All but the last steps of a context, with what is known ahead over these."""
    context = series.target.shape[1]
    first = context - steps
    return Series(series.target[:, :first], series.past[:, :first], series.future[:, :context])
