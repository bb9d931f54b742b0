"""The native interface: a pretrained network with everything a user needs around it."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from tqdm.auto import tqdm

from moirai_moe_forecaster.checkpoint.adapters import (
    Adapters,
    adapted_network,
    holds_adapters,
    load_adapted,
    load_adapters,
    save_adapters,
)
from moirai_moe_forecaster.checkpoint.store import CheckpointInfo, load_checkpoint, save_checkpoint
from moirai_moe_forecaster.config import ModelConfig
from moirai_moe_forecaster.data.arguments import (
    check_count,
    read_device,
    read_dtype,
    read_season_length,
)
from moirai_moe_forecaster.data.series import read_series
from moirai_moe_forecaster.errors import InvalidInputError
from moirai_moe_forecaster.inference.batches import Load
from moirai_moe_forecaster.inference.dataframe import predict_df
from moirai_moe_forecaster.inference.engine import Request, forecast_series
from moirai_moe_forecaster.inference.forecast import Forecast
from moirai_moe_forecaster.inference.randomness import RandomState, draw_seed
from moirai_moe_forecaster.inference.representation import embed
from moirai_moe_forecaster.inference.seasons import SeasonLength
from moirai_moe_forecaster.inference.tuning import fine_tune
from moirai_moe_forecaster.inference.view_weights import LONGEST_HISTORY
from moirai_moe_forecaster.model.network import MoiraiMoE

if TYPE_CHECKING:
    from moirai_moe_forecaster.reports.routing import RoutingReport
    from moirai_moe_forecaster.tuning.report import TuningReport

log = logging.getLogger(__name__)

DEFAULT_PATHS = 32
Normalisation = Literal["frozen", "reestimated"]
CovariateUse = Literal["regression", "tokens"]


class MoiraiMoEPipeline:
    """Zero-shot probabilistic forecasts from a pretrained Moirai-MoE network.

    Parameters
    ----------
    network : MoiraiMoE
        `from_pretrained` is the usual way to make a pipeline.
    info : CheckpointInfo, optional
        Where the weights come from.

    Attributes
    ----------
    memory_budget : int, optional
        Bytes that a forecast may take beside its data and result; None is a quarter of what is
        free, on a CPU at most 512 MiB. It decides how many series go through the network together,
        not what is forecast.
    adapters : Adapters, optional
        What fine-tuning added to the checkpoint, apart from it.
    tuning : TuningReport, optional
        What fine-tuning did; printed, a table of scores before and after.

    Examples
    --------
    >>> import numpy as np
    >>> from moirai_moe_forecaster import MoiraiMoEPipeline
    >>> pipeline = MoiraiMoEPipeline.from_pretrained()
    >>> forecast = pipeline.predict(np.sin(np.arange(200) / 4), horizon=24, random_state=0)
    >>> forecast.quantile([0.1, 0.5, 0.9]).shape
    (3, 24)
    """

    def __init__(self, network: MoiraiMoE, info: CheckpointInfo | None = None) -> None:
        self.network = network.eval()
        self.info = info
        self.memory_budget: int | None = None
        self.adapters: Adapters | None = None
        self.tuning: TuningReport | None = None

    @classmethod
    def from_pretrained(
        cls,
        name_or_path: str | Path | None = None,
        *,
        revision: str | None = None,
        device: str | torch.device = "auto",
        dtype: str | torch.dtype | None = None,
    ) -> MoiraiMoEPipeline:
        """Load a checkpoint.

        Parameters
        ----------
        name_or_path : str or Path, optional
            A directory or a Hub name such as ``"Salesforce/moirai-moe-1.0-R-small"``; None is the
            checkpoint that comes with this package.
        revision : str, optional
            Branch, tag or commit on the Hub.
        device : str or torch.device, default="auto"
            "auto" takes CUDA, then Apple's MPS, then the CPU.
        dtype : str or torch.dtype, optional
            None is float32.

        Raises
        ------
        CheckpointError
            If the checkpoint is missing, damaged or not what its configuration says.
        InvalidInputError
            If the device or the dtype is not known.
        """
        target, number = read_device(device), read_dtype(dtype)
        if name_or_path is not None and holds_adapters(name_or_path):
            checkpoint = load_adapted(name_or_path)
        else:
            checkpoint = load_checkpoint(name_or_path, revision=revision)
        return cls(checkpoint.network.to(target, number), checkpoint.info)

    def with_adapters(self, directory: str | Path) -> MoiraiMoEPipeline:
        """Return a pipeline of this checkpoint with adapters that were trained on it.

        `from_pretrained` does both at once where it can find the checkpoint again.

        Parameters
        ----------
        directory : str or Path
            What `save_adapters` wrote.

        Raises
        ------
        CheckpointError
            If there are none, or they belong to another checkpoint.
        """
        adapters = load_adapters(directory)
        adapted = MoiraiMoEPipeline(adapted_network(self.network, adapters), self.info)
        adapted.memory_budget, adapted.adapters = self.memory_budget, adapters
        return adapted

    def save_adapters(self, directory: str | Path) -> None:
        """Write only what fine-tuning added to the checkpoint, not the checkpoint.

        Parameters
        ----------
        directory : str or Path
            `from_pretrained` takes it, and `with_adapters`.

        Raises
        ------
        InvalidInputError
            If this pipeline has no adapters: it was not fine-tuned, or in mode "full".
        """
        if self.adapters is None:
            raise InvalidInputError(
                "this pipeline has no adapters: fine-tune it in mode 'lora', 'head' or 'router', "
                "or write the whole network with save_pretrained"
            )
        save_adapters(self.adapters, directory)

    def save_pretrained(
        self, directory: str | Path, layout: Literal["native", "official"] = "native"
    ) -> None:
        """Write the weights as `config.json` and `model.safetensors`.

        Parameters
        ----------
        directory : str or Path
        layout : {"native", "official"}, default="native"
            "official" is what the reference implementation reads; only for networks that follow
            its conventions.

        Raises
        ------
        ConfigError
            If the network does not follow the official conventions.
        """
        licence = "unspecified" if self.info is None else self.info.licence
        save_checkpoint(self.network, directory, layout=layout, licence=licence)

    @property
    def config(self) -> ModelConfig:
        """Sizes and conventions of the network."""
        return self.network.config

    @property
    def max_context_length(self) -> int:
        """Longest context in points that the network was made for."""
        return self.config.max_seq_len * self.config.patch_size

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
        check_count("horizon", horizon)
        check_count("num_samples", num_samples)
        paths = DEFAULT_PATHS if num_paths is None else check_count("num_paths", num_paths)
        most = None if batch_size is None else check_count("batch_size", batch_size)
        length = self.used_context_length(context_length)
        if normaliser not in ("frozen", "reestimated"):
            raise InvalidInputError(
                f"normaliser must be 'frozen' or 'reestimated', got {normaliser!r}"
            )
        regress = self.regresses(covariate_use)
        lengths = self.used_season_length(season_length)
        history = self.used_history(context_length, season_length)
        batch = read_series(y, int(horizon), past_covariates, future_covariates, length)
        load = Load(self.config, length, int(horizon), paths, normaliser == "reestimated")
        if num_paths is None and normaliser == "frozen":
            load = self._without_paths(load)
        request = Request(
            load,
            draw_seed(random_state),
            regress,
            lengths,
            {"memory_budget": self.memory_budget, "batch_size": most},
        )
        with tqdm(total=len(batch.series), disable=not progress, unit="series") as bar:
            series = batch.series
            if lengths is not None:
                series = [part.last(history) for part in series]
            marginals, seasons = forecast_series(self.network, series, request, bar.update)
        return Forecast(
            marginals,
            single=batch.single,
            univariate=batch.univariate,
            num_samples=num_samples,
            decay=self.config.dependence_decay,
            seasons=seasons,
        )

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
            forecast = self.predict(chunk, horizon, random_state=random_state, **options)
            for index, item in enumerate(chunk):
                yield forecast.of_series(index, univariate=np.ndim(item) == 1)

    def regresses(self, covariate_use: CovariateUse | None = None) -> bool:
        """Tell whether known-future covariates act through a regression: see `predict`.

        Raises
        ------
        InvalidInputError
            If `covariate_use` is none of those that `predict` takes.
        """
        if covariate_use not in (None, "regression", "tokens"):
            raise InvalidInputError(
                f"covariate_use must be 'regression', 'tokens' or None, got {covariate_use!r}"
            )
        if covariate_use is None:
            return self.config.shift_known_future
        return covariate_use == "regression"

    def used_season_length(
        self, season_length: Literal["auto"] | int | Sequence[int] | None
    ) -> SeasonLength:
        """Return what stands for a user's `season_length`: "auto", some lengths or None.

        Raises
        ------
        InvalidInputError
            If it is none of what `predict` takes.
        """
        if isinstance(season_length, str) and season_length == "auto":
            return "auto" if self.config.find_seasons else None
        return read_season_length(season_length)

    def routing(
        self,
        y: Any,
        *,
        past_covariates: Any = None,
        future_covariates: Any = None,
        horizon: int = 0,
        context_length: int | None = None,
        progress: bool = False,
    ) -> RoutingReport:
        """Report which experts the tokens of the series' contexts are sent to, in every layer.

        Parameters
        ----------
        y, past_covariates, future_covariates, horizon, context_length, progress
            As for `embed`.

        Returns
        -------
        RoutingReport

        Raises
        ------
        InvalidInputError
            If data cannot be used as given; the message names the series.
        """
        from moirai_moe_forecaster.reports.routing import make_report

        covariates = (past_covariates, future_covariates)
        return make_report(self, y, covariates, horizon, context_length, progress=progress)

    predict_df = predict_df
    embed = embed
    fine_tune = fine_tune

    def _without_paths(self, load: Load) -> Load:
        """Let missing values take the place of paths, where the checkpoint was made for it.

        Together with the context they are at most as long as what the network was trained on.
        """
        direct = load._replace(paths=0)
        beyond = direct.hidden * self.config.patch_size
        if self.config.beyond_pass != "hidden" or beyond > self.max_context_length // 2:
            return load
        length = min(load.context_length, self.max_context_length - beyond)
        return direct._replace(context_length=length)

    def used_context_length(self, context_length: int | None) -> int:
        """Return how many points are used if so many are asked for; None asks for the most."""
        if context_length is None:
            return self.max_context_length
        return min(check_count("context_length", context_length), self.max_context_length)

    def used_history(
        self,
        context_length: int | None,
        season_length: Literal["auto"] | int | Sequence[int] | None,
    ) -> int:
        """Return how many last points a forecast depends on: the context, or all for cycles."""
        if context_length is not None or self.used_season_length(season_length) is None:
            return self.used_context_length(context_length)
        return LONGEST_HISTORY
