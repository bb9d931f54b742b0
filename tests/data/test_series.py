from __future__ import annotations

import warnings
from datetime import datetime
from typing import Any

import numpy as np
import pandas as pd
import pytest

from moirai_moe_forecaster.data.series import Series, read_series
from moirai_moe_forecaster.errors import InvalidInputError

ONE = np.array([3.0, 1.0, np.nan, 4.0])
TWO = np.array([[1.0, 2.0], [3.0, np.nan], [5.0, 6.0]])
DATES = pd.date_range("2020-01-01", periods=3)


def panel(columns: int) -> pd.DataFrame:
    """Instances "b" and "a", in this order, of three and two points."""
    index = pd.MultiIndex.from_tuples([("b", 0), ("b", 1), ("b", 2), ("a", 7), ("a", 8)])
    values = np.arange(5.0 * columns).reshape(5, columns)
    return pd.DataFrame(values, index=index, columns=list("xyz")[:columns])


@pytest.mark.parametrize(
    ("y", "expected", "single", "univariate"),
    [
        (ONE, [ONE[None]], True, True),
        (list(ONE), [ONE[None]], True, True),
        (tuple(ONE), [ONE[None]], True, True),
        (range(3), [[[0, 1, 2]]], True, True),
        (TWO, [TWO.T], True, False),
        (ONE[:, None], [ONE[None]], True, False),
        ([ONE], [ONE[None]], False, True),
        ([ONE, ONE[:1]], [ONE[None], ONE[None, :1]], False, True),
        ((ONE, list(ONE)), [ONE[None], ONE[None]], False, True),
        ([ONE, TWO], [ONE[None], TWO.T], False, False),
        (pd.Series(ONE, name="sales"), [ONE[None]], True, True),
        (pd.DataFrame(TWO, index=DATES), [TWO.T], True, False),
        ([pd.Series(ONE), pd.Series(ONE)], [ONE[None], ONE[None]], False, True),
        (panel(1)["x"], [[[0, 1, 2]], [[3, 4]]], False, True),
        (panel(2), [[[0, 2, 4], [1, 3, 5]], [[6, 8], [7, 9]]], False, False),
    ],
)
def test_every_form_becomes_variates_by_time(
    y: Any, expected: list[Any], single: bool, univariate: bool
) -> None:
    batch = read_series(y, 1)
    assert (batch.single, batch.univariate) == (single, univariate)
    assert len(batch.series) == len(expected)
    for series, values in zip(batch.series, expected, strict=True):
        np.testing.assert_array_equal(series.target, values)
        assert series.target.dtype == np.float64
        assert series.past.shape == (0, series.target.shape[1])
        assert series.future.shape == (0, series.target.shape[1] + 1)


def test_instances_of_several_levels_are_told_apart() -> None:
    index = pd.MultiIndex.from_product([["s", "t"], [1, 2], DATES])
    batch = read_series(pd.Series(np.arange(12.0), index=index), 1)
    assert [series.target.tolist() for series in batch.series] == [
        [[3.0 * i, 3.0 * i + 1, 3.0 * i + 2]] for i in range(4)
    ]


@pytest.mark.parametrize(
    ("y", "expected"),
    [
        (np.array([1, 2, 3], dtype=np.int8), [1, 2, 3]),
        (np.array([2**40, 1], dtype=np.uint64), [2.0**40, 1]),
        (np.array([True, False]), [1, 0]),
        (np.array([0.5, 1.5], dtype=np.float32), [0.5, 1.5]),
        (np.array([0.5, 1.5], dtype=np.float16), [0.5, 1.5]),
        (pd.Series([1, None, 3], dtype="Int64"), [1, np.nan, 3]),
        (pd.Series([True, None], dtype="boolean"), [1, np.nan]),
        ([1, None, 3], [1, np.nan, 3]),
        (np.ma.masked_array([1.0, 2.0, 1e9], mask=[False, False, True]), [1, 2, np.nan]),
    ],
)
def test_numbers_of_any_type(y: Any, expected: list[float]) -> None:
    np.testing.assert_array_equal(read_series(y, 1).series[0].target, [expected])


