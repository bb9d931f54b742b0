"""Between the tensors of a Darts batch and series, and between forecasts and Darts' arrays."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from moirai_moe_forecaster.data.series import Array, Series
from moirai_moe_forecaster.errors import InvalidInputError
from moirai_moe_forecaster.inference.engine import forecast
from moirai_moe_forecaster.inference.forecast import Forecast
from moirai_moe_forecaster.inference.options import ForecastOptions, context_points
from moirai_moe_forecaster.model.network import MoiraiMoE


def read_batch(batch: Any, shift: int, horizon: int) -> list[Series]:
    """Read the contexts of a batch.

    Darts pads short contexts with NaN on the left: steps at the start at which nothing is known
    are dropped.

    Parameters
    ----------
    batch : PLModuleInput, TorchInferenceBatch or TorchTrainingBatch
        Tensors (series, time, component).
    shift : int
        Steps between context and forecast, at which known-future covariates are missing.
    horizon : int
        Steps of `future_covariates` to use.

    Raises
    ------
    InvalidInputError
        If a value is infinite.
    """
    target = read_numbers("series", batch.past_target)
    size, length = target.shape[:2]
    past = read_numbers("past_covariates", batch.past_covariates, (size, length, 0))
    known = "future_covariates"
    history = read_numbers(known, batch.historic_future_covariates, (size, length, 0))
    ahead = read_numbers(known, batch.future_covariates, (size, horizon, 0))[:, :horizon]
    gap = np.full((size, shift, ahead.shape[2]), np.nan)
    future = np.concatenate((history, gap, ahead), 1)
    seen = [~np.isnan(part).all(2) for part in (target, past, history)]
    start = np.logical_or.reduce(seen).argmax(1)
    return [
        Series(*(np.ascontiguousarray(part[row, first:].T) for part in (target, past, future)))
        for row, first in enumerate(start)
    ]


def forecast_arrays(
    network: MoiraiMoE,
    contexts: Sequence[Series],
    horizon: int,
    read: Callable[[Forecast], Array],
    count: int,
    **options: Any,
) -> Array:
    """Forecast contexts and read an array (series, `count`, horizon, variate) off the forecast.

    A component without a single observed value in what the network reads has no forecast, and gets
    NaN; the others of its series are forecast without it.
    """
    components = len(contexts[0].target)
    result = np.full((len(contexts), count, horizon, components), np.nan)
    longest = context_points(network.config)
    seen = [~np.isnan(series.last(longest).target).all(1) for series in contexts]
    rows = [row for row, present in enumerate(seen) if present.any()]
    if not rows:
        return result
    some = [contexts[row]._replace(target=contexts[row].target[seen[row]]) for row in rows]
    values = read(forecast(network, some, ForecastOptions(horizon=horizon, **options)))
    for row, value in zip(rows, values, strict=True):
        result[row][..., seen[row]] = value[..., : seen[row].sum()]
    return result


def as_tensor(values: Array, like: Tensor) -> Tensor:
    """Return a tensor on the device of `like`, in its type, but never in one of 16 bits."""
    wide = like.dtype in (torch.float32, torch.float64)
    return torch.from_numpy(values).to(like.device, like.dtype if wide else torch.float32)


def read_numbers(
    name: str, tensor: Tensor | None, shape: tuple[int, int, int] = (0, 0, 0)
) -> Array:
    """Move a tensor to the CPU in float64, in which values are standardised; None is empty.

    Raises
    ------
    InvalidInputError
        If a value is infinite.
    """
    if tensor is None:
        return np.empty(shape)
    values = tensor.detach().cpu().double().numpy()
    if (infinite := np.isinf(values)).any():
        _, step, component = np.argwhere(infinite)[0]
        raise InvalidInputError(
            f"{name}: component {component} is infinite at step {step} of the {len(values[0])} of "
            "a window; use NaN for a missing value"
        )
    return values
