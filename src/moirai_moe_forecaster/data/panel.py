"""Long DataFrames as panels: every series on a regular grid of times."""

from __future__ import annotations

import logging
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from moirai_moe_forecaster.data.arguments import OnError, check_on_error
from moirai_moe_forecaster.data.clock import plain
from moirai_moe_forecaster.data.formats import to_pandas
from moirai_moe_forecaster.data.grids import Grids, make_grids
from moirai_moe_forecaster.data.rows import Rows, read_rows
from moirai_moe_forecaster.errors import BadSeriesError, InvalidInputError

Array = NDArray[np.float64]
T = TypeVar("T")

log = logging.getLogger(__name__)

# ids whose reasons are logged one by one
MOST_NAMED = 20


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
    def all(self) -> list[Hashable | None]:
        """All of them."""
        return [self.id, self.timestamp, *self.targets, *self.past, *self.known]


@dataclass(frozen=True, kw_only=True)
class LongFrame:
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

    def log(self, skipped: dict[Hashable, str]) -> None:
        """Log what was read, and what was not."""
        for line in self.describe(skipped):
            log.info(line)
        log_skipped(skipped)

    def describe(self, skipped: dict[Hashable, str]) -> list[str]:
        """Say what was read: series, frequencies, first and last time, gaps."""
        rows, grids = self.rows, self.grids
        clock, count = rows.clock, len(rows.starts)
        names, numbers = np.unique(grids.frequencies, return_counts=True)
        ends = np.array([clock.numbers.argmin(), clock.numbers.argmax()])
        none = np.zeros(2, dtype=bool)
        first, last = clock.take(ends).restore(clock.numbers[ends], none)
        steps, given = int(grids.lengths.sum()), len(rows.codes)
        often = ", ".join(
            f"{name} ({number})" if len(names) > 1 else str(name)
            for name, number in zip(names, numbers, strict=True)
        )
        lines = [
            f"{count} series, {given} rows, times are {clock.description}, frequency {often}",
            f"from {first} to {last}, {steps - given} of {steps} steps without a row",
        ]
        if skipped:
            lines.append(f"{len(skipped)} series skipped")
        return lines


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
        df,
        columns.id,
        columns.timestamp,
        columns.targets,
        [*columns.past, *columns.known],
        freq=freq,
        dayfirst=dayfirst,
    )
    grids = make_grids(rows, freq, ahead)
    ends = grids.lengths.cumsum()
    starts = ends - grids.lengths
    values = np.full((int(ends[-1]), rows.values.shape[1]), np.nan)
    values[starts[rows.codes] + grids.positions] = rows.values
    return LongFrame(rows=rows, grids=grids, values=values)


def log_skipped(skipped: dict[Hashable, str]) -> None:
    """Log which ids were left out, and why."""
    for name, reason in [*skipped.items()][:MOST_NAMED]:
        log.warning("skipped %r: %s", name, reason)
    if len(skipped) > MOST_NAMED:
        log.warning("skipped %d in all", len(skipped))


def read_good(
    df: pd.DataFrame, id_column: Hashable | None, on_error: str, read: Callable[[pd.DataFrame], T]
) -> tuple[T | None, dict[Hashable, str]]:
    """Read a frame, if need be without the series that cannot be.

    Parameters
    ----------
    df : DataFrame
    id_column : hashable or None
    on_error : {"raise", "skip"}
    read : callable
        What raises BadSeriesError.

    Returns
    -------
    object or None
        What `read` returned; None if there are no rows, or none left.
    dict from id to str
        Why each series that was left out was.
    """
    skip = check_on_error(on_error)
    skipped: dict[Hashable, str] = {}
    while len(df):
        try:
            return read(df), skipped
        except BadSeriesError as error:
            if not skip or id_column is None:
                raise
            rest = df[~df[id_column].isin([*error.reasons])]
            if len(rest) == len(df):
                raise
            skipped |= {plain(name): reason for name, reason in error.reasons.items()}
            df = rest
    return None, skipped


def read_panel(
    df: Any,
    *,
    id_column: Hashable | None = "item_id",
    timestamp_column: Hashable = "timestamp",
    target_columns: Hashable | Sequence[Hashable] = "target",
    freq: Any = None,
    dayfirst: bool | None = None,
    on_error: OnError = "raise",
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
    on_error : {"raise", "skip"}, default="raise"
        "skip" leaves out series that cannot be read, which `attrs["skipped"]` of the result names
        with the reason.

    Returns
    -------
    Series or DataFrame
        Of float, sorted, with a row for every step of the grid, NaN where there was none. Indexed
        by id and time, or by time only if `id_column` is None; dates of any form are datetimes. A
        Series if `target_columns` is one name.

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
    columns = Columns(id_column, timestamp_column, targets, [], [])

    def read(some: pd.DataFrame) -> LongFrame:
        return read_frame(some, columns, freq, dayfirst=dayfirst)

    frame, skipped = read_good(table, id_column, on_error, read)
    if frame is None:
        raise InvalidInputError(
            "df has no rows; give at least one" if table.empty else f"no id is left of {skipped}"
        )
    frame.log(skipped)
    lengths = frame.grids.lengths
    codes = np.repeat(np.arange(len(lengths)), lengths)
    steps = np.arange(len(codes)) - np.repeat(lengths.cumsum() - lengths, lengths)
    index = frame.grids.as_datetimes().times(codes, steps)
    if id_column is None:
        index.name = timestamp_column
    else:
        names = [id_column, timestamp_column]
        index = pd.MultiIndex.from_arrays([frame.rows.ids.take(codes), index], names=names)
    panel = pd.DataFrame(frame.values, index=index, columns=pd.Index(targets))
    result = panel if isinstance(target_columns, list | tuple) else panel[target_columns]
    result.attrs["skipped"] = skipped
    return result


def names_of(columns: Hashable | Sequence[Hashable], table: pd.DataFrame) -> list[Hashable]:
    """Names of one column or several; a tuple may be the name of one."""
    if isinstance(columns, list | np.ndarray | pd.Index):
        return [*columns]
    if isinstance(columns, tuple) and columns not in table.columns:
        return [*columns]
    return [columns]
