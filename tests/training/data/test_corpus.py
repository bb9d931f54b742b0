"""Readers of corpora, what is held out, and how often each source is drawn."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from moirai_moe_forecaster.errors import InvalidInputError
from moirai_moe_forecaster.training.data.catalogue import LARGEST_SOURCE_SHARE, source_shares
from moirai_moe_forecaster.training.data.corpus import (
    Source,
    _flat,
    calendar_steps,
    corpus_from_frame,
    corpus_from_series,
    hold_out,
    read_corpus,
    relate,
)


def write(folder: Path, **columns: object) -> None:
    pa = pytest.importorskip("pyarrow", reason="needs the extra train")
    import pyarrow.parquet as parquet

    parquet.write_table(pa.table(columns), folder / "one.parquet")


def test_corpora_are_read_from_parquet(tmp_path: Path) -> None:
    write(tmp_path, unique_id=["a", "b"], y=[[1.0, 2.0, np.nan], [5.0]])
    (source,) = read_corpus(tmp_path, {"one": 2.0})
    np.testing.assert_array_equal(source.series(0), np.array([1, 2, np.nan], dtype=np.float32))
    np.testing.assert_array_equal(source.series(1), [5])
    assert source.relation is None
    (plain,) = read_corpus(tmp_path)
    assert source.weight == 2 * plain.weight
    (less,) = read_corpus(tmp_path, exclude={"one": ["a"]})
    assert less.lengths.tolist() == [1]
    np.testing.assert_array_equal(less.series(0), [5])
    with pytest.raises(InvalidInputError, match="no series"):
        read_corpus(tmp_path, exclude={"one": ["c"]})


def test_series_of_one_frequency_or_else_of_one_length_are_related(tmp_path: Path) -> None:
    starts = pd.to_datetime(["2020-01-01", "2020-01-03", "2020-01-01", None, None, None])
    write(
        tmp_path,
        y=[[1.0] * n for n in (3, 4, 3, 5, 5, 6)],
        freq=["D", "D", "MS", "D", "D", "D"],
        start=starts.to_numpy(),
    )
    (source,) = read_corpus(tmp_path)
    assert source.relation is not None
    assert source.clock is not None
    first, second, monthly, unknown, alike, other = source.relation.tolist()
    assert first == second
    assert unknown == alike
    assert len({first, monthly, unknown, other}) == 4
    assert source.clock[1] - source.clock[0] == 2


def test_corpora_that_are_none_are_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match=r"no \.parquet file"):
        read_corpus(tmp_path)
    write(tmp_path, x=[1.0])
    with pytest.raises(InvalidInputError, match="no column 'y'"):
        read_corpus(tmp_path)


def test_any_kind_of_lists_of_numbers_is_read(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow", reason="needs the extra train")
    fixed = pa.array([[1.0, 2.0], [3.0, 4.0]], pa.list_(pa.float64(), 2))
    for lists in (fixed, fixed.cast(pa.large_list(pa.float64())), [[1, 2], None, [3, 4]]):
        write(tmp_path, y=lists)
        (source,) = read_corpus(tmp_path)
        np.testing.assert_array_equal(source.points, [1, 2, 3, 4])
    assert source.lengths.tolist() == [2, 0, 2]


def test_lists_that_are_null_have_no_points_whatever_lies_behind_them() -> None:
    pa = pytest.importorskip("pyarrow", reason="needs the extra train")
    hidden = pa.array([False, True, False])
    lists = pa.ListArray.from_arrays([0, 2, 4, 5], pa.array([1.0, 2, 8, 9, 3]), mask=hidden)
    points, offsets = _flat(pa.chunked_array([lists]))
    assert points.tolist() == [1, 2, 3]
    assert offsets.tolist() == [0, 2, 2, 3]


@pytest.mark.parametrize("y", [[1.0, 2.0], [["a"], ["b"]], [[[1.0]], [[2.0]]]])
def test_columns_that_hold_no_lists_of_numbers_are_named(y: object, tmp_path: Path) -> None:
    write(tmp_path, y=y)
    with pytest.raises(InvalidInputError, match=r"column 'y' of one\.parquet must hold a list"):
        read_corpus(tmp_path)


def test_a_file_that_is_no_parquet_is_named(tmp_path: Path) -> None:
    (tmp_path / "spam.parquet").write_text("spam")
    with pytest.raises(InvalidInputError, match=r"spam\.parquet cannot be read as parquet"):
        read_corpus(tmp_path)


def test_names_of_sources_that_are_not_there_are_refused(tmp_path: Path) -> None:
    """A misspelled source would be trained on with the series that were to be left out."""
    write(tmp_path, y=[[1.0, 2.0]])
    with pytest.raises(InvalidInputError, match=r"no files of the sources \['two'\]"):
        read_corpus(tmp_path, exclude={"two": ["a"]})
    with pytest.raises(InvalidInputError, match=r"no files of the sources \['two'\]"):
        read_corpus(tmp_path, {"two": 2.0})
    with pytest.raises(InvalidInputError, match="no series"):  # there is no column unique_id
        read_corpus(tmp_path, exclude={"one": ["a"]})


@pytest.mark.parametrize("factor", [-1.0, np.nan, "3"])
def test_weights_that_are_none_are_refused(factor: Any) -> None:
    with pytest.raises(InvalidInputError, match="must be a number of at least 0"):
        corpus_from_series([np.zeros(3)], factor=factor)


def frame() -> pd.DataFrame:
    days = pd.to_datetime(["2020-01-03", "2020-01-01", "2020-01-03", "2020-01-02", "2020-01-05"])
    return pd.DataFrame(
        {
            "item_id": ["a", "a", "b", "b", "b"],
            "timestamp": days,
            "target": [3.0, 1.0, 20.0, 10.0, None],
            "other": [-3.0, -1.0, -20.0, -10.0, -40.0],
        }
    )


def test_a_frame_gives_a_series_per_item_in_order_of_time() -> None:
    source = corpus_from_frame(frame())
    np.testing.assert_array_equal(source.series(0), [1, 3])
    np.testing.assert_array_equal(source.series(1), [10, 20, np.nan])
    assert source.relation is not None
    assert source.relation[0] != source.relation[1]


def test_with_a_frequency_absent_rows_are_missing_and_items_share_a_calendar() -> None:
    source = corpus_from_frame(frame(), freq="D")
    np.testing.assert_array_equal(source.series(0), [1, np.nan, 3])
    np.testing.assert_array_equal(source.series(1), [10, 20, np.nan, np.nan])
    assert source.relation is not None
    assert source.clock is not None
    assert source.relation[0] == source.relation[1]
    assert source.clock[1] - source.clock[0] == 1


@pytest.mark.parametrize("freq", ["D", "h"])
@pytest.mark.parametrize("start", ["2020-03-28", "2020-10-24"])
@pytest.mark.filterwarnings("error")
def test_steps_with_a_time_zone_are_counted_over_changes_to_and_from_summer(
    freq: str, start: str
) -> None:
    times = pd.date_range(start, periods=72, freq=freq, tz="Europe/London")
    items = pd.DataFrame({"item_id": "a", "timestamp": times, "target": np.arange(72)})
    source = corpus_from_frame(items, freq=freq)
    np.testing.assert_array_equal(source.series(0), np.arange(72))


def test_columns_of_an_item_are_related_variates() -> None:
    source = corpus_from_frame(frame(), target_columns=["target", "other"], freq="D")
    np.testing.assert_array_equal(source.series(1), [-1, np.nan, -3])
    np.testing.assert_array_equal(source.series(3), [-10, -20, np.nan, -40])
    assert source.relation is not None
    assert source.relation.tolist() == [0, 0, 1, 1]


def test_frames_that_are_no_corpus_are_refused() -> None:
    with pytest.raises(InvalidInputError, match="no columns"):
        corpus_from_frame(frame(), target_columns="sales")
    with pytest.raises(InvalidInputError, match="item 'b' has two rows"):
        corpus_from_frame(pd.concat((frame(), frame().tail(1))))
    with pytest.raises(InvalidInputError, match="needs an id"):
        corpus_from_frame(frame().assign(item_id=None))
    with pytest.raises(InvalidInputError, match="needs an id"):
        corpus_from_frame(frame().head(0))
    with pytest.raises(InvalidInputError, match="column 'target' must hold numbers"):
        corpus_from_frame(frame().assign(target="spam"))


def test_any_iterable_of_arrays_is_a_corpus() -> None:
    source = corpus_from_series((np.arange(n) for n in (3, 5)), factor=3.0)
    assert source.lengths.tolist() == [3, 5]
    np.testing.assert_array_equal(source.series(1), np.arange(5))
    assert source.weight == pytest.approx(3 * 8**0.4)
    with pytest.raises(InvalidInputError, match="series 1 has shape"):
        corpus_from_series([np.zeros(3), np.zeros((2, 3))])
    with pytest.raises(InvalidInputError, match="no series"):
        corpus_from_series([])


def test_the_last_fifth_of_every_twentieth_series_is_held_out() -> None:
    lengths = np.arange(30, 130)
    points = np.arange(lengths.sum(), dtype=np.float32)
    whole = Source("numbers", points, np.append(0, lengths.cumsum()), 1.0)
    (kept,), validation = hold_out([whole])
    cut = whole.lengths - kept.lengths
    assert np.flatnonzero(cut).tolist() == [10, 30, 50, 70, 90]
    assert np.array_equal(cut[cut > 0], whole.lengths[cut > 0] // 5)
    assert np.shares_memory(kept.points, whole.points)
    (again,), _ = hold_out([kept])
    assert (again.lengths <= kept.lengths).all()
    for index, series in zip(np.flatnonzero(cut), validation, strict=True):
        np.testing.assert_array_equal(series, whole.series(index))
        np.testing.assert_array_equal(kept.series(index), series[: len(series) - len(series) // 5])


def test_no_source_is_drawn_more_often_than_the_cap() -> None:
    shares = source_shares([1, 2, 4, 1000, 500, *[1] * 20])
    assert shares.sum() == pytest.approx(1)
    assert shares.max() == pytest.approx(LARGEST_SOURCE_SHARE)
    assert shares[1] == pytest.approx(2 * shares[0])
    np.testing.assert_allclose(source_shares([1, 99]), [0.5, 0.5])
    np.testing.assert_allclose(source_shares([1, 0, 99]), [0.5, 0, 0.5])


FREQUENCIES = ["h", "15min", "D", "B", "W-MON", "2W", "14D", "MS", "2MS", "QS-OCT", "YS", "ME"]


@pytest.mark.parametrize("freq", FREQUENCIES)
def test_successive_times_of_a_frequency_have_successive_numbers(freq: str) -> None:
    times = pd.date_range("1968-02-05", periods=50, freq=freq).to_numpy()
    steps = calendar_steps(times, freq)
    assert (np.diff(steps) == 1).all()


def test_an_unknown_frequency_is_named() -> None:
    with pytest.raises(InvalidInputError, match="fortnightly"):
        calendar_steps(np.array(["2020-01-01"], dtype="datetime64[ns]"), "fortnightly")


def test_series_whose_calendar_is_not_known_are_related_by_length() -> None:
    start = np.array(["2020-01-01", "2020-01-02", "NaT", "2020-01-01"], dtype="datetime64[ns]")
    relation, clock = relate(["D", "D", "D", "nonsense"], start, np.array([5, 5, 5, 5]))
    assert relation[0] == relation[1]
    assert len(set(relation.tolist())) == 3
    assert clock[1] - clock[0] == 1
