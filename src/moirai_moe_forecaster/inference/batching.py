"""Work on many series in passes of alike ones that fit into memory."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch

from moirai_moe_forecaster.config import ModelConfig
from moirai_moe_forecaster.data.arguments import check_count_or_none
from moirai_moe_forecaster.data.series import Series
from moirai_moe_forecaster.errors import OutOfMemoryError
from moirai_moe_forecaster.model.distribution.mixture import raw_size

Result = TypeVar("Result")

SHARE_OF_FREE_MEMORY = 0.25
LARGEST_BUDGET = 2**29
ASSUMED_BUDGET = 2**28
BYTES = 4
# longer passes over contexts leave a processor's caches and get slower
TOKENS_ON_CPU = 2**13
# what the messages of a CPU, of CUDA, its libraries and Apple's GPUs have in common
SIGNS_OF_SHORTAGE = (
    "allocate memory",
    "not enough memory",
    "out of memory",
    "alloc_failed",
    "bad_alloc",
)
# tensors as large as the hidden states, the logits and the mixtures that live at the same time
HIDDEN_COPIES, LOGIT_COPIES, MIXTURE_COPIES = 16, 3, 4


@dataclass(frozen=True, kw_only=True)
class Load:
    """What a call asks of the network.

    Attributes
    ----------
    config : ModelConfig
    context_length, horizon : int
    paths : int
        0 where missing values take their place (`rollout.hidden_rollout`).
    reestimated : bool
        Every path of every series is a sequence of its own.
    """

    config: ModelConfig
    context_length: int
    horizon: int
    paths: int
    reestimated: bool

    def tokens(self, series: Series) -> int:
        """Tokens of a series, all its variates, with those that stand for what comes."""
        variates = sum(len(part) for part in series)
        return variates * (self.width(series) + self.hidden)

    @property
    def hidden(self) -> int:
        """Patches beyond the context that are read as missing ones."""
        points = self.config.output_patches * self.config.patch_size
        steps = -(-self.horizon // points) - 1
        return 0 if self.paths else steps * self.config.output_patches

    def width(self, series: Series) -> int:
        """Patches of a series' context."""
        return -(-min(series.target.shape[1], self.context_length) // self.config.patch_size)

    def bytes(self, series: Series) -> int:
        """Estimate the memory that one more series takes while its group is forecast."""
        config, variates = self.config, sum(len(part) for part in series)
        points = config.output_patches * config.patch_size
        steps = -(-self.horizon // points) - 1
        context = variates * (self.width(series) + self.hidden)
        new = variates * config.output_patches
        parameters = len(series.target) * points * raw_size(config.mixture) * MIXTURE_COPIES
        if not self.paths:
            return BYTES * (self._sequence(context, context) + parameters)
        if self.reestimated:
            whole = context + new * steps
            return BYTES * self.paths * (self._sequence(whole, whole) + parameters)
        per_path = self._sequence(new, context + new * steps) + parameters if steps else 0
        cache = 2 * config.num_layers * config.d_model * (context + self.paths * new * steps)
        return BYTES * (self._sequence(context, context) + cache + self.paths * per_path)

    def _sequence(self, queries: int, keys: int) -> int:
        """Numbers held while `queries` tokens attend to `keys` tokens."""
        hidden = HIDDEN_COPIES * self.config.d_model * queries
        return hidden + LOGIT_COPIES * self.config.num_heads * queries * keys


def automatic_budget(device: torch.device) -> int:
    """Bytes that forecasting may take: a quarter of what is free, on a CPU at most 512 MiB."""
    if device.type == "cuda":
        return int(SHARE_OF_FREE_MEMORY * torch.cuda.mem_get_info(device)[0])
    try:
        free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):
        return ASSUMED_BUDGET
    return min(max(int(SHARE_OF_FREE_MEMORY * free), ASSUMED_BUDGET), LARGEST_BUDGET)


def limits(device: torch.device, memory_budget: int | None) -> tuple[int, int | None]:
    """Bytes and tokens that a pass may take; tokens are limited on a CPU only."""
    check_count_or_none("memory_budget", memory_budget)
    tokens = TOKENS_ON_CPU if device.type == "cpu" else None
    return memory_budget or automatic_budget(device), tokens


def groups(
    series: Sequence[Series],
    load: Load,
    budget: int,
    most_tokens: int | None,
    most: int | None,
    views: Sequence[int] | None = None,
) -> Iterator[list[int]]:
    """Indices of series that go through the network together.

    They have the same numbers of variates and covariates and, ordered by length, contexts within
    an eighth of each other, and are as many as fit into `budget` bytes and have `most_tokens`
    tokens of context; `most` series at most. Each may be forecast in several `views`.
    """

    def shape(index: int) -> tuple[int, ...]:
        return tuple(len(part) for part in series[index])

    order = sorted(range(len(series)), key=lambda index: (shape(index), load.width(series[index])))
    group: list[int] = []
    taken = tokens = 0
    for index in order:
        times = 1 if views is None else views[index]
        cost, length = times * load.bytes(series[index]), times * load.tokens(series[index])
        if group and (
            len(group) == most
            or taken + cost > budget
            or (most_tokens is not None and tokens + length > most_tokens)
            or shape(group[0]) != shape(index)
            or load.width(series[index]) > 1.125 * load.width(series[group[0]])
        ):
            yield group
            group, taken, tokens = [], 0, 0
        group.append(index)
        taken += cost
        tokens += length
    if group:
        yield group


def halved_when_short(
    group: list[int], work: Callable[[list[int]], list[Result]]
) -> Iterator[tuple[list[int], list[Result]]]:
    """Do the work of a group, or of its halves where memory does not suffice for all at once.

    Raises
    ------
    OutOfMemoryError
        If it does not suffice for a single series.
    """
    waiting = [group]
    while waiting:
        part = waiting.pop()
        try:
            results = work(part)
        except (MemoryError, RuntimeError) as error:
            if not _is_shortage(error):
                raise
            if len(part) == 1:
                raise OutOfMemoryError(
                    "memory does not suffice to forecast even one series at a time; use fewer "
                    "num_paths, a shorter context_length or a shorter horizon"
                ) from error
        else:
            yield part, results
            continue
        # outside of the handler, which keeps the failed call's tensors alive
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        half = len(part) // 2
        waiting += [part[half:], part[:half]]


def _is_shortage(error: Exception) -> bool:
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    message = str(error).lower()
    return any(sign in message for sign in SIGNS_OF_SHORTAGE)


def in_passes(
    series: Sequence[Series],
    load: Load,
    device: torch.device,
    work: Callable[[list[int]], list[Result]],
    views: Sequence[int] | None = None,
    /,
    *,
    memory_budget: int | None = None,
    batch_size: int | None = None,
) -> Iterator[tuple[int, Result]]:
    """Do the work of all series, group by group of alike ones.

    Parameters
    ----------
    series : sequence of Series
    load : Load
        What one more series of a group takes.
    device : torch.device
    work : callable
        Gives one result per series from the indices of a group.
    views : sequence of int, optional
        How many times the work forecasts each series; once by default.
    memory_budget : int, optional
        Bytes; None is `automatic_budget`. Where memory runs out nevertheless, a pass is halved,
        and later ones are no larger.
    batch_size : int, optional
        Most series per pass.

    Yields
    ------
    index : int
    result : object
        Of that series.
    """
    budget, tokens = limits(device, memory_budget)
    most = len(series)
    for group in groups(series, load, budget, tokens, batch_size, views):
        for start in range(0, len(group), most):
            part = group[start : start + most]
            for members, results in halved_when_short(part, work):
                if len(members) < len(part):
                    # what did not fit once will not fit a little later
                    most = min(most, len(members))
                yield from zip(members, results, strict=True)
