"""What times tell: their frequency, season, grid, time zone, and the labels to come."""

from __future__ import annotations

import re
import zoneinfo
from collections.abc import Iterator
from datetime import timedelta, timezone
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from moirai_moe_forecaster.errors import InvalidInputError

# steps per season, by alias of pandas, old and new; the season is an hour of seconds, a day of
# minutes or hours, five business days, a year of months or quarters, and one step of the others:
# the convention of GluonTS, which the Chronos benchmark and the Moirai papers score by
_SEASONS = {
    **dict.fromkeys(("s", "S"), 3600),
    **dict.fromkeys(("min", "T"), 1440),
    **dict.fromkeys(("h", "H"), 24),
    "B": 5,
    **dict.fromkeys(("M", "ME", "MS", "BM", "BME", "BMS"), 12),
    **dict.fromkeys(("Q", "QE", "QS", "BQ", "BQE", "BQS"), 4),
    **dict.fromkeys(("ns", "us", "ms", "D", "C", "W", "SM", "SME", "SMS"), 1),
    **dict.fromkeys(("Y", "YE", "YS", "A", "AS", "BY", "BYE", "BYS", "BA", "BAS"), 1),
}


def season_of(freq: str) -> int:
    """Season of a frequency in steps, such as 24 of "h", 96 of "15min", 12 of "MS", 1 of "D".

    Parameters
    ----------
    freq : str
        Alias of pandas. A multiple of a unit divides its season if it can, and has none otherwise.

    Raises
    ------
    InvalidInputError
        If it is no such alias.
    """
    match = re.fullmatch(r"(\d*)([A-Za-z]+)(-.+)?", freq)
    if match is None or match[2] not in _SEASONS:
        raise InvalidInputError(
            f"{freq!r} is no frequency; expected an alias of pandas such as 'h', '15min' or 'MS'"
        )
    season, step = _SEASONS[match[2]], int(match[1] or 1)
    return season // step if step and season % step == 0 else 1


def told_frequency(index: pd.Index) -> str | None:
    """Alias of the frequency that an index has, or that its times show; None of others."""
    if isinstance(index, pd.PeriodIndex):
        return str(index.freqstr)
    if not isinstance(index, pd.DatetimeIndex):
        return None
    return index.freqstr or (pd.infer_freq(index) if len(index) >= 3 else None)


def frequency_of(index: pd.Index) -> str | None:
    """Alias of the frequency of an index of times; None of other indexes.

    Raises
    ------
    InvalidInputError
        If the times are irregular or fewer than three.
    """
    freq = told_frequency(index)
    if freq is None and isinstance(index, pd.DatetimeIndex):
        raise InvalidInputError(
            f"the {len(index)} times from {index[0]} to {index[-1]} have no regular frequency; "
            "give seasonality= (1 for none), or an index with a frequency"
        )
    return freq


def grid_of(index: pd.Index, freq: Any, length: int, name: str) -> pd.Index:
    """Last `length` steps of an ascending index, with those that are absent from it.

    Parameters
    ----------
    index : Index
        Integers, periods or datetimes.
    freq : object
        Of datetimes that do not tell their own; may be None.
    length : int
    name : str
        Whose index it is, in messages.

    Raises
    ------
    InvalidInputError
        If datetimes stand on the grid of no frequency.
    """
    if isinstance(index, pd.PeriodIndex):
        return pd.period_range(index[0], index[-1], freq=index.freq)[-length:]
    if not isinstance(index, pd.DatetimeIndex):
        return pd.RangeIndex(index[0], index[-1] + 1)[-length:]
    for candidate in _candidates(index, freq, length):
        grid = (
            index[:0] if candidate is None else pd.date_range(index[0], index[-1], freq=candidate)
        )
        if index.equals(grid) or index.isin(grid).all():
            return grid[-length:]
    raise InvalidInputError(
        f"the time index of {name} has no frequency and none can be inferred from its "
        f"{len(index)} time stamps from {index[0]} to {index[-1]}; give it one with "
        "y.asfreq(...), which makes absent steps missing values"
    )


