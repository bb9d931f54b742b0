"""The data of a command: a file, and which of its columns are what."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from moirai_moe_forecaster.data.endings import PARQUET_ENDINGS, TEXT_ENDINGS, is_table
from moirai_moe_forecaster.errors import InvalidInputError

if TYPE_CHECKING:
    import pandas as pd

    from moirai_moe_forecaster.data.tables import Dialect

# the names of AutoGluon and Chronos, and those of Nixtla
IDS, TIMESTAMPS, TARGETS = ("item_id", "unique_id"), ("timestamp", "ds"), ("target", "y")
STEP = "step"
ABOUT_DATA = """
    The data has one row per time, in any order: a column of times, one or more of values and,
    where there are several series, one of ids. Times may be dates, dates with hours, months,
    quarters, weeks, years or integers. Missing rows and empty values are missing values. The first
    line of a file of text names columns.
"""


@dataclass(frozen=True, kw_only=True)
class Data:
    """A table and its columns.

    Attributes
    ----------
    table : DataFrame
    id : str or None
        None where all rows are of one series.
    timestamp : str
    targets : list of str
    dialect : Dialect, optional
        Of a file of text.
    dayfirst, on_error
        As `read_panel` takes them.
    """

    table: pd.DataFrame
    id: str | None
    timestamp: str
    targets: list[str]
    dialect: Dialect | None
    dayfirst: bool | None
    on_error: str

    @property
    def names(self) -> dict[str, Any]:
        """Arguments of `read_panel`."""
        return {
            "id_column": self.id,
            "timestamp_column": self.timestamp,
            "dayfirst": self.dayfirst,
            "on_error": self.on_error,
        }


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
        if namespace.data is None and names and is_table(Path(names[-1])):
            raise argparse.ArgumentError(
                self, f"takes {names[-1]!r} for a name; give the file of data before the options"
            )
        setattr(namespace, self.dest, names)


def add_data(parser: argparse.ArgumentParser) -> None:
    """Add the file and the options that name its columns."""
    # by itself argparse puts the file last, where an option of several names swallows it
    parser.usage = "%(prog)s DATA [options]"
    parser.add_argument(
        "data",
        type=table_path,
        metavar="DATA",
        help="a .csv, .tsv, .txt or .parquet file, compressed or not, or a folder of .parquet",
    )
    parser.add_argument(
        "--id", metavar="COLUMN", help=f"column of ids (default: {_either(IDS)}, if there is one)"
    )
    parser.add_argument(
        "--timestamp",
        metavar="COLUMN",
        help=f"column of times (default: {_either(TIMESTAMPS)}, or the only one that holds times; "
        "else rows in order)",
    )
    parser.add_argument(
        "--target",
        nargs="+",
        action=Names,
        metavar="COLUMN",
        help=f"one or more columns of values (default: {_either(TARGETS)}, or the only one there "
        "is)",
    )
    parser.add_argument(
        "--freq",
        metavar="ALIAS",
        help="frequency of the times, such as h, 15min, D, W or MS (default: inferred by series)",
    )
    parser.add_argument(
        "--dayfirst",
        action=argparse.BooleanOptionalAction,
        help="whether 01/02/2024 is 1 February (default: an error where both are possible)",
    )
    parser.add_argument(
        "--on-error",
        choices=("raise", "skip"),
        default="raise",
        help="whether series that cannot be read are an error or left out (default: raise)",
    )
    parser.add_argument("--verbose", action="store_true", help="say what was read, on stderr")
    text = parser.add_argument_group("files of text", "by default all is told from the file")
    text.add_argument(
        "--sep", type=_separator, metavar="MARK", help="between fields, such as ';' or tab"
    )
    text.add_argument("--decimal", choices=(".", ","), help="mark before decimals")
    text.add_argument("--encoding", metavar="NAME", help="such as latin-1 or utf-16")


def table_path(text: str) -> Path:
    """Type for argparse: a file of a table, or a folder of .parquet files."""
    path = Path(text)
    if not is_table(path):
        kinds = ", ".join(sorted((*TEXT_ENDINGS, *PARQUET_ENDINGS)))
        raise argparse.ArgumentTypeError(
            f"the file's ending must be one of {kinds}, or it a folder of .parquet; got {text!r}"
        )
    if not path.parent.is_dir():
        raise argparse.ArgumentTypeError(f"the folder {str(path.parent)!r} does not exist")
    return path


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
        If the file cannot be read, lacks a column, or has several that may be meant.
    MissingExtraError
        If it is a parquet file and pyarrow is not installed.
    """
    from moirai_moe_forecaster.data.tables import load_table

    table, dialect = load_table(arguments.data, _dialect(arguments))
    more = more or []
    identifier = arguments.id or _first(IDS, table)
    named = [name for name in (identifier, *(arguments.target or []), *more) if name]
    timestamp = arguments.timestamp or _first(TIMESTAMPS, table) or _found_times(table, named)
    targets = arguments.target or [_first(TARGETS, table) or _found_target(table, timestamp, named)]
    wanted = [*targets, *more, *(name for name in (identifier, timestamp) if name)]
    if absent := [name for name in wanted if name not in table.columns]:
        raise InvalidInputError(
            f"{arguments.data} has no column {', '.join(map(repr, absent))}; it has "
            f"{', '.join(map(repr, table.columns))}: name yours with --id, --timestamp and --target"
        )
    if dialect is not None:
        table = _typed(table, dialect, identifier, timestamp, [*targets, *more])
    if not arguments.quiet:
        _say_found(arguments, timestamp, targets)
    if timestamp is None:
        groups = table.groupby(identifier or [0] * len(table), sort=False)
        table, timestamp = table.assign(**{STEP: groups.cumcount()}), STEP
    return Data(
        table=table,
        id=identifier,
        timestamp=timestamp,
        targets=targets,
        dialect=dialect,
        dayfirst=arguments.dayfirst,
        on_error=arguments.on_error,
    )


