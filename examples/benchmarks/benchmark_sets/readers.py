"""Readers of the files that benchmark sets come in: .tsf, arrow and parquet."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from moirai_moe_forecaster.errors import InvalidInputError, MissingExtraError

Array = NDArray[np.float64]

ID_COLUMNS = ("unique_id", "item_id", "id")
VALUE_COLUMNS = ("y", "target")
# what the header of a .tsf file calls a frequency
TSF_FREQUENCIES = {
    "4_seconds": "4s",
    "minutely": "min",
    "10_minutes": "10min",
    "half_hourly": "30min",
    "hourly": "h",
    "daily": "D",
    "weekly": "W",
    "monthly": "MS",
    "quarterly": "QS",
    "yearly": "YS",
}


class SeriesFile(NamedTuple):
    """Series of one file.

    Attributes
    ----------
    series : list of ndarray, (time,)
        NaN is missing. The variates of a multivariate series follow each other.
    freq : str
        Alias of pandas, or nothing where the file does not tell.
    horizons : list of int, or None
        Of every series, where the file tells.
    """

    series: list[Array]
    freq: str = ""
    horizons: list[int] | None = None


def read_series_file(path: str | Path) -> SeriesFile:
    """Read a .tsf, .arrow or .parquet file, or a folder of .arrow files.

    An arrow file is one of `datasets`, or any stream or file of arrow, with one row per series, a
    list column ``target`` (of lists, where it is multivariate) and perhaps ``freq``. A parquet file
    is like that too, its column may be called ``y``, or long, with a column ``unique_id`` or
    ``item_id``, and one row per step, in order.

    Raises
    ------
    InvalidInputError
        If the file is none of these, or cannot be read as one.
    """
    file = Path(path)
    if file.is_dir():
        parts = [_read_table(_arrow_table(part), part) for part in sorted(file.glob("*.arrow"))]
        if not parts:
            raise InvalidInputError(f"the folder {file} holds no .arrow file")
        return SeriesFile([series for part in parts for series in part.series], parts[0].freq)
    if file.suffix == ".tsf":
        return read_tsf(file)
    if file.suffix == ".arrow":
        return _read_table(_arrow_table(file), file)
    if file.suffix == ".parquet":
        return _read_table(pd.read_parquet(file), file)
    raise InvalidInputError(f"{file} is no .tsf, .arrow or .parquet file")


def read_tsf(path: str | Path) -> SeriesFile:
    """Read a file of the Monash archive: a header of ``@`` lines, then one series per line.

    An attribute ``horizon`` of the series goes before one of the header. A question mark is a
    missing value.

    Raises
    ------
    InvalidInputError
        If a line is not as the header says.
    """
    attributes: list[str] = []
    header: dict[str, str] = {}
    series: list[Array] = []
    horizons: list[int] = []
    in_data = False
    # its authors wrote the files in several encodings; names of series are not looked at
    with open(path, encoding="latin-1") as lines:
        for number, line in enumerate(map(str.strip, lines), 1):
            if not line or line.startswith("#"):
                continue
            if in_data:
                *fields, values = line.split(":")
                if len(fields) != len(attributes):
                    raise InvalidInputError(
                        f"{path}, line {number}: got {len(fields)} attributes, expected those of "
                        f"the header, {attributes}"
                    )
                described = header | dict(zip(attributes, fields, strict=True))
                series.append(_tsf_values(values, f"{path}, line {number}"))
                if described.get("horizon"):
                    horizons.append(int(described["horizon"]))
            elif line.lower() == "@data":
                in_data = True
            elif line.startswith("@attribute"):
                attributes.append(line.split()[1])
            elif line.startswith("@"):
                name, _, value = line[1:].partition(" ")
                header[name.lower()] = value.strip()
    if not series:
        raise InvalidInputError(f"{path} has no series behind a line @data")
    freq = TSF_FREQUENCIES.get(header.get("frequency", ""), "")
    return SeriesFile(series, freq, horizons if len(horizons) == len(series) else None)


def _tsf_values(text: str, where: str) -> Array:
    try:
        return np.array([np.nan if value == "?" else float(value) for value in text.split(",")])
    except ValueError as error:
        raise InvalidInputError(f"{where} must end with numbers and '?': {error}") from error


def _arrow_table(file: Path) -> pd.DataFrame:
    try:
        import pyarrow as pa
    except ImportError as error:
        raise MissingExtraError("pyarrow", "train", "reading arrow files") from error
    with pa.memory_map(str(file)) as source:
        try:
            # what `datasets` writes; the other format has a footer
            table = pa.ipc.open_stream(source).read_all()
        except pa.ArrowInvalid:
            try:
                table = pa.ipc.open_file(source).read_all()
            except pa.ArrowInvalid as error:
                raise InvalidInputError(f"{file} cannot be read as arrow: {error}") from error
        frame: pd.DataFrame = table.to_pandas()
    return frame


def _read_table(frame: pd.DataFrame, file: Path) -> SeriesFile:
    columns = set(frame.columns)
    value = next((name for name in VALUE_COLUMNS if name in columns), None)
    if value is None or frame.empty:
        raise InvalidInputError(
            f"{file} needs rows and a column of {VALUE_COLUMNS}; it has {len(frame)} rows and the "
            f"columns {sorted(map(str, columns))}"
        )
    freq = str(frame["freq"].iloc[0]) if "freq" in columns else ""
    if hasattr(frame[value].iloc[0], "__len__"):
        return SeriesFile([series for row in frame[value] for series in _variates(row)], freq)
    identifier = next((name for name in ID_COLUMNS if name in columns), None)
    if identifier is None:
        raise InvalidInputError(
            f"{file} has one value per row; expected a column of {ID_COLUMNS} that says whose"
        )
    groups = frame.groupby(identifier, sort=False, observed=True)[value]
    return SeriesFile([group.to_numpy(dtype=np.float64) for _, group in groups], freq)


def _variates(row: Sequence[Any]) -> Iterable[Array]:
    """One array of a list of numbers, several of a list of lists."""
    if len(row) and hasattr(row[0], "__len__"):
        return [np.asarray(variate, dtype=np.float64) for variate in row]
    return [np.asarray(row, dtype=np.float64)]
