"""Forecasts of arrays, streams and tables from a pretrained network."""

from __future__ import annotations

import itertools
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal

import numpy as np
from tqdm.auto import tqdm

from moirai_moe_forecaster.data.arguments import OnError, check_count
from moirai_moe_forecaster.data.formats import to_pandas
from moirai_moe_forecaster.data.panel import Columns, names_of
from moirai_moe_forecaster.data.series import read_series
from moirai_moe_forecaster.errors import InvalidInputError
from moirai_moe_forecaster.inference.dataframe import (
    DECILES,
    forecast_frame,
    known_ahead,
    result_levels,
)
from moirai_moe_forecaster.inference.engine import forecast
from moirai_moe_forecaster.inference.forecast import Forecast
from moirai_moe_forecaster.inference.options import (
    Bounds,
    CovariateUse,
    Normalisation,
    context_points,
    read_options,
)
from moirai_moe_forecaster.inference.pretrained import Pretrained
from moirai_moe_forecaster.inference.sampling import RandomState, draw_seed


class Predictor(Pretrained):
    """A pretrained network that forecasts what users pass."""

    def predict(
        self,
        y: Any,
        horizon: int,
        *,
        past_covariates: Any = None,
        future_covariates: Any = None,
        context_length: int | None = None,
        num_paths: int | None = None,
        num_samples: int = 100,
        batch_size: int | None = None,
        normaliser: Normalisation = "frozen",
        covariate_use: CovariateUse | None = None,
        random_state: RandomState = None,
        progress: bool = False,
        season_length: Literal["auto"] | int | Sequence[int] | None = "auto",
        bounds: Bounds | None = None,
        integer: bool = False,
    ) -> Forecast:
        """Forecast one series or many.

        Parameters
        ----------
        y : array, Series, DataFrame, or list of these
            (time,) or (time, variates), oldest first; NaN is missing. A list is a batch, of which
            lengths and numbers of variates may differ. A pandas Series or wide DataFrame is one
            series; with a MultiIndex, whose last level is time, it is a batch.
        horizon : int
            Steps ahead, at least 1.
        past_covariates : array or list of arrays, optional
            (context, k) per series: known only up to the end of y.
        future_covariates : array or list of arrays, optional
            (context + horizon, k) per series: known ahead.
        context_length : int, optional
            Use only this many of the last points. By default the network reads
            `max_context_length`, and cycles are learnt from up to 16,384.
        num_paths : int, optional
            Paths that carry the uncertainty between patches; None is what the checkpoint was made
            for: none (`ModelConfig.beyond_pass`), or 32, whose quantiles are more
            accurate than those of 100 raw draws (docs/benchmarks.md). Not used within the patches
            that one pass predicts, where quantiles are exact. Take 100 or more for statements about
            several steps at once (`Forecast.samples`) over longer horizons.
        num_samples : int, default=100
            How many trajectories `Forecast.samples` holds.
        batch_size : int, optional
            Most series per pass; by default as many as `memory_budget` allows. Where memory runs
            out nevertheless, smaller passes are tried.
        normaliser : {"frozen", "reestimated"}, default="frozen"
            Whether the statistics of the context hold for the whole horizon, or are estimated anew
            with every drawn patch as the official implementation does: much slower.
        covariate_use : {"regression", "tokens"}, optional
            How `future_covariates` act: through a sparse regression on the context, whose effect
            is added to the forecast of what it leaves, or as further tokens of the network. None
            is tokens for official checkpoints and the regression for others, which it helps more.
            `past_covariates` are always tokens.
        random_state : int, numpy Generator or RandomState, optional
            With the same number, the same series has the same forecast in any batch. None draws
            fresh.
        progress : bool, default=False
            Show a progress bar.
        season_length : "auto", int, sequence of int or None, default="auto"
            Steps of the cycles that forecasts may carry on, as far as that has proved itself at the
            end of the context (`Forecast.seasons`). "auto" finds them from the values of each
            series, if the checkpoint's configuration says so; official ones do not. None, like 1,
            forecasts without.
        bounds : tuple (lower, upper) of float or None, optional
            Values that are possible, such as ``(0, None)`` of what cannot be negative. What a
            forecast says of others becomes probability of the bound.
        integer : bool, default=False
            Whether only whole numbers are possible: quantiles and samples are rounded, and means
            are those of what results.

        Returns
        -------
        Forecast

        Raises
        ------
        InvalidInputError
            If data or an argument cannot be forecast as given; the message names the series.
        OutOfMemoryError
            If memory does not suffice for a single series.
        """
        options = read_options(
            horizon,
            context_length=context_length,
            num_paths=num_paths,
            num_samples=num_samples,
            batch_size=batch_size,
            memory_budget=self.memory_budget,
            normaliser=normaliser,
            covariate_use=covariate_use,
            season_length=season_length,
            random_state=random_state,
            bounds=bounds,
            integer=integer,
        )
        length = context_points(self.config, options.context_length)
        batch = read_series(y, options.horizon, past_covariates, future_covariates, length)
        with tqdm(total=len(batch.series), disable=not progress, unit="series") as bar:
            found = forecast(self.network, batch.series, options, bar.update)
        return found.with_axes(single=batch.single, univariate=batch.univariate)

    def predict_stream(
        self, series: Iterable[Any], horizon: int, *, batch_size: int = 256, **options: Any
    ) -> Iterator[Forecast]:
        """Forecast series one after the other as they come, in constant memory.

        Parameters
        ----------
        series : iterable
            Of what `predict` takes as one series.
        horizon : int
        batch_size : int, default=256
            Series that are read ahead and forecast together.
        **options
            Of `predict`.

        Yields
        ------
        Forecast
            One per series, in order.
        """
        check_count("batch_size", batch_size)
        random_state = draw_seed(options.pop("random_state", None))
        remaining = iter(series)
        while chunk := list(itertools.islice(remaining, batch_size)):
            found = self.predict(chunk, horizon, random_state=random_state, **options)
            for index, item in enumerate(chunk):
                yield found.of_series(index, univariate=np.ndim(item) == 1)

    def predict_df(
        self,
        df: Any,
        horizon: int,
        *,
        quantile_levels: Sequence[float] = DECILES,
        id_column: Hashable | None = "item_id",
        timestamp_column: Hashable = "timestamp",
        target_columns: Hashable | Sequence[Hashable] = "target",
        past_covariates: Hashable | Sequence[Hashable] = (),
        future_df: Any = None,
        freq: str | int | Mapping[Any, str | int] | None = None,
        context_length: int | None = None,
        dayfirst: bool | None = None,
        on_error: OnError = "raise",
        **options: Any,
    ) -> Any:
        """Forecast every series of a long DataFrame.

        Parameters
        ----------
        df : pandas.DataFrame, polars.DataFrame or pyarrow.Table
            One row per series and time, in any order. Ids may be of any type and times datetimes
            (with or without a zone), text that reads as such, periods or integers. Values are
            numbers; NaN is missing, and so is a step of the grid without a row. Covariates may also
            be categories or text. What was read is logged.
        horizon : int
            Steps after the last row of every series, at least 1.
        quantile_levels : sequence of float, default=(0.1, ..., 0.9)
            In (0, 1).
        id_column : hashable, default="item_id"
            None if all rows are of one series.
        timestamp_column : hashable, default="timestamp"
        target_columns : hashable or list of hashable, default="target"
            Several targets are forecast as the variates of one series.
        past_covariates : hashable or list of hashable, default=()
            Columns of `df` known only up to the last row.
        future_df : of the type of df, optional
            A row for each step of the horizon of every series: the columns of ids and times, and
            those of the covariates known ahead, whose past is in `df`. Rows of other ids or times
            are not used.
        freq : str, int or mapping from ids to these, optional
            An alias of pandas, or an integer for integer times. By default inferred for every
            series: the largest step that all of its times fit, in months or business days where
            they go by these.
        context_length : int, optional
            Use only this many of the last steps. By default the network reads
            `max_context_length`, and cycles are learnt from up to 16,384.
        dayfirst : bool, optional
            Whether times in text such as 01/02/2023 have the day first. By default, those with dots
            have, others if a number above 12 says so; what stays open is an error.
        on_error : {"raise", "skip"}, default="raise"
            What is done about ids that cannot be forecast: those of a single row from which no
            frequency can be inferred, without values in the context, with irregular or repeated
            times, or values that are no numbers. "skip" leaves them out, logs them, and names them
            with the reason in ``result.attrs["skipped"]`` (pandas) or the schema's metadata
            (pyarrow).
        **options
            Of `predict`: season_length, bounds, integer, num_paths, batch_size, normaliser,
            random_state and progress. Lengths that `season_length` names are steps of every
            series, whatever its frequency.

        Returns
        -------
        DataFrame
            Of the library of `df`. Series in the order of their first rows, each with its targets
            in the order of `target_columns`, each with `horizon` rows. The columns are those of ids
            and times, ``target_name`` if there are several targets, ``mean``, ``median``, and one
            per level, such as ``0.1``. Without rows in `df` it has none either. Ids and times have
            the types that they came in; full dates in text become datetimes, while months,
            quarters, weeks and years are written as they were.

        Raises
        ------
        InvalidInputError
            Before anything is forecast; the message names the row or id, and what to do.

        Examples
        --------
        >>> import numpy as np
        >>> import pandas as pd
        >>> from moirai_moe_forecaster import MoiraiMoEPipeline
        >>> days = pd.date_range("2024-01-01", periods=60)
        >>> df = pd.DataFrame({"shop": "north", "day": days, "sold": np.arange(60) % 7})
        >>> pipeline = MoiraiMoEPipeline.from_pretrained()
        >>> names = {"id_column": "shop", "timestamp_column": "day", "target_columns": "sold"}
        >>> forecast = pipeline.predict_df(df, 7, quantile_levels=[0.1, 0.9], **names)
        >>> list(forecast.columns)
        ['shop', 'day', 'mean', 'median', '0.1', '0.9']
        """
        if "future_covariates" in options:
            raise InvalidInputError(
                "predict_df takes covariates known ahead as columns of df and future_df; leave "
                "future_covariates out"
            )
        table, restore = to_pandas(df, "df")
        future = None if future_df is None else to_pandas(future_df, "future_df")[0]
        columns = Columns(
            id_column,
            timestamp_column,
            names_of(target_columns, table),
            names_of(past_covariates, table),
            known_ahead(future, table, id_column, timestamp_column),
        )
        levels = result_levels(quantile_levels, columns)
        result = forecast_frame(
            self,
            table,
            future,
            columns,
            horizon,
            freq,
            context_length,
            dayfirst,
            on_error,
            **options,
        )
        return restore(result.table(levels), [id_column, timestamp_column])
