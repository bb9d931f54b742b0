"""Moirai-MoE as a forecaster of sktime."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd
import torch
from sktime.forecasting.base import BaseForecaster, ForecastingHorizon

from moirai_moe_forecaster.adapters.sktime.context import Context
from moirai_moe_forecaster.adapters.sktime.instances import panel_frequency
from moirai_moe_forecaster.adapters.sktime.parameters import check_parameters, read_source
from moirai_moe_forecaster.adapters.sktime.points import Points, forecast_points
from moirai_moe_forecaster.adapters.sktime.tuning import TunedWeights, tune, tuning_options
from moirai_moe_forecaster.config import ModelConfig
from moirai_moe_forecaster.data.arguments import read_season_length
from moirai_moe_forecaster.inference import quantile_grid as curves
from moirai_moe_forecaster.inference.model_cache import shared_pipeline, warn_of_other_weights
from moirai_moe_forecaster.inference.options import Bounds, history_points
from moirai_moe_forecaster.inference.pipeline import MoiraiMoEPipeline
from moirai_moe_forecaster.inference.sampling import RandomState, draw_seed
from moirai_moe_forecaster.model.network import MoiraiMoE

if TYPE_CHECKING:
    from skpro.distributions.base import BaseDistribution

_TABLES = ["pd.DataFrame", "pd-multiindex", "pd_multiindex_hier"]


class MoiraiMoEForecaster(BaseForecaster):  # type: ignore[misc]
    """Probabilistic forecasts with a pretrained Moirai-MoE network, zero-shot or fine-tuned.

    Moirai-MoE [1]_ is a sparse mixture-of-experts transformer for time series. ``fit`` remembers
    the last points of the series as the context of later forecasts, and trains nothing unless
    ``fit_strategy`` says so. A panel or hierarchy is forecast in one batch, and each of its series
    as if it were alone. ``pretrain`` fine-tunes on a panel; later ``fit`` use its weights.

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
        How many of the last points to use. By default the network reads as many as it can, and
        cycles are learnt from up to 16,384.
    num_paths : int, optional (default=None)
        Paths that carry the uncertainty from patch to patch; by default as in
        ``MoiraiMoEPipeline.predict``.
    num_samples : int, optional (default=100)
        Trajectories whose dependence the samples of ``predict_proba``'s distribution have.
    batch_size : int, optional (default=None)
        Most series per pass; by default as many as a token budget allows.
    prediction_type : {"median", "mean"}, optional (default="median")
        Which point forecast ``predict`` returns.
    device : str or torch.device, optional (default=None)
        None or "auto" is CUDA, then MPS, then the CPU.
    dtype : str or torch.dtype, optional (default=None)
        None is float32.
    fit_strategy : {"zero-shot", "minimal", "full", "peft"}, optional (default="zero-shot")
        What ``fit`` trains of a copy of the weights: nothing; the output projection and the last
        norm; everything; low-rank adapters. ``pretrain`` trains the same, and adapters with
        "zero-shot". After ``pretrain``, ``fit`` trains nothing.
    peft_config : dict, optional (default=None)
        Of the adapters: fields of ``training.lora.LoraConfig``, or the names ``r``,
        ``lora_alpha`` and ``target_modules``.
    training_args : dict, optional (default=None)
        Arguments of ``MoiraiMoEPipeline.fine_tune``, such as ``max_steps``, ``learning_rate``,
        ``patience``, ``horizon`` or ``progress``.
    validation_split : float, optional (default=None)
        Share of the end of every series that is held out to choose the weights; None holds out
        the last windows. What does not improve on them is not kept.
    random_state : int or RandomState, optional (default=None)
        Seed of the paths and of training. It is drawn once in ``fit``: repeated forecasts of a
        fitted forecaster are equal, also with None.
    sp : "auto", int, list of int or None, optional (default="auto")
        Steps of the cycles that forecasts may carry on, such as 24 or ``[24, 168]``, as far as that
        has proved itself at the end of the context. "auto" finds them from the values of each
        series, if the checkpoint's configuration says so; official ones do not. None, like 1, is
        without.
    bounds : tuple (lower, upper) of float or None, optional (default=None)
        Values that are possible, such as ``(0, None)`` of what cannot be negative.
    integer : bool, optional (default=False)
        Whether only whole numbers are possible.

    Attributes
    ----------
    pipeline_ : MoiraiMoEPipeline
        The weights in use. Zero-shot, shared by all forecasters with the same checkpoint in this
        process; fine-tuned, its ``tuning`` has the scores before and after.
    model_ : MoiraiMoE
        Its network.
    pretrained_weights_ : TunedWeights
        After ``pretrain`` only; its ``pipeline`` holds them.

    Notes
    -----
    Exogenous columns that are in ``X`` of ``fit`` and of ``predict`` are known ahead: ``X`` must
    then hold every step from the first after the series to the last of ``fh``. What they explain of
    the series in its context is added to the forecast; columns that explain nothing change nothing.
    Columns only in ``X`` of ``fit`` inform about the past. Columns of categories or text become
    numbers by what the context holds of them: the place of ordered ones, else a column for each
    level. Rows are matched by their labels. NaN in
    ``y`` or ``X`` is a missing value, and so is a row that is absent from a time index of known
    frequency.

    Steps of ``fh`` at or before the end of the series are forecast one step ahead, from the values
    before each alone, back to the first point of the context; the first observed value, which has
    none before it, takes the forecast of the point after it. Cycles too are learnt from earlier
    points alone.

    All methods read the same distribution per point. ``predict_proba(fh).sample(n)`` gives joint
    trajectories.

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

    Cycles are found from the values; where their lengths are known, name them:

    >>> yearly = MoiraiMoEForecaster(config=tiny, sp=12, random_state=0).fit(load_airline())
    >>> yearly.predict(fh=[-11, 0, 1, 12]).shape
    (4,)
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
        "capability:categorical_in_X": True,
        "capability:non_contiguous_X": False,
        "capability:missing_values": True,
        "capability:unequal_length": True,
        "capability:pred_int": True,
        "capability:insample": True,
        "capability:pred_int:insample": True,
        "capability:update": True,
        "capability:pretrain": True,
        "pretrain:fitted_params": ["pretrained_weights_"],
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
        fit_strategy: Literal["zero-shot", "minimal", "full", "peft"] = "zero-shot",
        peft_config: Mapping[str, Any] | None = None,
        training_args: Mapping[str, Any] | None = None,
        validation_split: float | None = None,
        random_state: RandomState = None,
        sp: Literal["auto"] | int | Sequence[int] | None = "auto",
        bounds: Bounds | None = None,
        integer: bool = False,
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
        self.sp = sp
        self.bounds = bounds
        self.integer = integer
        super().__init__()

    def __post_init__(self) -> None:
        # sktime's own tests expect these to exist
        self._y = None
        self._X = None

    def __setstate__(self, state: dict[str, Any]) -> None:
        # made before there was this parameter, and forecast without cycles ever since
        self.__dict__.update({"sp": None, "bounds": None, "integer": False} | state)

    @property
    def pipeline_(self) -> MoiraiMoEPipeline:
        """The pipeline; a part of the instance, and of pickles, only if it was fine-tuned."""
        self.check_is_fitted()
        if self._tuned is not None:
            return self._tuned.pipeline
        pipeline = shared_pipeline(self._source)
        warn_of_other_weights(self, pipeline)
        return pipeline

    @property
    def model_(self) -> MoiraiMoE:
        """The network."""
        return self.pipeline_.network

    def save_pretrained(self, directory: str | Path) -> None:
        """Write the weights in use: ``model_path=directory`` then starts from them.

        Parameters
        ----------
        directory : str or Path

        Raises
        ------
        NotFittedError
            If neither ``fit`` nor ``pretrain`` has been called.
        """
        pretrained: TunedWeights | None = getattr(self, "pretrained_weights_", None)
        pipeline = self.pipeline_ if pretrained is None else pretrained.pipeline
        pipeline.save_pretrained(directory)

    def _pretrain(
        self, y: pd.DataFrame, X: pd.DataFrame | None = None, fh: ForecastingHorizon | None = None
    ) -> MoiraiMoEForecaster:
        check_parameters(self)
        pretrained: TunedWeights | None = getattr(self, "pretrained_weights_", None)
        pipeline = shared_pipeline(read_source(self)) if pretrained is None else pretrained.pipeline
        # no other method writes this name, or sktime would forget it in the next fit
        self.pretrained_weights_ = self._tune(pipeline, y, X, fh, self._draw_seed())
        return self

    def _tune(
        self,
        pipeline: MoiraiMoEPipeline,
        y: pd.DataFrame,
        X: pd.DataFrame | None,
        fh: ForecastingHorizon | None,
        seed: int,
    ) -> TunedWeights:
        tuned = tune(pipeline, tuning_options(self), y, X, fh, seed)
        return TunedWeights(tuned, read_source(self).device)

    def _draw_seed(self) -> int:
        # a generator of the user's stays as it is, so that fitting again gives the same
        return draw_seed(copy.deepcopy(self.random_state))

    def _fit(
        self, y: pd.DataFrame, X: pd.DataFrame | None, fh: ForecastingHorizon | None
    ) -> MoiraiMoEForecaster:
        check_parameters(self)
        self._source = read_source(self)
        self._seed = self._draw_seed()
        self._tuned: TunedWeights | None = getattr(self, "pretrained_weights_", None)
        if self._tuned is None:
            pipeline = shared_pipeline(self._source)
            self._fingerprint = pipeline.info.fingerprint if pipeline.info else None
            if self.fit_strategy != "zero-shot":
                self._tuned = self._tune(pipeline, y, X, fh, self._seed)
        else:
            pipeline = self._tuned.pipeline
        sp = read_season_length(self.sp, "sp")
        history = history_points(pipeline.config, self.context_length, sp)
        self._context = Context.of(y, X, history)
        self._set_cutoff_frequency()
        return self

    def _update(
        self, y: pd.DataFrame, X: pd.DataFrame | None = None, update_params: bool = True
    ) -> MoiraiMoEForecaster:
        # whatever update_params says: sktime has moved the cutoff, and the context must follow
        self._context = self._context.extended(y, X)
        self._set_cutoff_frequency()
        return self

    def _set_cutoff_frequency(self) -> None:
        """Let sktime know a frequency that it does not find: of a panel, or after an update."""
        if isinstance(self.cutoff, pd.DatetimeIndex) and self.cutoff.freq is None:
            freq = panel_frequency(self._context.y, self.cutoff[0])
            self._set_cutoff(pd.DatetimeIndex(self.cutoff, freq=freq))

    def _predict(self, fh: ForecastingHorizon, X: pd.DataFrame | None) -> pd.DataFrame:
        points = self._points(fh, X)
        values = (
            points.support.mean(curves.mean(points.nodes), points.nodes)
            if self.prediction_type == "mean"
            else points.support.possible(curves.quantiles(points.nodes, np.array([0.5]))[..., 0])
        )
        return pd.DataFrame(values, points.labels, self._context.y.columns)

    def _predict_quantiles(
        self, fh: ForecastingHorizon, X: pd.DataFrame | None, alpha: list[float]
    ) -> pd.DataFrame:
        points = self._points(fh, X)
        columns = pd.MultiIndex.from_product([self._get_varnames(), alpha])
        values = points.support.possible(curves.quantiles(points.nodes, np.array(alpha)))
        return pd.DataFrame(values.reshape(-1, len(columns)), points.labels, columns)

    def _predict_proba(
        self, fh: ForecastingHorizon, X: pd.DataFrame | None, marginal: bool = True
    ) -> BaseDistribution:
        # skpro would make a first forecast a sixth slower, and most need no distribution
        from moirai_moe_forecaster.adapters.sktime.distribution import ForecastDistribution
        from moirai_moe_forecaster.adapters.sktime.whole_numbers import WholeNumbers

        points = self._points(fh, X, trajectories=True)
        kind = WholeNumbers if points.support.integer else ForecastDistribution
        return kind(
            points.nodes,
            points.ranks,
            # the first samples of equal forecasts are equal
            np.random.default_rng(abs(self._seed)),
            index=points.labels,
            columns=self._get_varnames(),
        )

    def _points(
        self, fh: ForecastingHorizon, X: pd.DataFrame | None, *, trajectories: bool = False
    ) -> Points:
        options = {
            "num_paths": self.num_paths,
            "num_samples": self.num_samples,
            "batch_size": self.batch_size,
            "random_state": self._seed,
            "season_length": self.sp,
            "bounds": self.bounds,
            "integer": self.integer,
        }
        freq = getattr(self.cutoff, "freq", None)
        return forecast_points(
            self.pipeline_, self._context, fh, X, freq, options, trajectories=trajectories
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
        tiny: dict[str, Any] = {"d_model": 16, "d_ff": 16, "num_layers": 1, "num_heads": 2}
        tiny |= {"num_experts": 2, "experts_per_token": 1, "mixture": ["normal_fixed"]}
        blocks = tiny | {"num_layers": 2, "num_experts": 4, "mixture": ["student_t"]}
        brief = {"max_steps": 1, "learning_rate": 1e-3, "batch_size": 2, "progress": False}
        return [
            {"config": tiny, "training_args": brief},
            {
                "config": blocks,
                "context_length": 64,
                "num_paths": 4,
                "num_samples": 20,
                "batch_size": 2,
                "prediction_type": "mean",
                "device": "cpu",
                "training_args": brief,
                "random_state": 1,
            },
            {"config": tiny, "fit_strategy": "minimal", "training_args": brief},
            {"config": tiny | {"find_seasons": True}, "training_args": brief, "sp": [4, 6]},
        ]
