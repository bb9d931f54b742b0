"""Forecasts of long DataFrames: one row per series and time, any column names."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from moirai_moe_forecaster.data.arguments import OnError, check_count, check_count_or_none
from moirai_moe_forecaster.data.clock import plain
from moirai_moe_forecaster.data.panel import (
    Columns,
    LongFrame,
    log_skipped,
    read_frame,
    read_good,
)
from moirai_moe_forecaster.data.rows import check_columns, read_rows
from moirai_moe_forecaster.errors import InvalidInputError
from moirai_moe_forecaster.inference.forecast import Forecast, check_levels
from moirai_moe_forecaster.inference.options import context_points

if TYPE_CHECKING:
    from moirai_moe_forecaster.inference.predicting import Predictor

Array = NDArray[np.float64]

TARGET_NAME = "target_name"
DECILES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)


@dataclass(frozen=True, kw_only=True)
class FrameForecast:
    """The forecast of a long frame, and what belongs to it.

    Attributes
    ----------
    forecast : Forecast or None
        One series per id, in the order of `frame`; None if there is nothing to forecast.
    frame : LongFrame or None
    columns : Columns
    source : DataFrame
        Without rows: the types of its columns.
    skipped : dict from id to str
        Why ids were left out.
    """

    forecast: Forecast | None
    frame: LongFrame | None
    columns: Columns
    source: pd.DataFrame
    skipped: dict[Hashable, str]

    @property
    def count(self) -> int:
        """Series that were forecast."""
        return 0 if self.forecast is None else len(self.forecast)

    def table(self, levels: Sequence[float]) -> pd.DataFrame:
        """One row per series, target and step, with the columns of `predict_df`."""
        if self.forecast is None or self.frame is None:
            result = self._empty(levels)
        else:
            result = _table(self.forecast, self.frame, self.columns, levels)
        result.attrs["skipped"] = self.skipped
        return result

    def _empty(self, levels: Sequence[float]) -> pd.DataFrame:
        names = [name for name in (self.columns.id, self.columns.timestamp) if name is not None]
        result = self.source[names].reset_index(drop=True)
        if len(self.columns.targets) > 1:
            result[TARGET_NAME] = pd.Index(self.columns.targets)[:0]
        for name in ("mean", "median", *(str(float(level)) for level in levels)):
            result[name] = np.empty(0)
        return result


def _table(
    forecast: Forecast, frame: LongFrame, columns: Columns, levels: Sequence[float]
) -> pd.DataFrame:
    grids = frame.grids
    count, targets, horizon = len(forecast), len(columns.targets), forecast.horizon
    quantiles = forecast.quantile(levels).reshape(count, len(levels), horizon, targets)

    def flat(values: Array) -> Array:
        return values.reshape(count, horizon, targets).swapaxes(1, 2).ravel()

    codes = np.repeat(np.arange(count), horizon)
    times = grids.times(codes, np.tile(np.arange(horizon), count) + grids.lengths[codes])
    rows = np.arange(count * horizon).reshape(count, 1, horizon).repeat(targets, 1).ravel()
    table: dict[Hashable, Any] = {}
    if columns.id is not None:
        table[columns.id] = frame.rows.ids.take(codes[rows])
    table[columns.timestamp] = times.take(rows)
    if targets > 1:
        names = np.repeat(np.arange(targets), horizon)
        table[TARGET_NAME] = pd.Index(columns.targets).take(np.tile(names, count))
    table |= {"mean": flat(forecast.mean), "median": flat(forecast.median)}
    table |= {str(float(q)): flat(quantiles[:, i]) for i, q in enumerate(levels)}
    return pd.DataFrame(table)


def result_levels(levels: Sequence[float], columns: Columns) -> list[float]:
    """Check the levels of a table, and that no other column of it has the name of one's."""
    checked: list[float] = np.atleast_1d(check_levels(levels)).tolist()
    if taken := {str(q) for q in checked} & {columns.id, columns.timestamp}:
        raise InvalidInputError(
            f"column {taken.pop()!r} has the name of a level's column in the result; rename it"
        )
    return checked


def forecast_frame(
    pipeline: Predictor,
    table: pd.DataFrame,
    future: pd.DataFrame | None,
    columns: Columns,
    horizon: int,
    freq: Any = None,
    context_length: int | None = None,
    dayfirst: bool | None = None,
    on_error: OnError = "raise",
    **options: Any,
) -> FrameForecast:
    """Forecast a long frame whose columns are known; `predict_df` says how."""
    check_count("horizon", horizon)
    length = check_count_or_none("context_length", context_length)
    points = context_points(pipeline.config, length)
    _check_purposes(columns)
    check_columns(table, columns.all)

    def read(some: pd.DataFrame) -> tuple[LongFrame, Array | None]:
        frame = read_frame(some, columns, freq, horizon, dayfirst=dayfirst)
        _check_observed(frame, columns, points)
        if future is None or not columns.known:
            return frame, None
        return frame, _future_values(future, frame, columns, horizon)

    result, skipped = read_good(table, columns.id, on_error, read)
    empty = FrameForecast(
        forecast=None, frame=None, columns=columns, source=table[:0], skipped=skipped
    )
    if result is None:
        log_skipped(skipped)
        return empty
    frame, later = result
    frame.log(skipped)
    targets = len(columns.targets)
    known = targets + frame.rows.width(columns.past)
    series = frame.series
    ahead = None
    if later is not None:
        ahead = [
            np.concatenate((values[:, known:], after))
            for values, after in zip(series, later, strict=True)
        ]
    forecast = pipeline.predict(
        [values[:, 0] if targets == 1 else values[:, :targets] for values in series],
        horizon,
        past_covariates=[v[:, targets:known] for v in series] if columns.past else None,
        future_covariates=ahead,
        context_length=context_length,
        **options,
    )
    return replace(empty, forecast=forecast, frame=frame)


