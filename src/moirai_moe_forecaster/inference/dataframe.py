"""Forecasts of long DataFrames: one row per series and time, any column names."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from moirai_moe_forecaster.data.arguments import OnError, check_count
from moirai_moe_forecaster.data.clock import plain
from moirai_moe_forecaster.data.formats import to_pandas
from moirai_moe_forecaster.data.panel import (
    Columns,
    LongFrame,
    log_skipped,
    names_of,
    read_frame,
    read_good,
)
from moirai_moe_forecaster.data.rows import check_columns, read_rows
from moirai_moe_forecaster.errors import InvalidInputError
from moirai_moe_forecaster.inference.forecast import Forecast, check_levels
from moirai_moe_forecaster.inference.options import context_points

if TYPE_CHECKING:
    from moirai_moe_forecaster.inference.pipeline import MoiraiMoEPipeline

Array = NDArray[np.float64]

TARGET_NAME = "target_name"
DECILES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)


def predict_df(
    self: MoiraiMoEPipeline,
    df: Any,
    horizon: int,
    *,
    quantile_levels: Sequence[float] = DECILES,
    id_column: Hashable | None = "item_id",
    timestamp_column: Hashable = "timestamp",
    target_columns: Hashable | Sequence[Hashable] = "target",
    past_covariates: Hashable | Sequence[Hashable] = (),
    future_df: Any = None,
    freq: str | int | Mapping[Any, str | int] | None = None,
    context_length: int | None = None,
    dayfirst: bool | None = None,
    on_error: OnError = "raise",
    **options: Any,
) -> Any:
    """Forecast every series of a long DataFrame.

    Parameters
    ----------
    df : pandas.DataFrame, polars.DataFrame or pyarrow.Table
        One row per series and time, in any order. Ids may be of any type and times datetimes
        (with or without a zone), text that reads as such, periods or integers. Values are
        numbers; NaN is missing, and so is a step of the grid without a row. Covariates may also be
        categories or text. What was read is logged.
    horizon : int
        Steps after the last row of every series, at least 1.
    quantile_levels : sequence of float, default=(0.1, ..., 0.9)
        In (0, 1).
    id_column : hashable, default="item_id"
        None if all rows are of one series.
    timestamp_column : hashable, default="timestamp"
    target_columns : hashable or list of hashable, default="target"
        Several targets are forecast as the variates of one series.
    past_covariates : hashable or list of hashable, default=()
        Columns of `df` known only up to the last row.
    future_df : of the type of df, optional
        A row for each step of the horizon of every series: the columns of ids and times, and
        those of the covariates known ahead, whose past is in `df`. Rows of other ids or times
        are not used.
    freq : str, int or mapping from ids to these, optional
        An alias of pandas, or an integer for integer times. By default inferred for every
        series: the largest step that all of its times fit, in months or business days where
        they go by these.
    context_length : int, optional
        Use only this many of the last steps. By default the network reads
        `max_context_length`, and cycles are learnt from up to 16,384.
    dayfirst : bool, optional
        Whether times in text such as 01/02/2023 have the day first. By default, those with dots
        have, others if a number above 12 says so; what stays open is an error.
    on_error : {"raise", "skip"}, default="raise"
        What is done about ids that cannot be forecast: those of a single row from which no
        frequency can be inferred, without values in the context, with irregular or repeated times,
        or values that are no numbers. "skip" leaves them out, logs them, and names them with the
        reason in ``result.attrs["skipped"]`` (pandas) or the schema's metadata (pyarrow).
    **options
        Of `predict`: season_length, bounds, integer, num_paths, batch_size, normaliser,
        random_state and progress.
        Lengths that `season_length` names are steps of every series, whatever its frequency.

    Returns
    -------
    DataFrame
        Of the library of `df`. Series in the order of their first rows, each with its targets
        in the order of `target_columns`, each with `horizon` rows. The columns are those of
        ids and times, ``target_name`` if there are several targets, ``mean``, ``median``, and
        one per level, such as ``0.1``. Without rows in `df` it has none either. Ids and times have
        the types that they came in; full dates in text become datetimes, while months, quarters,
        weeks and years are written as they were.

    Raises
    ------
    InvalidInputError
        Before anything is forecast; the message names the row or id, and what to do.

    Examples
    --------
    >>> import numpy as np
    >>> import pandas as pd
    >>> from moirai_moe_forecaster import MoiraiMoEPipeline
    >>> days = pd.date_range("2024-01-01", periods=60)
    >>> df = pd.DataFrame({"shop": "north", "day": days, "sold": np.arange(60) % 7})
    >>> pipeline = MoiraiMoEPipeline.from_pretrained()
    >>> names = {"id_column": "shop", "timestamp_column": "day", "target_columns": "sold"}
    >>> forecast = pipeline.predict_df(df, 7, quantile_levels=[0.1, 0.9], **names)
    >>> list(forecast.columns)
    ['shop', 'day', 'mean', 'median', '0.1', '0.9']
    """
    if "future_covariates" in options:
        raise InvalidInputError(
            "predict_df takes covariates known ahead as columns of df and future_df; leave "
            "future_covariates out"
        )
    table, restore = to_pandas(df, "df")
    future = None if future_df is None else to_pandas(future_df, "future_df")[0]
    columns = Columns(
        id_column,
        timestamp_column,
        names_of(target_columns, table),
        names_of(past_covariates, table),
        _known(future, table, id_column, timestamp_column),
    )
    levels = result_levels(quantile_levels, columns)
    result = forecast_frame(
        self, table, future, columns, horizon, freq, context_length, dayfirst, on_error, **options
    )
    return restore(result.table(levels), [id_column, timestamp_column])


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
    pipeline: MoiraiMoEPipeline,
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
    if context_length is not None:
        check_count("context_length", context_length)
    points = context_points(pipeline.config, context_length)
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


def _known(
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
