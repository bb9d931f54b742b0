"""The native interface: a pretrained network with everything a user needs around it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from moirai_moe_forecaster.config import Precision
from moirai_moe_forecaster.data.arguments import OnError
from moirai_moe_forecaster.inference.encode import Embedding, embed
from moirai_moe_forecaster.inference.predicting import Predictor
from moirai_moe_forecaster.inference.sampling import RandomState

if TYPE_CHECKING:
    from moirai_moe_forecaster.reports.routing import RoutingReport
    from moirai_moe_forecaster.tuning.fine_tune_config import Callback
    from moirai_moe_forecaster.tuning.lora import LoraConfig
    from moirai_moe_forecaster.tuning.modes import Mode


class MoiraiMoEPipeline(Predictor):
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

    def embed(
        self,
        y: Any,
        *,
        past_covariates: Any = None,
        future_covariates: Any = None,
        horizon: int = 0,
        context_length: int | None = None,
        progress: bool = False,
    ) -> Embedding:
        """Represent series by what the network makes of their patches, after its last layer.

        A series is standardised first, so that level and scale leave no trace. Every patch has seen
        the ones before it; the pooled representation is the mean over patches (and targets).

        Parameters
        ----------
        y, past_covariates, context_length, progress
            As for `predict`.
        future_covariates : array or list of arrays, optional
            (context + horizon, k) per series.
        horizon : int, default=0
            How far `future_covariates` reach beyond the context.

        Returns
        -------
        Embedding
            ``pooled``, (series, d_model), and ``tokens``, one (variate, patch, d_model) per series;
            both without the series axis when one series was passed that was not in a list.

        Raises
        ------
        InvalidInputError
            If data cannot be used as given; the message names the series.

        Examples
        --------
        >>> import numpy as np
        >>> from moirai_moe_forecaster import MoiraiMoEPipeline
        >>> pipeline = MoiraiMoEPipeline.from_pretrained()
        >>> embedding = pipeline.embed([np.sin(np.arange(n) / 4) for n in (64, 100)])
        >>> embedding.pooled.shape, embedding.tokens[1].shape
        ((2, 192), (1, 7, 192))
        """
        covariates = (past_covariates, future_covariates)
        return embed(self, y, covariates, horizon, context_length, progress=progress)

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

    def fine_tune(
        self,
        y: Any,
        *,
        horizon: int | None = None,
        mode: Mode = "lora",
        past_covariates: Any = None,
        future_covariates: Any = None,
        validation: Any = "time",
        max_steps: int = 400,
        learning_rate: float | None = None,
        patience: int = 3,
        batch_size: int | None = None,
        freeze: str | Sequence[str] = (),
        lora: LoraConfig | Mapping[str, Any] | None = None,
        context_length: int | None = None,
        precision: Precision = "float32",
        minutes: float | None = None,
        refit: bool = True,
        output: str | Path | None = None,
        resume: bool = False,
        callbacks: Iterable[Callback] = (),
        progress: bool = True,
        random_state: RandomState = None,
        on_error: OnError = "raise",
    ) -> MoiraiMoEPipeline:
        """Train a copy on own series by the objective of pretraining; keep what forecasts best.

        The last windows of the series are held out and forecast several times on the way. The
        weights with the best forecasts are returned: the zero-shot ones if none improved on them.

        Parameters
        ----------
        y : array, Series, DataFrame, or list of these
            As for `predict`. Series of three observed points and more can be trained on.
        horizon : int, optional
            Steps ahead that will be forecast: the length of held-out windows. By default what one
            pass predicts, but not more than a fifth of the median length.
        mode : {"lora", "full", "head", "router"}, default="lora"
            What is trained: low-rank adapters of attention, experts, input and output; all weights;
            the output projection and the last norm; the projections that choose experts.
        past_covariates, future_covariates : array or list of arrays, optional
            (time, k) per series, as long as y.
        validation : "time", float, None, or data, default="time"
            "time" holds out the last three windows of every series, or what fits into a fifth of
            it, and of few series more. A fraction holds out that much of the end of each. Other
            series, given like y, or as a mapping of ``y`` and its covariates, are forecast at their
            ends. None trains on everything, for `max_steps`, and returns the last weights, better
            or not.
        max_steps : int, default=400
            Optimiser steps; the learning rate falls to 0 towards the last.
        learning_rate : float, optional
            Highest rate of AdamW. By default two are tried for an eighth of the steps each, 5e-4
            and 3e-3 (1e-4 and 6e-4 in mode "full"), and the one that forecasts better goes on.
        patience : int, default=3
            Evaluations without improvement, of eight in all, after which training ends.
        batch_size : int, optional
            Windows per step; by default as many as make about 1,024 tokens, 16 to 256.
        freeze : str or sequence of str, default=()
            Patterns of names of parameters that stay as they are, such as "embedding.*".
        lora : LoraConfig or mapping, optional
            Ranks and targets of the adapters in mode "lora".
        context_length : int, optional
            Longest window, and context of validation; by default `max_context_length`.
        precision : {"float32", "bfloat16"}, default="float32"
            Of the matrix products. Weights and optimiser are in float32.
        minutes : float, optional
            Stop after this time.
        refit : bool, default=True
            Take the steps that were found to be best once more, with what was held out of the
            series among the data: it is what comes right before the forecasts. The scores in the
            report are those of the weights before. Not done after an interrupt, or when the time is
            up.
        output : str or Path, optional
            Folder for the state to resume from, and ``metrics.jsonl``.
        resume : bool, default=False
            Go on from the state in `output`; data and arguments must be the same.
        callbacks : iterable of callable, default=()
            Called with every evaluation (`tuning.validation.Evaluation`); True stops the training.
        progress : bool, default=True
            Show a progress bar.
        random_state : int, numpy Generator or RandomState, optional
            With the same number the result is the same on a CPU.
        on_error : {"raise", "skip"}, default="raise"
            What is done about series of several that cannot be read, as those without values.
            "skip" leaves them out, logs them, and names them in `tuning.skipped`.

        Returns
        -------
        MoiraiMoEPipeline
            A new one; this one is not changed. Its attribute `tuning` tells what was trained, and
            scores and coverage of intervals before and after; `save_pretrained` writes its weights,
            `save_adapters` only what was added.

        Raises
        ------
        InvalidInputError
            If data or an argument cannot be used.
        ConfigError
            If a setting of `lora` is wrong, or a target of it matches nothing.
        CheckpointError
            If `output` holds a run and `resume` is False, or none that fits and it is True.

        Notes
        -----
        An interrupt (Ctrl-C) ends the training and the best weights so far are returned. A loss
        that is not finite for several steps does the same.

        Examples
        --------
        >>> import numpy as np
        >>> from moirai_moe_forecaster import MoiraiMoEPipeline
        >>> pipeline = MoiraiMoEPipeline.from_pretrained()
        >>> y = [np.sin(np.arange(150) / 3 + k) for k in range(4)]
        >>> tuned = pipeline.fine_tune(y, horizon=12, max_steps=4, progress=False, random_state=0)
        >>> tuned.predict(y, horizon=12).median.shape
        (4, 12)
        """
        from moirai_moe_forecaster.tuning.fine_tune import fine_tune
        from moirai_moe_forecaster.tuning.fine_tune_config import FineTuneConfig

        config = FineTuneConfig(
            horizon=horizon,
            mode=mode,
            validation=validation,
            max_steps=max_steps,
            learning_rate=learning_rate,
            patience=patience,
            batch_size=batch_size,
            freeze=freeze,
            lora=lora,
            context_length=context_length,
            precision=precision,
            minutes=minutes,
            refit=refit,
            output=output,
            resume=resume,
            callbacks=callbacks,
            progress=progress,
            random_state=random_state,
            on_error=on_error,
        )
        covariates = {"past_covariates": past_covariates, "future_covariates": future_covariates}
        return fine_tune(self, y, config, **covariates)
