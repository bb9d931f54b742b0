"""The Lightning module that Darts trains and asks for forecasts, around the one network."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import torch
from darts.models.forecasting.pl_forecasting_module import PLForecastingModule
from darts.utils.data import ModuleStage, PLModuleOutput
from darts.utils.data.torch_datasets.utils import (
    PLModuleInput,
    TorchInferenceBatch,
    TorchTrainingBatch,
)
from torch import Tensor
from torch.nn.utils import parametrize

from moirai_moe_forecaster.adapters.darts.batches import (
    as_tensor,
    forecast_arrays,
    read_batch,
    read_numbers,
)
from moirai_moe_forecaster.checkpoint.store import meta_network
from moirai_moe_forecaster.config import ModelConfig
from moirai_moe_forecaster.data.arguments import check_count
from moirai_moe_forecaster.data.series import Array, Series
from moirai_moe_forecaster.inference.options import Bounds, read_support, regresses
from moirai_moe_forecaster.inference.seasons import SeasonLength
from moirai_moe_forecaster.model.network import MoiraiMoE
from moirai_moe_forecaster.tuning.likelihood import continuation_losses, residual_continuations
from moirai_moe_forecaster.tuning.lora import LoraConfig, add_lora, merge_lora, remove_lora

EXTRA_STATE = "_extra_state"
MEDIAN = [0.5]
# of the paths beyond the first pass where quantiles, not samples, are asked for: always the same
# forecast, in any batch
QUANTILE_SEED = 0


class MoiraiMoEModule(PLForecastingModule):  # type: ignore[misc]
    """A network whose weights `MoiraiMoEModel` or a checkpoint of Darts fills in.

    Parameters
    ----------
    config : mapping
        `ModelConfig.to_dict` of the network.
    lora : mapping, optional
        Settings of `LoraConfig`: the network has adapters, and only they train.
    season_length : "auto", None or tuple of int, default="auto"
        Cycles that forecasts may carry on; checkpoints from before there were views do not say.
    bounds, integer
        Possible values, as for `MoiraiMoEPipeline.predict`.
    **kwargs
        Of Darts' `PLForecastingModule`.
    """

    def __init__(
        self,
        config: Mapping[str, Any],
        lora: Mapping[str, Any] | None = None,
        season_length: SeasonLength = "auto",
        bounds: Bounds | None = None,
        integer: bool = False,
        **kwargs: Any,
    ) -> None:
        kwargs.pop("enable_finetuning", None)
        super().__init__(**kwargs)
        self.network = meta_network(ModelConfig.from_dict(config)).to_empty(device="cpu")
        self.lora = None if lora is None else LoraConfig.from_dict(lora)
        self._adapt(self.lora)
        self.season_length = season_length
        self.support = read_support(bounds, integer)
        # whether the weights are still those of the checkpoint that they were read from
        self.pretrained = False
        self._samples_seed: int | None = None

    def forward(self, x_in: PLModuleInput) -> PLModuleOutput:
        """Return quantiles (series, time, component, level) of the output chunk.

        The levels are the likelihood's; without a likelihood it is the median.
        """
        horizon = self.output_chunk_shift + self.output_chunk_length
        contexts = read_batch(x_in, self.output_chunk_shift, self.output_chunk_length)
        quantiles = self._quantiles(contexts, horizon)[:, :, self.output_chunk_shift :]
        return PLModuleOutput(as_tensor(quantiles.transpose(0, 2, 3, 1), x_in.past_target))

    def get_extra_state(self) -> dict[str, Any]:
        """Return the adapters' settings, which belong to the weights."""
        return {"lora": None if self.lora is None else self.lora.to_dict()}

    def set_extra_state(self, state: Any) -> None:
        """Leave one's own settings as they are; `load_state_dict` reads the others."""

    def load_state_dict(self, state_dict: Mapping[str, Any], *args: Any, **kwargs: Any) -> Any:
        """Load weights with or without adapters; those that are not one's own are merged."""
        state = {EXTRA_STATE: {"lora": None}, **state_dict}
        settings = state[EXTRA_STATE]["lora"]
        given = None if settings is None else LoraConfig.from_dict(settings)
        if given == self.lora:
            return super().load_state_dict(state, *args, **kwargs)
        remove_lora(self.network)
        self._adapt(given)
        result = super().load_state_dict(state, *args, **kwargs)
        merge_lora(self.network)
        self._adapt(self.lora)
        return result

    def _adapt(self, lora: LoraConfig | None) -> None:
        if lora is not None:
            add_lora(self.network, lora)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Let a module of 16 bits load as one of 32, which a trainer may convert again."""
        super().on_save_checkpoint(checkpoint)
        if self.dtype in (torch.float16, torch.bfloat16):
            checkpoint["model_dtype"] = torch.float32

    def on_train_start(self) -> None:
        """Remember that the weights are no longer those of the checkpoint."""
        super().on_train_start()
        self.pretrained = False

    def on_predict_start(self) -> None:
        """Draw one seed per call, so that samples do not depend on the size of batches."""
        super().on_predict_start()
        self._samples_seed = _draw_seed()

    def on_predict_end(self) -> None:
        """Forget the seed of the call."""
        super().on_predict_end()
        self._samples_seed = None

    def predict_step(
        self, batch: TorchInferenceBatch, batch_idx: int = 0, dataloader_idx: int | None = None
    ) -> tuple[Tensor, Sequence[dict[str, Any] | None], Sequence[Any]]:
        """Forecast any number of steps: each context is encoded once, and no forecast is fed back.

        Darts' own step calls `forward` once per sample and chunk.
        """
        shift, n = self.output_chunk_shift, check_count("n", self.pred_n)
        contexts = read_batch(batch, shift, n)
        if self.likelihood is None or self.predict_likelihood_parameters:
            quantiles = self._quantiles(contexts, shift + n)[:, :, shift:]
            # one sample, of which the columns are the levels of one component after another
            values = quantiles.transpose(0, 2, 3, 1).reshape(1, len(contexts), n, -1)
        else:
            values = self._samples(contexts, shift + n)[:, :, shift:].swapaxes(0, 1)
        return as_tensor(values, batch.past_target), batch.series_schema, batch.pred_time

    def _train_val_step(
        self, batch: TorchTrainingBatch, stage: ModuleStage, criterion: Any, metrics: Any
    ) -> Tensor:
        """Return the likelihood of the output chunk, in training and in validation alike."""
        loss = self._likelihood_loss(batch)
        size = len(batch.past_target)
        self.log(f"{stage.value}_loss", loss, batch_size=size, prog_bar=True, sync_dist=True)
        if len(metrics):
            output = self(batch.to_module_input(stage=ModuleStage.PREDICT))
            self._update_metrics(output, batch.future_target, metrics)
        return loss

    def _likelihood_loss(self, batch: TorchTrainingBatch) -> Tensor:
        """Mean negative log-likelihood of the observed values, weighted as the user asks."""
        shift, steps = self.output_chunk_shift, batch.future_target.shape[1]
        config = self.network.config
        longest = config.max_seq_len * config.patch_size
        # what comes before it serves forecasts alone, which learn cycles from it
        contexts = [series.last(longest) for series in read_batch(batch, shift, steps)]
        future = read_numbers("series", batch.future_target).swapaxes(1, 2)
        future = np.pad(future, ((0, 0), (0, 0), (shift, 0)), constant_values=np.nan)
        if len(contexts[0].future) and regresses(config):
            with self._forecasting():
                contexts, residuals = residual_continuations(
                    self.network, contexts, [*future], shift + steps
                )
            future = np.stack(residuals)
        losses, scored = continuation_losses(self.network, contexts, torch.from_numpy(future))
        if batch.sample_weight is not None:
            losses = losses[..., shift:] * batch.sample_weight.mT.to(losses)
        return losses.sum() / scored.sum().clamp_min(1)

    def _quantiles(self, contexts: Sequence[Series], horizon: int) -> Array:
        """Return (series, level, time, component)."""
        levels = MEDIAN if self.likelihood is None else self.likelihood.quantiles
        return self._read(
            contexts, horizon, lambda f: f.quantile(levels), len(levels), seed=QUANTILE_SEED
        )

    def _samples(self, contexts: Sequence[Series], horizon: int) -> Array:
        """Trajectories (series, sample, time, component); each goes through all steps."""
        seed = _draw_seed() if self._samples_seed is None else self._samples_seed
        count = self.pred_num_samples
        return self._read(
            contexts, horizon, lambda f: f.samples, count, num_samples=count, seed=seed
        )

    def _read(
        self, contexts: Sequence[Series], horizon: int, read: Any, *args: Any, **options: Any
    ) -> Array:
        options |= {"season_length": self.season_length, "support": self.support}
        with self._forecasting():
            return forecast_arrays(self.network, contexts, horizon, read, *args, **options)

    @contextmanager
    def _forecasting(self) -> Iterator[None]:
        """Let the network forecast as it does elsewhere for a while."""
        # adapters are added to their weights once, not at every use
        with _numbers_as_they_are(self.device), parametrize.cached():
            yield


class ModuleWeights(NamedTuple):
    """What makes a module again: the configuration of its network, and its state on the CPU."""

    config: dict[str, Any]
    state: dict[str, Any]

    @classmethod
    def of(cls, module: MoiraiMoEModule) -> ModuleWeights:
        """Copy those of a module."""
        state = module.state_dict()
        return cls(
            module.network.config.to_dict(),
            {
                name: value.detach().cpu().clone() if isinstance(value, Tensor) else value
                for name, value in state.items()
            },
        )

    @classmethod
    def pretrained(cls, network: MoiraiMoE) -> ModuleWeights:
        """Refer to those of a network, which `load_state_dict` copies."""
        state = network.state_dict()
        return cls(
            network.config.to_dict(), {f"network.{name}": value for name, value in state.items()}
        )

    @property
    def dtype(self) -> torch.dtype:
        """Type of the weights."""
        return next(v.dtype for v in self.state.values() if isinstance(v, Tensor))


@contextmanager
def _numbers_as_they_are(device: torch.device) -> Iterator[None]:
    """Undo what Lightning's precision does beside the weights.

    It makes float64 the default type, or products bfloat16, of all arithmetic: also of
    distributions, which are in float32 and need all of its digits.
    """
    default = torch.get_default_dtype()
    torch.set_default_dtype(torch.float32)
    try:
        with torch.autocast(device.type, enabled=False):
            yield
    finally:
        torch.set_default_dtype(default)


def _draw_seed() -> int:
    """Draw from torch's global generator, which Darts seeds for a call and restores after it."""
    return int(torch.randint(2**62, ()))
