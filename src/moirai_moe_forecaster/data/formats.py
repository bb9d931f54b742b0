"""Tables of polars and pyarrow as DataFrames of pandas, and results back again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pandas as pd

from moirai_moe_forecaster.errors import InvalidInputError, MissingExtraError

Restore = Callable[[pd.DataFrame], Any]


def to_pandas(table: Any, what: str) -> tuple[pd.DataFrame, Restore]:
    """Return a table as a DataFrame of pandas, and how to turn another one into its kind.

    Parameters
    ----------
    table : pandas.DataFrame, polars.DataFrame or pyarrow.Table
    what : str
        What it is called in messages.

    Raises
    ------
    InvalidInputError
        If it is none of these.
    MissingExtraError
        If it is polars' and pyarrow, which converts it, is not installed.
    """
    if isinstance(table, pd.DataFrame):
        return table, lambda result: result
    library = type(table).__module__.partition(".")[0]
    if library not in _RESTORE or not hasattr(table, "to_pandas"):
        raise InvalidInputError(
            f"{what} must be a DataFrame of pandas or polars or a Table of pyarrow; got "
            f"{type(table).__name__} (collect a lazy one first)"
        )
    try:
        return table.to_pandas(), _RESTORE[library]
    except ImportError as error:
        raise MissingExtraError("pyarrow", "train", f"converting {what} from {library}") from error


def _to_polars(result: pd.DataFrame) -> Any:
    import polars

    return polars.from_pandas(result)


def _to_pyarrow(result: pd.DataFrame) -> Any:
    import pyarrow

    return pyarrow.Table.from_pandas(result, preserve_index=False)


_RESTORE: dict[str, Restore] = {"polars": _to_polars, "pyarrow": _to_pyarrow}
