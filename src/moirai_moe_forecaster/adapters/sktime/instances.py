"""Series of a panel by their labels: rows of tables, time indices, steps of a horizon."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pandas.tseries.frequencies import to_offset
from sktime.forecasting.base import ForecastingHorizon

from moirai_moe_forecaster.data.numbers import Array, read_numbers
from moirai_moe_forecaster.data.times import labels_at, told_frequency
from moirai_moe_forecaster.errors import InvalidInputError

Number = TypeVar("Number", bound=np.generic)


@dataclass(frozen=True, kw_only=True)
class Instance:
    """One series of the context, and what is asked of it.

    Attributes
    ----------
    key : tuple
        Its labels in the index; empty for a series that is no panel's.
    y : DataFrame
        (time, variate) at every step of its time index; an absent row is one of NaN.
    steps : ndarray of int
        Which steps after its end the horizon asks for; 0 and less are in sample.
    labels : Index
        Labels of these.
    ahead : Index
        Labels of all steps from 1 to the last that is asked for.
    """

    key: tuple[Any, ...]
    y: pd.DataFrame
    steps: NDArray[np.int64]
    labels: pd.Index
    ahead: pd.Index


def check_labels(index: Any, name: str) -> None:
    """Check that every row of a table has labels of its own."""
    missing = index.to_frame().isna().to_numpy().any(1)
    for reason, rows in (("missing", missing), ("there twice", index.duplicated())):
        if rows.any():
            raise InvalidInputError(
                f"a label of {name} is {reason}: {index[rows.argmax()]}; "
                "every row needs one of its own"
            )


def check_times(index: Any, known: Any = None) -> None:
    """Check that a table has a time index that can be forecast, and of the same kind as before."""
    got = _kind(index)
    if known is not None and got != _kind(known):
        raise InvalidInputError(f"the index of y is {got}; expected {_kind(known)}, as in fit")


def _kind(index: Any) -> str:
    times = index.levels[-1] if index.nlevels > 1 else index
    if isinstance(times, pd.PeriodIndex):
        kind = f"periods of frequency {times.freqstr!r}"
    elif isinstance(times, pd.DatetimeIndex):
        kind = "time stamps" if times.tz is None else f"time stamps of time zone {times.tz}"
    elif pd.api.types.is_integer_dtype(times.dtype):
        kind = "integers"
    else:
        raise InvalidInputError(
            f"the time index of y is a {type(times).__name__}; "
            "use integers, a PeriodIndex or a DatetimeIndex"
        )
    return kind if index.nlevels == 1 else f"{kind} in the last of {index.nlevels} levels"


def split_instances(table: pd.DataFrame) -> dict[tuple[Any, ...], pd.DataFrame]:
    """One table per instance, by its labels in sorted order; `()` for a series by itself."""
    by_time = table.set_axis(table.index.get_level_values(-1))
    return {key: by_time.iloc[places] for key, places in _places(table).items()}


def _places(table: pd.DataFrame) -> dict[tuple[Any, ...], Any]:
    """Positions of each instance's rows, by its labels in sorted order."""
    levels = list(range(table.index.nlevels - 1))
    if not levels:
        return {(): slice(None)}
    groups = table.groupby(level=levels, observed=True).indices
    return {key if isinstance(key, tuple) else (key,): places for key, places in groups.items()}


def last_rows(table: pd.DataFrame, length: int, before: pd.DataFrame | None = None) -> pd.DataFrame:
    """Return each instance's last rows; where `before` has the same labels, `table` wins."""
    if before is not None:
        table = pd.concat([before, table])
        table = table[~table.index.duplicated(keep="last")]
    table = table.sort_index()
    levels = list(range(table.index.nlevels - 1))
    # a copy, as a view would keep all of the table in memory
    groups = table.groupby(level=levels, observed=True) if levels else table
    return groups.tail(length).copy()


def rows_at(
    X: pd.DataFrame, labels: pd.Index, reason: str = "every row of y needs one"
) -> pd.DataFrame:
    """Rows of X in the order of labels, all of which it must have."""
    positions = X.index.get_indexer(labels)
    if (positions < 0).any():
        missing = labels[positions < 0]
        more = ", ..." if len(missing) > 3 else ""
        shown = ", ".join(str(label) for label in missing[:3])
        raise InvalidInputError(f"X has no row for {shown}{more}: {reason}")
    rows: pd.DataFrame = X.iloc[positions]
    return rows


def rows_ahead(X: pd.DataFrame | None, instance: Instance) -> pd.DataFrame:
    if X is None:
        raise InvalidInputError(f"X has no rows for {instance_name(instance.key)}")
    reason = (
        f"{instance_name(instance.key)} needs its known-future columns at all steps from 1 to "
        f"{len(instance.ahead)}, also those between the steps of fh"
    )
    return rows_at(X, instance.ahead, reason)