BAD: dict[str, tuple[Any, str]] = {
    "none": (None, "y has 0 dimensions"),
    "number": (5.0, "y has 0 dimensions"),
    "string": ("abc", "y has 0 dimensions"),
    "dict": ({"a": [1, 2]}, "y has 0 dimensions"),
    "three dimensions": (np.zeros((2, 3, 4)), "y has 3 dimensions"),
    "empty list": ([], "no series"),
    "empty array": (np.array([]), "y is empty"),
    "no variates": (np.empty((5, 0)), "y is empty"),
    "empty DataFrame": (pd.DataFrame(), "y is empty"),
    "empty panel": (panel(1)[:0], "no series"),
    "empty in list": ([ONE, []], r"y\[1\] is empty"),
    "all missing": ([np.nan, np.nan], "y holds only missing"),
    "all missing in list": ([ONE, np.full(3, np.nan)], r"y\[1\] holds only missing"),
    "all missing in panel": (panel(1).mask(panel(1) > 2), r"y\[1\] holds only missing"),
    "missing variate": (np.array([[1.0, np.nan]]), "y holds only missing values in variate 1"),
    "missing variate in list": ([ONE, TWO * [1, np.nan]], r"y\[1\] .* in variate 1"),
    "infinite": ([1.0, -np.inf], "y is infinite at position 1"),
    "infinite in list": ([ONE, [np.inf]], r"y\[1\] is infinite at position 0"),
    "infinite in Series": (pd.Series([1, np.inf]), "y is infinite at position 1"),
    "infinite variate": ([TWO, TWO * [1, np.inf]], r"y\[1\] is infinite"),
    "strings": (["1", "2"], "y must hold real numbers"),
    "array of strings": (np.array(["1", "2"]), "y must hold real numbers"),
    "strings in list": ([ONE, ["a", "b"]], r"y\[1\] must hold real numbers"),
    "bytes": (np.array([b"1"]), "y must hold real numbers"),
    "objects": (np.array([object()]), "y must hold real numbers"),
    "strings as objects": (np.array(["1", "2"], dtype=object), "y must hold real numbers"),
    "dates as objects": (np.array([datetime(2020, 1, 1)]), "y must hold real numbers"),
    "complex as objects": (np.array([1j, 2], dtype=object), "y must hold real numbers"),
    "too large for a float": (np.array([10**400, 1], dtype=object), "y must hold real numbers"),
    "complex": (np.array([1j, 2.0]), "y must hold real numbers"),
    "dates": (np.array(["2020-01-01"], dtype="M8[D]"), "y must hold real numbers"),
    "durations": (np.array([1, 2], dtype="m8[D]"), "y must hold real numbers"),
    "records": (np.zeros(3, dtype=[("a", float)]), "y must hold real numbers"),
    "Series of strings": (pd.Series(["1", "2"]), "y must hold real numbers"),
    "Series of string objects": (pd.Series(["1", "2"], dtype=object), "y must hold real numbers"),
    "Series of dates": (pd.Series(DATES), "y must hold real numbers"),
    "Series of durations": (pd.Series(DATES - DATES[0]), "y must hold real numbers"),
    "Series of complex": (pd.Series([1j, 2.0]), "y must hold real numbers"),
    "column of strings": (pd.DataFrame({"a": [1.0, 2], "b": ["1", "2"]}), "real numbers"),
    "column of dates": (pd.DataFrame({"a": [1.0, 2, 3], "b": DATES}), "real numbers"),
    "ragged": ([[[1, 2], [3]]], r"y\[0\]"),
}


@pytest.mark.filterwarnings("ignore::numpy.exceptions.ComplexWarning")
@pytest.mark.parametrize("case", BAD)
def test_bad_series_are_refused_by_name(case: str) -> None:
    y, message = BAD[case]
    with pytest.raises(InvalidInputError, match=message):
        read_series(y, 1)


def test_covariates_are_laid_out_beside_their_series() -> None:
    rng = np.random.default_rng(0)
    past = [rng.normal(size=(4, 2)), rng.normal(size=(3, 2))]
    future = [rng.normal(size=5), rng.normal(size=4)]
    batch = read_series([ONE, TWO], 1, past, future)
    for series, past_one, future_one in zip(batch.series, past, future, strict=True):
        np.testing.assert_array_equal(series.past, past_one.T)
        np.testing.assert_array_equal(series.future, future_one[None])


def test_covariates_may_be_missing_throughout() -> None:
    batch = read_series(ONE, 2, np.full(4, np.nan), np.full((6, 2), np.nan))
    assert np.isnan(batch.series[0].past).all()
    assert np.isnan(batch.series[0].future).all()


