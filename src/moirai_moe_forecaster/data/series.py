"""What a user passes as data, checked and turned into plain arrays."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any, NamedTuple

import numpy as np

from moirai_moe_forecaster.data.items import (
    Item,
    Items,
    blocks_of,
    left_out,
    read_block,
    read_items,
)
from moirai_moe_forecaster.data.numbers import Array as Array
from moirai_moe_forecaster.errors import InvalidInputError


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


def read_series(
    y: Any,
    horizon: int,
    past_covariates: Any = None,
    future_covariates: Any = None,
    context_length: int | None = None,
    skipped: dict[Hashable, str] | None = None,
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
    skipped : dict, optional
        As for `read_items`.

    Raises
    ------
    InvalidInputError
        Naming the series, and what was got and expected.
    """
    targets = read_items(y, skipped=skipped)
    skip = skipped is not None
    past = _blocks(past_covariates, "past_covariates", targets, skip=skip)
    future = _blocks(future_covariates, "future_covariates", targets, skip=skip)
    series, kept = [], []
    for index, item in enumerate(targets.items):
        with left_out(item.name, skipped):
            length = len(item.values)
            _check_observed(item.values, _name("y", index, targets), context_length)
            parts = (
                item.values,
                _covariates(past, "past_covariates", index, length, targets),
                _covariates(future, "future_covariates", index, length + horizon, targets),
            )
            series.append(Series(*(np.ascontiguousarray(part.T) for part in parts)))
            kept.append(item)
    if not series:
        raise InvalidInputError(f"no series of y is left; skipped were {skipped}")
    univariate = all(item.flat for item in kept)
    names = [item.name for item in kept] if targets.panel else [*range(len(series))]
    return SeriesBatch(series, targets.single, univariate, names)


def _name(name: str, index: int, of: Items) -> str:
    return name if of.single else f"{name}[{index}]"


def _check_observed(array: Array, name: str, context_length: int | None) -> None:
    used = array[-(context_length or len(array)) :]
    empty = np.isnan(used).all(0)
    if empty.any():
        which = "" if array.shape[1] == 1 else f" in variate {int(empty.argmax())}"
        where = "" if len(used) == len(array) else f" among its last {len(used)}, the context"
        raise InvalidInputError(
            f"{name} holds only missing values{which}{where}; drop it or give a value"
        )


def _blocks(data: Any, name: str, targets: Items, *, skip: bool) -> list[Item | str] | None:
    """Blocks of covariates in the order of the series, or why one cannot be read."""
    if data is None:
        return None
    given = read_items(data, name, {} if skip else None)
    if given.single != targets.single or len(given) != len(targets):
        got = "one array" if given.single else f"{len(given)} series"
        wanted = "one array, as y is one series"
        if not targets.single:
            wanted = f"a list of {len(targets)}"
        raise InvalidInputError(f"{name} is {got}; expected {wanted}")
    return blocks_of(given, targets, name)


def _covariates(
    blocks: list[Item | str] | None, name: str, index: int, length: int, targets: Items
) -> Array:
    """Covariates (time, covariate) of one series, of the length that it needs."""
    if blocks is None:
        return np.empty((length, 0))
    values = read_block(blocks[index]).values
    if len(values) != length:
        span = "context + horizon" if name == "future_covariates" else "context"
        raise InvalidInputError(
            f"{_name(name, index, targets)} has {len(values)} rows; expected {length} ({span})"
        )
    return values
