"""Corpora of series, and the packed training batches that are cut from them."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from moirai_moe_forecaster.config import ModelConfig, TrainConfig
from moirai_moe_forecaster.errors import InvalidInputError, MissingExtraError
from moirai_moe_forecaster.model.scaler import fit_normaliser
from moirai_moe_forecaster.model.tokens import TokenBatch
from moirai_moe_forecaster.training.synthetic import coupled, synthesise

log = logging.getLogger(__name__)

Array = NDArray[np.float32]

LARGEST_TARGET = 20.0
SOURCE_POWER = 0.4
HELD_OUT_EVERY = 20
HELD_OUT_SHARE = 0.2
SYNTHETIC_POOL = 384
SHORT_LENGTH = 128
SYNTHETIC_REUSE = 24
COUPLED_POOL = 64
LARGEST_SYSTEM = 4


class Source(NamedTuple):
    """Series of one origin, end to end in one array.

    Attributes
    ----------
    name : str
    points : ndarray of float32, (points,)
        NaN where missing.
    offsets : ndarray of int64, (series + 1,)
    weight : float
        How often the source is drawn, relative to others.
    """

    name: str
    points: Array
    offsets: NDArray[np.int64]
    weight: float

    def series(self, index: int) -> Array:
        """Return one series (time,)."""
        return self.points[self.offsets[index] : self.offsets[index + 1]]

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Length of every series."""
        return np.diff(self.offsets)


class TrainingBatch(NamedTuple):
    """Packed sequences, and which of their points bear loss when they are predicted."""

    tokens: TokenBatch
    scored: Tensor


class Window(NamedTuple):
    """One training window.

    Attributes
    ----------
    values : ndarray, (variate, time)
        NaN where missing.
    prefix : int
        Points at the start that serve the normaliser only.
    known_future : int
        How many of the last variates are covariates known ahead, which bear no loss.
    """

    values: Array
    prefix: int
    known_future: int


class Pools(NamedTuple):
    """Synthetic series that several steps crop: series as long as the longest window, series that
    are short as a whole, as yearly ones are, and multivariate systems."""

    block: int
    long: Array
    short: Array
    systems: Array


def read_corpus(
    folder: str | Path,
    source_weights: Mapping[str, float] | None = None,
    exclude: Mapping[str, Collection[str]] | None = None,
) -> list[Source]:
    """Read a folder of parquet files, one row per series with a list column ``y``.

    A source is weighted by a root of its observations, so that none dominates.

    Parameters
    ----------
    folder : str or Path
    source_weights : mapping, optional
        Factors on the weights, by file name without its ending.
    exclude : mapping, optional
        Values of the column ``unique_id`` to leave out, by file name without its ending.

    Raises
    ------
    InvalidInputError
        If the folder holds no parquet file, a file has no column ``y``, or a series to leave out
        is not there.
    MissingExtraError
        If pyarrow is not installed.
    """
    try:
        import pyarrow.parquet as parquet
    except ImportError as error:
        raise MissingExtraError("pyarrow", "train", "reading a corpus") from error
    files = sorted(Path(folder).glob("*.parquet"))
    if not files:
        raise InvalidInputError(f"no .parquet file in {str(folder)!r}; expected one per source")
    factors = source_weights or {}
    sources = []
    for file in files:
        if "y" not in parquet.read_schema(file).names:
            raise InvalidInputError(f"{file.name} has no column 'y' (a list of numbers per series)")
        table = parquet.read_table(file)
        if unwanted := set((exclude or {}).get(file.stem, ())):
            names = table["unique_id"].to_pylist()
            if unknown := sorted(unwanted - set(names)):
                raise InvalidInputError(f"{file.name} has no series {unknown[:5]} to leave out")
            table = table.filter([name not in unwanted for name in names])
        column = table["y"].combine_chunks()
        lists = column.chunk(0) if hasattr(column, "chunk") else column
        points = lists.flatten().to_numpy(zero_copy_only=False).astype(np.float32, copy=False)
        offsets = np.asarray(lists.offsets, dtype=np.int64)
        weight = float(len(points) ** SOURCE_POWER) * factors.get(file.stem, 1.0)
        sources.append(Source(file.stem, points, offsets - offsets[0], weight))
        log.info("%s: %d series, %d points", file.stem, len(offsets) - 1, len(points))
    return sources


def hold_out(sources: Sequence[Source]) -> tuple[list[Source], list[Array]]:
    """Cut the last fifth off every twentieth series, to validate on.

    Returns
    -------
    training : list of Source
        Without those stretches.
    validation : list of ndarray
        Whole series, of which only the last fifth is unseen.
    """
    training, validation = [], []
    for source in sources:
        kept, ends = [], source.offsets.copy()
        for index in range(len(source.lengths)):
            series = source.series(index)
            if index % HELD_OUT_EVERY == HELD_OUT_EVERY // 2 and len(series) >= 40:
                validation.append(series)
                series = series[: len(series) - int(HELD_OUT_SHARE * len(series))]
            kept.append(series)
            ends[index + 1] = ends[index] + len(series)
        training.append(source._replace(points=np.concatenate(kept), offsets=ends))
    return training, validation


