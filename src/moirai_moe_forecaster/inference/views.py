"""Ways to look at a context that can make it easier to forecast, and the way back.

A view is an invertible change of a context, after which it is read by the network. Its forecast is
brought back, and all are averaged quantile by quantile; `inference.view_weights` says how much
each counts for each variate.

plain
    As it is.
cycle
    The first of several cycles taken out.
profile
    All cycles taken out, and what is left divided by its usual size at each phase of the first.

Short contexts are forecast with their sign flipped as well, in every view. Up and down should mean
nothing to a forecaster of values of any sign, but a network learns it only approximately, and the
average of both errs less. Long contexts of measurements often have a shape with a meaning (nothing
below zero, peaks by day), which they lack with the sign flipped.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from moirai_moe_forecaster.data.series import Array, Series
from moirai_moe_forecaster.inference.forecast import Marginals
from moirai_moe_forecaster.inference.gaps import SHORT, fill_gaps
from moirai_moe_forecaster.inference.seasonality.cycles import ContinuedCycles, find_cycles
from moirai_moe_forecaster.inference.seasonality.periods import Period
from moirai_moe_forecaster.inference.seasons import CYCLE, PLAIN

CLEAR = 0.1
"""Strength of a further period from which on all of its cycle is taken out."""


@dataclass(frozen=True, kw_only=True)
class View:
    """One way to look at a series.

    Attributes
    ----------
    series : Series
        What the network reads.
    effect, scale : ndarray, (variate, horizon)
        A forecast of it is brought back as ``forecast * scale + effect``.
    """

    series: Series
    effect: Array
    scale: Array

    def sign_flipped(self) -> View:
        """Flip the sign of the targets; covariates stay."""
        series = self.series._replace(target=-self.series.target)
        return View(series=series, effect=self.effect, scale=-self.scale)


def make_views(
    series: Series,
    periods: Sequence[Sequence[Period]],
    kinds: Sequence[str],
    horizon: int,
    *,
    fill: bool = False,
) -> list[View]:
    """Change a series in some ways.

    Parameters
    ----------
    series : Series
    periods : sequence of sequence of Period
        Of each variate. One without cycles stays as it is in all views, one
        with a single cycle looks alike in `CYCLE` and `PROFILE`.
    kinds : sequence of str
        Of `VIEW_KINDS`.
    horizon : int
    fill : bool, default=False
        Fill gaps, with the cycles where there are any.
    """
    gaps = [fill and bool(np.isnan(values).any()) for values in series.target]
    used = set(kinds) != {PLAIN}
    cycles = [
        cycles_of(values, found, horizon) if found and (used or gap) else None
        for values, found, gap in zip(series.target, periods, gaps, strict=True)
    ]
    if any(gaps):
        series = series._replace(target=np.stack([*map(_filled, series.target, cycles, periods)]))
    return [_view(series, cycles, kind, horizon) for kind in kinds]


def _filled(values: Array, cycles: ContinuedCycles | None, found: Sequence[Period]) -> Array:
    """Fill the gaps of a variate (time,) of up to two sevenths of its longest cycle."""
    if cycles is None:
        return fill_gaps(values)
    longest = 2 * max(period.length for period in found) // 7
    return fill_gaps(values, cycles.all[: len(values)], max(SHORT, longest))


def _view(
    series: Series, cycles: Sequence[ContinuedCycles | None], kind: str, horizon: int
) -> View:
    variates, context = series.target.shape
    if kind == PLAIN:
        return View(
            series=series,
            effect=np.zeros((variates, horizon)),
            scale=np.ones((variates, horizon)),
        )
    effect = np.zeros((variates, context + horizon))
    scale = np.ones_like(effect)
    for variate, found in enumerate(cycles):
        if found is None:
            continue
        if kind == CYCLE and found.several:
            effect[variate] = found.first
        else:
            effect[variate] = found.level + found.all
            scale[variate] = found.spread
    target = (series.target - effect[:, :context]) / scale[:, :context]
    return View(
        series=series._replace(target=target),
        effect=effect[:, context:],
        scale=scale[:, context:],
    )


def cycles_of(values: Array, periods: Sequence[Period], ahead: int) -> ContinuedCycles:
    """Continue the cycles of the periods that were found in a series (time,), at least one."""
    lengths = [period.length for period in periods]
    # a weak period within a strong one enters as gently as detection begins
    inner = [min(period.strength / CLEAR, 1.0) for period in periods[1:]]
    return find_cycles(values, lengths, ahead, [1.0, *inner])


def bring_together(parts: Sequence[Marginals], views: Sequence[View], weights: Array) -> Marginals:
    """Average the forecasts of a series in its views.

    Parameters
    ----------
    parts : sequence of Marginals
        One per view, of one series.
    views : sequence of View
    weights : ndarray, (view, variate)
        Summing to 1 over the views.

    Returns
    -------
    Marginals
        Quantiles and means are averaged. How steps depend on each other is that of the view which
        counts most.
    """
    best = int(weights.sum(1).argmax())
    main = parts[best]
    if len(parts) == 1 and (views[0].scale == 1).all():
        return main.moved(views[0].effect.T)
    quantiles, mean = np.zeros(main.quantiles.shape), np.zeros(main.mean.shape)
    for part, view, weight in zip(parts, views, weights, strict=True):
        nodes = part.quantiles * part.scale[:, None, None] + part.location[:, None]
        # where the sign is flipped, the highest quantile is the lowest
        nodes = np.where((view.scale < 0).T, nodes[:, ::-1], nodes)
        quantiles += weight * (nodes * view.scale.T + view.effect.T)
        centre = part.mean * part.scale[:, None] + part.location
        mean += weight * (centre * view.scale.T + view.effect.T)
    location = main.location * views[best].scale.T + views[best].effect.T
    scale = main.scale
    return main._replace(
        quantiles=((quantiles - location[:, None]) / scale[:, None, None]).astype(np.float32),
        mean=((mean - location) / scale[:, None]).astype(np.float32),
        location=location,
    )
