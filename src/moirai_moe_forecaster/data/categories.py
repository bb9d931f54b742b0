"""Covariates that are categories or text, as numbers: places in an order, or a column a level."""

from __future__ import annotations

import logging
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

Array = NDArray[np.float64]

log = logging.getLogger(__name__)

# columns that one covariate may become; levels beyond are like no other
MOST_LEVELS = 24


@dataclass(frozen=True, kw_only=True)
class Categories:
    """The levels of one covariate.

    Attributes
    ----------
    name : str
        In messages.
    levels : tuple
        Of ordered categories all, in their order; of others those that the history holds, the most
        frequent first.
    ordered : bool
    """

    name: str
    levels: tuple[Any, ...]
    ordered: bool

    @property
    def width(self) -> int:
        """Columns of numbers that the covariate becomes."""
        return 1 if self.ordered or len(self.levels) <= 2 else min(len(self.levels), MOST_LEVELS)

    def encode(self, column: pd.Series[Any]) -> Array:
        """Return (row, column): positions of ordered levels, else 1 where a row has the level.

        A missing value is NaN in all columns; a level that the history does not hold is none of
        its own.
        """
        codes = pd.Index(self.levels).get_indexer(pd.Index(column.astype(object)))
        missing = column.isna().to_numpy()
        if ((codes < 0) & ~missing).any():
            unknown = column[(codes < 0) & ~missing].iloc[0]
            log.warning("%s: %r is not among the levels of the history", self.name, unknown)
        if self.ordered:
            values = np.where(codes < 0, np.nan, codes)[:, None]
        elif self.width == 1:
            values = (codes == 1).astype(np.float64)[:, None]
        else:
            values = (codes[:, None] == np.arange(self.width)).astype(np.float64)
        return np.where(missing[:, None], np.nan, values)


def read_categories(column: pd.Series[Any]) -> Categories | None:
    """Learn the levels of a column of categories or text; None of one of numbers.

    Text that reads as numbers is left to whoever reads numbers, who will refuse it.
    """
    categorical = isinstance(column.dtype, pd.CategoricalDtype)
    known = column.dropna()
    if categorical and column.cat.categories.dtype.kind in "iuf" and not column.cat.ordered:
        return None
    if not categorical:
        texts = column.dtype == object or isinstance(column.dtype, pd.StringDtype)
        texts = texts or (isinstance(column.dtype, pd.ArrowDtype) and column.dtype.kind in "OU")
        if not texts or known.empty or not all(isinstance(item, str) for item in known):
            return None
        if pd.to_numeric(known.astype(object), errors="coerce").notna().all():
            return None
    if categorical and column.cat.ordered:
        levels = tuple(column.cat.categories)
        return Categories(name=str(column.name), levels=levels, ordered=True)
    counts = known.astype(object).value_counts()
    # of equally frequent ones the first in the alphabet, whatever the order of rows
    levels = tuple(sorted(counts.index, key=lambda level: (-counts[level], str(level))))
    return Categories(name=str(column.name), levels=levels, ordered=False)


def find_categories(table: pd.DataFrame) -> dict[Hashable, Categories]:
    """Learn the levels of those columns of a table that are categories or text."""
    found = {name: read_categories(table[name]) for name in table.columns}
    return {name: categories for name, categories in found.items() if categories is not None}


def encoded(table: pd.DataFrame, found: Mapping[Hashable, Categories]) -> pd.DataFrame:
    """Replace columns of a table by numbers; those of a level are called as ``weather=rain``."""
    parts: list[Any] = []
    for name in table.columns:
        categories = found.get(name)
        if categories is None:
            parts.append(table[name])
            continue
        names: list[Hashable] = [name]
        if categories.width > 1:
            names = [f"{name}={level}" for level in categories.levels[: categories.width]]
        values = categories.encode(table[name])
        parts.append(pd.DataFrame(values, index=table.index, columns=pd.Index(names)))
    return pd.concat(parts, axis=1) if parts else table