class BatchMaker:
    """Makes the training batch of any step, from the seed and the step alone.

    As no state passes from one batch to the next, a resumed run sees the same data as an unbroken
    one, and batches can be made ahead in another thread.

    Parameters
    ----------
    sources : sequence of Source
        May be empty if all windows are synthetic.
    model : ModelConfig
    training : TrainConfig
    """

    def __init__(
        self, sources: Sequence[Source], model: ModelConfig, training: TrainConfig
    ) -> None:
        if not sources and training.synthetic_share + training.coupled_share < 1:
            raise InvalidInputError(
                "there is no corpus and synthetic_share + coupled_share is below 1: "
                "give a corpus or make all windows synthetic"
            )
        self.sources = list(sources)
        self.model = model
        self.training = training
        weights = np.array([source.weight for source in sources])
        self._source_share = weights / weights.sum() if len(weights) else weights
        self._series_share = [_cumulative(np.sqrt(source.lengths)) for source in self.sources]
        self._pool: Pools | None = None

    def batch(self, step: int) -> TrainingBatch:
        """Return the batch of one step."""
        rng = np.random.Generator(np.random.Philox(key=[self.training.seed, step]))
        rows, row_tokens = self.training.batch_rows, self.training.row_tokens
        free = np.full(rows, row_tokens)
        packed: list[list[Window]] = [[] for _ in range(rows)]
        while (free >= 2).any():
            window = self._window(rng, step)
            need = _token_count(window, self.model)
            fitting = np.flatnonzero(free >= need)
            if not len(fitting):
                window = _shorten(window, int(free.max()), self.model.patch_size)
                need = _token_count(window, self.model)
                fitting = np.flatnonzero(free >= need)
            row = fitting[free[fitting].argmin()]
            packed[row].append(window)
            free[row] -= need
        return pack(packed, row_tokens, self.model)

    def _window(self, rng: np.random.Generator, step: int) -> Window:
        config = self.training
        low, high = np.log([config.min_points, config.max_points])
        length = int(np.exp(rng.uniform(low, high)))
        kind = rng.random()
        known_future = 0
        if kind < config.coupled_share:
            values, known_future = self._system(rng, step, length)
        elif kind < config.coupled_share + config.synthetic_share:
            pools = self._pools(step)
            pool = pools.short if length <= SHORT_LENGTH and rng.random() < 0.5 else pools.long
            values = _crop(pool[rng.integers(len(pool))], length, rng)[None]
        elif rng.random() < config.mixing_share:
            values = self._mixed(rng, length)[None]
        else:
            values = _crop(self._draw(rng), length, rng)[None]
        values = self._augment(values, rng)
        share = rng.uniform(*config.prefix_share)
        prefix = int(np.clip(share * values.shape[1], 2, values.shape[1] - 1))
        return Window(values, prefix, known_future)

    def _draw(self, rng: np.random.Generator) -> Array:
        source = rng.choice(len(self.sources), p=self._source_share)
        index = int(np.searchsorted(self._series_share[source], rng.random()))
        return self.sources[source].series(index)

    def _mixed(self, rng: np.random.Generator, length: int) -> Array:
        """Mix two or three standardised series with Dirichlet weights, as TSMixup does."""
        parts = [_crop(self._draw(rng), length, rng) for _ in range(rng.integers(2, 4))]
        shortest = min(map(len, parts))
        weights = rng.dirichlet(np.full(len(parts), 1.5)).astype(np.float32)
        standard = [_standard(part[-shortest:]) for part in parts]
        return np.sum([w * part for w, part in zip(weights, standard, strict=True)], axis=0)

    def _system(self, rng: np.random.Generator, step: int, length: int) -> tuple[Array, int]:
        """Cut a multivariate system; half the time its drivers are known ahead."""
        pool = self._pools(step).systems
        count = int(rng.integers(2, LARGEST_SYSTEM + 1))
        length = min(length, self.training.row_tokens * self.model.patch_size // (2 * count))
        system = pool[rng.integers(len(pool))][:count]
        start = rng.integers(system.shape[1] - length + 1)
        known_future = count - 1 if rng.random() < 0.5 else 0
        return system[:, start : start + length], known_future

    def _augment(self, values: Array, rng: np.random.Generator) -> Array:
        if rng.random() < self.training.flip_share:
            values = -values
        if rng.random() < self.training.missing_share:
            values = values.copy()
            if rng.random() < 0.5:
                values[rng.random(values.shape) < rng.uniform(0, 0.4)] = np.nan
            else:
                width = int(rng.uniform(0, 0.3) * values.shape[1])
                start = int(rng.integers(values.shape[1] - width + 1))
                values[:, start : start + width] = np.nan
        return values

    def _pools(self, step: int) -> Pools:
        """Synthetic series that a stretch of steps shares, drawn from the seed and the stretch."""
        block = step // SYNTHETIC_REUSE
        if self._pool is None or self._pool.block != block:
            generator = torch.Generator().manual_seed(self.training.seed * 1_000_003 + block)
            length = self.training.max_points
            self._pool = Pools(
                block,
                synthesise(SYNTHETIC_POOL, length, generator).numpy(),
                synthesise(SYNTHETIC_POOL, SHORT_LENGTH, generator).numpy(),
                coupled(COUPLED_POOL, LARGEST_SYSTEM, length, generator).numpy(),
            )
        return self._pool


def validation_batches(
    series: Sequence[Array], model: ModelConfig, training: TrainConfig, rows: int
) -> list[TrainingBatch]:
    """Pack the last window of held-out series, scored on its unseen last fifth.

    Parameters
    ----------
    rows : int
        About how many packed sequences to make in all; series are taken evenly until then.
    """
    packed: list[list[Window]] = [[]]
    free = training.row_tokens
    order = np.random.Generator(np.random.Philox(0)).permutation(len(series))
    for index in order:
        values = series[index][-training.max_points :]
        unseen = int(HELD_OUT_SHARE * len(series[index]))
        window = Window(values[None], max(len(values) - unseen, len(values) // 2), 0)
        if not np.isfinite(values[: window.prefix]).any():
            continue
        need = _token_count(window, model)
        if need > free:
            if len(packed) == rows:
                break
            packed.append([])
            free = training.row_tokens
        packed[-1].append(window)
        free -= need
    chunk = training.batch_rows
    groups = [packed[start : start + chunk] for start in range(0, len(packed), chunk)]
    return [pack(group, training.row_tokens, model) for group in groups]


def pack(packed: Sequence[Sequence[Window]], row_tokens: int, model: ModelConfig) -> TrainingBatch:
    """Standardise windows, cut them into patches and lay them end to end, a sample id each."""
    shape = (len(packed), row_tokens)
    patch = model.patch_size
    values = torch.zeros(*shape, patch)
    observed = torch.zeros(*shape, patch, dtype=torch.bool)
    scored = torch.zeros(*shape, patch, dtype=torch.bool)
    time_id, variate_id, sample_id = torch.zeros(3, *shape, dtype=torch.long)
    known_future = torch.zeros(*shape, dtype=torch.bool)
    for row, windows in enumerate(packed):
        at = 0
        for sample, window in enumerate(windows, start=1):
            for variate, (points, seen, bears_loss, start) in enumerate(_tokens(window, model)):
                span = slice(at, at + len(points))
                values[row, span], observed[row, span], scored[row, span] = points, seen, bears_loss
                time_id[row, span] = torch.arange(start, start + len(points))
                variate_id[row, span], sample_id[row, span] = variate, sample
                known_future[row, span] = _is_known(window, variate)
                at += len(points)
    tokens = TokenBatch(values, observed, time_id, variate_id, sample_id, known_future)
    return TrainingBatch(tokens, scored)


def _tokens(window: Window, model: ModelConfig) -> Iterator[tuple[Tensor, Tensor, Tensor, int]]:
    """Patches, their masks and the first time id of every variate of a window."""
    pad = -window.values.shape[1] % model.patch_size
    padded = np.pad(window.values, ((0, 0), (pad, 0)), constant_values=np.nan)
    values = torch.from_numpy(padded)
    observed = values.isfinite()
    values = torch.where(observed, values, 0.0)
    prefix = pad + window.prefix
    for variate in range(len(values)):
        known = _is_known(window, variate)
        basis = observed[variate].clone()
        if not known:
            basis[prefix:] = False
        standard = fit_normaliser(values[variate], basis, model.scale_rule)
        points = standard.standardise(values[variate]).clamp(-LARGEST_TARGET, LARGEST_TARGET)
        scored = observed[variate] & (points.abs() < LARGEST_TARGET)
        scored[:prefix] = False
        if known or not basis.any():
            scored[:] = False
        start = -model.output_patches if known and model.shift_known_future else 0
        cut = (-1, model.patch_size)
        yield points.view(cut), observed[variate].view(cut), scored.view(cut), start


def _is_known(window: Window, variate: int) -> bool:
    return variate >= len(window.values) - window.known_future


def _token_count(window: Window, model: ModelConfig) -> int:
    return len(window.values) * -(-window.values.shape[1] // model.patch_size)


def _shorten(window: Window, tokens: int, patch_size: int) -> Window:
    """Keep the end of a window, and only its first variate if not even two patches of all fit."""
    values, known_future = window.values, window.known_future
    if tokens < 2 * len(values):
        values, known_future = values[:1], 0
    values = values[:, -(tokens // len(values)) * patch_size :]
    prefix = max(2, window.prefix * values.shape[1] // window.values.shape[1])
    return Window(values, prefix, known_future)


def _crop(series: Array, length: int, rng: np.random.Generator) -> Array:
    start = int(rng.integers(max(len(series) - length, 0) + 1))
    return series[start : start + length]


def _standard(series: Array) -> Array:
    seen = series[np.isfinite(series)]
    if not len(seen):
        return np.zeros_like(series)
    deviation = seen.std()
    return np.nan_to_num(series - seen.mean()) / (deviation if deviation > 0 else 1.0)


def _cumulative(weights: NDArray[np.float64]) -> NDArray[np.float64]:
    total = weights.cumsum()
    return total / total[-1]