def panel_frequency(table: pd.DataFrame, end: pd.Timestamp | None = None) -> Any:
    """Return a frequency that a series tells, of one with this end if possible, or None.

    It is for series that are too short to tell their own; `end` is one of its steps.
    """
    times = table.index.get_level_values(-1)
    if not isinstance(times, pd.DatetimeIndex):
        return None
    parts = [times[places] for places in _places(table).values()]
    for part in sorted(parts, key=lambda part: part[-1] != end):
        found = told_frequency(part)
        if found is not None and (end is None or to_offset(found).is_on_offset(end)):
            return found
    return None


def steps_of(fh: ForecastingHorizon, grid: Any, name: str) -> tuple[NDArray[np.int64], pd.Index]:
    """Steps after the end of an instance's time index that a horizon asks for, and their labels."""
    if fh.is_relative and not isinstance(fh.to_pandas(), pd.TimedeltaIndex):
        steps = fh.to_numpy().astype(np.int64)
        return steps, labels_at(grid, steps)
    # a horizon keeps the frequency of the first cutoff that it meets
    own = ForecastingHorizon(fh.to_pandas(), fh.is_relative, freq=grid[-1:])
    labels = own.to_absolute_index(grid[-1:])
    if not isinstance(labels, pd.DatetimeIndex):
        return own.to_relative(grid[-1:]).to_numpy().astype(np.int64), labels
    # sktime would count in periods, which some frequencies lack, and which hold other time stamps
    if labels.tz != grid.tz:
        raise InvalidInputError(
            f"fh has the time zone {labels.tz}, but {name} has {grid.tz}; "
            "give fh the time zone of the series"
        )
    ahead = pd.date_range(grid[-1], max(labels[-1], grid[-1]), freq=grid.freq)
    positions = grid.append(ahead[1:]).get_indexer(labels)
    strange = labels[(positions < 0) & (labels >= grid[0])]
    if len(strange):
        raise InvalidInputError(
            f"fh asks for {strange[0]}, which is no step of {name}: it ends at {grid[-1]} and has "
            f"the frequency {grid.freqstr!r}"
        )
    return (positions - (len(grid) - 1)).astype(np.int64), labels


def positions_of(instance: Instance, length: int) -> NDArray[np.intp]:
    """Positions of the steps that are in sample, in the last `length` points of the context."""
    kept = instance.y.index[-length:]
    positions: NDArray[np.intp] = instance.steps[instance.steps < 1] + len(kept) - 1
    if (positions < 0).any():
        raise InvalidInputError(
            f"fh asks for {instance.labels[0]}, but the context of {instance_name(instance.key)} "
            f"starts at {kept[0]}: in-sample forecasts reach back to its first point, and it has "
            f"the last {len(kept)} points (context_length, at most what the network can read)"
        )
    return positions


def in_order(
    before: NDArray[Number], after: NDArray[Number], instances: list[Instance]
) -> NDArray[Number]:
    """Rows of a horizon, instance by instance, from in-sample rows and (series, horizon, ...)."""
    parts, start = [], 0
    for instance, ahead in zip(instances, after, strict=True):
        stop = start + int((instance.steps < 1).sum())
        parts += [before[start:stop], ahead[instance.steps[instance.steps > 0] - 1]]
        start = stop
    return np.concatenate(parts)


def target_values(instance: Instance, length: int | None = None) -> Array:
    """Values (time, variate), of which the last `length`, or all, must not all be missing."""
    values = numbers(instance.y, instance_name(instance.key))
    missing = np.isnan(values[-(length or len(values)) :]).all(0)
    for column in instance.y.columns[np.flatnonzero(missing)]:
        where = "" if length is None or len(values) <= length else f" among its last {length}"
        raise InvalidInputError(
            f"{instance_name(instance.key)} has only missing values in column {column!r}{where}; "
            "drop it or give a value"
        )
    return values


def numbers(table: pd.DataFrame, name: str) -> Array:
    try:
        values = read_numbers(table)
    except TypeError as error:
        raise InvalidInputError(f"{name} must hold real numbers or categories: {error}") from error
    infinite = table.index[np.flatnonzero(np.isinf(values).any(1))]
    if len(infinite):
        raise InvalidInputError(f"{name} is infinite at {infinite[0]}; use NaN for a missing value")
    return values


def instance_name(key: tuple[Any, ...]) -> str:
    """What messages call an instance."""
    if not key:
        return "the series"
    return f"instance {key[0] if len(key) == 1 else key!r}"