def _future_values(
    future: pd.DataFrame, frame: LongFrame, columns: Columns, horizon: int
) -> NDArray[np.float64]:
    """Values of known-future covariates over the horizon, (series, horizon, covariate)."""
    if columns.id is not None and columns.id in future.columns:
        own_rows = future[columns.id].isin(frame.rows.ids)
        # all of other ids are told apart below
        future = future[own_rows] if own_rows.any() else future
    rows = read_rows(
        future, columns.id, columns.timestamp, (), columns.known, "future_df", like=frame.rows
    )
    if not rows.clock.fits(frame.rows.clock):
        raise InvalidInputError(
            f"column {columns.timestamp!r} of future_df has type {rows.clock.dtype}, in df it is "
            f"{frame.rows.clock.dtype}; give both the same type and time zone"
        )
    series = frame.rows.ids.get_indexer(rows.ids)[rows.codes]
    own = series >= 0
    if not own.any():
        theirs, ours = (plain(ids[0]) for ids in (rows.ids, frame.rows.ids))
        raise InvalidInputError(
            f"future_df holds no id of df: its first is {theirs!r}, that of df {ours!r}; give both "
            "the same ids, of the same type"
        )
    series = series[own]
    steps = frame.grids.locate(series, rows.clock.take(np.flatnonzero(own)))
    steps -= frame.grids.lengths[series]
    within = (steps >= 0) & (steps < horizon)
    values = np.empty((len(frame.grids.lengths), horizon, rows.values.shape[1]))
    given = np.zeros(values.shape[:2], dtype=bool)
    values[series[within], steps[within]] = rows.values[own][within]
    given[series[within], steps[within]] = True
    if not given.all():
        some: Any = ~given.all(1)
        lacking = int(some.argmax())
        step = int((~given[lacking]).argmax())
        wanted = frame.grids.lengths[lacking] + step
        time = frame.grids.times(np.array([lacking]), np.array([wanted]))[0]
        raise frame.rows.bad(
            some,
            f"future_df lacks {int((~given).sum())} of {given.size} rows, the first of them "
            f"{time} of {frame.rows.name(lacking)}; give one row for each of the {horizon} steps "
            "after the last row of every id, with NaN where a value is not known",
            "lacks rows of future_df",
        )
    return values


def known_ahead(
    future: pd.DataFrame | None,
    table: pd.DataFrame,
    id_column: Hashable | None,
    timestamp_column: Hashable,
) -> list[Hashable]:
    """Names of the covariates that are known ahead."""
    if future is None:
        return []
    known: list[Hashable] = [c for c in future.columns if c not in (id_column, timestamp_column)]
    if absent := [name for name in known if name not in table.columns]:
        raise InvalidInputError(
            f"future_df has the columns {absent}, df has not; covariates need their past in df too"
        )
    return known


def _check_purposes(columns: Columns) -> None:
    if not columns.targets:
        raise InvalidInputError("target_columns is empty; name at least one column")
    if both := [name for name in columns.known if name in columns.targets]:
        raise InvalidInputError(
            f"future_df holds the target {both[0]!r}; leave it out, and keep only what is known "
            "ahead"
        )
    if both := [name for name in columns.known if name in columns.past]:
        raise InvalidInputError(
            f"{both[0]!r} is in past_covariates and in future_df; a covariate is known up to now, "
            "or ahead"
        )
    if {columns.id, columns.timestamp} & {"mean", "median", TARGET_NAME}:
        raise InvalidInputError(
            "the columns of ids and times may not be called 'mean', 'median' or 'target_name', "
            "as columns of the result are; rename them"
        )


def _check_observed(frame: LongFrame, columns: Columns, context_length: int) -> None:
    """Refuse targets that hold nothing where the context is."""
    lengths = frame.grids.lengths
    ends = lengths.cumsum()
    late = np.arange(len(frame.values)) >= np.repeat(ends - context_length, lengths)
    seen = ~np.isnan(frame.values[:, : len(columns.targets)]) & late[:, None]
    empty: Any = ~np.logical_or.reduceat(seen, ends - lengths)
    if empty.any():
        series, target = np.argwhere(empty)[0]
        raise frame.rows.bad(
            empty.any(1),
            f"{columns.targets[target]!r} of {frame.rows.name(series)} is missing in all of its "
            f"last {min(context_length, lengths[series])} steps, the context; drop the id or give "
            "a value",
            "is missing in all steps of the context",
        )
