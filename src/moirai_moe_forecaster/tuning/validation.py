"""How well a network forecasts held-out windows: the real forecast, by the scores users look at."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from moirai_moe_forecaster.data.series import Array, Series
from moirai_moe_forecaster.evaluation.metrics import (
    COVERAGES,
    LEVELS,
    Prediction,
    needed_levels,
    score_terms,
)
from moirai_moe_forecaster.inference.engine import forecast
from moirai_moe_forecaster.inference.options import ForecastOptions
from moirai_moe_forecaster.model.network import MoiraiMoE
from moirai_moe_forecaster.tuning.held_out import HeldOut

PATHS = 20
RESAMPLES = 400


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Scores on held-out windows.

    Attributes
    ----------
    step : int
        Optimiser steps before it; 0 is zero-shot.
    wql : float
        Pinball loss, doubled, over the sum of absolute labels; the mean of the levels 0.1 to 0.9.
    scaled : float
        The same, each window by itself over the mean absolute deviation of its context, averaged:
        every series counts alike.
    coverage : dict of int to float
        Share of labels inside the central 50, 80 and 95 % intervals.
    """

    step: int
    wql: float
    scaled: float
    coverage: dict[int, float]

    def relative_to(self, other: Evaluation) -> float:
        """Geometric mean of the ratios of both losses: below 1 is better than the other."""
        ratios = [(self.wql, other.wql), (self.scaled, other.scaled)]
        logs = [math.log(mine / theirs) for mine, theirs in ratios if mine > 0 and theirs > 0]
        ratio = math.exp(sum(logs) / len(logs)) if logs else math.nan
        return ratio if math.isfinite(ratio) else math.inf

    def to_dict(self) -> dict[str, Any]:
        """Return plain values that JSON can hold."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Evaluation:
        """Read what `to_dict` gave, after JSON."""
        coverage = {int(percent): share for percent, share in values["coverage"].items()}
        return cls(**{**values, "coverage": coverage})

    def __new__(cls, *values: Any, **fields: Any) -> Evaluation:
        """Pickles of the first version, where this was a tuple, give the values in order."""
        made = super().__new__(cls)
        for name, value in zip(cls.__dataclass_fields__, values, strict=False):
            object.__setattr__(made, name, value)
        return made


@dataclass(frozen=True, kw_only=True)
class WindowLosses:
    """What the losses of an evaluation are made of, per variate of a window.

    Attributes
    ----------
    loss, size : ndarray, (row,)
        Numerator and denominator of the WQL.
    scaled : ndarray, (row,)
        Loss per label in units of the deviation of the context; NaN where that is 0.
    """

    loss: Array
    size: Array
    scaled: Array

    def better_than(self, other: WindowLosses) -> float:
        """Share of bootstrap samples of rows, the same for both, with lower losses than another's.

        A WQL that hangs on a few large series differs from sample to sample: a gain in it alone
        does not count for much.
        """
        draws = np.random.default_rng(0).integers(len(self.loss), size=(RESAMPLES, len(self.loss)))
        wql = [part.loss[draws].sum(1) for part in (self, other)]
        # constant contexts have no unit to count in
        known = ~(np.isnan(self.scaled) | np.isnan(other.scaled))
        scaled = [np.where(known, part.scaled, 0.0)[draws].sum(1) for part in (self, other)]
        product, others = (
            one * two if known.any() else one for one, two in zip(wql, scaled, strict=True)
        )
        return float((product < others).mean())


def evaluate(
    network: MoiraiMoE,
    windows: Sequence[HeldOut],
    horizon: int,
    context_length: int | None,
    step: int,
    batch_size: int | None = None,
) -> tuple[Evaluation, WindowLosses]:
    """Forecast windows and score all their variates.

    Parameters
    ----------
    network : MoiraiMoE
        On any device; adapters may be on it.
    windows : sequence of HeldOut
    horizon : int
    context_length : int, optional
    step : int
        Passed through.
    batch_size : int, optional
    """
    contexts = [
        Series(target[:, : window.cut], past[:, : window.cut], future)
        for window in windows
        for target, past, future in [window.series]
    ]
    options = ForecastOptions(
        horizon=horizon, context_length=context_length, num_paths=PATHS, batch_size=batch_size
    )
    metrics = ("WQL", *(f"coverage_{percent}" for percent in COVERAGES))
    levels = needed_levels(metrics, LEVELS, samples=False)
    quantiles = forecast(network, contexts, options).quantile(levels)
    variates = [len(window.series.target) for window in windows]
    found = np.concatenate(
        [
            np.moveaxis(part[..., :count], -1, 0)
            for part, count in zip(quantiles, variates, strict=True)
        ]
    )
    labels = np.concatenate([window.label for window in windows])
    rows = [row for context in contexts for row in context.target]
    prediction = Prediction.of(levels, found)
    terms = score_terms(labels, rows, 1, prediction, metrics)
    wql = terms["WQL"]
    losses = WindowLosses(
        loss=wql.numerator, size=wql.denominator, scaled=_scaled(wql.numerator, rows, labels)
    )
    coverage = {percent: terms[f"coverage_{percent}"].pooled() for percent in COVERAGES}
    scaled = losses.scaled[~np.isnan(losses.scaled)]
    mean = float(scaled.mean()) if len(scaled) else math.nan
    return Evaluation(step=step, wql=wql.pooled(), scaled=mean, coverage=coverage), losses


def _scaled(loss: Array, contexts: Sequence[Array], labels: Array) -> Array:
    """WindowLosses of rows per observed label, in mean absolute deviations of their contexts."""
    deviation = np.array([np.nanmean(np.abs(row - np.nanmean(row))) for row in contexts])
    unit = deviation * (~np.isnan(labels)).sum(1)
    return np.divide(loss, unit, out=np.full(len(loss), np.nan), where=unit > 0)
