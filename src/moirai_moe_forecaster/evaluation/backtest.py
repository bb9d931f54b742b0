"""Backtests: forecast windows at the end of every series, and score each against what came."""

from __future__ import annotations

import itertools
import math
from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from moirai_moe_forecaster.data.arguments import OnError, check_on_error
from moirai_moe_forecaster.data.panel import log_skipped
from moirai_moe_forecaster.data.series import Item, is_panel, match_items, read_items
from moirai_moe_forecaster.data.times import frequency_of, season_of
from moirai_moe_forecaster.errors import InvalidInputError
from moirai_moe_forecaster.evaluation.forecasters import Variant, is_sktime, predict_quantiles
from moirai_moe_forecaster.evaluation.metrics import (
    LEVELS,
    Prediction,
    expand_metrics,
    needed_levels,
    score_terms,
)
from moirai_moe_forecaster.evaluation.sktime_windows import forecast_windows
from moirai_moe_forecaster.evaluation.window import Window

Array = NDArray[np.float64]


def backtest(
    forecaster: Any,
    y: Any,
    *,
    horizon: int,
    windows: int = 1,
    step: int | None = None,
    X: Any = None,
    metrics: str | Sequence[str] = ("MASE", "WQL"),
    quantile_levels: Sequence[float] = LEVELS,
    seasonality: int | None = None,
    on_error: OnError = "raise",
) -> pd.DataFrame:
    """Score a forecaster on the last windows of every series.

    Window by window, the forecaster sees all that came before its cutoff and forecasts the next
    `horizon` steps. The last window ends with the series, the others `step` earlier each. A
    pipeline forecasts all windows of all series in one call.

    Parameters
    ----------
    forecaster : MoiraiMoEPipeline, Variant, sktime forecaster or function
        A `moirai_moe_forecaster.evaluation.Variant` is a pipeline with options of `predict`, such
        as ``Variant(pipeline, {"season_length": None})``. A sktime forecaster is cloned and fitted
        for each window; a panel is fitted as a panel, the series of a list one by one. A function
        is called once for all series of one seasonality, with the contexts of their windows,
        variate by variate (a list of arrays), the horizon, the seasonality and the levels, and
        returns quantiles (context, level, horizon); it sees no covariates.
    y : array, Series, DataFrame or list of these
        As `MoiraiMoEPipeline.predict` takes it: one series, (time,) or (time, variates), a list of
        series, or a panel with a MultiIndex whose last level is time. NaN is missing.
    horizon : int
        Steps ahead, at least 1.
    windows : int, default=1
        Windows per series.
    step : int, optional
        Steps from one window to the next; by default the horizon, so that none overlaps.
    X : like y, optional
        Covariates known ahead, one row for each step of y.
    metrics : sequence of str, default=("MASE", "WQL")
        Of "MASE", "RMSSE", "MAE", "RMSE", "WQL", "CRPS", "coverage_50" (or another whole
        percentage) and "coverage", which stands for 50, 80 and 95 %.
    quantile_levels : sequence of float, default=(0.1, ..., 0.9)
        Levels over which WQL is averaged.
    seasonality : int, optional
        Lag, in steps, of the differences that scale MASE and RMSSE, the same for all series. By
        default that of each series' frequency: 24 of hours, 12 of months, 4 of quarters, 5 of
        business days, a day of any part of an hour, and 1 of days, weeks, years and indexes that
        are no times. A series whose times show no frequency has that of the first.

    on_error : {"raise", "skip"}, default="raise"
        What is done about series of several that cannot be scored: too short for the windows,
        without values before the first of them, infinite, or no numbers. "skip" leaves them out,
        logs them, and names them with the reason in ``attrs["skipped"]`` of the result.

    Returns
    -------
    DataFrame
        One row per series and window (and variate, where y has several), ordered by series, then
        window, with the columns

        - ``series``: name of the Series, key of the instance (a tuple where it has several levels),
          or position in the list;
        - ``variate``: name or position of the column; only where a series has several;
        - ``window`` (0 is the oldest) and ``cutoff``: the last time, or position, that was seen;
        - ``n_train``: steps that were seen; ``n_test``: steps of the label that are not missing;
          ``abs_test``: the sum of their absolute values;
        - one column per metric, NaN where it is not defined.

    Raises
    ------
    InvalidInputError
        Before anything is forecast: if an argument is none of the above, a series is too short for
        its windows (the message names it), or a context holds no value.

    Notes
    -----
    MASE divides by the mean absolute seasonal difference of the window's whole context, and RMSSE
    by the root of the mean squared one; where the context is not longer than a season, differences
    are to the value before. The point forecast of MASE, RMSSE, MAE and RMSE is the median, and
    ``predict`` of a sktime forecaster. WQL is the doubled pinball loss over the sum of absolute
    labels, averaged over levels. CRPS is in the unit of the series: of a pipeline from its 100
    samples, of others from 20 quantiles by the midpoint rule. A sktime forecaster without quantiles
    has its point forecast for all of them: its CRPS is the MAE.

    A set's pooled MASE is the mean over rows weighted by ``n_test``, its pooled WQL that weighted
    by ``abs_test``; `moirai_moe_forecaster.evaluation.compare_backtests` compares two results.

    Examples
    --------
    >>> from sktime.datasets import load_airline
    >>> from sktime.forecasting.naive import NaiveForecaster
    >>> from moirai_moe_forecaster import backtest
    >>> scores = backtest(NaiveForecaster(sp=12), load_airline(), horizon=12, windows=3)
    >>> list(scores["cutoff"].astype(str))
    ['1957-12', '1958-12', '1959-12']
    """
    names = expand_metrics(metrics)
    levels = _check_levels(quantile_levels)
    _check_count("horizon", horizon)
    _check_count("windows", windows)
    stride = horizon if step is None else _check_count("step", step)
    skipped: dict[Hashable, str] | None = {} if check_on_error(on_error) else None
    items = read_items(y, skipped=skipped).items
    covariates = None if X is None else match_items(X, items, skipped)
    items, covariates = _long_enough(items, covariates, horizon, windows, stride, skipped)
    if seasonality is None:
        seasons = _seasons(items)
    else:
        seasons = [_check_count("seasonality", seasonality)] * len(items)
    cuts = _windows(items, covariates, horizon, windows, stride)
    # one for each row of the table
    rows = np.repeat(seasons, [windows * len(item.variates) for item in items])
    prediction = _forecast(forecaster, y, cuts, horizon, rows, names, levels)
    table = _table(cuts, horizon, rows, prediction, names, levels)
    table.attrs["skipped"] = skipped or {}
    return table


