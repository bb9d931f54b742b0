"""What the forecaster remembers of the data: the last points of every series and its covariates."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from sktime.forecasting.base import ForecastingHorizon

from moirai_moe_forecaster.adapters.sktime.instances import (
    Instance,
    check_labels,
    check_times,
    instance_name,
    last_rows,
    numbers,
    rows_ahead,
    rows_at,
    split_instances,
    steps_of,
)
from moirai_moe_forecaster.data.categories import encoded, find_categories
from moirai_moe_forecaster.data.numbers import Array
from moirai_moe_forecaster.data.times import grid_of, labels_at
from moirai_moe_forecaster.errors import InvalidInputError

LEAST_ROWS = 32
"""How many rows are kept of shorter contexts too: fewer may not tell a frequency."""


class Context(NamedTuple):
    """The end of a series, a panel or a hierarchy; never changed in place.

    Attributes
    ----------
    y : DataFrame
        Last rows of every instance.
    X : DataFrame, or None
        Exogenous values at the same labels.
    length : int
        Most steps of an instance that forecasts are made from, cycles included.
    """

    y: pd.DataFrame
    X: pd.DataFrame | None
    length: int

    @classmethod
    def of(cls, y: pd.DataFrame, X: pd.DataFrame | None, length: int) -> Context:
        if y.empty:
            raise InvalidInputError("y is empty; give at least one point")
        check_labels(y.index, "y")
        if X is not None:
            check_labels(X.index, "X")
        check_times(y.index)
        last = last_rows(y, max(length, LEAST_ROWS))
        return cls(last, None if X is None else rows_at(X, last.index), length)

    def extended(self, y: pd.DataFrame, X: pd.DataFrame | None) -> Context:
        """Add rows; where a label is known, the new row wins."""
        known = self.y
        check_labels(y.index, "y")
        check_times(y.index, known.index)
        if len(y.columns) == len(known.columns) == 1:
            known = known.set_axis(y.columns, axis=1)
        elif set(y.columns) != set(known.columns):
            raise InvalidInputError(
                f"y has the columns {list(y.columns)}; expected those seen in fit, "
                f"{list(known.columns)}"
            )
        exogenous, kept = self.X, max(self.length, LEAST_ROWS)
        last = last_rows(y, kept, before=known)
        if X is not None:
            exogenous = self.check(X)
            rows_at(X, y.index)
            # and those that come late or are corrected
            places = X.index.get_indexer(last.index)
            rows = X.iloc[places[places >= 0]]
            rest = exogenous.drop(columns=X.columns).reindex(rows.index)
            rows = pd.concat([rows, rest], axis=1)
            exogenous = last_rows(rows, kept, before=exogenous)
        if exogenous is not None:
            exogenous = exogenous.reindex(last.index)
        return Context(last, exogenous, self.length)

    def instances(self, fh: ForecastingHorizon, freq: Any) -> list[Instance]:
        """Every series on its whole time index, and what the horizon asks of it."""
        instances: list[Instance] = []
        times: pd.Index | None = None
        for key, y in split_instances(self.y).items():
            if times is None or not y.index.equals(times):  # most panels share one time index
                times = y.index
                grid = grid_of(times, freq, self.length, instance_name(key))
                steps, labels = steps_of(fh, grid, instance_name(key))
                every = np.arange(1, steps.max() + 1)
                ahead = labels if np.array_equal(steps, every) else labels_at(grid, every)
            values = y if y.index.equals(grid) else y.reindex(grid)
            instances.append(Instance(key=key, y=values, steps=steps, labels=labels, ahead=ahead))
        return instances

    def covariates(
        self, instances: list[Instance], horizon: int, X: pd.DataFrame | None
    ) -> tuple[list[Array] | None, list[Array] | None]:
        """Past and known-future covariates of each instance, as the pipeline takes them."""
        if X is not None:
            self.check(X)
        if self.X is None:
            return None, None
        names = list(self.X.columns)
        known = [name for name in names if X is not None and name in X.columns]
        only_past = [name for name in names if name not in known]
        # learned from the context alone, as the forecast is
        categories = find_categories(self.X)
        history = split_instances(encoded(self.X[only_past + known], categories))
        future = {} if X is None else split_instances(encoded(X[known], categories))
        start = encoded(self.X[only_past][:0], categories).shape[1]
        pasts, futures = [], []
        for instance in instances:
            name = f"X of {instance_name(instance.key)}"
            seen = numbers(history[instance.key].reindex(instance.y.index), name)
            pasts.append(seen[:, :start])
            if known:
                ahead = numbers(rows_ahead(future.get(instance.key), instance), name)
                spare = np.full((horizon - len(ahead), ahead.shape[1]), np.nan)
                futures.append(np.concatenate((seen[:, start:], ahead, spare)))
        return pasts if only_past else None, futures or None

    def check(self, X: pd.DataFrame) -> pd.DataFrame:
        """Check that the rows have labels of their own and that fit has seen all columns.

        Returns
        -------
        DataFrame
            What is known of X.

        Raises
        ------
        InvalidInputError
            Naming the label, or the columns that it has not seen.
        """
        check_labels(X.index, "X")
        if self.X is None:
            raise InvalidInputError("X was not given to fit, which needs the past of its columns")
        unknown = X.columns.difference(self.X.columns, sort=False)
        if len(unknown):
            raise InvalidInputError(
                f"X has the columns {list(unknown)}, which fit has not seen; "
                f"expected some of {list(self.X.columns)}"
            )
        return self.X

    def labels(self, instances: list[Instance]) -> pd.Index:
        """Row labels of a forecast: instance by instance, the steps that are asked for."""
        times = [instance.labels for instance in instances]
        names = self.y.index.names
        if len(names) == 1:
            return times[0].rename(names[0])
        keys = [instance.key for instance in instances for _ in instance.steps]
        labels: list[Any] = [*zip(*keys, strict=True), times[0].append(times[1:])]
        return pd.MultiIndex.from_arrays(labels, names=names)
