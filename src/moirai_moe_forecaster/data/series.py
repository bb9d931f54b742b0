"""What a user passes as data, checked and turned into plain arrays."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from numbers import Real
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
    names : list of hashable
        Keys of a panel's instances, else positions.
    """

    series: list[Series]
    single: bool
    univariate: bool
    names: list[Hashable]


class _Items(NamedTuple):
    """Data split into series: `keys` are those of a panel, `single` says it was one by itself."""

    items: list[Any]
    keys: list[Hashable] | None = None
    single: bool = False


def read_series(
    y: Any,
    horizon: int,
    past_covariates: Any = None,
    future_covariates: Any = None,
    context_length: int | None = None,
) -> SeriesBatch:
    """Check data and covariates and bring them into one form.

    Parameters
    ----------
    y : array, Series, DataFrame or list of these
        As `MoiraiMoEPipeline.predict` takes it.
    horizon : int
        Steps that known-future covariates must reach beyond the context.
    past_covariates, future_covariates : array, Series, DataFrame or list of these, optional
        Those of a panel belong to its instances by name if they are a panel too, otherwise, as
        those of a list, by position.
    context_length : int, optional
        How many of the last points are used, among which one at least must be observed.

    Raises
    ------
    InvalidInputError
        Naming the series, and what was got and expected.
    """
    targets = _split(y)
    if not targets.items:
        raise InvalidInputError("y holds no series; expected at least one")
    arrays = [_matrix(item, _name("y", i, targets.single)) for i, item in enumerate(targets.items)]
    for index, array in enumerate(arrays):
        _check_observed(array, _name("y", index, targets.single), context_length)
    lengths = [len(array) for array in arrays]
    ahead = [length + horizon for length in lengths]
    past = _covariates(past_covariates, "past_covariates", lengths, targets)
    future = _covariates(future_covariates, "future_covariates", ahead, targets)
    series = [
        Series(*(np.ascontiguousarray(part.T) for part in parts))
        for parts in zip(arrays, past, future, strict=True)
    ]
    univariate = all(np.ndim(item) == 1 for item in targets.items)
    names = [*range(len(series))] if targets.keys is None else targets.keys
    return SeriesBatch(series, targets.single, univariate, names)


def _split(data: Any) -> _Items:
    if isinstance(data, pd.Series | pd.DataFrame) and isinstance(data.index, pd.MultiIndex):
        levels = list(range(data.index.nlevels - 1))
        groups = list(data.groupby(level=levels if len(levels) > 1 else 0, sort=False))
        return _Items([group for _, group in groups], [key for key, _ in groups])
    if isinstance(data, list | tuple) and not _is_one_series(data):
        return _Items(list(data))
    return _Items([data], single=True)


def _is_one_series(data: Sequence[Any]) -> bool:
    """Tell one series written as a list of numbers from a list of series."""
    return bool(data) and all(_is_scalar(item) for item in data)


def _is_scalar(item: Any) -> bool:
    return isinstance(item, str) or not hasattr(item, "__len__")


def _name(name: str, index: int, single: bool) -> str:
    return name if single else f"{name}[{index}]"


def _matrix(data: Any, name: str) -> Array:
    """Turn one series into (time, variate) of finite or NaN numbers."""
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
        array = _numbers(data)
    except (TypeError, ValueError, OverflowError) as error:
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


def _numbers(data: Any) -> Array:
    """Convert real numbers and missing values, and nothing that merely looks like a number."""
    if isinstance(data, pd.Series | pd.DataFrame):
        dtypes = [data.dtype] if isinstance(data, pd.Series) else list(data.dtypes)
        if all(dtype.kind in "biuf" for dtype in dtypes):
            return data.to_numpy(dtype=np.float64, na_value=np.nan)
        data = data.to_numpy(dtype=object)
    if isinstance(data, np.ma.MaskedArray):
        return np.ma.filled(data.astype(np.float64), np.nan)
    array = np.asarray(data)
    if array.dtype.kind in "biuf":
        return array.astype(np.float64)
    if array.dtype.kind != "O":
        raise TypeError(f"their type is {array.dtype}")
    values = [np.nan if item is None or item is pd.NA else item for item in array.flat]
    strange = next((item for item in values if not isinstance(item, Real)), None)
    if strange is not None:
        raise TypeError(f"got {strange!r} of type {type(strange).__name__}")
    return np.array([float(item) for item in values]).reshape(array.shape)


def _check_observed(array: Array, name: str, context_length: int | None) -> None:
    used = array[-(context_length or len(array)) :]
    empty = np.isnan(used).all(0)
    if empty.any():
        which = "" if array.shape[1] == 1 else f" in variate {int(empty.argmax())}"
        where = "" if len(used) == len(array) else f" among its last {len(used)}, the context"
        raise InvalidInputError(
            f"{name} holds only missing values{which}{where}; drop it or give a value"
        )


def _covariates(data: Any, name: str, lengths: Sequence[int], targets: _Items) -> list[Array]:
    """Return one (time, covariate) array per series, of the length that its series needs."""
    if data is None:
        return [np.empty((length, 0)) for length in lengths]
    given = _split(data)
    if given.single != targets.single or len(given.items) != len(lengths):
        got = "one array" if given.single else f"{len(given.items)} series"
        wanted = "one array, as y is one series" if targets.single else f"a list of {len(lengths)}"
        raise InvalidInputError(f"{name} is {got}; expected {wanted}")
    arrays = []
    for index, (item, length) in enumerate(
        zip(_in_order(given, targets, name), lengths, strict=True)
    ):
        array = _matrix(item, _name(name, index, targets.single))
        if len(array) != length:
            span = "context + horizon" if name == "future_covariates" else "context"
            raise InvalidInputError(
                f"{_name(name, index, targets.single)} has {len(array)} rows; "
                f"expected {length} ({span})"
            )
        arrays.append(array)
    return arrays


def _in_order(given: _Items, targets: _Items, name: str) -> list[Any]:
    """Bring the instances of one panel into the order of those of another."""
    if given.keys is None or targets.keys is None:
        return given.items
    found = dict(zip(given.keys, given.items, strict=True))
    missing = [key for key in targets.keys if key not in found]
    if missing:
        raise InvalidInputError(f"{name} lacks the instances {missing[:5]} of y")
    return [found[key] for key in targets.keys]
