"""Which windows to train on: tables of index ranges, drawn for many windows at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from moirai_moe_forecaster.config import TrainConfig
from moirai_moe_forecaster.errors import InvalidInputError
from moirai_moe_forecaster.training.corpus import Array, Integers, Source, source_shares

Floats = NDArray[np.float64]
Booleans = NDArray[np.bool_]

STRIDES = np.array([2, 3, 4, 5, 6, 7, 10, 12, 15, 24, 30, 48, 60, 96])
FEWEST_STRIDED = 64
LARGEST_SYSTEM = 4
MOST_RELATED = 8
MOST_MIXED = 3
NEIGHBOURS = np.concatenate((np.arange(-16, 0), np.arange(1, 17)))
KNOWN_RELATED = 0.3
SHORT_LENGTH = 128
UNIFORMS = 18 + 2 * MOST_MIXED + MOST_RELATED + len(NEIGHBOURS)


class Pools(NamedTuple):
    """Synthetic series that several steps crop, (series, variate, time) each: as long as the
    longest window, short as a whole, as yearly ones are, and multivariate systems."""

    long: Array
    short: Array
    systems: Array


class Draws(NamedTuple):
    """Windows as index ranges: point i of a piece is the mean of `block` points of its array from
    ``first + step * i`` on.

    Attributes
    ----------
    array, first : ndarray of int64, (window, piece)
        Which array of points, and where in it. The pieces are the window's variates or, of a
        mixture, its parts.
    pieces, known_future : ndarray of int64, (window,)
        How many pieces there are, and how many of the last ones are covariates known ahead.
    step, block, length : ndarray of int64, (window,)
        A negative step runs backwards in time.
    mixed : ndarray of bool, (window,)
    mixing : ndarray, (window, MOST_MIXED)
        Weights of a mixture's standardised parts.
    sign : ndarray, (window, piece)
        1 or -1.
    prefix : ndarray, (window,)
        Share that only serves the normaliser.
    scattered, stretch, stretch_at : ndarray, (window,)
        Share of points to make missing one by one, share of a stretch to make missing, and where
        it lies between the earliest (0) and the latest (1) place.
    """

    array: Integers
    first: Integers
    pieces: Integers
    known_future: Integers
    step: Integers
    block: Integers
    length: Integers
    mixed: Booleans
    mixing: Floats
    sign: Floats
    prefix: Floats
    scattered: Floats
    stretch: Floats
    stretch_at: Floats

    @property
    def variates(self) -> Integers:
        """How many variates each window has."""
        return np.where(self.mixed, 1, self.pieces)

    def select(self, index: Integers) -> Draws:
        """Return the windows of these numbers."""
        return Draws._make(column[index] for column in self)

    def cut(self, variates: Integers, length: Integers) -> Draws:
        """Keep the end of each window, and its first variates."""
        dropped = self.variates - variates
        return self._replace(
            first=self.first + (self.step * (self.length - length))[:, None],
            length=length,
            pieces=self.pieces - dropped,
            known_future=np.maximum(self.known_future - dropped, 0),
        )


class Catalogue(NamedTuple):
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


class _Rows:
    """Hands out the rows of a table one after another."""

    def __init__(self, table: Floats) -> None:
        self._table = table
        self._next = 0

    def one(self) -> Floats:
        """Next row."""
        return self.some(1)[:, 0]

    def some(self, count: int) -> Floats:
        """Next rows as columns."""
        self._next += count
        return self._table[self._next - count : self._next].T


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
        array, begin, length, clock, cumulative / cumulative[-1], place, order, relation
    )


class WindowDrawer:
    """Draws windows of every kind from tables of random numbers.

    Parameters
    ----------
    sources : sequence of Source
    training : TrainConfig
    patch_size : int

    Raises
    ------
    InvalidInputError
        If there is nothing to draw from.
    """

    def __init__(self, sources: Sequence[Source], training: TrainConfig, patch_size: int) -> None:
        if training.synthetic_share + training.coupled_share < 1:
            if not sources:
                raise InvalidInputError(
                    "there is no corpus and synthetic_share + coupled_share is below 1: "
                    "give a corpus or make all windows synthetic"
                )
            self._catalogue = catalogue(sources, training.min_points)
        self._arrays = len(sources)
        self._training = training
        self._patch_size = patch_size

    def draw(self, uniforms: Floats, gammas: Floats, pools: Pools) -> Draws:
        """Turn random numbers into windows.

        Parameters
        ----------
        uniforms : ndarray, (UNIFORMS, window)
        gammas : ndarray, (MOST_MIXED, window)
            Of shape parameter 1.5: mixing weights before they are divided by their sum.
        pools : Pools
            Their arrays follow those of the corpus in number.
        """
        config = self._training
        u = _Rows(uniforms)
        kind = u.one()
        system = kind < config.coupled_share
        corpus = kind >= config.coupled_share + config.synthetic_share
        use = u.one()
        related = corpus & (use < config.related_share)
        mixed = corpus & ~related & (use < config.related_share + config.mixing_share)
        room = max(config.row_tokens // 2, 1)  # two tokens of every variate
        variates = min(LARGEST_SYSTEM, room), min(MOST_RELATED, room)
        most = np.where(mixed, MOST_MIXED, 1)
        most[system], most[related] = variates
        pieces = np.where(most > 1, 2 + pick(u.one(), most - 1), 1)
        length = self._lengths(u.one(), u.one(), np.where(mixed, 1, pieces))

        array, begin, size, series = self._origins(u, corpus, mixed, system, length, pools)
        parts = np.arange(MOST_MIXED) < np.where(mixed, pieces, 1)[:, None]
        shortest = np.where(parts, size, size.max()).min(1)
        feasible = np.searchsorted(STRIDES * FEWEST_STRIDED, shortest, side="right")
        strided = (u.one() < config.stride_share) & corpus & (feasible > 0)
        stride = np.where(strided, STRIDES[pick(u.one(), np.maximum(feasible, 1))], 1)
        block = np.where(u.one() < 0.5, stride, 1)
        length = np.minimum(length, shortest // stride)
        span = length * stride
        start = pick(u.some(MOST_MIXED), size - np.minimum(span[:, None], size) + 1)

        first = np.zeros((len(kind), MOST_RELATED), dtype=np.int64)
        first[:, :MOST_MIXED] = begin + start
        variate = pools.systems.shape[2] * np.arange(MOST_RELATED)
        first[system] = (begin + start)[system, :1] + variate
        nearness = u.some(len(NEIGHBOURS))
        if related.any():
            base = series[related, 0], start[related, 0], span[related]
            first[related], pieces[related] = self._companions(
                *base, pieces[related], nearness[related]
            )
        known = pick(u.one(), np.maximum(pieces - 1, 1)) + 1
        known = np.where(u.one() < KNOWN_RELATED, known, 0) * (related & (pieces > 1))
        known = np.where(system & (u.one() < 0.5), pieces - 1, known)

        backwards = (u.one() < config.time_flip_share) & ~system  # effects follow their causes
        first += np.where(backwards, span - stride, 0)[:, None]
        flipped = u.some(MOST_RELATED) < config.flip_share
        flipped = np.where(mixed[:, None], flipped[:, :1], flipped)
        low, high = config.prefix_share
        prefix = low + u.one() * (high - low)
        missing = u.one() < config.missing_share
        scatter = u.one() < 0.5
        amount = u.one()
        parts = parts & mixed[:, None]
        weights = np.where(parts, gammas.T, 0.0)
        return Draws(
            array=array,
            first=first,
            pieces=pieces,
            known_future=known,
            step=np.where(backwards, -stride, stride),
            block=block,
            length=length,
            mixed=mixed,
            mixing=weights / np.maximum(weights.sum(1, keepdims=True), 1e-30),
            sign=np.where(flipped, -1.0, 1.0),
            prefix=prefix,
            scattered=np.where(missing & scatter, 0.4 * amount, 0.0),
            stretch=np.where(missing & ~scatter, 0.3 * amount, 0.0),
            stretch_at=u.one(),
        )

    def _lengths(self, u: Floats, long: Floats, variates: Integers) -> Integers:
        """Log-uniform lengths and some of the longest, such that all variates fit into a row."""
        config = self._training
        low, high = np.log([config.min_points, config.max_points])
        length = np.exp(low + u * (high - low)).astype(np.int64)
        length = np.where(long < config.long_share, config.max_points, length)
        return np.minimum(length, config.row_tokens // variates * self._patch_size)

    def _origins(
        self,
        u: _Rows,
        corpus: Booleans,
        mixed: Booleans,
        system: Booleans,
        length: Integers,
        pools: Pools,
    ) -> tuple[Integers, Integers, Integers, Integers]:
        """Pick the series of each window: array (window, MOST_RELATED) and, for up to MOST_MIXED
        parts, where the series begins, its size and its number in the catalogue."""
        picks = u.some(MOST_MIXED)
        short = ~system & (u.one() < 0.5) & (length <= SHORT_LENGTH)
        index = np.where(system, 2, short)
        count, variates, time = np.array([pool.shape for pool in pools])[index].T
        begin = (pick(picks[:, 0], count) * variates * time)[:, None].repeat(MOST_MIXED, 1)
        size = time[:, None].repeat(MOST_MIXED, 1)
        array = (self._arrays + index)[:, None].repeat(MOST_RELATED, 1)
        series = np.zeros_like(begin)
        if corpus.any():
            table = self._catalogue
            chosen = np.searchsorted(table.chance, picks[corpus], side="right")
            series[corpus] = chosen
            begin[corpus], size[corpus] = table.begin[chosen], table.length[chosen]
            array[corpus] = table.array[chosen[:, :1]]
            array[mixed, :MOST_MIXED] = table.array[series[mixed]]
        return array, begin, size, series

    def _companions(
        self,
        series: Integers,
        start: Integers,
        span: Integers,
        wanted: Integers,
        nearness: Floats,
    ) -> tuple[Integers, Integers]:
        """Find neighbours of a series that cover the same stretch of their common calendar.

        Returns
        -------
        first : ndarray, (window, MOST_RELATED)
            Where each variate's stretch begins; the series itself comes first.
        pieces : ndarray, (window,)
            How many there are; 1 where no neighbour covers the stretch.
        """
        table = self._catalogue
        place = table.place[series][:, None] + NEIGHBOURS
        inside = (place >= 0) & (place < len(table.order))
        other = table.order[np.where(inside, place, 0)]
        at = (table.clock[series] + start)[:, None]
        into = at - table.clock[other]
        covers = inside & (table.relation[other] == table.relation[series][:, None])
        covers &= (into >= 0) & (into + span[:, None] <= table.length[other])
        best = np.argsort(np.where(covers, nearness, 2.0), axis=1)[:, : MOST_RELATED - 1]
        chosen = np.take_along_axis(table.begin[other] + into, best, 1)
        own = (table.begin[series] + start)[:, None]
        pieces = np.minimum(wanted, 1 + covers.sum(1))
        return np.concatenate((own, chosen), 1), pieces


def pick(u: Floats, count: Integers) -> Integers:
    """Turn uniform numbers into indices below `count`."""
    return np.minimum((u * count).astype(np.int64), count - 1)
