"""Moirai-MoE as a foundation model of Darts."""

from __future__ import annotations

import functools
import os
from collections.abc import Sequence
from contextvars import ContextVar
from typing import Any, Literal

import numpy as np
import torch

from moirai_moe_forecaster.errors import MissingExtraError

try:
    from darts.logging import raise_log
    from darts.models.forecasting.foundation_model import FoundationModel
    from darts.utils.data import TorchTrainingSample
    from darts.utils.likelihood_models.torch import QuantileRegression
    from darts.utils.serialization import add_safe_globals, safe_globals
except ImportError as error:
    purpose = "MoiraiMoEModel, on Python 3.11 or newer,"
    raise MissingExtraError("darts[torch]", "darts", purpose) from error

from moirai_moe_forecaster.adapters.darts.module import ModuleWeights, MoiraiMoEModule
from moirai_moe_forecaster.adapters.darts.parameters import check_context_length, plain_bounds
from moirai_moe_forecaster.adapters.darts.tuning import (
    check_choice,
    check_matches,
    lora_settings,
    set_defaults,
)
from moirai_moe_forecaster.data.arguments import check_count, read_season_length
from moirai_moe_forecaster.inference import model_cache
from moirai_moe_forecaster.inference.model_cache import ModelSource, last_written, shared_pipeline
from moirai_moe_forecaster.inference.options import Bounds
from moirai_moe_forecaster.inference.pipeline import MoiraiMoEPipeline
from moirai_moe_forecaster.inference.seasons import SeasonLength

EARLIER_NAME = "moirai_moe_forecaster.adapters.darts.MoiraiMoEModel"

_weights_are_beside: ContextVar[bool] = ContextVar("weights_are_beside", default=False)