def _seasons(items: Sequence[Item]) -> list[int]:
    """Season of every series, by its frequency."""
    first = items[0].index
    seasons = [_season(first)]
    for before, item in itertools.pairwise(items):
        index = item.index
        try:
            same = index.equals(before.index)
            seasons.append(seasons[-1] if same else _season(index))
        except InvalidInputError:
            seasons.append(seasons[0])
    return seasons


def _season(index: pd.Index) -> int:
    freq = frequency_of(index)
    return 1 if freq is None else season_of(freq)


def _long_enough(
    items: list[Item],
    covariates: list[Item] | None,
    horizon: int,
    windows: int,
    step: int,
    skipped: dict[Hashable, str] | None,
) -> tuple[list[Item], list[Item] | None]:
    """Check that every series has its windows, and values before them; leave out what may be."""
    needed = horizon + (windows - 1) * step + 1
    blocks = {} if covariates is None else {block.name: block for block in covariates}
    for item in items:
        reason = _without_context(item, needed)
        if len(item.values) < needed:
            reason = (
                f"has {len(item.values)} steps; {windows} windows of horizon {horizon}, {step} "
                f"steps apart, need at least {needed}: leave it out, or take fewer windows or a "
                "shorter horizon"
            )
        if reason is None:
            continue
        if skipped is None:
            raise InvalidInputError(f"series {item.name!r} {reason}")
        skipped[item.name] = reason
    if not skipped:
        return items, covariates
    log_skipped(skipped)
    kept = [item for item in items if item.name not in skipped]
    if not kept:
        raise InvalidInputError(f"no series of y is left; skipped were {skipped}")
    return kept, None if covariates is None else [blocks[item.name] for item in kept]


def _without_context(item: Item, needed: int) -> str | None:
    """Say so if a series, or a variate of it, has no value before its windows."""
    first = item.values[: max(len(item.values) - needed + 1, 0)]
    if (empty := np.isnan(first).all(0)).any():
        variate = item.variates[int(empty.argmax())]
        which = f" of variate {variate!r}" if len(item.variates) > 1 else ""
        return (
            f"has only missing values{which} before its first window, {len(first)} steps; leave "
            "it out, or take fewer windows"
        )
    return None


