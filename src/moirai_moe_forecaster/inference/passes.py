"""Work on many series in passes that fit into memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch

from moirai_moe_forecaster.data.series import Series
from moirai_moe_forecaster.inference.batches import (
    Load,
    Result,
    groups,
    halved_when_short,
    limits,
)


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
