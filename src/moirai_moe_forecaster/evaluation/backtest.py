"""Backtests: forecast windows at the end of every series, and score each against what came."""

from __future__ import annotations

import itertools
import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from moirai_moe_forecaster.data.arguments import OnError, check_count, check_on_error
from moirai_moe_forecaster.data.clock import plain
from moirai_moe_forecaster.data.items import Item, left_out, match_items, read_block, read_items
from moirai_moe_forecaster.data.panel import log_skipped
from moirai_moe_forecaster.data.series import Array
from moirai_moe_forecaster.data.times import frequency_of, season_of
from moirai_moe_forecaster.errors import InvalidInputError
from moirai_moe_forecaster.evaluation.forecasters import (
    Variant,
    is_sktime,
    predict_quantiles,
    predict_windows,
)
from moirai_moe_forecaster.evaluation.metrics import (
    LEVELS,
    Prediction,
    expand_metrics,
    needed_levels,
    score_terms,
)
from moirai_moe_forecaster.evaluation.sktime_windows import forecast_windows
from moirai_moe_forecaster.evaluation.window import BacktestWindow, check_windows, cut_windows
from moirai_moe_forecaster.inference.forecast import Forecast
from moirai_moe_forecaster.inference.pipeline import MoiraiMoEPipeline


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
    plan = Backtest.of(
        y,
        horizon=horizon,
        windows=windows,
        step=step,
        X=X,
        metrics=metrics,
        quantile_levels=quantile_levels,
        seasonality=seasonality,
        on_error=on_error,
    )
    return plan.score(forecaster)


@dataclass(frozen=True, kw_only=True)
class Backtest:
    """Windows that any number of forecasters can be scored on; `backtest` scores one.

    Attributes
    ----------
    windows : list of BacktestWindow
        All of the first series, then of the next.
    horizon : int
    seasons : ndarray of int, (row,)
        Lags of the differences that scale, one for each variate of each window.
    metrics : tuple of str
    levels : tuple of float
        Over which WQL is averaged.
    panel : bool
        Whether sktime forecasters are fitted to the series of one window together.
    skipped : dict from hashable to str
        Series that were left out, and why.
    """

    windows: list[BacktestWindow]
    horizon: int
    seasons: NDArray[np.int64]
    metrics: tuple[str, ...]
    levels: tuple[float, ...]
    panel: bool
    skipped: dict[Hashable, str]

    @classmethod
    def of(
        cls,
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
    ) -> Backtest:
        """Read data and cut their windows; the parameters are those of `backtest`."""
        names = expand_metrics(metrics)
        levels = _check_levels(quantile_levels)
        check_count("horizon", horizon)
        check_count("windows", windows)
        stride = horizon if step is None else check_count("step", step)
        skipped: dict[Hashable, str] | None = {} if check_on_error(on_error) else None
        data = read_items(y, skipped=skipped)
        blocks = None if X is None else match_items(X, data, skip=skipped is not None)
        items, covariates = [], []
        for place, item in enumerate(data.items):
            with left_out(item.name, skipped):
                check_windows(item, horizon, windows, stride)
                if blocks is not None:
                    covariates.append(read_block(blocks[place]))
                items.append(item)
        log_skipped(skipped or {})
        if not items:
            raise InvalidInputError(f"no series of y is left; skipped were {skipped}")
        if seasonality is None:
            seasons = _seasons(items)
        else:
            seasons = [check_count("seasonality", seasonality)] * len(items)
        return cls(
            windows=cut_windows(items, None if X is None else covariates, horizon, windows, stride),
            horizon=horizon,
            seasons=np.repeat(seasons, [windows * len(item.variates) for item in items]),
            metrics=names,
            levels=levels,
            panel=data.panel,
            skipped={_written(name): reason for name, reason in (skipped or {}).items()},
        )

    def score(self, forecaster: Any) -> pd.DataFrame:
        """Forecast all windows and score them, as `backtest` does."""
        if isinstance(forecaster, MoiraiMoEPipeline | Variant):
            return self.score_forecast(self.forecast(forecaster))
        levels = needed_levels(self.metrics, self.levels, samples=False)
        if is_sktime(forecaster):
            prediction = forecast_windows(
                forecaster, self.windows, self.horizon, levels, panel=self.panel
            )
        else:
            prediction = self._call(forecaster, levels)
        return self._table(prediction)

    def forecast(self, forecaster: MoiraiMoEPipeline | Variant) -> Forecast:
        """Forecast all windows by a pipeline in one call, a series of a batch each."""
        return predict_windows(forecaster, self.windows, self.horizon)

    def score_forecast(self, forecast: Forecast) -> pd.DataFrame:
        """Score what `forecast` returned."""
        variates = [len(window.item.variates) for window in self.windows]

        def flat(values: Array) -> Array:
            """From (window, ..., horizon, variate) to (window and variate, ..., horizon)."""
            return np.concatenate(
                [
                    np.moveaxis(part[..., :count], -1, 0)
                    for part, count in zip(values, variates, strict=True)
                ]
            )

        levels = needed_levels(self.metrics, self.levels, samples=True)
        samples = flat(forecast.samples) if "CRPS" in self.metrics else None
        return self._table(Prediction.of(levels, flat(forecast.quantile(levels)), samples))

    def _call(self, function: Any, levels: tuple[float, ...]) -> Prediction:
        """Call a function once for all series of one season, variate by variate."""
        contexts = [column for window in self.windows for column in window.context.T]
        quantiles = np.empty((len(contexts), len(levels), self.horizon))
        for season in np.unique(self.seasons).tolist():
            own = np.flatnonzero(self.seasons == season)
            part = predict_quantiles(
                function, [contexts[row] for row in own], self.horizon, season, levels
            )
            quantiles[own] = part.quantiles
        return Prediction.of(levels, quantiles)

    def _table(self, prediction: Prediction) -> pd.DataFrame:
        rows, contexts, labels = [], [], []
        for window in self.windows:
            for variate, context, label in zip(
                window.item.variates, window.context.T, window.label(self.horizon).T, strict=True
            ):
                rows.append(
                    {
                        "series": window.item.name,
                        "variate": variate,
                        "window": window.number,
                        "cutoff": window.item.index[window.cut - 1],
                        "n_train": window.cut,
                        "n_test": int((~np.isnan(label)).sum()),
                        "abs_test": float(np.nansum(np.abs(label))),
                    }
                )
                contexts.append(context)
                labels.append(label)
        terms = score_terms(
            np.stack(labels),
            contexts,
            self.seasons.tolist(),
            prediction,
            self.metrics,
            self.levels,
        )
        table = pd.DataFrame(rows)
        if all(len(window.item.variates) == 1 for window in self.windows):
            table = table.drop(columns="variate")
        table = table.assign(**{name: terms[name].each() for name in self.metrics})
        table.attrs["skipped"] = self.skipped
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


def _written(name: Hashable) -> Hashable:
    """A name as files of tables can hold it among their attributes, which are JSON."""
    name = plain(name)
    return name if isinstance(name, str | int | float | None) else str(name)


def _season(index: pd.Index) -> int:
    freq = frequency_of(index)
    return 1 if freq is None else season_of(freq)


def _check_levels(levels: Sequence[float]) -> tuple[float, ...]:
    wanted = tuple(float(level) for level in levels)
    if not wanted or not all(math.isfinite(level) and 0 < level < 1 for level in wanted):
        raise InvalidInputError(
            f"quantile_levels must be numbers strictly between 0 and 1, got {levels!r}"
        )
    return wanted
