"""What repeats in each series, and how far forecasts that carry it on are to be trusted.

Periods come from the values alone (`inference.seasonality.periods`) or are named by the user. The
weights of the views with and without cycles are earned: the network forecasts the last stretch of
the context from what comes before it in each view, with everything (periods, cycles, covariates'
effect, normaliser) found anew on that part. A view's weight falls with the loss that it had there,
and with the strength of its cycle, to nothing where detection ends.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from moirai_moe_forecaster.data.series import Array, Series
from moirai_moe_forecaster.inference.batching import Load
from moirai_moe_forecaster.inference.covariates import split_residuals
from moirai_moe_forecaster.inference.hindcast import Hindcast, hindcast_losses
from moirai_moe_forecaster.inference.outliers import without_outliers
from moirai_moe_forecaster.inference.seasonality.periods import Period, find_all_periods
from moirai_moe_forecaster.inference.seasons import (
    CYCLES_NEEDED,
    PLAIN,
    VIEW_KINDS,
    SeasonLength,
    Seasons,
)
from moirai_moe_forecaster.inference.views import make_views
from moirai_moe_forecaster.model.network import MoiraiMoE

MOST_PERIODS = 2
AT_ONCE = 256
"""Series whose views are held in memory together."""
LONGEST_HISTORY = 16_384
"""In points: what cycles are learnt from at most."""
STRETCHES = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32)
"""In patches: how much may be forecast to weigh views. Few, so that series share passes."""
READ_BEFORE = 64
"""In points: how much more than a stretch is read before it."""
SURE = 1.1
"""Strength at which there would be no doubt that a cycle goes on; none is stronger than 1."""
IMPLAUSIBLE = 10
"""Distance from the median, in ranges from the first to the ninth decile, of a typing error."""


@dataclass(frozen=True, kw_only=True)
class Rule:
    """How losses and strengths of cycles become weights, chosen on held-out data.

    Attributes
    ----------
    power, curve : float
        If a view lost a times less than the plain one, its odds rise by
        ``a ** (power * (1 + curve * log(a)))``: little where views are alike.
    prior : float
        A view's odds against the plain one, if both lost the same, are
        ``prior * strength / (SURE - strength)``.
    growth : float
        Power of the horizon, in passes of the network, with which these odds rise.
    least : float
        Weight that is taken off every view: one of which nothing is left is not forecast.
    """

    power: float = 1.5
    curve: float = 1.0
    prior: float = 0.04
    growth: float = 1.4
    least: float = 0.1


RULE = Rule()
NAMED = replace(RULE, prior=0.1)
"""For periods that a user names: views with and without them start even."""


def detect_seasons(
    network: MoiraiMoE,
    batch: Sequence[Series],
    residuals: Sequence[Series],
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
    residuals : sequence of Series
        Of which what covariates explain was taken out.
    load : Load
    season_length : "auto", None or tuple of int
        Whether periods are found, left out, or named.
    regress : bool
        Whether known-future covariates act through a regression.
    **limits
        `memory_budget` and `batch_size`, as for `in_passes`.
    """
    found = _plain_seasons(residuals, season_length)
    tried = [index for index, seasons in enumerate(found) if any(seasons.periods)]
    passes = load.horizon / (network.config.patch_size * network.config.output_patches)
    rule = RULE if season_length == "auto" else NAMED
    for start in range(0, len(tried), AT_ONCE):
        chunk = tried[start : start + AT_ONCE]
        losses = _hindcast_losses(
            network,
            [batch[index] for index in chunk],
            [found[index] for index in chunk],
            load,
            season_length,
            regress=regress,
            **limits,
        )
        for index, loss in zip(chunk, losses, strict=True):
            weights = weigh(loss, strengths(found[index].periods), passes, rule)
            found[index] = found[index]._replace(weights=weights)
    return found


def _plain_seasons(batch: Sequence[Series], season_length: SeasonLength) -> list[Seasons]:
    """Find the periods of series of which only the plain view counts as yet."""
    variates = [values for series in batch for values in series.target]
    periods = iter(periods_of(variates, season_length))
    found = []
    for series in batch:
        own = [next(periods) for _ in series.target]
        weights = np.zeros((len(VIEW_KINDS), len(own)))
        weights[VIEW_KINDS.index(PLAIN)] = 1.0
        found.append(Seasons(own, weights))
    return found


def strengths(periods: Sequence[Sequence[Period]]) -> Array:
    """How far views are to be trusted beforehand (kind, variate): 1 for the plain one."""
    table = np.ones((len(VIEW_KINDS), len(periods)))
    for variate, found in enumerate(periods):
        for kind, least in enumerate(CYCLES_NEEDED):
            if least:
                table[kind, variate] = found[0].strength if len(found) >= least else 0.0
    return table


