"""Times as tables have them written: read as what they are, or refused with the remedy."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pandas as pd
import pytest

from moirai_moe_forecaster.data.panel import Columns, LongFrame, read_frame, read_panel
from moirai_moe_forecaster.errors import InvalidInputError

MONTHS = pd.date_range("2019-01-01", periods=64, freq="MS")
QUARTERS = pd.date_range("2019-01-01", periods=24, freq="QS")
WEEKS = pd.date_range("2019-12-30", periods=64, freq="7D")
DAYS = pd.date_range("2023-01-01", periods=64)
HOURS = pd.date_range("2024-01-30", periods=64, freq="h")
AHEAD = 4


def read(when: Any, **options: Any) -> LongFrame:
    """Read times beside the numbers from 0 on."""
    df = pd.DataFrame({"when": when})
    df["sold"] = np.arange(len(df)) * 1.0
    return read_frame(df, Columns(None, "when", ["sold"], [], []), ahead=AHEAD, **options)


def ahead(frame: LongFrame) -> pd.Index:
    length = int(frame.grids.lengths[0])
    return frame.grids.times(np.zeros(AHEAD, dtype=np.int64), length + np.arange(AHEAD))


def split(written: Any) -> tuple[Any, list[Any]]:
    """What is known, and what must be written next."""
    values = list(written)
    return written[:-AHEAD], values[-AHEAD:]


def iso(times: pd.DatetimeIndex, pattern: str) -> list[str]:
    calendar = times.isocalendar()
    pairs = zip(calendar["year"], calendar["week"], strict=True)
    return [pattern.format(y=year, w=week) for year, week in pairs]


WHOLE = {
    "months": MONTHS.strftime("%Y%m").astype(np.int64),
    "days": DAYS.strftime("%Y%m%d").astype(np.int64),
    "month ends": pd.date_range("2019", periods=40, freq="ME").strftime("%Y%m%d").astype(np.int64),
    "year ends": pd.date_range("2000", periods=24, freq="YE").strftime("%Y%m%d").astype(np.int64),
    "quarters": pd.Index([t.year * 10 + t.quarter for t in QUARTERS]),
    "weeks": pd.Index([int(text) for text in iso(WEEKS, "{y}{w:02d}")]),
    "days of the year": pd.Index(
        [t.year * 1000 + t.dayofyear for t in DAYS + pd.Timedelta("330D")]
    ),
    "hours": HOURS.strftime("%Y%m%d%H").astype(np.int64),
    "minutes": HOURS.strftime("%Y%m%d%H%M").astype(np.int64),
    "seconds": HOURS.strftime("%Y%m%d%H%M%S").astype(np.int64),
    "seconds since 1970": pd.Index(MONTHS.as_unit("s").asi8),
    "milliseconds since 1970": pd.Index(MONTHS.as_unit("ms").asi8),
    "nanoseconds since 1970": pd.Index(MONTHS.as_unit("ns").asi8),
}


@pytest.mark.parametrize("name", WHOLE)
def test_dates_written_as_numbers_are_dates(name: str) -> None:
    """They go on as dates do, and are written as they came, in the type they came in."""
    known, expected = split(WHOLE[name])
    frame = read(known)
    np.testing.assert_array_equal(frame.values[:, 0], np.arange(len(known)))
    assert ahead(frame).tolist() == expected
    for dtype in ("float64", "Int64", "int64[pyarrow]", "object"):
        if dtype == "float64" and max(expected) > 2**53:
            continue
        if "pyarrow" in dtype:
            pytest.importorskip("pyarrow")
        column = pd.Series(known).astype(dtype)
        frame = read(column)
        np.testing.assert_array_equal(frame.values[:, 0], np.arange(len(known)))
        assert ahead(frame).tolist() == expected
        assert dtype == "object" or str(ahead(frame).dtype) == dtype
    shuffled = read(pd.Series(known).sample(frac=1, random_state=0))
    assert ahead(shuffled).tolist() == expected


@pytest.mark.parametrize(
    "counters",
    [
        np.arange(60),
        np.arange(-30, 30),
        np.arange(202290, 202350),
        np.arange(100000, 100060),
        np.arange(1990, 2024),
        np.arange(0.0, 60.0),
        np.arange(10, 90, 2),
        np.arange(20191, 20195),
    ],
)
def test_counters_are_no_dates(counters: Any) -> None:
    step = counters[1] - counters[0]
    assert ahead(read(counters)).tolist() == [counters[-1] + step * k for k in range(1, 5)]
    # and whole numbers are counters if their frequency is said to be one
    months = WHOLE["months"][:12]
    assert ahead(read(months, freq=1)).tolist() == [201913, 201914, 201915, 201916]


def test_years_have_the_frequency_that_is_given() -> None:
    frame = read(np.array([1990, 1991, 1993]), freq="YS")
    assert ahead(frame).tolist() == [1994, 1995, 1996, 1997]
    assert len(frame.values) == 4


TEXT = {
    "2019-01": MONTHS.strftime("%Y-%m"),
    "2019/1": [f"{t.year}/{t.month}" for t in MONTHS],
    "201901": MONTHS.strftime("%Y%m"),
    "2019M01": MONTHS.strftime("%YM%m"),
    "2019-M1": [f"{t.year}-M{t.month}" for t in MONTHS],
    "2019:01": MONTHS.strftime("%Y:%m"),
    "01/2019": MONTHS.strftime("%m/%Y"),
    "01.2019": MONTHS.strftime("%m.%Y"),
    "01-19": MONTHS.strftime("%m-%y"),
    "Jan-19": MONTHS.strftime("%b-%y"),
    "jan 19": MONTHS.strftime("%b %y").str.lower(),
    "JAN2019": MONTHS.strftime("%b%Y").str.upper(),
    "January 2019": MONTHS.strftime("%B %Y"),
    "2019 Jan": MONTHS.strftime("%Y %b"),
    "2019Q1": [f"{t.year}Q{t.quarter}" for t in QUARTERS],
    "2019-Q1": [f"{t.year}-Q{t.quarter}" for t in QUARTERS],
    "2019 q1": [f"{t.year} q{t.quarter}" for t in QUARTERS],
    "Q1 2019": [f"Q{t.quarter} {t.year}" for t in QUARTERS],
    "Q1'19": [f"Q{t.quarter}'{t:%y}" for t in QUARTERS],
    "1Q19": [f"{t.quarter}Q{t:%y}" for t in QUARTERS],
    "2019:1": [f"{t.year}:{t.quarter}" for t in QUARTERS],
    "2020-W01": iso(WEEKS, "{y}-W{w:02d}"),
    "2020W1": iso(WEEKS, "{y}W{w}"),
    "W01 2020": iso(WEEKS, "W{w:02d} {y}"),
    "2019H1": [f"{t.year}H{(t.month + 5) // 6}" for t in QUARTERS[::2]],
    "2019": [str(year) for year in range(2019, 2049)],
    "FY2019": [f"FY{year}" for year in range(2019, 2049)],
}


@pytest.mark.parametrize("name", TEXT)
def test_months_quarters_weeks_and_years_in_text(name: str) -> None:
    written = list(TEXT[name])
    known, expected = split(written)
    assert known[0] == name
    frame = read(known)
    np.testing.assert_array_equal(frame.values[:, 0], np.arange(len(known)))
    assert ahead(frame).tolist() == expected
    # in any order, with spaces around
    order = np.random.default_rng(0).permutation(len(known))
    df = pd.DataFrame({"when": [f" {known[k]}" for k in order], "sold": order * 1.0})
    shuffled = read_frame(df, Columns(None, "when", ["sold"], [], []))
    np.testing.assert_array_equal(shuffled.values[:, 0], np.arange(len(known)))


@pytest.mark.parametrize(
    "pattern",
    [
        "%Y-%m-%d",
        "%Y/%m/%d",
        "%Y.%m.%d",
        "%Y%m%d",
        "%Y-%m-%dT%H:%M:%S",
        "%Y-%m-%d %H:%M:%S.%f",
        "%d/%m/%Y",
        "%m/%d/%Y",
        "%d-%m-%Y",
        "%d.%m.%Y",
        "%d.%m.%Y %H:%M",
        "%m/%d/%Y %I:%M %p",
        "%m/%d/%y",
        "%d %b %Y",
        "%d-%b-%y",
        "%d-%B-%Y",
        "%b %d, %Y",
        "%B %d %Y",
        "%A, %d %B %Y",
        "%Y-%b-%d",
        "%Y%m%dT%H%M%S",
        "%Y%m%d%H%M",
    ],
)
def test_full_dates_in_text_become_datetimes(pattern: str) -> None:
    frame = read(DAYS[:-AHEAD].strftime(pattern))
    np.testing.assert_array_equal(frame.values[:, 0], np.arange(60))
    assert ahead(frame).tolist() == DAYS[-AHEAD:].tolist()


@pytest.mark.parametrize("zone", ["Europe/Berlin", "America/New_York", "Australia/Sydney"])
@pytest.mark.parametrize("freq", ["h", "D"])
def test_offsets_that_change_with_the_clock_are_of_one_zone(zone: str, freq: str) -> None:
    times = pd.date_range("2024-01-30", "2024-12-30", freq=freq, tz=zone)
    frame = read([time.isoformat() for time in times[:-AHEAD]])
    assert len(frame.values) == len(times) - AHEAD
    assert [str(t) for t in ahead(frame)] == [str(t) for t in times[-AHEAD:]]


def test_offsets_of_no_one_zone_are_refused() -> None:
    with pytest.raises(InvalidInputError, match="several offsets from UTC"):
        read(["2024-01-01T00:00+01:00", "2024-01-02T00:00+07:00", "2024-01-03T00:00+03:30"])


TWELVE = pd.date_range("2023-01-01", periods=12, freq="MS")


@pytest.mark.parametrize("sign", ["/", "-"])
def test_day_or_month_first_is_never_guessed(sign: str) -> None:
    written = TWELVE.strftime(f"%d{sign}%m{sign}%Y")
    with pytest.raises(InvalidInputError, match=r"day or the month first.*dayfirst=True"):
        read(written)
    assert ahead(read(written, dayfirst=True))[0] == pd.Timestamp("2024-01-01")
    assert ahead(read(written, dayfirst=False))[0] == pd.Timestamp("2023-01-13")
    dots = TWELVE.strftime("%d.%m.%Y")
    assert ahead(read(dots))[0] == pd.Timestamp("2024-01-01")


def test_a_plan_is_read_as_the_history_is() -> None:
    """Though by itself its dates are ambiguous, and its weeks would be months."""
    from moirai_moe_forecaster.data.rows import read_rows

    for known, later in (
        (DAYS.strftime("%d/%m/%Y"), ["06/03/2023", "07/03/2023"]),
        (WHOLE["weeks"], [202112, 202201]),
    ):
        rows = read(known).rows
        clock = rows.clock
        plan = pd.DataFrame({"when": later})
        numbers = read_rows(plan, None, "when", (), (), "future_df", like=rows).clock.numbers
        step = np.diff(clock.numbers[:2])[0]
        assert (numbers > clock.numbers.max()).all()
        assert ((numbers - clock.numbers[0]) % step == 0).all()


@pytest.mark.parametrize(
    ("when", "message"),
    [
        (["2024-01-01", "2024-02-30"], "row 1 holds '2024-02-30'"),
        (["2024-01-01", "01.02.2024"], "row 1 holds '01.02.2024'"),
        (["0001-01-01", "0002-01-01"], "before 1700 or after 2200"),
        (["3001-01-01", "3002-01-01"], "before 1700 or after 2200"),
        (["2020-W54", "2021-W01"], "row 0 holds '2020-W54'"),
        (["13/13/2024", "14/14/2024"], "is no date|some dates"),
        (["13/01/2024", "01/13/2024"], "some dates have a month above 12"),
        (["01.13.2024", "01.14.2024"], "no date with the day first"),
        (["01/02/03", "02/02/03", "03/02/03"], "the day, the month or the year first"),
        (["01-02", "02-02", "03-02"], "which is the month and which the year"),
        (["Jan-01", "Jan-02", "Jan-03"], "years or days of a month"),
        (MONTHS.strftime("%b-") + (np.arange(64) // 12 * 13 + 10).astype(str), "either century"),
        (["Jan", "Feb", "Mar"], "row 0 holds 'Jan'"),
        (["10:00", "11:00"], "row 0 holds '10:00'"),
        (["1", "2", "3"], "row 0 holds '1'"),
        (np.array([1901, 1902, 1903, 1912, 2001, 2002]), "written as yymm"),
        (np.array([230101, 230201, 230301]), "written as yymmdd"),
        (np.array([1012023, 2012023, 13012023]), "written as ddmmyyyy"),
        (np.array([2000.0, 2000.25, 2000.5]), "row 1 has a fraction"),
        (np.array([2**63 - 9, 2**63 - 8]), "subtract the first one"),
        (np.array([-(2**63), 0, 2**63 - 1]), "subtract the first one"),
        (np.array([0, 2**61]), "do not fit into 64 bits"),
    ],
)
def test_what_may_be_misread_is_refused(when: Any, message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        read(when)


def test_objects_of_the_standard_library_leave_as_they_came() -> None:
    dates = ahead(read(list(DAYS[:-AHEAD].date)))
    assert dates.tolist() == list(DAYS[-AHEAD:].date)
    assert ahead(read(list(DAYS[:-AHEAD].to_pydatetime()))).tolist() == DAYS[-AHEAD:].tolist()
    pyarrow = pytest.importorskip("pyarrow")
    for dtype in (pd.ArrowDtype(pyarrow.date32()), pd.ArrowDtype(pyarrow.timestamp("ms"))):
        assert ahead(read(pd.Series(DAYS[:-AHEAD]).astype(dtype))).dtype == dtype


def test_a_panel_has_datetimes_whatever_the_table_writes() -> None:
    """So that sktime and seasons of backtests know their frequency."""
    for written in (WHOLE["months"], TEXT["Jan-19"], list(MONTHS.date)):
        df = pd.DataFrame({"timestamp": written, "target": np.arange(64.0)})
        panel = read_panel(df, id_column=None)
        assert panel.index.equals(MONTHS)


@pytest.mark.parametrize("freq", ["SMS", "SME"])
def test_semi_monthly_times(freq: str) -> None:
    times = pd.date_range("2023-01-01", periods=30, freq=freq)
    frame = read(times[:-AHEAD])
    assert len(frame.values) == 26
    assert ahead(frame).tolist() == times[-AHEAD:].tolist()


def one_moved(times: pd.DatetimeIndex, by: str) -> pd.Series[Any]:
    moved = pd.Series(times)
    moved[30] += pd.Timedelta(by)
    return moved


@pytest.mark.parametrize(
    ("when", "message"),
    [
        (one_moved(WEEKS, "1D"), r"63 rows go by weeks, and one does not: row 30 .*2020-07-28"),
        (one_moved(MONTHS, "1D"), r"63 rows go by months, and one does not: row 30 .*2021-07-02"),
        (one_moved(DAYS, "1h"), r"63 rows go by days, and one does not: row 30"),
        (one_moved(HOURS, "7min"), r"63 rows go by steps of 'h', and one does not: row 30"),
        (np.where(np.arange(64) == 30, 301, np.arange(64) * 10), "63 rows go by steps of 10"),
        (
            WEEKS + pd.to_timedelta(np.arange(64) % 3, "D"),
            r"go by steps of '8D', but row 3 .* does not follow the one before so",
        ),
    ],
)
def test_a_row_off_the_grid_is_named(when: Any, message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        read(when)


def test_gaps_are_warned_of_and_many_refused_unless_the_frequency_is_given() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        read(DAYS.delete([5, 6, 20]))
        read(DAYS[[0, *range(40, 64)]], freq="D")
        read(WEEKS[::1], freq="D")
    with pytest.warns(UserWarning, match=r"at frequency 'D', 12 of 64 steps are missing"):
        read(DAYS.delete(range(20, 32)))
    with pytest.raises(InvalidInputError, match=r"'D', which leaves 39 of 64 steps empty"):
        read(DAYS[[0, *range(40, 64)]])
