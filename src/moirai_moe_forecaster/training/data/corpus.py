"""Corpora of series to train on: from parquet files, long DataFrames or any iterable of arrays."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from moirai_moe_forecaster.errors import InvalidInputError, MissingExtraError

if TYPE_CHECKING:
    import pandas as pd

log = logging.getLogger(__name__)

Array = NDArray[np.float32]
Integers = NDArray[np.int64]

SOURCE_POWER = 0.4
HELD_OUT_EVERY = 20
HELD_OUT_SHARE = 0.2
HELD_OUT_POINTS = 40

# frequencies of pandas whose steps are so many months
MONTHS = {"MS": 1, "ME": 1, "BMS": 1, "BME": 1, "QS": 3, "QE": 3, "BQS": 3, "BQE": 3}
MONTHS |= {"YS": 12, "YE": 12, "BYS": 12, "BYE": 12}


@dataclass(frozen=True)
class Source:
    """Series of one origin, end to end in one array: 4 bytes an observation.

    Attributes
    ----------
    name : str
    points : ndarray of float32, (points,)
        NaN where missing. May be a `numpy.memmap`: windows are read where they lie, so that a
        source may be larger than the memory.
    offsets : ndarray of int64, (series + 1,)
    weight : float
        How often the source is drawn, relative to others.
    relation : ndarray of int64, (series,), optional
        Series with the same number may stand in one window as its variates, the nearer in order
        the likelier. Without it none do.
    clock : ndarray of int64, (series,), optional
        Number of the first step of every series on a calendar that related ones share; without
        it they start together.
    held_out : ndarray of int64, (series,), optional
        How many points at the end of every series are not to be trained on.
    """

    name: str
    points: Array
    offsets: Integers
    weight: float
    relation: Integers | None = None
    clock: Integers | None = None
    held_out: Integers | None = None

    def series(self, index: int) -> Array:
        """Return one series (time,), without what is held out."""
        unseen = 0 if self.held_out is None else self.held_out[index]
        return self.points[self.offsets[index] : self.offsets[index + 1] - unseen]

    @property
    def lengths(self) -> Integers:
        """Length of every series, without what is held out."""
        lengths = np.diff(self.offsets)
        return lengths if self.held_out is None else lengths - self.held_out


def read_corpus(
    folder: str | Path,
    source_weights: Mapping[str, float] | None = None,
    exclude: Mapping[str, Collection[str]] | None = None,
) -> list[Source]:
    """Read a folder of parquet files, one row per series with a list column ``y``.

    A source is weighted by a root of its observations, so that none dominates. Where there are
    columns ``freq`` (an alias of pandas) and ``start``, series of one file and frequency are
    related along their calendar; where a start is not known, those of equal length are.

    Parameters
    ----------
    folder : str or Path
    source_weights : mapping, optional
        Factors on the weights, by file name without its ending.
    exclude : mapping, optional
        Values of the column ``unique_id`` to leave out, by file name without its ending.

    Raises
    ------
    InvalidInputError
        If the folder holds no parquet file, a file cannot be read or has no lists of numbers in a
        column ``y``, a weight is negative or no number, or a source that is named or a series to
        leave out is not there.
    MissingExtraError
        If pyarrow is not installed.
    """
    try:
        from pyarrow import parquet
        from pyarrow.lib import ArrowException
    except ImportError as error:
        raise MissingExtraError("pyarrow", "train", "reading a corpus") from error
    files = sorted(Path(folder).glob("*.parquet"))
    if not files:
        raise InvalidInputError(f"no .parquet file in {str(folder)!r}; expected one per source")
    factors, excluded = source_weights or {}, exclude or {}
    if absent := sorted((factors.keys() | excluded.keys()) - {file.stem for file in files}):
        raise InvalidInputError(f"{str(folder)!r} has no files of the sources {absent[:5]}")
    sources = []
    for file in files:
        try:
            columns = parquet.read_schema(file).names
            used = [name for name in ("unique_id", "freq", "start", "y") if name in columns]
            table = parquet.read_table(file, columns=used)
        except (ArrowException, OSError) as error:
            raise InvalidInputError(f"{file} cannot be read as parquet: {error}") from error
        if "y" not in columns:
            raise InvalidInputError(f"{file.name} has no column 'y' (a list of numbers per series)")
        if unwanted := set(excluded.get(file.stem, ())):
            names = table["unique_id"].to_pylist() if "unique_id" in columns else []
            if unknown := sorted(unwanted - set(names)):
                raise InvalidInputError(f"{file.name} has no series {unknown[:5]} to leave out")
            table = table.filter([name not in unwanted for name in names])
        try:
            points, offsets = _flat(table["y"])
        except (AttributeError, ArrowException, TypeError, ValueError) as error:
            raise InvalidInputError(
                f"column 'y' of {file.name} must hold a list of numbers per series, "
                f"got {table['y'].type}: {error}"
            ) from error
        source = Source(file.stem, points, offsets, _weight(points, factors.get(file.stem, 1.0)))
        if {"freq", "start"} <= set(columns):
            start = table["start"].to_numpy().astype("datetime64[ns]")
            relation, clock = relate(table["freq"].to_pylist(), start, source.lengths)
            source = replace(source, relation=relation, clock=clock)
        sources.append(source)
        log.info("%s: %d series, %d points", file.stem, len(offsets) - 1, len(points))
    return sources


def corpus_from_frame(
    frame: pd.DataFrame,
    *,
    id_column: str = "item_id",
    timestamp_column: str = "timestamp",
    target_columns: str | Sequence[str] = "target",
    freq: str | None = None,
    name: str = "frame",
    factor: float = 1.0,
) -> Source:
    """Make a source of a long DataFrame, one row per item and time.

    Parameters
    ----------
    frame : DataFrame
        In any order; the index is not used.
    id_column, timestamp_column : str
    target_columns : str or sequence of str
        Several columns of one item are related variates.
    freq : str, optional
        Alias of pandas. With it, steps without a row are missing values, and the items of a single
        column are related along their calendar. Without it, rows are taken as consecutive steps.
    name : str
    factor : float, default=1.0
        On the weight of the source, a root of its observations.

    Raises
    ------
    InvalidInputError
        If a column or an id is missing, a time is missing or occurs twice, a value is no number,
        or there is no row.
    """
    import pandas as pd

    targets = [target_columns] if isinstance(target_columns, str) else list(target_columns)
    if absent := [c for c in (id_column, timestamp_column, *targets) if c not in frame.columns]:
        raise InvalidInputError(f"the frame has no columns {absent}; it has {list(frame.columns)}")
    items, names = pd.factorize(frame[id_column])
    if not len(items) or (items < 0).any() or frame[timestamp_column].isna().any():
        raise InvalidInputError(f"every row needs an id in {id_column!r} and a time; got a gap")
    times, _ = pd.factorize(frame[timestamp_column], sort=True)
    order = np.lexsort((times, items))
    items, times = items[order], times[order]
    begins = np.flatnonzero(np.diff(items, prepend=-1))
    clock = np.arange(len(items)) - begins[items]
    if freq is not None:
        stamps = pd.DatetimeIndex(pd.to_datetime(frame[timestamp_column]))
        if stamps.tz is not None:
            # days begin by local time, and in UTC no hour occurs twice
            days = bool((stamps == stamps.normalize()).all())
            stamps = stamps.tz_localize(None) if days else stamps.tz_convert(None)
        times = clock = calendar_steps(stamps.to_numpy()[order].astype("datetime64[ns]"), freq)
    if (twice := (np.diff(items) == 0) & (np.diff(times) == 0)).any():
        item = names[items[1:][twice][0]]
        raise InvalidInputError(f"item {item!r} has two rows for one time; expected one each")
    first = clock[begins]
    lengths = clock[np.append(begins[1:], len(items)) - 1] - first + 1
    count = len(targets)
    offsets = np.append(0, np.repeat(lengths, count).cumsum()).astype(np.int64)
    points = np.full(offsets[-1], np.nan, dtype=np.float32)
    for column, target in enumerate(targets):
        at = offsets[items * count + column] + clock - first[items]
        try:
            values = frame[target].to_numpy(dtype=np.float32, na_value=np.nan)
        except (TypeError, ValueError) as error:
            raise InvalidInputError(f"column {target!r} must hold numbers: {error}") from error
        points[at] = values[order]
    related = np.arange(len(names)) if count > 1 or freq is None else np.zeros(len(names))
    relation = np.repeat(related.astype(np.int64), count)
    return Source(name, points, offsets, _weight(points, factor), relation, np.repeat(first, count))


def corpus_from_series(
    series: Iterable[ArrayLike], *, name: str = "series", factor: float = 1.0
) -> Source:
    """Make a source of any iterable of one-dimensional arrays, NaN where missing.

    Its points stand in memory twice until it is made.

    Raises
    ------
    InvalidInputError
        If an array is not one-dimensional, or there is none.
    """
    arrays = [np.asarray(values, dtype=np.float32) for values in series]
    for number, array in enumerate(arrays):
        if array.ndim != 1:
            raise InvalidInputError(
                f"series {number} has shape {array.shape}; expected one dimension: pass the "
                f"variates one by one, or use corpus_from_frame to keep them together"
            )
    if not arrays:
        raise InvalidInputError("there is no series to make a corpus of; got an empty iterable")
    offsets = np.append(0, np.cumsum([len(array) for array in arrays])).astype(np.int64)
    points = np.concatenate(arrays)
    return Source(name, points, offsets, _weight(points, factor))


def calendar_steps(times: NDArray[np.datetime64], freq: str) -> Integers:
    """Number times by the steps of a frequency, so that equal numbers are the same step.

    Raises
    ------
    InvalidInputError
        If `freq` is no frequency of pandas.
    """
    import pandas as pd

    try:
        offset = pd.tseries.frequencies.to_offset(freq)
        name = offset.base.freqstr.split("-")[0]
        fixed = {"D": pd.Timedelta(days=1), "W": pd.Timedelta(days=7)}
        if name in MONTHS:
            return times.astype("datetime64[M]").astype(np.int64) // (MONTHS[name] * offset.n)
        if name == "B":
            days = times.astype("datetime64[D]")
            return np.busday_count(np.datetime64("1970-01-01"), days) // offset.n
        step = fixed[name] if name in fixed else pd.Timedelta(f"1{name}")
    except (ValueError, AttributeError) as error:
        message = f"freq must be an alias of pandas such as 'h', got {freq!r}"
        raise InvalidInputError(message) from error
    return times.astype("datetime64[ns]").astype(np.int64) // (step.value * offset.n)


def relate(
    freqs: Sequence[str | None], start: NDArray[np.datetime64], lengths: Integers
) -> tuple[Integers, Integers]:
    """Tell which series belong together, as `Source` needs it.

    Parameters
    ----------
    freqs : sequence of str or None
        Aliases of pandas.
    start : ndarray of datetime64
        NaT where not known.
    lengths : ndarray of int64

    Returns
    -------
    relation, clock : ndarray of int64
        Series of one frequency share a number and a calendar; where the start or the frequency is
        not known, those of equal length do.
    """
    relation = np.zeros(len(lengths), dtype=np.int64)
    clock = np.zeros(len(lengths), dtype=np.int64)
    names = np.array([freq or "" for freq in freqs], dtype=object)
    classes: dict[tuple[str, int], int] = {}
    dated = ~np.isnat(start)
    for freq in set(names):
        among = (names == freq) & dated
        try:
            clock[among] = calendar_steps(start[among], freq)
        except InvalidInputError:
            dated &= ~among
    for index, freq in enumerate(names):
        key = (freq, 0 if dated[index] else int(lengths[index]))
        relation[index] = classes.setdefault(key, len(classes))
    return relation, clock


def hold_out(sources: Sequence[Source]) -> tuple[list[Source], list[Array]]:
    """Cut the last fifth off every twentieth series, to validate on.

    Returns
    -------
    training : list of Source
        Without those stretches.
    validation : list of ndarray
        Whole series, of which only the last fifth is unseen.
    """
    training, validation = [], []
    for source in sources:
        lengths = source.lengths
        chosen = np.arange(len(lengths)) % HELD_OUT_EVERY == HELD_OUT_EVERY // 2
        chosen &= lengths >= HELD_OUT_POINTS
        validation += [source.series(index) for index in np.flatnonzero(chosen).tolist()]
        unseen = np.where(chosen, (HELD_OUT_SHARE * lengths).astype(np.int64), 0)
        unseen += np.diff(source.offsets) - lengths
        training.append(replace(source, held_out=unseen))
    return training, validation


def _flat(column: Any) -> tuple[Array, Integers]:
    """Points and offsets of an arrow column of lists; a list that is null has no points."""
    lists = column.combine_chunks()
    # some of pyarrow's versions give one chunk instead of an array
    lists = lists.chunk(0) if hasattr(lists, "chunk") else lists
    lengths = lists.value_lengths().fill_null(0).to_numpy(zero_copy_only=False)
    with np.errstate(over="ignore"):  # what float32 cannot hold is infinite, and so missing
        points = lists.flatten().to_numpy(zero_copy_only=False).astype(np.float32, copy=False)
    return points, np.append(0, np.cumsum(lengths)).astype(np.int64)


def _weight(points: Array, factor: float) -> float:
    if not isinstance(factor, int | float) or not 0 <= factor < np.inf:
        raise InvalidInputError(
            f"the factor on a source's weight must be a number of at least 0, got {factor!r}"
        )
    return float(len(points) ** SOURCE_POWER) * factor