def _windows(
    items: Sequence[Item],
    covariates: Sequence[Item] | None,
    horizon: int,
    windows: int,
    step: int,
) -> list[Window]:
    """All windows of the first series, then of the next."""
    return [
        Window(
            item,
            None if covariates is None else covariates[index],
            number,
            len(item.values) - horizon - (windows - 1 - number) * step,
        )
        for index, item in enumerate(items)
        for number in range(windows)
    ]


def _forecast(
    forecaster: Any,
    y: Any,
    cuts: Sequence[Window],
    horizon: int,
    seasons: NDArray[np.int64],
    metrics: Sequence[str],
    levels: Sequence[float],
) -> Prediction:
    from moirai_moe_forecaster.inference.pipeline import MoiraiMoEPipeline

    if isinstance(forecaster, MoiraiMoEPipeline):
        forecaster = Variant(forecaster, {})
    if isinstance(forecaster, Variant):
        return _forecast_pipeline(forecaster, cuts, horizon, metrics, levels)
    wanted = needed_levels(metrics, levels, samples=False)
    if is_sktime(forecaster):
        return forecast_windows(forecaster, cuts, horizon, wanted, panel=is_panel(y))
    contexts = [column for window in cuts for column in window.item.values[: window.cut].T]
    quantiles = np.empty((len(contexts), len(wanted), horizon))
    for season in np.unique(seasons).tolist():
        own = np.flatnonzero(seasons == season)
        part = predict_quantiles(
            forecaster, [contexts[row] for row in own], horizon, season, wanted
        )
        quantiles[own] = part.quantiles
    return Prediction(wanted, quantiles, quantiles[:, wanted.index(0.5)])


def _forecast_pipeline(
    variant: Variant,
    cuts: Sequence[Window],
    horizon: int,
    metrics: Sequence[str],
    levels: Sequence[float],
) -> Prediction:
    """Forecast all windows at once; the variates of each are laid out as series of their own."""
    contexts = [window.item.values[: window.cut] for window in cuts]
    future = [
        window.covariates.values[: window.cut + horizon] for window in cuts if window.covariates
    ]
    options = {"random_state": 0, **variant.options}
    forecast = variant.pipeline.predict(
        contexts, horizon, future_covariates=future or None, **options
    )
    variates = [context.shape[1] for context in contexts]

    def flat(values: Array) -> Array:
        """From (window, ..., horizon, variate) to (window and variate, ..., horizon)."""
        return np.concatenate(
            [
                np.moveaxis(part[..., :count], -1, 0)
                for part, count in zip(values, variates, strict=True)
            ]
        )

    wanted = needed_levels(metrics, levels, samples=True)
    quantiles = flat(forecast.quantile(wanted))
    samples = flat(forecast.samples) if "CRPS" in metrics else None
    return Prediction(wanted, quantiles, quantiles[:, wanted.index(0.5)], samples)


def _table(
    cuts: Sequence[Window],
    horizon: int,
    seasons: NDArray[np.int64],
    prediction: Prediction,
    metrics: Sequence[str],
    levels: Sequence[float],
) -> pd.DataFrame:
    rows, contexts, labels = [], [], []
    for window in cuts:
        item, cut = window.item, window.cut
        for position, variate in enumerate(item.variates):
            label = item.values[cut : cut + horizon, position]
            rows.append(
                {
                    "series": item.name,
                    "variate": variate,
                    "window": window.number,
                    "cutoff": item.index[cut - 1],
                    "n_train": cut,
                    "n_test": int((~np.isnan(label)).sum()),
                    "abs_test": float(np.nansum(np.abs(label))),
                }
            )
            contexts.append(item.values[:cut, position])
            labels.append(label)
    terms = score_terms(np.stack(labels), contexts, seasons.tolist(), prediction, metrics, levels)
    table = pd.DataFrame(rows)
    if all(len(window.item.variates) == 1 for window in cuts):
        table = table.drop(columns="variate")
    return table.assign(**{name: terms[name].each() for name in metrics})


def _check_count(name: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 1:
        raise InvalidInputError(f"{name} must be an integer of at least 1, got {value!r}")
    return int(value)


def _check_levels(levels: Sequence[float]) -> tuple[float, ...]:
    wanted = tuple(float(level) for level in levels)
    if not wanted or not all(math.isfinite(level) and 0 < level < 1 for level in wanted):
        raise InvalidInputError(
            f"quantile_levels must be numbers strictly between 0 and 1, got {levels!r}"
        )
    return wanted