def read_future(arguments: argparse.Namespace, data: Data) -> pd.DataFrame:
    """Read the file of ``--future``, which is written as that of the data.

    Raises
    ------
    InvalidInputError, MissingExtraError
        As `read_data`.
    """
    from moirai_moe_forecaster.data.tables import load_table

    table, dialect = load_table(arguments.future, _dialect(arguments))
    if dialect is not None:
        values = [name for name in arguments.covariates if name in table.columns]
        table = _typed(table, dialect, data.id, data.timestamp, values)
    return table


def _dialect(arguments: argparse.Namespace) -> Dialect:
    from moirai_moe_forecaster.data.tables import Dialect

    return Dialect(separator=arguments.sep, decimal=arguments.decimal, encoding=arguments.encoding)


def _typed(
    table: pd.DataFrame,
    dialect: Dialect,
    identifier: str | None,
    timestamp: str | None,
    values: list[str],
) -> pd.DataFrame:
    """Turn text into what it stands for.

    Ids stay text as it stands: "007" is not 7, and "NA" is not missing.
    """
    import pandas as pd

    from moirai_moe_forecaster.data.written_numbers import read_values

    columns = [*dict.fromkeys(values)]
    table = read_values(table, columns, dialect.separator, dialect.decimal)
    for name in (identifier, timestamp):
        if name in table.columns:
            table[name] = table[name].where(table[name].str.strip() != "", None)
    if timestamp in table.columns and table[timestamp].str.fullmatch(r"\s*-?\d{1,18}\s*").all():
        table[timestamp] = pd.to_numeric(table[timestamp])
    return table


def _found_times(table: pd.DataFrame, named: Sequence[str]) -> str | None:
    """Find the column of times, if none is named: the only one that holds them."""
    from moirai_moe_forecaster.data.clock import seems_times

    found = [name for name in table.columns if name not in named and seems_times(table[name])]
    if len(found) > 1:
        raise InvalidInputError(
            f"the columns {', '.join(map(repr, found))} may all be that of the times; name it with "
            "--timestamp"
        )
    return found[0] if found else None


def _found_target(table: pd.DataFrame, timestamp: str | None, named: Sequence[str]) -> str:
    """Find the column of values, if none is named: the only one there is."""
    rest = [name for name in table.columns if name != timestamp and name not in named]
    return rest[0] if len(rest) == 1 else TARGETS[0]


def _say_found(arguments: argparse.Namespace, timestamp: str | None, targets: list[str]) -> None:
    """Say what was not named, and is not called as usual either."""
    if arguments.timestamp is None and timestamp not in TIMESTAMPS:
        where = f"column {timestamp!r}" if timestamp else "none, rows are in the order of time"
        print(f"times: {where}", file=sys.stderr)
    if arguments.target is None and targets[0] not in TARGETS:
        print(f"values: column {targets[0]!r}", file=sys.stderr)


def read_freq(text: str | None) -> str | int | None:
    """Return a frequency as `predict_df` takes it: integer times have an integer one."""
    return int(text) if text is not None and text.isdecimal() else text


def _separator(text: str) -> str:
    mark = {"tab": "\t", "\\t": "\t"}.get(text, text)
    if len(mark) != 1:
        raise argparse.ArgumentTypeError(f"must be one mark, such as ';' or tab, got {text!r}")
    return mark


def _first(names: tuple[str, ...], table: pd.DataFrame) -> str | None:
    return next((name for name in names if name in table.columns), None)


def _either(names: tuple[str, ...]) -> str:
    return " or ".join(names)