class MoiraiMoEModel(FoundationModel):  # type: ignore[misc]
    """Zero-shot and fine-tuned forecasts with a pretrained Moirai-MoE network.

    Moirai-MoE [1]_ is a sparse mixture-of-experts transformer for time series. ``fit`` trains
    nothing unless ``enable_finetuning`` says so. Components of a series and past covariates are
    read jointly, future covariates as ``MoiraiMoEPipeline.predict`` does by default; static ones
    are left aside. NaN is a missing value.

    Parameters
    ----------
    input_chunk_length
        Length of the context in time steps, or a tuple ``(min_length, max_length)``: series and
        windows of any length between the two are then forecast from all they have. The network
        reads as much as it was made for, and cycles are learnt from all, up to 16,384 steps.
    output_chunk_length
        Steps for which ``future_covariates`` must be given, which
        ``predict_likelihood_parameters=True`` can predict, and which fine-tuning learns from. It
        does not bound ``predict(n)``: every horizon is decoded natively, and no median is fed back.
    output_chunk_shift
        Steps between the context and the first one predicted. Default: ``0``.
    likelihood
        ``QuantileRegression`` with any quantiles in (0, 1), or None for the median alone. It says
        what is predicted, not what is learnt. Default: ``None``.
    hub_model_name
        A checkpoint on the Hugging Face Hub, such as ``"Salesforce/moirai-moe-1.0-R-small"``
        (needs the extra ``hub``). Default: ``None``, the one that comes with this package.
    hub_model_revision
        Branch, tag or commit on the Hub. Default: ``None``.
    local_dir
        Directory with the ``config.json`` and ``model.safetensors`` of a checkpoint. Goes before
        ``hub_model_name``. Default: ``None``.
    enable_finetuning
        True to train all weights, ``{"unfreeze": patterns}`` or ``{"freeze": patterns}`` to choose
        by names of parameters (they start with ``network.``), and ``{"lora": settings}`` to train
        low-rank adapters alone; the settings are those of ``LoraConfig``, such as ``{"rank": 8}``.
        Default: ``None``, no training.
    season_length
        Steps of the cycles that forecasts may carry on, such as ``24`` or ``[24, 168]``, as far as
        that has proved itself at the end of the context; it must hold two of each. ``"auto"`` finds
        them from the values of each component, if the checkpoint's configuration says so; official
        ones do not. None, like 1, forecasts without. Default: ``"auto"``.
    bounds
        A pair ``(lower, upper)`` of possible values, None where there is no bound, such as
        ``(0, None)`` of what cannot be negative. Default: ``None``.
    integer
        Whether only whole numbers are possible. Default: ``False``.
    **kwargs
        Of Darts' ``TorchForecastingModel`` and of its Lightning module and trainer: ``batch_size``,
        ``n_epochs``, ``optimizer_cls``, ``optimizer_kwargs``, ``lr_scheduler_cls``,
        ``lr_scheduler_kwargs``, ``torch_metrics``, ``random_state``, ``add_encoders``,
        ``save_checkpoints``, ``model_name``, ``work_dir``, ``pl_trainer_kwargs`` and others. When
        fine-tuning, ``n_epochs`` is 10 by default, the learning rate of Adam 1e-4 (3e-4 of
        adapters), and gradients are clipped to a norm of 1. ``loss_fn`` and
        ``use_reversible_instance_norm`` have no effect: the loss is the likelihood, and the
        network standardises every context itself.

    Raises
    ------
    ValueError
        If the likelihood is not ``QuantileRegression``, the context longer than the checkpoint was
        made for and no cycles to be learnt from it, the output chunk or its shift no integer in
        range, a season no length, or an argument unknown.
    CheckpointError
        If the checkpoint is missing or damaged.
    ConfigError
        If a setting of ``lora`` is unknown or out of range, or a pattern of ``enable_finetuning``
        matches no parameter.

    Notes
    -----
    Quantiles and medians are always the same for the same context, in whatever batch. Samples are
    trajectories: the steps and components of one belong together. A component without any value in
    the context has no forecast, and gets NaN.

    The network computes in the type of the series, as all torch models of Darts do; ``float32``
    is about twice as fast as ``float64``. Series of ``float16`` are computed in ``float32``.

    References
    ----------
    .. [1] Liu et al. (2024), "Moirai-MoE: Empowering Time Series Foundation Models with Sparse
       Mixture of Experts", arXiv 2410.10469.

    Examples
    --------
    >>> from darts.utils.likelihood_models.torch import QuantileRegression
    >>> from darts.utils.timeseries_generation import sine_timeseries
    >>> from moirai_moe_forecaster import MoiraiMoEModel
    >>> series = sine_timeseries(length=96, value_frequency=1 / 12)
    >>> model = MoiraiMoEModel(72, 12, likelihood=QuantileRegression([0.1, 0.5, 0.9]))
    >>> model.fit(series).predict(12, predict_likelihood_parameters=True).n_components
    3
    >>> model.predict(36, num_samples=20).n_samples
    20
    """

    trainer: Any
    train_sample: Any
    _module: MoiraiMoEModule | None
    _restored: bool
    _kept: ModuleWeights | None

    def __init__(
        self,
        input_chunk_length: int | tuple[int, int],
        output_chunk_length: int,
        output_chunk_shift: int = 0,
        likelihood: QuantileRegression | None = None,
        hub_model_name: str | None = None,
        hub_model_revision: str | None = None,
        local_dir: str | os.PathLike[str] | None = None,
        enable_finetuning: bool | dict[str, Any] | None = None,
        season_length: Literal["auto"] | int | Sequence[int] | None = "auto",
        bounds: Bounds | None = None,
        integer: bool = False,
        **kwargs: Any,
    ) -> None:
        if likelihood is not None and not isinstance(likelihood, QuantileRegression):
            raise_log(
                ValueError(
                    "Only QuantileRegression likelihood is supported for MoiraiMoEModel. Got "
                    f"{type(likelihood).__name__}."
                )
            )
        check_count("output_chunk_length", output_chunk_length)
        check_count("output_chunk_shift", output_chunk_shift, least=0)
        if kwargs.get("use_static_covariates"):
            raise_log(ValueError("MoiraiMoEModel does not support static covariates."))
        if local_dir is not None:
            if not os.path.isdir(local_dir):
                raise_log(ValueError(f"`local_dir` {local_dir} is not a directory."))
            # safe loading knows no path objects, and other processes may be elsewhere
            self.model_params["local_dir"] = os.path.abspath(local_dir)
        # nor does it know numbers of numpy
        self.model_params["season_length"] = read_season_length(season_length)
        self.model_params["bounds"] = plain_bounds(bounds, integer)
        self.model_params["integer"] = bool(integer)
        if enable_finetuning:
            set_defaults(self.model_params, enable_finetuning)
        self._kept = None
        super().__init__(**kwargs)
        check_context_length(
            self._checkpoint.config,
            self.input_chunk_length,
            read_season_length(self._season_length),
        )
        check_matches(self.enable_finetuning, self._checkpoint.network)
        self._fingerprint = info.fingerprint if (info := self._checkpoint.info) else None

    @property
    def supports_static_covariates(self) -> bool:
        """False: those of a series are left aside, and kept on its forecast."""
        return False

    @property
    def model(self) -> MoiraiMoEModule | None:
        """The Lightning module; after unpickling or copying, built when first asked for."""
        if self._restored and self._fit_called and self.train_sample is not None:
            module = self._create_model(self.train_sample)
            self._setup_finetuning(module)
            self.model, self._kept = module, None
        return self._module

    @model.setter
    def model(self, module: MoiraiMoEModule | None) -> None:
        self._module, self._restored = module, False

    @functools.wraps(FoundationModel.fit, assigned=())
    def fit(self, series: Any, *args: Any, **kwargs: Any) -> MoiraiMoEModel:
        """Remember the series, and train only if `enable_finetuning` says so.

        The parameters are those of Darts' torch models. A fitted model can be fitted again to other
        numbers of components and covariates.
        """
        # those of an earlier fit, which Darts would go on using
        self.past_covariate_series = self.future_covariate_series = None
        return super().fit(series, *args, **kwargs)

    def generate_fit_encodings(
        self, series: Any, past_covariates: Any = None, future_covariates: Any = None
    ) -> tuple[Any, Any]:
        """Encode the times of a fit; without training, up to the end of the series."""
        if self._requires_training:
            return super().generate_fit_encodings(series, past_covariates, future_covariates)
        # Darts' own end a chunk earlier, but the context that is remembered does not
        return self.generate_fit_predict_encodings(
            self.output_chunk_length, series, past_covariates, future_covariates
        )

    def save(self, path: str | None = None, clean: bool = False) -> None:
        """Save the model under `path` and its weights, whatever made them, under `path`.ckpt.

        Parameters
        ----------
        path : str, optional
            By default the class' name with the time.
        clean : bool, default=False
            Leave out the training series and what configures the trainer.
        """
        if self.model is not None and self.trainer is None:
            # Darts lets a trainer write the weights, and a loaded model has none yet
            self.trainer = self._setup_trainer(None, self.model)
            self.trainer.strategy.connect(self.model)
        token = _weights_are_beside.set(True)
        try:
            super().save(path, clean)
        finally:
            _weights_are_beside.reset(token)

    @staticmethod
    def load(path: str, *args: Any, **kwargs: Any) -> MoiraiMoEModel:
        """Load what `save` wrote; the parameters are those of Darts' torch models."""
        with safe_globals(_own_globals()):
            return FoundationModel.load(path, *args, **kwargs)

    @staticmethod
    def load_from_checkpoint(model_name: str, *args: Any, **kwargs: Any) -> MoiraiMoEModel:
        """Load a checkpoint of fine-tuning; the parameters are those of Darts' torch models."""
        with safe_globals(_own_globals()):
            return FoundationModel.load_from_checkpoint(model_name, *args, **kwargs)

    def load_weights_from_checkpoint(self, *args: Any, **kwargs: Any) -> None:
        """Load weights alone; the parameters are those of Darts' torch models."""
        with safe_globals(_own_globals()):
            super().load_weights_from_checkpoint(*args, **kwargs)
        if self._module is not None:
            self._module.pretrained = False
            self._setup_finetuning(self._module)

    def _create_model(self, train_sample: TorchTrainingSample) -> MoiraiMoEModule:
        # parameters that are made in inference mode could never be trained
        with torch.inference_mode(False):
            if self._kept is None:
                model_cache.warn_of_other_weights(self, self._checkpoint)
            kept = self._kept or ModuleWeights.pretrained(self._checkpoint.network)
            module = MoiraiMoEModule(
                kept.config,
                self._lora,
                self._season_length,
                # models that were pickled before there were bounds have none
                self.model_params.get("bounds"),
                self.model_params.get("integer", False),
                **self.pl_module_params,
            )
            module.to(kept.dtype)
            module.load_state_dict(kept.state)
            module.pretrained = self._kept is None
        return module

    @property
    def _lora(self) -> dict[str, Any] | None:
        return lora_settings(self.enable_finetuning)

    @property
    def _season_length(self) -> SeasonLength:
        # models that were pickled before there were views do not say
        return self.model_params.get("season_length", "auto")

    @staticmethod
    def _verify_enable_finetuning(enable_finetuning: Any) -> None:
        check_choice(enable_finetuning)
        if lora_settings(enable_finetuning) is not None and len(enable_finetuning) == 1:
            return
        FoundationModel._verify_enable_finetuning(enable_finetuning)

    def _setup_finetuning(self, model: MoiraiMoEModule) -> None:
        if self._lora is None:
            super()._setup_finetuning(model)

    def _init_model(self, trainer: Any = None) -> MoiraiMoEModule:
        if trainer is None and "precision" not in (
            self.model_params.get("pl_trainer_kwargs") or {}
        ):
            # the one of an earlier fit, to series of another type
            self.trainer_params.pop("precision", None)
            if self.train_sample.past_target.dtype == np.float16:
                # Darts would choose bfloat16, and round the series to its 8 bits at once
                self.trainer_params["precision"] = "32-true"
        module = super()._init_model(trainer)
        self._kept = None
        return module

    def _setup_for_train(self, train_dataset: Any, *args: Any, **kwargs: Any) -> dict[str, Any]:
        if self.model is not None and self._has_other_components(train_dataset):
            # the weights serve any number of components, but a module remembers its own
            self._kept = self._weights()
            self.model = self.train_sample = None
        return super()._setup_for_train(train_dataset, *args, **kwargs)

    def _has_other_components(self, train_dataset: Any) -> bool:
        try:
            sample = train_dataset[0]
        except (ValueError, IndexError):  # too short, which Darts says better
            return False
        return sample.component_dims() != self.train_sample.component_dims()

    def _weights(self) -> ModuleWeights | None:
        """Weights that could not be read from the checkpoint again."""
        if self._module is None or self._module.pretrained:
            return self._kept
        return ModuleWeights.of(self._module)

    def __getstate__(self) -> dict[str, Any]:
        state = super().__getstate__()
        del state["_module"]
        state["_kept"] = None if _weights_are_beside.get() else self._weights()
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        # Darts looks the module's class up where it was when the model was saved
        self._module_path = MoiraiMoEModule.__module__
        self._restored = True

    @property
    def _ckpt_skipped_params(self) -> list[str]:
        return [
            *super()._ckpt_skipped_params,
            "likelihood",
            "hub_model_name",
            "hub_model_revision",
            "local_dir",
            "season_length",
            "bounds",
            "integer",
            "use_reversible_instance_norm",
        ]

    @property
    def _checkpoint(self) -> MoiraiMoEPipeline:
        parameters = self.model_params
        directory = parameters["local_dir"]
        return shared_pipeline(
            ModelSource(
                directory or parameters["hub_model_name"],
                parameters["hub_model_revision"],
                None,
                "cpu",
                None,
                last_written(directory),
            )
        )


def _own_globals() -> list[Any]:
    """What Darts' safe loading may unpickle, also under the name in saves of earlier versions."""
    return [MoiraiMoEModel, (MoiraiMoEModel, EARLIER_NAME)]


add_safe_globals(_own_globals())
