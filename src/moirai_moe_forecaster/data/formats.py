"""Tables of polars and pyarrow as DataFrames of pandas, and results back again."""

from __future__ import annotations

import json
from collections.abc import Callable, Hashable, Sequence
from functools import partial
from typing import Any

import pandas as pd

from moirai_moe_forecaster.errors import InvalidInputError, MissingExtraError

Restore = Callable[[pd.DataFrame, Sequence[Hashable]], Any]


def to_pandas(table: Any, what: str) -> tuple[pd.DataFrame, Restore]:
    """Return a table as a DataFrame of pandas, and how to turn another one into its kind.

    The second takes the other one, and the columns that shall have the types they have in the
    first.

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
        return table, lambda result, columns: result
    library = type(table).__module__.partition(".")[0]
    if library not in _RESTORE or not hasattr(table, "to_pandas"):
        raise InvalidInputError(
            f"{what} must be a DataFrame of pandas or polars or a Table of pyarrow; got "
            f"{type(table).__name__} (collect a lazy one first)"
        )
    try:
        return table.to_pandas(), partial(_RESTORE[library], table)
    except ImportError as error:
        raise MissingExtraError("pyarrow", "train", f"converting {what} from {library}") from error


def _to_polars(source: Any, result: pd.DataFrame, columns: Sequence[Hashable]) -> Any:
    import polars

    result = result.copy(deep=False)
    result.attrs = {}
    table = polars.from_pandas(result)
    names = [str(name) for name in columns if _changed(source, table, name)]
    return table.with_columns(polars.col(name).cast(source.schema[name]) for name in names)


def _changed(source: Any, table: Any, name: Any) -> bool:
    """Whether a column has another type of the same values: text of dates became dates."""
    import polars

    if name not in table.columns or source.schema[name] == table.schema[name]:
        return False
    return not (source.schema[name] == polars.String and table.schema[name].is_temporal())


def _to_pyarrow(source: Any, result: pd.DataFrame, columns: Sequence[Hashable]) -> Any:
    import pyarrow

    skipped = result.attrs.get("skipped", {})
    result = result.copy(deep=False)
    result.attrs = {}
    table = pyarrow.Table.from_pandas(result, preserve_index=False)
    for place, field in enumerate(table.schema):
        if field.name not in columns:
            continue
        kind = source.schema.field(field.name).type
        text = pyarrow.types.is_string(kind) or pyarrow.types.is_large_string(kind)
        if kind != field.type and not (text and pyarrow.types.is_temporal(field.type)):
            table = table.set_column(place, field.name, table.column(place).cast(kind))
    said = {str(name): reason for name, reason in skipped.items()}
    return table.replace_schema_metadata(
        {**(table.schema.metadata or {}), b"skipped": json.dumps(said).encode()}
    )


_RESTORE: dict[str, Callable[..., Any]] = {"polars": _to_polars, "pyarrow": _to_pyarrow}
