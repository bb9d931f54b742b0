"""Forecasts of sktime forecasters for the windows of a backtest."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from moirai_moe_forecaster.errors import InvalidInputError
from moirai_moe_forecaster.evaluation.metrics import Prediction

if TYPE_CHECKING:
    from moirai_moe_forecaster.data.items import Item
    from moirai_moe_forecaster.evaluation.window import BacktestWindow

Array = NDArray[np.float64]


def forecast_windows(
    forecaster: Any,
    windows: Sequence[BacktestWindow],
    horizon: int,
    levels: tuple[float, ...],
    *,
    panel: bool,
) -> Prediction:
    """Fit a clone for each window, and forecast.

    Parameters
    ----------
    forecaster : sktime forecaster
    windows : sequence of BacktestWindow
    horizon : int
    levels : tuple of float
        Sorted.
    panel : bool
        Fit the series of one window together, as a panel, instead of one by one.

    Returns
    -------
    Prediction
        One row per window and variate, in the order of the windows.
    """
    groups: dict[Any, list[int]] = {}
    for index, window in enumerate(windows):
        groups.setdefault(window.number if panel else index, []).append(index)
    points: dict[int, Array] = {}
    quantiles: dict[int, Array] = {}
    for members in groups.values():
        group = [windows[index] for index in members]
        fitted = _fit(forecaster, group, horizon, panel=panel)
        future = _covariates(group, horizon, panel=panel)
        results = [fitted.predict(X=future)]
        if forecaster.get_tag("capability:pred_int"):
            results.append(fitted.predict_quantiles(X=future, alpha=list(levels)))
        tables = [_by_series(result, group, panel=panel) for result in results]
        for number, (index, window) in enumerate(zip(members, group, strict=True)):
            # (variate, level, horizon): columns are variates, and for each its levels
            parts = [
                _values(table[number], window.item, horizon)
                .reshape(horizon, len(window.item.variates), -1)
                .transpose(1, 2, 0)
                for table in tables
            ]
            points[index] = parts[0][:, 0]
            quantiles[index] = parts[-1] + np.zeros((len(levels), 1))
    order = range(len(windows))
    return Prediction(
        levels=levels,
        quantiles=np.concatenate([quantiles[index] for index in order]),
        point=np.concatenate([points[index] for index in order]),
    )


def _fit(forecaster: Any, group: Sequence[BacktestWindow], horizon: int, *, panel: bool) -> Any:
    seen = _join([w.item.frame.iloc[: w.cut] for w in group], group, panel=panel)
    known = None
    if group[0].covariates is not None:
        parts = [w.covariates.frame.iloc[: w.cut] for w in group if w.covariates]
        known = _join(parts, group, panel=panel)
    return forecaster.clone().fit(seen, X=known, fh=list(range(1, horizon + 1)))


def _covariates(group: Sequence[BacktestWindow], horizon: int, *, panel: bool) -> Any:
    """Rows of the covariates from the cutoff to the horizon, or None."""
    if group[0].covariates is None:
        return None
    parts = [w.covariates.frame.iloc[w.cut : w.cut + horizon] for w in group if w.covariates]
    return _join(parts, group, panel=panel)


def _join(parts: list[Any], group: Sequence[BacktestWindow], *, panel: bool) -> Any:
    """One container of pandas that sktime knows: a Series or DataFrame, or a panel of them."""
    frames = [part.to_frame() if part.ndim == 1 else part for part in parts]
    if not panel:
        return parts[0]
    joined = pd.concat(frames, keys=[w.item.name for w in group])
    # sktime asks for names only in hierarchies, where levels without one cannot be told apart
    joined.index.names = [f"level_{level}" for level in range(joined.index.nlevels)]
    return joined


def _by_series(result: Any, group: Sequence[BacktestWindow], *, panel: bool) -> list[Any]:
    """One table per series of the group, in its order."""
    if not panel:
        return [result]
    levels = list(range(result.index.nlevels - 1))
    parts = dict(iter(result.groupby(level=levels if len(levels) > 1 else 0)))
    return [parts[window.item.name] for window in group]


def _values(rows: Any, item: Item, horizon: int) -> Array:
    """One series' rows of a result, (horizon, columns)."""
    values = np.asarray(rows, dtype=np.float64).reshape(len(rows), -1)
    if len(values) != horizon or not np.isfinite(values).all():
        raise InvalidInputError(
            f"the forecaster's forecast of series {item.name!r} has {len(values)} of {horizon} "
            f"steps, of which {int((~np.isfinite(values)).sum())} values are not finite"
        )
    return values