def _candidates(times: pd.DatetimeIndex, freq: Any, length: int) -> Iterator[Any]:
    yield times.freq
    yield told_frequency(times)
    if length < len(times):  # there may be a gap before those
        yield told_frequency(times[-length:])
    yield freq


def labels_at(grid: Any, steps: NDArray[np.int64]) -> pd.Index:
    """Labels of ascending steps after the end of a grid; 0 is its end."""
    if not len(steps):
        return grid[:0]
    first, last = min(int(steps[0]), 0), int(steps[-1])
    if isinstance(grid, pd.DatetimeIndex):
        # sktime adds one step at a time, which is slow and turns days into 24 hours
        start = grid[-1]
        if first < 0:
            start = pd.date_range(end=start, periods=1 - first, freq=grid.freq)[0]
        every: Any = pd.date_range(start, periods=last - first + 1, freq=grid.freq)
    elif isinstance(grid, pd.PeriodIndex):
        every = pd.period_range(grid[-1] + first, periods=last - first + 1, freq=grid.freq)
    else:
        every = pd.Index(np.arange(grid[-1] + first, grid[-1] + last + 1))
    start = steps[0] - first
    # a slice keeps the frequency
    return every[start:] if len(steps) == len(every) - start else every[steps - first]


def labels_after(index: pd.Index, count: int) -> pd.Index:
    """Labels of the steps after an index: of times, of equally spaced numbers, or positions.

    Raises
    ------
    InvalidInputError
        If it holds datetimes that show no frequency.
    """
    steps = np.arange(1, count + 1)
    if isinstance(index, pd.DatetimeIndex):
        freq = told_frequency(index)
        if freq is None:
            raise InvalidInputError(
                "the history's times have no regular frequency, so that it is not known which come "
                "next: pass the times of history and horizon as `index`"
            )
        return pd.date_range(index[-1], periods=count + 1, freq=freq)[1:]
    if isinstance(index, pd.PeriodIndex):
        return labels_at(index, steps)
    if index.dtype.kind not in "iuf":
        return pd.RangeIndex(len(index), len(index) + count)
    step = index[-1] - index[-2] if len(index) > 1 else 1
    return pd.Index(index[-1] + step * steps)


# one of each set of rules for the change of clocks, the most frequent first
ZONES = (
    *("Europe/Berlin", "Europe/London", "Europe/Athens", "Europe/Lisbon"),
    *("America/New_York", "America/Chicago", "America/Denver", "America/Los_Angeles"),
    *("America/Halifax", "America/St_Johns", "America/Anchorage", "America/Sao_Paulo"),
    *("Australia/Sydney", "Australia/Adelaide", "Pacific/Auckland", "America/Santiago"),
    *("Asia/Jerusalem", "Africa/Cairo", "America/Asuncion", "America/Havana", "Asia/Beirut"),
    *("Europe/Moscow", "Europe/Istanbul", "Europe/Chisinau", "Australia/Lord_Howe"),
)


def common_zone(universal: NDArray[np.int64], minutes: NDArray[np.int64]) -> Any:
    """Find the zone in which times have their offsets.

    Parameters
    ----------
    universal : ndarray of int64
        Microseconds of universal time.
    minutes : ndarray of int64
        Offset of each.

    Returns
    -------
    tzinfo or None
        A fixed offset, if all have the same one, else the first of `ZONES` that has them all.
    """
    if (minutes == minutes[0]).all():
        offset = int(minutes[0])
        return timezone(timedelta(minutes=offset)) if offset else timezone.utc
    times = pd.DatetimeIndex(universal.view("M8[us]")).tz_localize("UTC")
    for name in ZONES:
        try:
            zone = zoneinfo.ZoneInfo(name)
        except zoneinfo.ZoneInfoNotFoundError:
            continue
        local = times.tz_convert(zone).tz_localize(None).asi8
        if ((local - universal) // 60_000_000 == minutes).all():
            return zone
    return None