def weigh(losses: Array, trust: Array, passes: float, rule: Rule = RULE) -> Array:
    """Weights (kind, variate) of views.

    Parameters
    ----------
    losses : ndarray, (kind, variate)
        In a hindcast; NaN where none could be made.
    trust : ndarray, (kind, variate)
        Of `strengths`.
    passes : float
        Horizon, in passes of the network.
    """
    plain = VIEW_KINDS.index(PLAIN)
    odds = trust / (SURE - trust) * rule.prior * max(passes, 1.0) ** rule.growth
    odds[plain] = 1.0
    tiny = np.finfo(np.float64).tiny
    sizes = np.log(np.maximum(losses, tiny))
    gain = sizes[plain] - sizes
    # views without a loss are all alike
    gain = np.where(np.isnan(gain).any(0), 0.0, gain)
    earned = rule.power * gain * (1 + rule.curve * np.abs(gain))
    weights = odds * np.exp(earned - earned.max(0))
    weights = np.maximum(weights / weights.sum(0) - rule.least, 0.0)
    return weights / weights.sum(0)


def periods_of(variates: Iterable[Array], season_length: SeasonLength) -> list[list[Period]]:
    """Periods of each variate (time,); of named ones those that what is observed holds twice."""
    if season_length is None:
        return [[] for _ in variates]
    if season_length == "auto":
        return find_all_periods(variates, MOST_PERIODS)
    return [
        [Period(length, 1.0) for length in season_length if 2 * length <= held]
        for held in map(_held, variates)
    ]


def _held(values: Array) -> int:
    """Steps from the first observed one to the last."""
    seen = np.flatnonzero(~np.isnan(values))
    return int(seen[-1] + 1 - seen[0]) if len(seen) else 0


def _hindcast_losses(
    network: MoiraiMoE,
    batch: Sequence[Series],
    seasons: Sequence[Seasons],
    load: Load,
    season_length: SeasonLength,
    *,
    regress: bool,
    **limits: int | None,
) -> list[Array]:
    """Losses (kind, variate) on the last stretch of each series; NaN where none can be tried."""
    config = network.config
    size = config.patch_size
    batch = [_observed(series, load.horizon) for series in batch]
    spans = [max(load.horizon, found.longest) for found in seasons]
    stretches = [
        _stretch(_room(series, found.longest, size), 2 * span // size) * size
        for series, found, span in zip(batch, seasons, spans, strict=True)
    ]
    tried = [index for index, steps in enumerate(stretches) if steps]
    firsts = [_first(batch[index], stretches[index]) for index in tried]
    if config.drop_outliers:
        firsts = [without_outliers(first) for first in firsts]
    effects = [np.zeros((len(first.target), 1)) for first in firsts]
    if regress and any(len(series.future) for series in firsts):
        firsts, effects = split_residuals(network, firsts, load, **limits)
    losses = [np.full((len(VIEW_KINDS), len(series.target)), np.nan) for series in batch]
    hindcasts, places = [], []
    refound = _plain_seasons(firsts, season_length)
    for index, first, effect, known in zip(tried, firsts, effects, refound, strict=True):
        steps = stretches[index]
        last = _plausible(batch[index].target[:, -steps:] - effect, first.target)
        kinds = known.possible
        views = make_views(first, known.periods, kinds, steps, fill=config.fill_gaps)
        for kind, view in zip(kinds, views, strict=True):
            target = np.concatenate((view.series.target, (last - view.effect) / view.scale), 1)
            past = batch[index].last(target.shape[1]).past
            series = Series(target, past, first.future).last(2 * steps + READ_BEFORE)
            memory = max(spans[index] / size, 1.0)
            hindcasts.append(
                Hindcast(series=series, stretch=steps // size, memory=memory, scale=view.scale)
            )
            places.append((index, VIEW_KINDS.index(kind)))
    for (index, number), loss in zip(
        places, hindcast_losses(network, hindcasts, load, **limits), strict=True
    ):
        # what was not possible before the stretch looks like the view before it
        losses[index][number:] = loss
    return losses


def _observed(series: Series, horizon: int) -> Series:
    """From the first to the last step at which some variate is observed."""
    seen = np.flatnonzero(~np.isnan(series.target).all(0))
    first, end = seen[0], seen[-1] + 1
    target, past = (part[:, first:end] for part in (series.target, series.past))
    return Series(target, past, series.future[:, first : end + horizon])


def _plausible(labels: Array, before: Array) -> Array:
    """Labels (variate, time), missing where a single error would outweigh all others."""
    low, middle, high = np.nanquantile(before, (0.1, 0.5, 0.9), axis=1, keepdims=True)
    far = np.abs(labels - middle) > IMPLAUSIBLE * (high - low)
    return np.where(far & (high > low), np.nan, labels)


def _room(series: Series, period: int, size: int) -> int:
    """Patches at the end of a context that leave two cycles before them, if any do."""
    context = series.target.shape[1]
    leaving_two = (context - 2 * period) // size
    return min(context // 4 // size, leaving_two if leaving_two > 0 else context)


def _stretch(room: int, wanted: int) -> int:
    """Patches to forecast, where there is room for so many and these would do; 0 without room."""
    enough = [patches for patches in STRETCHES if patches <= max(min(room, wanted), min(room, 1))]
    return max(enough, default=0)


def _first(series: Series, steps: int) -> Series:
    """All but the last steps of a context, with what is known ahead over these."""
    context = series.target.shape[1]
    first = context - steps
    return Series(series.target[:, :first], series.past[:, :first], series.future[:, :context])
