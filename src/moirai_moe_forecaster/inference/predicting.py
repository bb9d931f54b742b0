"""Forecasts of arrays, one call or a stream, from a pretrained network."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Literal

import numpy as np
from tqdm.auto import tqdm

from moirai_moe_forecaster.data.arguments import check_count
from moirai_moe_forecaster.data.series import read_series
from moirai_moe_forecaster.inference.dataframe import predict_df
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

    predict_df = predict_df