@pytest.mark.parametrize(
    ("y", "past", "future", "message"),
    [
        (ONE, None, np.zeros(5), r"future_covariates has 5 rows; expected 6 \(context \+ horizon"),
        (ONE, None, np.zeros(4), "future_covariates has 4 rows; expected 6"),
        (ONE, None, np.zeros(7), "future_covariates has 7 rows; expected 6"),
        (ONE, np.zeros(6), None, r"past_covariates has 6 rows; expected 4 \(context\)"),
        (ONE, [np.zeros(4)], None, "past_covariates is 1 series; expected one array"),
        ([ONE], np.zeros(4), None, "past_covariates is one array; expected a list of 1"),
        ([ONE, ONE], [np.zeros(4)], None, "past_covariates is 1 series; expected a list of 2"),
        ([ONE], None, [np.zeros(6)] * 2, "future_covariates is 2 series; expected a list of 1"),
        ([ONE, TWO], None, [np.zeros(6)] * 2, r"future_covariates\[1\] has 6 rows; expected 5"),
        (ONE, np.full(4, np.inf), None, "past_covariates is infinite at position 0"),
        ([ONE], [np.zeros((4, 2, 1))], None, r"past_covariates\[0\] has 3 dimensions"),
        (ONE, np.array(list("abcd")), None, "past_covariates must hold real numbers"),
        (ONE, {"a": np.zeros(4)}, None, "past_covariates has 0 dimensions"),
    ],
)
def test_covariates_that_do_not_fit_are_refused(
    y: Any, past: Any, future: Any, message: str
) -> None:
    with pytest.raises(InvalidInputError, match=message):
        read_series(y, 2, past, future)


def test_a_panel_of_covariates_is_matched_by_instance_or_refused() -> None:
    """Never by the order in which its instances happen to stand."""
    y = pd.Series(range(6), index=pd.MultiIndex.from_product([["b", "a"], DATES]), dtype=float)
    try:
        batch = read_series(y, 1, past_covariates=pd.concat([y[["a"]], y[["b"]]]))
    except InvalidInputError:
        return
    for series in batch.series:
        np.testing.assert_array_equal(series.past, series.target)


def test_a_table_that_is_much_wider_than_long_is_warned_of() -> None:
    for wide in (np.zeros((1, 50)), np.zeros((3, 100)), [np.zeros((2, 30))]):
        with pytest.warns(UserWarning, match=r"pass a list of them.*y\.T"):
            read_series(wide, 1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        read_series(np.zeros((20, 50)), 1)
        read_series(np.zeros((1, 3)), 1)
        read_series(np.zeros((50, 1)), 1)


def test_times_out_of_order_are_refused() -> None:
    series = pd.Series(np.arange(9.0), pd.date_range("2024", periods=9))
    shuffled = series.sample(frac=1, random_state=0)
    for data in (
        shuffled,
        shuffled.to_frame(),
        series[::-1],
        shuffled.to_period("D"),
        [series, shuffled],
        pd.concat({"a": series, "b": shuffled}),
    ):
        with pytest.raises(InvalidInputError, match=r"do not ascend.*sort_index"):
            read_series(data, 1)
    with pytest.raises(InvalidInputError, match="do not differ"):
        read_series(pd.concat([series, series]).sort_index(), 1)
    # an hour that the clock on the wall has twice, in order as it is
    wall = pd.date_range("2024-10-25", periods=500, freq="15min", tz="Europe/Berlin")
    read_series(pd.Series(np.arange(500.0), wall.tz_localize(None)), 1)
    # rows of a table that was sorted by another column are in order
    read_series(shuffled.reset_index(drop=True).sample(frac=1, random_state=1), 1)


@pytest.mark.parametrize(
    "times", [np.arange(1990, 1999), np.arange(1.0, 10.0), pd.date_range("2024", periods=9)]
)
@pytest.mark.parametrize("name", ["year", "Date", "ds"])
def test_a_column_of_times_is_no_variate(name: str, times: Any) -> None:
    table = pd.DataFrame({name: times, "v": np.arange(9.0)})
    with pytest.raises(InvalidInputError, match=rf"'{name}' .*set_index"):
        read_series(table, 1)
    read_series(table.set_index(name), 1)


def test_last_keeps_the_end_of_the_context_and_all_of_the_future() -> None:
    target, future = np.arange(10.0)[None], np.arange(13.0)[None]
    cut = Series(target, target * 2, future).last(4)
    np.testing.assert_array_equal(cut.target, [[6, 7, 8, 9]])
    np.testing.assert_array_equal(cut.past, [[12, 14, 16, 18]])
    np.testing.assert_array_equal(cut.future, [[6, 7, 8, 9, 10, 11, 12]])
    short = Series(target, target, future).last(99)
    assert short.target.shape == (1, 10)
