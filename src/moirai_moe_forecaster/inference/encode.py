"""What the network makes of contexts: representations of their tokens, and the experts chosen."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm.auto import tqdm

from moirai_moe_forecaster.data.arguments import check_count_or_none
from moirai_moe_forecaster.data.series import SeriesBatch, read_series
from moirai_moe_forecaster.errors import InvalidInputError
from moirai_moe_forecaster.inference.batching import (
    Load,
    groups,
    halved_when_short,
    limits,
)
from moirai_moe_forecaster.inference.options import context_points
from moirai_moe_forecaster.inference.pretrained import Pretrained
from moirai_moe_forecaster.inference.prompt import Prompt, make_prompt
from moirai_moe_forecaster.model.network import Output
from moirai_moe_forecaster.model.tokens import TokenBatch

TARGET, PAST, KNOWN = "target", "past", "known ahead"


@dataclass(frozen=True, kw_only=True)
class Tokens:
    """Whose the tokens of a pass are, series by series; padding is left out.

    Attributes
    ----------
    place : ndarray of int64, (token,)
        Position in the flattened (series of the pass, token).
    series : ndarray of int64, (token,)
        Number of the series in the batch.
    variate : ndarray of int64, (token,)
        Targets first, then past covariates, then those known ahead.
    kind : ndarray of str, (token,)
        "target", "past" or "known ahead".
    patch : ndarray of int64, (token,)
        From 0, the first patch of the series' context.
    """

    place: NDArray[np.int64]
    series: NDArray[np.int64]
    variate: NDArray[np.int64]
    kind: NDArray[np.str_]
    patch: NDArray[np.int64]


class Embedding(NamedTuple):
    """Representations of series.

    Attributes
    ----------
    pooled : ndarray of float32, (series, d_model)
        Mean over the tokens of a series' targets; the series axis is dropped for a single series.
    tokens : list of ndarray of float32, (variate, patch, d_model)
        Of every series' targets, oldest patch first; the array itself for a single series.
    """

    pooled: NDArray[np.float32]
    tokens: list[NDArray[np.float32]] | NDArray[np.float32]


def embed(
    pipeline: Pretrained,
    y: Any,
    covariates: tuple[Any, Any],
    horizon: int,
    context_length: int | None,
    *,
    progress: bool,
) -> Embedding:
    """Represent series: `MoiraiMoEPipeline.embed` says how."""
    batch, load = contexts(pipeline, y, covariates, horizon, context_length)
    found: list[NDArray[np.float32]] = [np.empty(0, np.float32)] * len(batch.series)
    for tokens, output in encoded(pipeline, batch, load, progress=progress):
        hidden = output.hidden[..., : pipeline.config.d_model].flatten(0, 1).float().cpu().numpy()
        own = tokens.kind == TARGET
        owners = tokens.series[own]
        ends = np.flatnonzero(np.diff(owners, append=-1)) + 1
        for end, places in zip(ends, np.split(tokens.place[own], ends[:-1]), strict=True):
            series = owners[end - 1]
            shape = (len(batch.series[series].target), -1, hidden.shape[-1])
            found[series] = hidden[places].reshape(shape)
    pooled = np.stack([part.mean((0, 1)) for part in found])
    return Embedding(pooled[0], found[0]) if batch.single else Embedding(pooled, found)


def contexts(
    pipeline: Pretrained,
    y: Any,
    covariates: tuple[Any, Any],
    horizon: int,
    context_length: int | None,
) -> tuple[SeriesBatch, Load]:
    """Read series, with past and known-future covariates, whose contexts alone are looked at."""
    if isinstance(horizon, bool) or not isinstance(horizon, int | np.integer) or horizon < 0:
        raise InvalidInputError(f"horizon must be an integer of at least 0, got {horizon!r}")
    length = context_points(pipeline.config, check_count_or_none("context_length", context_length))
    load = Load(
        config=pipeline.config,
        context_length=length,
        horizon=int(horizon),
        paths=1,
        reestimated=False,
    )
    return read_series(y, load.horizon, *covariates, length), load


@torch.inference_mode()
def encoded(
    pipeline: Pretrained, batch: SeriesBatch, load: Load, *, progress: bool
) -> Iterator[tuple[Tokens, Output]]:
    """Run the network over the contexts of a batch, as forecasting does before it decodes.

    Parameters
    ----------
    pipeline : Pretrained
    batch : SeriesBatch
    load : Load
        Its horizon is how far known-future covariates reach beyond the contexts.
    progress : bool
        Show a progress bar.

    Yields
    ------
    Tokens, Output
        Of one pass each, together all series.
    """
    network = pipeline.network
    device = next(network.parameters()).device
    budget, most = limits(device, pipeline.memory_budget)

    def work(members: list[int]) -> list[tuple[Tokens, Output]]:
        part = [batch.series[index] for index in members]
        prompt = make_prompt(part, load.horizon, load.config, load.context_length).to(device)
        given = prompt.given()
        return [(_describe(prompt, given, members), network.encode(given))]

    bar = tqdm(total=len(batch.series), disable=not progress, unit="series")
    with bar:
        for group in groups(batch.series, load, budget, most, None):
            for members, results in halved_when_short(group, work):
                bar.update(len(members))
                yield from results


def _describe(prompt: Prompt, given: TokenBatch, members: list[int]) -> Tokens:
    variate = given.variate_id[0].cpu().numpy()
    # tokens stand variate by variate, each from position 0
    position = np.arange(len(variate)) - np.searchsorted(variate, variate)
    present = given.sample_id.cpu().numpy() > 0
    first = np.where(present & (variate < prompt.targets), position, len(variate)).min(1)
    row, token = np.nonzero(present)
    plain = prompt.values.shape[1] - prompt.known_future
    kinds = np.array([TARGET, PAST, KNOWN])
    kind = kinds[(variate >= prompt.targets).astype(int) + (variate >= plain)]
    return Tokens(
        place=row * len(variate) + token,
        series=np.array(members)[row],
        variate=variate[token],
        kind=kind[token],
        patch=position[token] - first[row],
    )
