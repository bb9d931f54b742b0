"""Long DataFrames as panels: every series on a regular grid of times."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from moirai_moe_forecaster.data.formats import to_pandas
from moirai_moe_forecaster.data.grids import Grids, make_grids
from moirai_moe_forecaster.data.rows import Rows, read_rows

Array = NDArray[np.float64]


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
    values : ndarray, (step, column)
        Of all series, one after the other.
    """

    rows: Rows
    grids: Grids
    values: Array

    @property
    def series(self) -> list[Array]:
        """Values of each series, (step, column)."""
        return np.split(self.values, self.grids.lengths.cumsum()[:-1])


def read_frame(
    df: pd.DataFrame,
    columns: Columns,
    freq: Any = None,
    ahead: int = 0,
    *,
    dayfirst: bool | None = None,
) -> LongFrame:
    """Sort rows into series, and make missing times explicit.

    Parameters
    ----------
    df : DataFrame
    columns : Columns
    freq : str, int or mapping from ids to these, optional
        By default the largest step that all times of a series fit is its own.
    ahead : int, default=0
        Steps after the end for which times will be asked for.
    dayfirst : bool, optional
        Whether text such as 01/02/2023 has the day first.

    Raises
    ------
    InvalidInputError
        Naming the row or id that cannot be used, and what to do.
    """
    rows = read_rows(
        df, columns.id, columns.timestamp, columns.values, freq=freq, dayfirst=dayfirst
    )
    grids = make_grids(rows, freq, ahead)
    ends = grids.lengths.cumsum()
    starts = ends - grids.lengths
    values = np.full((int(ends[-1]), rows.values.shape[1]), np.nan)
    values[starts[rows.codes] + grids.positions] = rows.values
    return LongFrame(rows, grids, values)


def read_panel(
    df: Any,
    *,
    id_column: Hashable | None = "item_id",
    timestamp_column: Hashable = "timestamp",
    target_columns: Hashable | Sequence[Hashable] = "target",
    freq: Any = None,
    dayfirst: bool | None = None,
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
    dayfirst : bool, optional
        Whether text such as 01/02/2023 has the day first.

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
    targets = names_of(target_columns, table)
    frame = read_frame(
        table, Columns(id_column, timestamp_column, targets, [], []), freq, dayfirst=dayfirst
    )
    lengths = frame.grids.lengths
    codes = np.repeat(np.arange(len(lengths)), lengths)
    steps = np.arange(len(codes)) - np.repeat(lengths.cumsum() - lengths, lengths)
    index = frame.grids.times(codes, steps)
    if id_column is None:
        index.name = timestamp_column
    else:
        names = [id_column, timestamp_column]
        index = pd.MultiIndex.from_arrays([frame.rows.ids.take(codes), index], names=names)
    panel = pd.DataFrame(frame.values, index=index, columns=pd.Index(targets))
    return panel if isinstance(target_columns, list | tuple) else panel[target_columns]


def names_of(columns: Hashable | Sequence[Hashable], table: pd.DataFrame) -> list[Hashable]:
    """Names of one column or several; a tuple may be the name of one."""
    if isinstance(columns, list | np.ndarray | pd.Index):
        return [*columns]
    if isinstance(columns, tuple) and columns not in table.columns:
        return [*columns]
    return [columns]
