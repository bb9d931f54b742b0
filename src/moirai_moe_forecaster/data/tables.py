"""Files of tables: .parquet, and .csv in whichever dialect, told from the file itself."""

from __future__ import annotations

import bz2
import codecs
import csv
import gzip
import io
import logging
import lzma
import warnings
import zipfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from moirai_moe_forecaster.data.dates import DateError, find_form
from moirai_moe_forecaster.data.endings import PARQUET_ENDINGS, endings
from moirai_moe_forecaster.errors import InvalidInputError, MissingExtraError

log = logging.getLogger(__name__)

SEPARATORS = ",;\t|"
SAMPLE_LINES = 200
_OPEN: dict[str, Any] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open, "": open}
_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


@dataclass(frozen=True, kw_only=True)
class Dialect:
    """How a file of text is written; what is None is told from the file.

    Attributes
    ----------
    separator : str, optional
        Between fields.
    decimal : {".", ","}, optional
    encoding : str, optional
        As Python names it.
    """

    separator: str | None = None
    decimal: str | None = None
    encoding: str | None = None


def load_table(path: Path, dialect: Dialect) -> tuple[pd.DataFrame, Dialect | None]:
    """Load a table.

    Parameters
    ----------
    path : Path
    dialect : Dialect
        What is known of a file of text.

    Returns
    -------
    DataFrame
        Of a file of text, all columns are text as it stands there, and rows are known by their
        lines.
    Dialect or None
        Of a file of text: separator and encoding that it was read with.

    Raises
    ------
    InvalidInputError
        If it cannot be read, or has no rows or no line of names.
    MissingExtraError
        If it is of parquet and pyarrow is not installed.
    """
    if endings(path)[0] in PARQUET_ENDINGS or path.is_dir():
        try:
            return pd.read_parquet(path), None
        except ImportError as error:
            raise MissingExtraError("pyarrow", "train", f"reading {path}") from error
        except ValueError as error:
            raise InvalidInputError(f"{path} cannot be read: {error}") from error
    text, encoding = _decoded(_bytes(path), dialect.encoding, path)
    lines = text.split("\n", SAMPLE_LINES)[:SAMPLE_LINES]
    if lines[0].lower().startswith("sep=") and len(lines[0].strip()) == 5:  # as Excel writes it
        dialect = replace(dialect, separator=dialect.separator or lines[0][4])
        text, lines = text.partition("\n")[2], lines[1:]
    separator = dialect.separator or find_separator(lines)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", pd.errors.ParserWarning)
            table = pd.read_csv(
                io.StringIO(text),
                sep=separator,
                dtype=str,
                keep_default_na=False,
                skipinitialspace=True,
                index_col=False,
            )
    except pd.errors.EmptyDataError:
        table = pd.DataFrame()
    except (ValueError, pd.errors.ParserWarning) as error:
        raise InvalidInputError(
            f"{path} cannot be read with {separator!r} between fields: {error}; say how fields are "
            "separated with --sep"
        ) from error
    if table.empty:
        raise InvalidInputError(f"{path} has no rows; give a line of column names and one per time")
    if all(map(_is_number, table.columns)) or any(map(_is_date, table.columns)):
        raise InvalidInputError(
            f"the first line of {path} holds numbers or dates, {list(table.columns)[:5]}; give it "
            "a line of column names"
        )
    log.info("%s: %s, fields separated by %r", path, encoding, separator)
    table.columns = pd.Index([str(name).strip() for name in table.columns])
    known = replace(dialect, separator=separator, encoding=encoding)
    return table.set_axis(range(2, len(table) + 2)), known


def _bytes(path: Path) -> bytes:
    compression = endings(path)[1]
    if compression != ".zip":
        with _OPEN[compression](path, "rb") as file:
            return file.read()
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        if len(names) != 1:
            raise InvalidInputError(f"{path} holds {len(names)} files; expected one")
        return archive.read(names[0])


def _decoded(raw: bytes, encoding: str | None, path: Path) -> tuple[str, str]:
    """Decode by what is said, the mark at the beginning, UTF-8, or else Western European."""
    names = [encoding] if encoding else [name for mark, name in _MARKS if raw.startswith(mark)][:1]
    if not names:
        even, odd = raw[:4096:2].count(0), raw[1:4096:2].count(0)
        wide = "utf-16-le" if odd > even else "utf-16-be"
        names = [wide] if max(even, odd) > len(raw[:4096]) // 4 else ["utf-8", "cp1252", "latin-1"]
    for name in names:
        try:
            return raw.decode(name), name
        except LookupError as error:
            raise InvalidInputError(f"the encoding {name!r} is not known") from error
        except UnicodeDecodeError as error:
            reason = error
    raise InvalidInputError(f"{path} is not written in {names[0]}: {reason}; say --encoding")


def find_separator(lines: list[str]) -> str:
    """Find what separates fields: what stands in the line of names, or what the sniffer finds."""
    header = lines[0]
    outside = "".join(header.split('"')[::2])
    present = [mark for mark in SEPARATORS if mark in outside]
    if len(present) == 1:
        return present[0]
    if not present:
        return ","
    try:
        return csv.Sniffer().sniff("\n".join(lines), "".join(present)).delimiter
    except csv.Error:
        return max(present, key=outside.count)


def _is_date(name: Any) -> bool:
    try:
        return find_form([str(name).strip()], dayfirst=True).kind == "dates"
    except DateError:
        return False


def _is_number(text: Any) -> bool:
    try:
        float(str(text).replace(",", "."))
    except ValueError:
        return False
    return True
