"""What a user passes as data, checked and turned into plain arrays."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from moirai_moe_forecaster.errors import InvalidInputError

Array = NDArray[np.float64]


class Series(NamedTuple):
    """One series with its covariates; NaN is missing.

    Attributes
    ----------
    target : ndarray, (variate, context)
    past : ndarray, (past covariate, context)
        May end earlier than the context.
    future : ndarray, (known-future covariate, context + horizon)
    """

    target: Array
    past: Array
    future: Array

    def last(self, length: int) -> Series:
        """Keep the last `length` points of the context."""
        surplus = max(self.target.shape[1] - length, 0)
        return Series(self.target[:, surplus:], self.past[:, surplus:], self.future[:, surplus:])


class SeriesBatch(NamedTuple):
    """What one call forecasts.

    Attributes
    ----------
    series : list of Series
    single : bool
        One series was passed by itself, not in a list or a panel: results drop the series axis.
    univariate : bool
        All series were one-dimensional: results drop the variate axis.
    """

    series: list[Series]
    single: bool
    univariate: bool


def read_series(
    y: Any, horizon: int, past_covariates: Any = None, future_covariates: Any = None
) -> SeriesBatch:
    """Check data and covariates and bring them into one form.

    Parameters
    ----------
    y : array, Series, DataFrame or list of these
        As `MoiraiMoEPipeline.predict` takes it.
    horizon : int
        Steps that known-future covariates must reach beyond the context.
    past_covariates, future_covariates : array, Series, DataFrame or list of these, optional

    Raises
    ------
    InvalidInputError
        Naming the series, and what was got and expected.
    """
    targets, single = _as_list(y, "y")
    if not targets:
        raise InvalidInputError("y holds no series; expected at least one")
    univariate = all(np.ndim(target) == 1 for target in targets)
    arrays = [_matrix(target, _name("y", i, single)) for i, target in enumerate(targets)]
    for index, array in enumerate(arrays):
        _check_observed(array, _name("y", index, single))
    lengths = [len(array) for array in arrays]
    past = _covariates(past_covariates, "past_covariates", lengths, single)
    ahead = [length + horizon for length in lengths]
    future = _covariates(future_covariates, "future_covariates", ahead, single)
    series = [
        Series(*(np.ascontiguousarray(part.T) for part in parts))
        for parts in zip(arrays, past, future, strict=True)
    ]
    return SeriesBatch(series, single, univariate)


def _as_list(data: Any, name: str) -> tuple[list[Any], bool]:
    """Split data into its series; also say whether it was one series by itself."""
    if isinstance(data, (pd.Series, pd.DataFrame)) and isinstance(data.index, pd.MultiIndex):
        levels = list(range(data.index.nlevels - 1))
        return [group for _, group in data.groupby(level=levels, sort=False)], False
    if isinstance(data, (list, tuple)) and not _is_numbers(data):
        return list(data), False
    return [data], True


def _is_numbers(data: Sequence[Any]) -> bool:
    """Tell one series written as a list of numbers from a list of series."""
    return bool(data) and all(np.ndim(item) == 0 for item in data)


def _name(name: str, index: int, single: bool) -> str:
    return name if single else f"{name}[{index}]"


def _matrix(data: Any, name: str) -> Array:
    """Turn one series into (time, variate) of finite or NaN numbers."""
    if np.ndim(data) not in (1, 2):
        raise InvalidInputError(
            f"{name} has {np.ndim(data)} dimensions; expected (time,) or (time, variates). "
            "Pass several series as a list"
        )
    try:
        if isinstance(data, (pd.Series, pd.DataFrame)):
            array = data.to_numpy(dtype=np.float64, na_value=np.nan)
        elif np.iscomplexobj(data) or np.asarray(data).dtype.kind in "USMm":
            raise TypeError(f"its type is {np.asarray(data).dtype}")
        else:
            array = np.array(data, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InvalidInputError(f"{name} must hold real numbers: {error}") from error
    if array.ndim == 1:
        array = array[:, None]
    if array.size == 0:
        raise InvalidInputError(f"{name} is empty, shape {np.shape(data)}; give at least one point")
    if np.isinf(array).any():
        where = int(np.isinf(array).any(1).argmax())
        raise InvalidInputError(
            f"{name} is infinite at position {where}; use NaN for a missing value"
        )
    return array


def _check_observed(array: Array, name: str) -> None:
    empty = np.isnan(array).all(0)
    if empty.any():
        which = "" if array.shape[1] == 1 else f" in variate {int(empty.argmax())}"
        raise InvalidInputError(f"{name} holds only missing values{which}; drop it or give a value")


def _covariates(data: Any, name: str, lengths: Sequence[int], single: bool) -> list[Array]:
    """Return one (time, covariate) array per series, of the length that its series needs."""
    if data is None:
        return [np.empty((length, 0)) for length in lengths]
    items, alone = _as_list(data, name)
    if alone != single or len(items) != len(lengths):
        got = "one array" if alone else f"{len(items)} series"
        wanted = "one array, as y is one series" if single else f"a list of {len(lengths)}"
        raise InvalidInputError(f"{name} is {got}; expected {wanted}")
    arrays = []
    for index, (item, length) in enumerate(zip(items, lengths, strict=True)):
        array = _matrix(item, _name(name, index, single))
        if len(array) != length:
            span = "context + horizon" if name == "future_covariates" else "context"
            raise InvalidInputError(
                f"{_name(name, index, single)} has {len(array)} rows; expected {length} ({span})"
            )
        arrays.append(array)
    return arrays
