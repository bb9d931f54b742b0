"""Moirai-MoE as a forecaster of sktime."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from sktime.forecasting.base import BaseForecaster, ForecastingHorizon

from moirai_moe_forecaster.adapters.sktime_instances import (
    Instance,
    asked_for,
    called,
    inferred_frequency,
    last_rows,
    numbers,
    rows_ahead,
    rows_at,
    split_instances,
    steps_after,
    target_values,
    time_grid,
)
from moirai_moe_forecaster.config import ModelConfig
from moirai_moe_forecaster.errors import InvalidInputError
from moirai_moe_forecaster.inference.arguments import check_count
from moirai_moe_forecaster.inference.forecast import Forecast
from moirai_moe_forecaster.inference.pipeline import MoiraiMoEPipeline
from moirai_moe_forecaster.inference.randomness import RandomState, draw_seed
from moirai_moe_forecaster.inference.shared import Source, last_written, shared_pipeline
from moirai_moe_forecaster.model.network import MoiraiMoE

if TYPE_CHECKING:
    from skpro.distributions.base import BaseDistribution

Array = NDArray[np.float64]

_TABLES = ["pd.DataFrame", "pd-multiindex", "pd_multiindex_hier"]
_ZERO_SHOT = {
    "fit_strategy": "zero-shot",
    "peft_config": None,
    "training_args": None,
    "validation_split": None,
}


class MoiraiMoEForecaster(BaseForecaster):  # type: ignore[misc]
    """Zero-shot probabilistic forecasts with a pretrained Moirai-MoE network.

    Moirai-MoE [1]_ is a sparse mixture-of-experts transformer for time series. Nothing is trained
    in ``fit``, which remembers the last points of the series as the context of later forecasts. A
    panel or hierarchy is forecast in one batch, and each of its series as if it were alone.

    Parameters
    ----------
    model_path : str or Path, optional (default=None)
        Directory or Hub name of a checkpoint, such as ``"Salesforce/moirai-moe-1.0-R-small"``.
        None is the checkpoint that comes with this package, unless ``config`` is given.
    config : dict or ModelConfig, optional (default=None)
        Instead of a checkpoint: a network of this configuration with random weights, always the
        same ones. For tests.
    revision : str, optional (default=None)
        Branch, tag or commit on the Hub.
    context_length : int, optional (default=None)
        How many of the last points to use; by default as many as the network can.
    num_paths : int, optional (default=None)
        Paths that carry the uncertainty from patch to patch; by default as in
        ``MoiraiMoEPipeline.predict``.
    num_samples : int, optional (default=100)
        Trajectories in the distribution that ``predict_proba`` returns.
    batch_size : int, optional (default=None)
        Most series per pass; by default as many as a token budget allows.
    prediction_type : {"median", "mean"}, optional (default="median")
        Which point forecast ``predict`` returns.
    device : str or torch.device, optional (default=None)
        None or "auto" is CUDA, then MPS, then the CPU.
    dtype : str or torch.dtype, optional (default=None)
        None is float32.
    fit_strategy : {"zero-shot"}, optional (default="zero-shot")
        What ``fit`` does to the weights: nothing.
    peft_config, training_args, validation_split : optional (default=None)
        Reserved for fine-tuning; must be None.
    random_state : int or RandomState, optional (default=None)
        Seed of the paths. It is drawn once in ``fit``: repeated forecasts of a fitted forecaster
        are equal, also with None.

    Attributes
    ----------
    pipeline_ : MoiraiMoEPipeline
        Shared by all forecasters with the same checkpoint in this process.
    model_ : MoiraiMoE
        Its network.

    Notes
    -----
    Exogenous columns that are in ``X`` of ``fit`` and of ``predict`` are known ahead: ``X`` must
    then hold every step from the first after the series to the last of ``fh``. Columns only in
    ``X`` of ``fit`` inform about the past. Rows are matched by their labels. NaN in ``y`` or ``X``
    is a missing value, and so is a row that is absent from a time index of known frequency.

    References
    ----------
    .. [1] Liu et al. (2024), "Moirai-MoE: Empowering Time Series Foundation Models with Sparse
       Mixture of Experts", arXiv 2410.10469.

    Examples
    --------
    >>> from moirai_moe_forecaster import MoiraiMoEForecaster
    >>> from sktime.datasets import load_airline
    >>> tiny = {"d_model": 16, "d_ff": 16, "num_layers": 1, "num_heads": 2,
    ...         "num_experts": 2, "experts_per_token": 1}
    >>> forecaster = MoiraiMoEForecaster(config=tiny, random_state=0)
    >>> y_pred = forecaster.fit(load_airline()).predict(fh=range(1, 13))
    >>> forecaster.predict_interval(fh=range(1, 13), coverage=0.8).shape
    (12, 2)
    """

    _tags = {  # noqa: RUF012
        "authors": ["The moirai-moe-forecaster developers"],
        "maintainers": ["The moirai-moe-forecaster developers"],
        "y_inner_mtype": _TABLES,
        "X_inner_mtype": _TABLES,
        "requires-fh-in-fit": False,
        "X-y-must-have-same-index": True,
        "capability:multivariate": True,
        "capability:exogenous": True,
        "capability:categorical_in_X": False,
        "capability:non_contiguous_X": False,
        "capability:missing_values": True,
        "capability:unequal_length": True,
        "capability:pred_int": True,
        "capability:insample": False,
        "capability:pred_int:insample": False,
        "capability:update": True,
        "capability:random_state": True,
        "property:randomness": "derandomized",
    }
    # the context is enough for every forecast and update: sktime need not keep the whole series
    _config = {"remember_data": False}  # noqa: RUF012

    def __init__(
        self,
        model_path: str | Path | None = None,
        config: Mapping[str, Any] | ModelConfig | None = None,
        revision: str | None = None,
        context_length: int | None = None,
        num_paths: int | None = None,
        num_samples: int = 100,
        batch_size: int | None = None,
        prediction_type: Literal["median", "mean"] = "median",
        device: str | torch.device | None = None,
        dtype: str | torch.dtype | None = None,
        fit_strategy: Literal["zero-shot"] = "zero-shot",
        peft_config: None = None,
        training_args: None = None,
        validation_split: None = None,
        random_state: RandomState = None,
    ) -> None:
        self.model_path = model_path
        self.config = config
        self.revision = revision
        self.context_length = context_length
        self.num_paths = num_paths
        self.num_samples = num_samples
        self.batch_size = batch_size
        self.prediction_type = prediction_type
        self.device = device
        self.dtype = dtype
        self.fit_strategy = fit_strategy
        self.peft_config = peft_config
        self.training_args = training_args
        self.validation_split = validation_split
        self.random_state = random_state
        super().__init__()

    def __post_init__(self) -> None:
        # sktime's own tests expect these to exist
        self._y = None
        self._X = None

    @property
    def pipeline_(self) -> MoiraiMoEPipeline:
        """The pipeline; never part of the instance, so that pickles and copies stay small."""
        self.check_is_fitted()
        return shared_pipeline(self._source)

    @property
    def model_(self) -> MoiraiMoE:
        """The network."""
        return self.pipeline_.network

    def _fit(
        self, y: pd.DataFrame, X: pd.DataFrame | None, fh: ForecastingHorizon | None
    ) -> MoiraiMoEForecaster:
        self._check_parameters()
        self._source = self._read_source()
        longest = shared_pipeline(self._source).max_context_length
        self._length = min(self.context_length or longest, longest)
        # a generator of the user's stays as it is, so that fitting again gives the same
        self._seed = draw_seed(copy.deepcopy(self.random_state))
        self._context = last_rows(y, self._length)
        self._exogenous = None if X is None else rows_at(X, self._context.index)
        self._set_cutoff_frequency()
        return self

    def _update(
        self, y: pd.DataFrame, X: pd.DataFrame | None = None, update_params: bool = True
    ) -> MoiraiMoEForecaster:
        # whatever update_params says: sktime has moved the cutoff, and the context must follow
        if len(y.columns) == len(self._context.columns) == 1:
            self._context.columns = y.columns
        elif set(y.columns) != set(self._context.columns):
            raise InvalidInputError(
                f"y has the columns {list(y.columns)}; expected those seen in fit, "
                f"{list(self._context.columns)}"
            )
        if X is not None:
            self._check_columns(X)
            rows = rows_at(X, y.index)
            self._exogenous = last_rows(rows, self._length, before=self._exogenous)
        self._context = last_rows(y, self._length, before=self._context)
        if self._exogenous is not None:
            self._exogenous = self._exogenous.reindex(self._context.index)
        self._set_cutoff_frequency()
        return self

    def _set_cutoff_frequency(self) -> None:
        """Let sktime know a frequency that it does not find: of a panel, or after an update."""
        if not isinstance(self.cutoff, pd.DatetimeIndex) or self.cutoff.freq is not None:
            return
        for part in split_instances(self._context).values():
            if part.index[-1] == self.cutoff[0]:
                self._set_cutoff(pd.DatetimeIndex(self.cutoff, freq=inferred_frequency(part.index)))
                return

    def _predict(self, fh: ForecastingHorizon, X: pd.DataFrame | None) -> pd.DataFrame:
        forecast, instances = self._forecast(fh, X)
        values = forecast.median if self.prediction_type == "median" else forecast.mean
        return pd.DataFrame(
            asked_for(values, instances), self._index(instances), self._context.columns
        )

    def _predict_quantiles(
        self, fh: ForecastingHorizon, X: pd.DataFrame | None, alpha: list[float]
    ) -> pd.DataFrame:
        forecast, instances = self._forecast(fh, X)
        columns = pd.MultiIndex.from_product([self._get_varnames(), alpha])
        values = asked_for(forecast.quantile(alpha).transpose(0, 2, 3, 1), instances)
        return pd.DataFrame(values.reshape(-1, len(columns)), self._index(instances), columns)

    def _predict_proba(
        self, fh: ForecastingHorizon, X: pd.DataFrame | None, marginal: bool = True
    ) -> BaseDistribution:
        # imported here, as most forecasts need no distribution
        from skpro.distributions import Empirical

        forecast, instances = self._forecast(fh, X)
        # evenly spaced quantiles in the order of the samples: their dependence, not their noise
        ranks = forecast.samples.argsort(1).argsort(1)
        levels = (np.arange(self.num_samples) + 0.5) / self.num_samples
        draws = np.take_along_axis(forecast.quantile(levels), ranks, 1)
        index, columns = self._index(instances), self._get_varnames()
        tables = [
            pd.DataFrame(values, index, columns)
            for values in asked_for(draws.transpose(0, 2, 1, 3), instances).swapaxes(0, 1)
        ]
        table = pd.concat(dict(enumerate(tables)), names=["sample"])
        return Empirical(
            table, time_indep=False, skip_init_sorted=True, index=index, columns=table.columns
        )

    def _forecast(
        self, fh: ForecastingHorizon, X: pd.DataFrame | None
    ) -> tuple[Forecast, list[Instance]]:
        """Forecast all instances in one batch, up to the last step that any of them needs."""
        instances = self._instances(fh)
        horizon = max(len(instance.ahead) for instance in instances)
        past, future = self._covariates(instances, horizon, X)
        forecast = self.pipeline_.predict(
            [target_values(instance) for instance in instances],
            horizon,
            past_covariates=past,
            future_covariates=future,
            num_paths=self.num_paths,
            num_samples=self.num_samples,
            batch_size=self.batch_size,
            random_state=self._seed,
        )
        return forecast, instances

    def _instances(self, fh: ForecastingHorizon) -> list[Instance]:
        instances: list[Instance] = []
        freq = getattr(self.cutoff, "freq", None)
        times: pd.Index | None = None
        for key, y in split_instances(self._context).items():
            if times is None or not y.index.equals(times):  # most panels share one time index
                times = y.index
                grid = time_grid(times, freq, self._length, called(key))
                cutoff = grid[-1:]
                # a horizon keeps the frequency of the first cutoff that it meets
                own = ForecastingHorizon(fh.to_pandas(), fh.is_relative, freq=cutoff)
                labels = own.to_absolute_index(cutoff)
                steps = steps_after(own, labels, cutoff, called(key))
                ahead = ForecastingHorizon(range(1, steps.max() + 1)).to_absolute_index(cutoff)
            instances.append(Instance(key, y.reindex(grid), steps, labels, ahead))
        return instances

    def _covariates(
        self, instances: list[Instance], horizon: int, X: pd.DataFrame | None
    ) -> tuple[list[Array] | None, list[Array] | None]:
        """Past and known-future covariates of each instance, as the pipeline takes them."""
        if X is not None:
            self._check_columns(X)
        if self._exogenous is None:
            return None, None
        names = list(self._exogenous.columns)
        known = [name for name in names if X is not None and name in X.columns]
        only_past = [name for name in names if name not in known]
        history = split_instances(self._exogenous[only_past + known])
        future = {} if X is None else split_instances(X[known])
        pasts, futures = [], []
        for instance in instances:
            seen = numbers(history[instance.key].reindex(instance.y.index))
            pasts.append(seen[:, : len(only_past)])
            if known:
                ahead = numbers(rows_ahead(future.get(instance.key), instance))
                spare = np.full((horizon - len(ahead), len(known)), np.nan)
                futures.append(np.concatenate((seen[:, len(only_past) :], ahead, spare)))
        return pasts if only_past else None, futures or None

    def _index(self, instances: list[Instance]) -> pd.Index:
        """Row labels of a forecast: instance by instance, the steps that are asked for."""
        times = [instance.labels for instance in instances]
        names = self._context.index.names
        if len(names) == 1:
            return times[0].rename(names[0])
        keys = [instance.key for instance in instances for _ in instance.steps]
        labels: list[Any] = [*zip(*keys, strict=True), times[0].append(times[1:])]
        return pd.MultiIndex.from_arrays(labels, names=names)

    def _check_parameters(self) -> None:
        if self.prediction_type not in ("median", "mean"):
            raise InvalidInputError(
                f"prediction_type must be 'median' or 'mean', got {self.prediction_type!r}"
            )
        for name, only in _ZERO_SHOT.items():
            if getattr(self, name) != only:
                raise InvalidInputError(
                    f"{name} must be {only!r}, got {getattr(self, name)!r}: "
                    "this version does not fine-tune"
                )
        check_count("num_samples", self.num_samples)
        for name in ("context_length", "num_paths", "batch_size"):
            if getattr(self, name) is not None:
                check_count(name, getattr(self, name))

    def _read_source(self) -> Source:
        if self.model_path is not None and self.config is not None:
            raise InvalidInputError(
                "model_path and config cannot both be given: a checkpoint has its configuration"
            )
        config, path = self.config, self.model_path
        if isinstance(config, Mapping):
            config = ModelConfig.from_dict(config)
        name = None if path is None else str(path)
        device = str(self.device or "auto")
        return Source(name, self.revision, config, device, self.dtype, last_written(path))

    def _check_columns(self, X: pd.DataFrame) -> None:
        if self._exogenous is None:
            raise InvalidInputError("X was not given to fit, which needs the past of its columns")
        unknown = X.columns.difference(self._exogenous.columns, sort=False)
        if len(unknown):
            raise InvalidInputError(
                f"X has the columns {list(unknown)}, which fit has not seen; "
                f"expected some of {list(self._exogenous.columns)}"
            )

    @classmethod
    def get_test_params(cls, parameter_set: str = "default") -> list[dict[str, Any]]:
        """Return testing parameter settings for the estimator.

        Parameters
        ----------
        parameter_set : str, default="default"
            Name of the set of test parameters; there is only one.

        Returns
        -------
        list of dict
        """
        tiny = {
            "d_model": 16,
            "d_ff": 16,
            "num_layers": 1,
            "num_heads": 2,
            "num_experts": 2,
            "experts_per_token": 1,
            "mixture": ["normal_fixed"],
        }
        blocks = tiny | {"num_layers": 2, "num_experts": 4, "mixture": ["student_t"]}
        return [
            {"config": tiny},
            {
                "config": blocks,
                "context_length": 40,
                "num_paths": 4,
                "num_samples": 20,
                "batch_size": 2,
                "prediction_type": "mean",
                "device": "cpu",
                "random_state": 1,
            },
        ]
