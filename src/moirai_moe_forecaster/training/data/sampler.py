"""Which windows to train on: tables of index ranges, sampled for many windows at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
from numpy.typing import NDArray

from moirai_moe_forecaster.config import TrainConfig
from moirai_moe_forecaster.errors import InvalidInputError
from moirai_moe_forecaster.training.data.catalogue import NEIGHBOURS, catalogue, companions
from moirai_moe_forecaster.training.data.corpus import Array, Integers, Source

Floats = NDArray[np.float64]
Booleans = NDArray[np.bool_]

STRIDES = np.array([2, 3, 4, 5, 6, 7, 10, 12, 15, 24, 30, 48, 60, 96])
FEWEST_STRIDED = 64
LARGEST_SYSTEM = 4
MOST_RELATED = 8
MOST_MIXED = 3
KNOWN_RELATED = 0.3
SHORT_LENGTH = 128


@dataclass(frozen=True, kw_only=True)
class SyntheticPools:
    """Synthetic series that several steps crop, (series, variate, time) each: as long as the
    longest window, short as a whole, as yearly ones are, and multivariate systems."""

    long: Array
    short: Array
    systems: Array

    @property
    def arrays(self) -> tuple[Array, Array, Array]:
        """The pools in the order of their numbers."""
        return self.long, self.short, self.systems


@dataclass(frozen=True, kw_only=True)
class SampledWindows:
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

    def select(self, index: Integers) -> SampledWindows:
        """Return the windows of these numbers."""
        return SampledWindows(**{f.name: getattr(self, f.name)[index] for f in fields(self)})

    def cut(self, variates: Integers, length: Integers) -> SampledWindows:
        """Keep the end of each window, and its first variates."""
        dropped = self.variates - variates
        return replace(
            self,
            first=self.first + (self.step * (self.length - length))[:, None],
            length=length,
            pieces=self.pieces - dropped,
            known_future=np.maximum(self.known_future - dropped, 0),
        )

    @staticmethod
    def joined(parts: Sequence[SampledWindows]) -> SampledWindows:
        """Return the windows of all parts."""
        return SampledWindows(
            **{
                f.name: np.concatenate([getattr(part, f.name) for part in parts])
                for f in fields(SampledWindows)
            }
        )


@dataclass(frozen=True, kw_only=True)
class WindowKinds:
    """Which windows are synthetic systems, of the corpus, related series of it, mixtures of it, and
    of how many pieces each is; the others are synthetic series."""

    system: Booleans
    corpus: Booleans
    related: Booleans
    mixed: Booleans
    pieces: Integers


# fields of `Uniforms` of which a window has several
WIDTHS = {
    "series": MOST_MIXED,
    "start": MOST_MIXED,
    "neighbours": len(NEIGHBOURS),
    "sign": MOST_RELATED,
}


@dataclass(frozen=True, kw_only=True)
class Uniforms:
    """Uniform numbers that decide about windows: (window,), or (window, width) where several do.

    The order of the fields is that of the rows of a generator's table: moving one changes what
    every seed samples.
    """

    kind: Floats
    use: Floats
    pieces: Floats
    length: Floats
    longest: Floats
    series: Floats
    short: Floats
    strided: Floats
    stride: Floats
    averaged: Floats
    start: Floats
    neighbours: Floats
    backwards: Floats
    sign: Floats
    missing: Floats
    scattered: Floats
    amount: Floats
    some_known: Floats
    all_known: Floats
    known: Floats
    prefix: Floats
    stretch_at: Floats

    @classmethod
    def sample(cls, generators: Sequence[np.random.Generator], count: int) -> Uniforms:
        """Let every generator decide about `count` windows, which follow one another."""
        names = [f.name for f in fields(cls)]
        rows = np.cumsum([WIDTHS.get(name, 1) for name in names])
        table = np.concatenate([some.random((rows[-1], count)) for some in generators], axis=1)
        parts = zip(names, np.split(table, rows[:-1]), strict=True)
        return cls(**{name: part.T if name in WIDTHS else part[0] for name, part in parts})


class WindowSampler:
    """Samples windows of every kind, each for its share.

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

    def sample(
        self, generators: Sequence[np.random.Generator], count: int, pools: SyntheticPools
    ) -> SampledWindows:
        """Sample windows.

        Parameters
        ----------
        generators : sequence of numpy Generator
        count : int
            Windows of each generator; they follow one another.
        pools : SyntheticPools
            Their arrays follow those of the corpus in number.
        """
        u = Uniforms.sample(generators, count)
        # of shape parameter 1.5: mixing weights before they are divided by their sum
        gammas = np.concatenate(
            [some.gamma(1.5, size=(MOST_MIXED, count)) for some in generators], axis=1
        )
        config = self._training
        kinds = self._kinds(u)
        length = self._lengths(u, kinds)
        array, begin, size, series = self._origins(u, kinds, length, pools)
        parts = np.arange(MOST_MIXED) < np.where(kinds.mixed, kinds.pieces, 1)[:, None]
        shortest = np.where(parts, size, size.max()).min(1)
        stride, block = self._strides(u, kinds.corpus, shortest)
        length = np.minimum(length, shortest // stride)
        span = length * stride
        start = pick(u.start, size - np.minimum(span[:, None], size) + 1)

        variate = pools.systems.shape[2] * np.arange(MOST_RELATED)
        first = (begin + start)[:, :1] + np.where(kinds.system[:, None], variate, 0)
        first[kinds.mixed, :MOST_MIXED] = (begin + start)[kinds.mixed]
        pieces = kinds.pieces.copy()
        if (chosen := kinds.related).any():
            base = series[chosen, 0], start[chosen, 0], span[chosen], pieces[chosen]
            begins, pieces[chosen] = companions(self._catalogue, *base, u.neighbours[chosen])
            first[chosen] = begins[:, :MOST_RELATED]
        # a system does not run backwards: its effects follow their causes
        backwards = (u.backwards < config.time_flip_share) & ~kinds.system
        flipped = u.sign < config.flip_share
        flipped = np.where(kinds.mixed[:, None], flipped[:, :1], flipped)
        weights = np.where(parts & kinds.mixed[:, None], gammas.T, 0.0)
        low, high = config.prefix_share
        missing, scatter = u.missing < config.missing_share, u.scattered < 0.5
        return SampledWindows(
            array=array,
            first=first + np.where(backwards, span - stride, 0)[:, None],
            pieces=pieces,
            known_future=_known_future(u, kinds, pieces),
            step=np.where(backwards, -stride, stride),
            block=block,
            length=length,
            mixed=kinds.mixed,
            mixing=weights / np.maximum(weights.sum(1, keepdims=True), 1e-30),
            sign=np.where(flipped, -1.0, 1.0),
            prefix=low + u.prefix * (high - low),
            scattered=np.where(missing & scatter, 0.4 * u.amount, 0.0),
            stretch=np.where(missing & ~scatter, 0.3 * u.amount, 0.0),
            stretch_at=u.stretch_at,
        )

    def _kinds(self, u: Uniforms) -> WindowKinds:
        config = self._training
        kind, use = u.kind, u.use
        system = kind < config.coupled_share
        corpus = kind >= config.coupled_share + config.synthetic_share
        related = corpus & (use < config.related_share)
        mixed = corpus & ~related & (use < config.related_share + config.mixing_share)
        room = max(config.row_tokens // 2, 1)  # two tokens of every variate
        most = np.where(mixed, MOST_MIXED, 1)
        most[system], most[related] = min(LARGEST_SYSTEM, room), min(MOST_RELATED, room)
        pieces = np.where(most > 1, 2 + pick(u.pieces, most - 1), 1)
        return WindowKinds(
            system=system, corpus=corpus, related=related, mixed=mixed, pieces=pieces
        )

    def _lengths(self, u: Uniforms, kinds: WindowKinds) -> Integers:
        """Log-uniform lengths and some of the longest, such that all variates fit into a row."""
        config = self._training
        low, high = np.log([config.min_points, config.max_points])
        length = np.exp(low + u.length * (high - low)).astype(np.int64)
        length = np.where(u.longest < config.long_share, config.max_points, length)
        variates = np.where(kinds.mixed, 1, kinds.pieces)
        return np.minimum(length, config.row_tokens // variates * self._patch_size)

    def _strides(self, u: Uniforms, corpus: Booleans, size: Integers) -> tuple[Integers, Integers]:
        """Strides that leave enough of a series, and the blocks of which means are taken."""
        feasible = np.searchsorted(STRIDES * FEWEST_STRIDED, size, side="right")
        strided = (u.strided < self._training.stride_share) & corpus & (feasible > 0)
        stride = np.where(strided, STRIDES[pick(u.stride, np.maximum(feasible, 1))], 1)
        return stride, np.where(u.averaged < 0.5, stride, 1)

    def _origins(
        self,
        u: Uniforms,
        kinds: WindowKinds,
        length: Integers,
        pools: SyntheticPools,
    ) -> tuple[Integers, Integers, Integers, Integers]:
        """Pick the series of each window: array (window, MOST_RELATED) and, for up to MOST_MIXED
        parts, where the series begins, its size and its number in the catalogue."""
        short = ~kinds.system & (u.short < 0.5) & (length <= SHORT_LENGTH)
        index = np.where(kinds.system, 2, short)
        count, variates, time = np.array([pool.shape for pool in pools.arrays])[index].T
        begin = (pick(u.series[:, 0], count) * variates * time)[:, None].repeat(MOST_MIXED, 1)
        size = time[:, None].repeat(MOST_MIXED, 1)
        array = (self._arrays + index)[:, None].repeat(MOST_RELATED, 1)
        series = np.zeros_like(begin)
        if (corpus := kinds.corpus).any():
            table = self._catalogue
            chosen = np.searchsorted(table.chance, u.series[corpus], side="right")
            series[corpus] = chosen
            begin[corpus], size[corpus] = table.begin[chosen], table.length[chosen]
            array[corpus] = table.array[chosen[:, :1]]
            array[kinds.mixed, :MOST_MIXED] = table.array[series[kinds.mixed]]
        return array, begin, size, series


def pick(u: Floats, count: Integers) -> Integers:
    """Turn uniform numbers into indices below `count`."""
    return np.minimum((u * count).astype(np.int64), count - 1)


def _known_future(u: Uniforms, kinds: WindowKinds, pieces: Integers) -> Integers:
    """Half of the systems know all drivers ahead, some related windows a few of their variates."""
    some, half = u.some_known < KNOWN_RELATED, u.all_known < 0.5
    known = np.where(kinds.related & some & (pieces > 1), 1 + pick(u.known, pieces - 1), 0)
    return np.where(kinds.system & half, pieces - 1, known)
