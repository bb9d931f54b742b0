"""Numbers: what counts as one, what is missing, and nothing that merely looks like a number."""

from __future__ import annotations

from numbers import Real
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from moirai_moe_forecaster.errors import InvalidInputError

Array = NDArray[np.float64]


def read_matrix(data: Any, name: str) -> Array:
    """Turn one series into (time, variate) of finite or NaN numbers.

    Parameters
    ----------
    data : array, masked array, sequence, Series or DataFrame
        (time,) or (time, variates); NaN, None, NA and what a mask hides are missing.
    name : str
        What it is called in messages.

    Raises
    ------
    InvalidInputError
        If it has another shape, is empty, or holds infinite values or what is no real number.
    """
    try:
        dimensions = np.ndim(data)
    except ValueError as error:
        raise InvalidInputError(f"the rows of {name} differ in length: {error}") from error
    if dimensions not in (1, 2):
        raise InvalidInputError(
            f"{name} has {dimensions} dimensions; expected (time,) or (time, variates). "
            "Pass several series as a list"
        )
    try:
        array = read_numbers(data)
    except (TypeError, ValueError, OverflowError) as error:
        raise InvalidInputError(f"{name} must hold real numbers: {error}") from error
    if array.ndim == 1:
        array = array[:, None]
    if array.size == 0:
        raise InvalidInputError(f"{name} is empty, shape {np.shape(data)}; give at least one point")
    infinite = np.isinf(array)
    if infinite.any():
        where: Any = int(infinite.any(1).argmax())
        if isinstance(data, pd.Series | pd.DataFrame):
            where = f"{where} ({data.index[where]})"
        raise InvalidInputError(
            f"{name} is infinite at position {where}; use NaN for a missing value"
        )
    return array


def read_numbers(data: Any) -> Array:
    """Convert real numbers and missing values of any container, in its shape.

    Raises
    ------
    TypeError
        Naming the first value that is no real number, or the type of all.
    """
    hidden: Any = None
    if isinstance(data, pd.Series | pd.DataFrame):
        if is_numeric(data):
            return data.to_numpy(dtype=np.float64, na_value=np.nan)
        data = data.to_numpy(dtype=object)
    elif isinstance(data, np.ma.MaskedArray):
        hidden, data = np.ma.getmaskarray(data), np.ma.getdata(data)
    array = np.asarray(data)
    if array.dtype.kind in "biuf":
        values = array.astype(np.float64)
    elif array.dtype.kind == "O":
        values = _of_objects(array, hidden)
    else:
        raise TypeError(f"their type is {array.dtype}")
    if hidden is not None:
        values[hidden] = np.nan
    return values


def is_numeric(data: pd.Series[Any] | pd.DataFrame) -> bool:
    """Whether all columns are of types of real numbers, truth values included."""
    dtypes = [data.dtype] if isinstance(data, pd.Series) else list(data.dtypes)
    return all(dtype.kind in "biuf" for dtype in dtypes)


def _of_objects(array: NDArray[Any], hidden: Any) -> Array:
    missing = pd.isna(array) if hidden is None else pd.isna(array) | hidden
    values: list[Any] = [
        np.nan if gone else item for gone, item in zip(missing.flat, array.flat, strict=True)
    ]
    strange = next((item for item in values if not isinstance(item, Real)), None)
    if strange is not None:
        raise TypeError(f"got {strange!r} of type {type(strange).__name__}")
    return np.array([float(item) for item in values]).reshape(array.shape)
