"""The native interface: a pretrained network with everything a user needs around it."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm.auto import tqdm

from moirai_moe_forecaster.adapters_file import (
    Adapters,
    adapted_network,
    holds_adapters,
    load_adapted,
    load_adapters,
    save_adapters,
)
from moirai_moe_forecaster.checkpoint import CheckpointInfo, load_checkpoint, save_checkpoint
from moirai_moe_forecaster.config import ModelConfig, Precision
from moirai_moe_forecaster.errors import InvalidInputError
from moirai_moe_forecaster.inference.batches import (
    TOKENS_ON_CPU,
    Load,
    automatic_budget,
    groups,
    halved_when_short,
)
from moirai_moe_forecaster.inference.forecast import NODE_LEVELS, Dependence, Forecast, Marginals
from moirai_moe_forecaster.inference.prompt import make_prompt
from moirai_moe_forecaster.inference.randomness import RandomState, draw_seed, series_seed
from moirai_moe_forecaster.inference.rollout import (
    Marginal,
    frozen_rollout,
    marginalise,
    reestimated_rollout,
    seeded_draw,
)
from moirai_moe_forecaster.inference.series import Series, read_series
from moirai_moe_forecaster.model.network import MoiraiMoE

if TYPE_CHECKING:
    from moirai_moe_forecaster.training.lora import LoraConfig
    from moirai_moe_forecaster.training.trained import Mode
    from moirai_moe_forecaster.training.tuning_report import TuningReport
    from moirai_moe_forecaster.training.tuning_run import Callback

log = logging.getLogger(__name__)

DEFAULT_PATHS = 100
Normalisation = Literal["frozen", "reestimated"]


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
        random_state: RandomState = None,
        progress: bool = False,
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
            Use only this many of the last points; by default `max_context_length`.
        num_paths : int, optional
            Paths that carry the uncertainty between patches; None is 100. Not used within the
            patches that one pass predicts, where quantiles are exact.
        num_samples : int, default=100
            How many trajectories `Forecast.samples` holds.
        batch_size : int, optional
            Most series per pass; by default as many as `memory_budget` allows. Where memory runs
            out nevertheless, smaller passes are tried.
        normaliser : {"frozen", "reestimated"}, default="frozen"
            Whether the statistics of the context hold for the whole horizon, or are estimated anew
            with every drawn patch as the official implementation does: much slower.
        random_state : int, numpy Generator or RandomState, optional
            With the same number, the same series has the same forecast in any batch. None draws
            fresh.
        progress : bool, default=False
            Show a progress bar.

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
        length = self._context_length(context_length)
        if normaliser not in ("frozen", "reestimated"):
            raise InvalidInputError(
                f"normaliser must be 'frozen' or 'reestimated', got {normaliser!r}"
            )
        batch = read_series(y, int(horizon), past_covariates, future_covariates, length)
        seed = draw_seed(random_state)
        summaries: list[Marginals | None] = [None] * len(batch.series)
        bar = tqdm(total=len(batch.series), disable=not progress, unit="series")
        load = Load(self.config, length, int(horizon), paths, normaliser == "reestimated")
        device = next(self.network.parameters()).device
        budget = self.memory_budget or automatic_budget(device)
        tokens = TOKENS_ON_CPU if device.type == "cpu" else None

        def work(members: list[int]) -> list[Marginals]:
            group = [batch.series[index] for index in members]
            return self._summaries(group, load, seed)

        with bar:
            for group in groups(batch.series, load, budget, tokens, most):
                for members, results in halved_when_short(group, work):
                    for index, summary in zip(members, results, strict=True):
                        summaries[index] = summary
                    bar.update(len(members))
        return Forecast(
            _stack([summary for summary in summaries if summary is not None]),
            single=batch.single,
            univariate=batch.univariate,
            num_samples=num_samples,
            dependence=self._dependence,
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
        output: str | Path | None = None,
        resume: bool = False,
        callbacks: Iterable[Callback] = (),
        progress: bool = True,
        random_state: RandomState = None,
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
            "time" holds out the last window of every series, of few series several. A fraction
            holds out that much of the end of each. Other series, given like y, or as a mapping of
            ``y`` and its covariates, are forecast at their ends. None trains on everything, for
            `max_steps`, and returns the last weights whether they are better or not.
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
        output : str or Path, optional
            Folder for the state to resume from, and ``metrics.jsonl``.
        resume : bool, default=False
            Go on from the state in `output`; data and arguments must be the same.
        callbacks : iterable of callable, default=()
            Called with every evaluation (`training.judging.Evaluation`); True stops the training.
        progress : bool, default=True
            Show a progress bar.
        random_state : int, numpy Generator or RandomState, optional
            With the same number the result is the same on a CPU.

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
        from moirai_moe_forecaster.training.fine_tuning import fine_tune

        return fine_tune(
            self,
            y,
            horizon=horizon,
            mode=mode,
            past_covariates=past_covariates,
            future_covariates=future_covariates,
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
            output=output,
            resume=resume,
            callbacks=callbacks,
            progress=progress,
            random_state=random_state,
        )

    @torch.inference_mode()
    def _summaries(self, group: Sequence[Series], load: Load, seed: int) -> list[Marginals]:
        """Forecast alike series in one pass and summarise each."""
        horizon, length = load.horizon, load.context_length
        size = self.config.output_patches * self.config.patch_size
        blocks = -(-horizon // size)
        cut = [series.last(length) for series in group]
        seeds = np.array([[series_seed(seed, v) for v in series.target] for series in cut])
        device = next(self.network.parameters()).device
        draw = seeded_draw(
            torch.from_numpy(seeds).to(device), load.paths if blocks > 1 else 1, *self._dependence
        )
        prompt = make_prompt(group, horizon, self.config, length)
        if load.reestimated:
            rollout = reestimated_rollout(self.network, group, horizon, blocks, draw, length)
        else:
            rollout = frozen_rollout(self.network, prompt, blocks, draw)
        levels = torch.tensor(NODE_LEVELS, dtype=torch.float32, device=device)
        marginal = marginalise(rollout, horizon, levels)
        location, scale = (part[..., 0].numpy() for part in prompt.normaliser)
        return _split(marginal, location, scale, seeds, joint=blocks > 1)

    @property
    def _dependence(self) -> Dependence:
        return Dependence(self.config.dependence_share, self.config.dependence_decay)

    def _context_length(self, context_length: int | None) -> int:
        if context_length is None:
            return self.max_context_length
        return min(check_count("context_length", context_length), self.max_context_length)


def _split(
    marginal: Marginal,
    location: NDArray[np.float64],
    scale: NDArray[np.float64],
    seeds: NDArray[np.int64],
    *,
    joint: bool,
) -> list[Marginals]:
    """One summary per series of a group, each with a series axis of length 1."""
    quantiles = marginal.quantiles.permute(1, 0, 3, 2).cpu().numpy().astype(np.float32)
    mean = marginal.mean.transpose(1, 2).cpu().numpy().astype(np.float32)
    ranks = _ranks(marginal.draws).transpose(2, 3).cpu().numpy().astype(np.int32) if joint else None
    return [
        Marginals(
            quantiles[i : i + 1],
            mean[i : i + 1],
            location[i : i + 1],
            scale[i : i + 1],
            None if ranks is None else ranks[i : i + 1],
            seeds[i : i + 1],
        )
        for i in range(len(mean))
    ]


def _ranks(draws: Tensor) -> Tensor:
    """Rank of every path among the paths (axis 1); of equal ones the earlier path is lower."""
    return draws.argsort(dim=1, stable=True).argsort(1)


def _stack(summaries: Sequence[Marginals]) -> Marginals:
    """Join summaries along the series axis; series with fewer variates are filled up with NaN."""
    variates = max(summary.scale.shape[1] for summary in summaries)

    def joined(field: str) -> Any:
        arrays = [getattr(summary, field) for summary in summaries]
        if arrays[0] is None:
            return None
        if all(array.shape[-1] == variates for array in arrays):
            return np.concatenate(arrays)
        filler = np.nan if arrays[0].dtype.kind == "f" else 0
        widths = [[(0, 0)] * (a.ndim - 1) + [(0, variates - a.shape[-1])] for a in arrays]
        return np.concatenate(
            [np.pad(a, w, constant_values=filler) for a, w in zip(arrays, widths, strict=True)]
        )

    return Marginals(*(joined(field) for field in Marginals._fields))


def check_count(name: str, value: Any) -> int:
    """Return an integer of at least 1, or raise."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 1:
        raise InvalidInputError(f"{name} must be an integer of at least 1, got {value!r}")
    return int(value)


def read_device(device: str | torch.device) -> torch.device:
    """Return the device; "auto" is CUDA, then MPS, then the CPU."""
    if device == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        return torch.device(device)
    except (RuntimeError, TypeError) as error:
        raise InvalidInputError(f"unknown device {device!r}: {error}") from error


def read_dtype(dtype: str | torch.dtype | None) -> torch.dtype:
    """Return the floating-point type; None is float32."""
    wanted = torch.float32 if dtype is None else dtype
    number = getattr(torch, wanted, None) if isinstance(wanted, str) else wanted
    if not isinstance(number, torch.dtype) or not number.is_floating_point:
        raise InvalidInputError(f"dtype must be a floating-point torch dtype, got {dtype!r}")
    return number
