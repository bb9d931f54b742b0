"""The data of a command: a file, and which of its columns are what."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from moirai_moe_forecaster.cli.output import TABLES, file_type
from moirai_moe_forecaster.errors import InvalidInputError, MissingExtraError

if TYPE_CHECKING:
    import pandas as pd

# the names of AutoGluon and Chronos, and those of Nixtla
IDS, TIMESTAMPS, TARGETS = ("item_id", "unique_id"), ("timestamp", "ds"), ("target", "y")
STEP = "step"
ABOUT_DATA = """
    The data has one row per time, in any order: a column of times, one or more of values and,
    where there are several series, one of ids. Times may be dates, dates with hours, or integers.
    Missing rows and empty values are missing values. The first line of a .csv file names columns.
"""


class Data(NamedTuple):
    """A table and its columns; `id` is None where all rows are of one series."""

    table: pd.DataFrame
    id: str | None
    timestamp: str
    targets: list[str]

    @property
    def names(self) -> dict[str, Any]:
        """Arguments of `read_panel`."""
        return {"id_column": self.id, "timestamp_column": self.timestamp}


class Names(argparse.Action):
    """An option of several names, which says so where it would swallow the file of data."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: str | Sequence[Any] | None,
        option_string: str | None = None,
    ) -> None:
        """Keep the names."""
        names = [*(values or ())]
        if namespace.data is None and names and Path(names[-1]).suffix in TABLES:
            raise argparse.ArgumentError(
                self, f"takes {names[-1]!r} for a name; give the file of data before the options"
            )
        setattr(namespace, self.dest, names)


def add_data(parser: argparse.ArgumentParser) -> None:
    """Add the file and the options that name its columns."""
    # by itself argparse puts the file last, where an option of several names swallows it
    parser.usage = "%(prog)s DATA [options]"
    parser.add_argument(
        "data", type=file_type(TABLES), metavar="DATA", help="a .csv or .parquet file"
    )
    parser.add_argument(
        "--id", metavar="COLUMN", help=f"column of ids (default: {_either(IDS)}, if there is one)"
    )
    parser.add_argument(
        "--timestamp",
        metavar="COLUMN",
        help=f"column of times (default: {_either(TIMESTAMPS)}, if there is one; else rows in "
        "order)",
    )
    parser.add_argument(
        "--target",
        nargs="+",
        action=Names,
        metavar="COLUMN",
        help=f"one or more columns of values (default: {_either(TARGETS)})",
    )
    parser.add_argument(
        "--freq",
        metavar="ALIAS",
        help="frequency of the times, such as h, 15min, D, W or MS (default: inferred by series)",
    )


def read_data(arguments: argparse.Namespace, more: list[str] | None = None) -> Data:
    """Read the file and find its columns.

    Parameters
    ----------
    arguments : Namespace
        With the options of `add_data`.
    more : list of str, optional
        Further columns that the file must have.

    Raises
    ------
    InvalidInputError
        If the file cannot be read, or lacks a column.
    MissingExtraError
        If it is a parquet file and pyarrow is not installed.
    """
    table = read_file(arguments.data, arguments.id)
    identifier = arguments.id or _first(IDS, table)
    timestamp = arguments.timestamp or _first(TIMESTAMPS, table)
    targets = arguments.target or [_first(TARGETS, table) or TARGETS[0]]
    wanted = [*targets, *(more or []), *(name for name in (identifier, timestamp) if name)]
    if absent := [name for name in wanted if name not in table.columns]:
        raise InvalidInputError(
            f"{arguments.data} has no column {', '.join(map(repr, absent))}; it has "
            f"{', '.join(map(repr, table.columns))}: name yours with --id, --timestamp and --target"
        )
    if timestamp is None:
        groups = table.groupby(identifier or [0] * len(table), sort=False)
        table, timestamp = table.assign(**{STEP: groups.cumcount()}), STEP
    return Data(table, identifier, timestamp, targets)


def read_file(file: Path, identifier: str | None = None) -> pd.DataFrame:
    """Read a .csv or .parquet file; rows of a .csv file are known by their lines.

    Ids in a .csv file are text as it stands: "007" is not 7, and "NA" is not missing.
    """
    import pandas as pd

    names = (identifier,) if identifier else IDS

    try:
        if file.suffix != ".csv":
            return pd.read_parquet(file)
        table = pd.read_csv(file, converters=dict.fromkeys(names, _text))
    except ImportError as error:
        raise MissingExtraError("pyarrow", "train", f"reading {file}") from error
    except pd.errors.EmptyDataError:
        table = pd.DataFrame()
    except ValueError as error:
        raise InvalidInputError(f"{file} cannot be read: {error}") from error
    if table.empty:
        raise InvalidInputError(f"{file} has no rows; give a line of column names and one per time")
    return table.set_axis(range(2, len(table) + 2))


def read_freq(text: str | None) -> str | int | None:
    """Return a frequency as `predict_df` takes it: integer times have an integer one."""
    return int(text) if text is not None and text.isdecimal() else text


def _text(field: str) -> str | None:
    return field or None


def _first(names: tuple[str, ...], table: pd.DataFrame) -> str | None:
    return next((name for name in names if name in table.columns), None)


def _either(names: tuple[str, ...]) -> str:
    return " or ".join(names)
