"""All series of a corpus in one table: how often each is drawn, and which of them are related."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from moirai_moe_forecaster.errors import InvalidInputError
from moirai_moe_forecaster.training.data.corpus import Integers, Source

Floats = NDArray[np.float64]

LARGEST_SOURCE_SHARE = 0.1
NEIGHBOURS = np.concatenate((np.arange(-16, 0), np.arange(1, 17)))


@dataclass(frozen=True, kw_only=True)
class Catalogue:
    """All series of a corpus in one table: where they lie, how often each is drawn, and its place
    in `order`, in which related series are neighbours and `relation` tells them from others."""

    array: Integers
    begin: Integers
    length: Integers
    clock: Integers
    chance: Floats
    place: Integers
    order: Integers
    relation: Integers


def catalogue(sources: Sequence[Source], min_points: int) -> Catalogue:
    """List the series of `sources` that have at least `min_points`.

    A source is drawn by its weight, capped; of its series, a longer one by the root of its length.
    """
    rows: list[tuple[NDArray[np.generic], ...]] = []
    usable = [source.weight * bool((source.lengths >= min_points).any()) for source in sources]
    if not any(usable):
        raise InvalidInputError(
            f"no series of the corpus has min_points = {min_points} points and a positive weight"
        )
    related = 0
    for number, (source, share) in enumerate(zip(sources, source_shares(usable), strict=True)):
        kept = np.flatnonzero((source.lengths >= min_points) & (share > 0))
        lengths = source.lengths[kept]
        relation = np.arange(len(lengths)) if source.relation is None else source.relation[kept]
        _, relation = np.unique(relation, return_inverse=True)
        clock = np.zeros(len(kept), np.int64) if source.clock is None else source.clock[kept]
        chance = np.sqrt(lengths) * share / max(np.sqrt(lengths).sum(), 1)
        array = np.full(len(kept), number)
        rows.append((array, source.offsets[kept], lengths, clock, chance, relation + related))
        related += len(kept)
    array, begin, length, clock, chance, relation = map(np.concatenate, zip(*rows, strict=True))
    order = np.argsort(relation, kind="stable")
    place = np.empty_like(order)
    place[order] = np.arange(len(order))
    cumulative = chance.cumsum()
    return Catalogue(
        array=array,
        begin=begin,
        length=length,
        clock=clock,
        chance=cumulative / cumulative[-1],
        place=place,
        order=order,
        relation=relation,
    )


def source_shares(weights: Sequence[float]) -> Floats:
    """Turn weights into shares of the draws, none above `LARGEST_SOURCE_SHARE`.

    What a capped source has too much goes to the others in proportion. Of fewer sources than the
    cap allows for, each has an equal share.
    """
    shares = np.asarray(weights, dtype=np.float64) / np.sum(weights)
    cap = max(LARGEST_SOURCE_SHARE, 1 / np.count_nonzero(shares))
    capped = np.zeros(len(shares), dtype=bool)
    while (shares > cap * (1 + 1e-9)).any():
        capped |= shares >= cap
        free = np.where(capped, 0.0, shares)
        rest = (1 - cap * capped.sum()) / free.sum() if free.any() else 0.0
        shares = np.where(capped, cap, free * rest)
    return shares


def companions(
    table: Catalogue,
    series: Integers,
    start: Integers,
    span: Integers,
    wanted: Integers,
    chances: Floats,
) -> tuple[Integers, Integers]:
    """Find neighbours of a series that cover the same stretch of their common calendar.

    Parameters
    ----------
    table : Catalogue
    series, start, span, wanted : ndarray of int64, (window,)
        A series, where its stretch begins, over how many points, and how many variates to find.
    chances : ndarray, (window, neighbour)
        Uniform numbers: those with the least are taken first.

    Returns
    -------
    first : ndarray, (window, 1 + neighbour)
        Where each variate's stretch begins; the series itself comes first.
    pieces : ndarray, (window,)
        How many there are; 1 where no neighbour covers the stretch.
    """
    place = table.place[series][:, None] + NEIGHBOURS
    inside = (place >= 0) & (place < len(table.order))
    other = table.order[np.where(inside, place, 0)]
    at = (table.clock[series] + start)[:, None]
    into = at - table.clock[other]
    covers = inside & (table.relation[other] == table.relation[series][:, None])
    covers &= (into >= 0) & (into + span[:, None] <= table.length[other])
    best = np.argsort(np.where(covers, chances, 2.0), axis=1)
    chosen = np.take_along_axis(table.begin[other] + into, best, 1)
    own = (table.begin[series] + start)[:, None]
    pieces = np.minimum(wanted, 1 + covers.sum(1))
    return np.concatenate((own, chosen), 1), pieces
