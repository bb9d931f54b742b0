"""Long DataFrames in and out: one row per series and time, any column names."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from moirai_moe_forecaster.errors import InvalidInputError
from moirai_moe_forecaster.inference.forecast import Forecast
from moirai_moe_forecaster.inference.frame_formats import to_pandas
from moirai_moe_forecaster.inference.frame_rows import Rows, read_rows
from moirai_moe_forecaster.inference.frame_times import Grids

if TYPE_CHECKING:
    from moirai_moe_forecaster.inference.pipeline import MoiraiMoEPipeline

Array = NDArray[np.float64]

TARGET_NAME = "target_name"


class Columns(NamedTuple):
    """What the columns of a long frame mean.

    Attributes
    ----------
    id, timestamp : hashable
        `id` is None where all rows are of one series.
    targets, past, known : list of hashable
        What is forecast, covariates known up to now, and covariates known ahead.
    """

    id: Hashable | None
    timestamp: Hashable
    targets: list[Hashable]
    past: list[Hashable]
    known: list[Hashable]

    @property
    def values(self) -> list[Hashable]:
        """All columns of numbers, in this order."""
        return [*self.targets, *self.past, *self.known]


class LongFrame(NamedTuple):
    """Series of a long frame on regular grids; a step without a row is NaN.

    Attributes
    ----------
    rows : Rows
    grids : Grids
    series : list of ndarray, (step, column)
    """

    rows: Rows
    grids: Grids
    series: list[Array]


def read_frame(df: pd.DataFrame, columns: Columns, freq: Any = None, ahead: int = 0) -> LongFrame:
    """Sort rows into series, and make missing times explicit.

    Parameters
    ----------
    df : DataFrame
    columns : Columns
    freq : str, int or mapping from ids to these, optional
        By default the largest step that all times of a series fit is its own.
    ahead : int, default=0
        Steps after the end for which times will be asked for.

    Raises
    ------
    InvalidInputError
        Naming the row or id that cannot be used, and what to do.
    """
    rows = read_rows(df, columns.id, columns.timestamp, columns.values)
    grids = Grids(rows, freq, ahead)
    ends = grids.lengths.cumsum()
    starts = ends - grids.lengths
    values = np.full((int(ends[-1]), rows.values.shape[1]), np.nan)
    values[starts[rows.codes] + grids.positions] = rows.values
    return LongFrame(rows, grids, np.split(values, ends[:-1]))


def read_panel(
    df: Any,
    *,
    id_column: Hashable | None = "item_id",
    timestamp_column: Hashable = "timestamp",
    target_columns: Hashable | Sequence[Hashable] = "target",
    freq: Any = None,
) -> pd.Series[float] | pd.DataFrame:
    """Turn a long frame into a panel for `predict`, `backtest`, `fine_tune` or sktime.

    Parameters
    ----------
    df : pandas.DataFrame, polars.DataFrame or pyarrow.Table
        One row per series and time, in any order.
    id_column : hashable, default="item_id"
        None if all rows are of one series.
    timestamp_column : hashable, default="timestamp"
    target_columns : hashable or list of hashable, default="target"
    freq : str, int or mapping from ids to these, optional
        As for `MoiraiMoEPipeline.predict_df`.

    Returns
    -------
    Series or DataFrame
        Of float, sorted, with a row for every step of the grid, NaN where there was none. Indexed
        by id and time, or by time only if `id_column` is None. A Series if `target_columns` is one
        name.

    Raises
    ------
    InvalidInputError
        Naming the row or id that cannot be used, and what to do.

    Examples
    --------
    >>> import pandas as pd
    >>> days = pd.to_datetime(["2024-01-04", "2024-01-01", "2024-01-02"])
    >>> read_panel(pd.DataFrame({"day": days, "sold": [4, 1, 2]}), id_column=None,
    ...            timestamp_column="day", target_columns="sold").tolist()
    [1.0, 2.0, nan, 4.0]
    """
    table, _ = to_pandas(df, "df")
    targets = _names(target_columns, table)
    frame = read_frame(table, Columns(id_column, timestamp_column, targets, [], []), freq)
    lengths = frame.grids.lengths
    codes = np.repeat(np.arange(len(lengths)), lengths)
    steps = np.arange(len(codes)) - np.repeat(lengths.cumsum() - lengths, lengths)
    index = frame.grids.times(codes, steps)
    if id_column is None:
        index.name = timestamp_column
    else:
        names = [id_column, timestamp_column]
        index = pd.MultiIndex.from_arrays([frame.rows.ids.take(codes), index], names=names)
    panel = pd.DataFrame(np.concatenate(frame.series), index=index, columns=pd.Index(targets))
    return panel if isinstance(target_columns, list | tuple) else panel[target_columns]


def predict_frame(
    pipeline: MoiraiMoEPipeline,
    df: Any,
    horizon: int,
    levels: Sequence[float],
    *,
    id_column: Hashable | None,
    timestamp_column: Hashable,
    target_columns: Hashable | Sequence[Hashable],
    past_covariates: Hashable | Sequence[Hashable],
    future_df: Any,
    freq: Any,
    context_length: int,
    **options: Any,
) -> Any:
    """Forecast every series of a long frame; `MoiraiMoEPipeline.predict_df` says how."""
    table, restore = to_pandas(df, "df")
    future = None if future_df is None else to_pandas(future_df, "future_df")[0]
    columns = Columns(
        id_column,
        timestamp_column,
        _names(target_columns, table),
        _names(past_covariates, table),
        _known(future, table, id_column, timestamp_column),
    )
    _check_purposes(columns)
    frame = read_frame(table, columns, freq, horizon)
    targets, known = len(columns.targets), len(columns.known)
    _check_observed(frame, columns, context_length)
    later = None if future is None else _future_values(future, frame, columns, horizon)
    series = frame.series
    plain = targets + len(columns.past)
    forecast = pipeline.predict(
        [values[:, 0] if targets == 1 else values[:, :targets] for values in series],
        horizon,
        past_covariates=[v[:, targets:plain] for v in series] if columns.past else None,
        future_covariates=[
            np.concatenate((values[:, plain:], after))
            for values, after in zip(series, later, strict=True)
        ]
        if later is not None and known
        else None,
        context_length=context_length,
        **options,
    )
    return restore(_long(forecast, frame, columns, levels))


def _long(
    forecast: Forecast, frame: LongFrame, columns: Columns, levels: Sequence[float]
) -> pd.DataFrame:
    """One row per series, target and step."""
    count, targets, horizon = len(forecast), len(columns.targets), forecast.horizon
    shape = (count, horizon, targets)
    quantiles = forecast.quantile(levels).reshape(count, len(levels), horizon, targets)

    def flat(values: Array) -> Array:
        return values.reshape(shape).swapaxes(1, 2).ravel()

    codes = np.repeat(np.arange(count), horizon)
    ahead = np.tile(np.arange(horizon), count) + frame.grids.lengths[codes]
    times = frame.grids.times(codes, ahead)
    rows = np.arange(count * horizon).reshape(count, 1, horizon).repeat(targets, 1).ravel()
    table: dict[Hashable, Any] = {}
    if columns.id is not None:
        table[columns.id] = frame.rows.ids.take(codes[rows])
    table[columns.timestamp] = times.take(rows)
    if targets > 1:
        names = np.repeat(np.arange(targets), horizon)
        table[TARGET_NAME] = pd.Index(columns.targets).take(np.tile(names, count))
    numbers = {"mean": flat(forecast.mean), "median": flat(forecast.median)}
    numbers |= {str(float(q)): flat(quantiles[:, i]) for i, q in enumerate(levels)}
    return pd.DataFrame({**table, **numbers})


def _future_values(
    future: pd.DataFrame, frame: LongFrame, columns: Columns, horizon: int
) -> NDArray[np.float64]:
    """Values of known-future covariates over the horizon, (series, horizon, covariate)."""
    rows = read_rows(future, columns.id, columns.timestamp, columns.known, "future_df")
    if (rows.clock.kind, str(rows.clock.dtype)) != (
        frame.rows.clock.kind,
        str(frame.rows.clock.dtype),
    ) and (rows.clock.kind != "datetime" or (rows.clock.wall is None) != _naive(frame)):
        raise InvalidInputError(
            f"future_df[{columns.timestamp!r}] has type {rows.clock.dtype}, in df it is "
            f"{frame.rows.clock.dtype}; give both the same type and time zone"
        )
    series = frame.rows.ids.get_indexer(rows.ids)[rows.codes]
    own = series >= 0
    series = series[own]
    steps = frame.grids.locate(series, rows.clock.take(np.flatnonzero(own)))
    steps -= frame.grids.lengths[series]
    within = (steps >= 0) & (steps < horizon)
    values = np.empty((len(frame.series), horizon, len(columns.known)))
    given = np.zeros(values.shape[:2], dtype=bool)
    values[series[within], steps[within]] = rows.values[own][within]
    given[series[within], steps[within]] = True
    if not given.all():
        lacking = int((~given.all(1)).argmax())
        step = int((~given[lacking]).argmax())
        wanted = frame.grids.lengths[lacking] + step
        time = frame.grids.times(np.array([lacking]), np.array([wanted]))[0]
        raise InvalidInputError(
            f"future_df lacks {int((~given).sum())} of {given.size} rows, the first of them "
            f"{time} of {frame.rows.name(lacking)}; give one row for each of the {horizon} steps "
            "after the last row of every id, with NaN where a value is not known"
        )
    return values


def _naive(frame: LongFrame) -> bool:
    return frame.rows.clock.wall is None


def _known(
    future: pd.DataFrame | None,
    table: pd.DataFrame,
    id_column: Hashable | None,
    timestamp_column: Hashable,
) -> list[Hashable]:
    """Names of the covariates that are known ahead."""
    if future is None:
        return []
    known = [name for name in future.columns if name not in (id_column, timestamp_column)]
    if absent := [name for name in known if name not in table.columns]:
        raise InvalidInputError(
            f"future_df has the columns {absent}, df has not; covariates need their past in df too"
        )
    return known


def _names(columns: Hashable | Sequence[Hashable], table: pd.DataFrame) -> list[Hashable]:
    """Names of one column or several; a tuple may be the name of one."""
    if isinstance(columns, list):
        return columns
    if isinstance(columns, tuple) and columns not in table.columns:
        return [*columns]
    return [columns]


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
    targets = len(columns.targets)
    for series, values in enumerate(frame.series):
        empty = np.isnan(values[-context_length:, :targets]).all(0)
        if empty.any():
            used = min(context_length, len(values))
            raise InvalidInputError(
                f"{columns.targets[int(empty.argmax())]!r} of {frame.rows.name(series)} is missing "
                f"in all of its last {used} steps, the context; drop the id or give a value"
            )
