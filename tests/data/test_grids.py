"""Times of long DataFrames that are easily misread: sparse ones, narrow types, wall clocks."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from moirai_moe_forecaster.data.panel import Columns, LongFrame, read_frame
from moirai_moe_forecaster.errors import InvalidInputError


def read(when: Any, **options: Any) -> LongFrame:
    df = pd.DataFrame({"when": when, "sold": np.arange(len(when)) * 1.0})
    return read_frame(df, Columns(None, "when", ["sold"], [], []), ahead=8, **options)


def ahead(when: Any, **options: Any) -> pd.Index:
    grids = read(when, **options).grids
    return grids.times(np.zeros(8, dtype=np.int64), grids.lengths[0] + np.arange(8))


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int16, "Int8"])
def test_times_to_come_do_not_wrap_in_a_narrow_type(dtype: Any) -> None:
    top = np.iinfo(str(dtype).lower() if isinstance(dtype, str) else dtype).max
    times = ahead(pd.Series(np.arange(top - 20, top + 1)).astype(dtype))
    assert times.tolist() == [top + step for step in range(1, 9)]
    assert ahead(pd.Series(np.arange(20)).astype(dtype)).dtype == pd.Series([], dtype=dtype).dtype


@pytest.mark.parametrize("count", [3, 12])
@pytest.mark.parametrize("freq", ["WOM-3FRI", "BMS", "BME"])
def test_calendars_only_pandas_knows_are_not_taken_for_gaps(freq: str, count: int) -> None:
    whole = pd.date_range("2015-01-03", periods=count + 8, freq=freq)
    frame = read(whole[:count])
    assert len(frame.values) == count
    assert ahead(whole[:count]).equals(whole[count:])


@pytest.mark.parametrize("step", ["6h", "12h"])
def test_hours_of_the_wall_clock_pass_daylight_saving(step: str) -> None:
    whole = pd.date_range("2023-03-20", periods=48, freq=step).tz_localize("Europe/Berlin")
    frame = read(whole[:40])
    assert len(frame.values) == 40
    assert [str(t) for t in ahead(whole[:40])] == [str(t) for t in whole[40:]]


def test_a_repeated_hour_of_the_wall_clock_keeps_both_rows() -> None:
    hours = pd.DatetimeIndex(["2023-10-29 00:30", "2023-10-29 01:30", "2023-10-30 01:30"], tz="UTC")
    frame = read(hours.tz_convert("Europe/Berlin"), freq="h")
    assert np.nansum(frame.values) == 3.0
    assert (~np.isnan(frame.values)).sum() == 3


@pytest.mark.parametrize(
    ("when", "options", "message"),
    [
        ([0, 1, 5, 1000, 10**5], {}, r"largest step that all fit is '1', which leaves 99996"),
        ([0, 1, 10**12], {}, "no regular frequency"),
        (pd.date_range("2024", periods=9), {"freq": "0D"}, "a step forward"),
        (pd.date_range("2024", periods=9), {"freq": "-1D"}, "a step forward"),
        (pd.date_range("2024", periods=9), {"freq": "ns"}, "a microsecond or longer"),
        (pd.date_range("2024", periods=9), {"freq": ["D"]}, "one frequency, or a dict"),
        (pd.date_range("2024", periods=9), {"freq": {None: None}}, "must be an alias of pandas"),
        (
            pd.date_range("1980", periods=9, freq="YS"),
            {"freq": "us"},
            "would have 252460800000001 steps",
        ),
        (np.array([2**63, 2**63 + 1], dtype=np.uint64), {}, "times above"),
    ],
)
def test_steps_that_cannot_be_meant_are_errors(when: Any, options: Any, message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        read(when, **options)
