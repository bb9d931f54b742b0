"""The training batch of any step, made of corpus and synthetic windows, and validation batches."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from moirai_moe_forecaster.config import ModelConfig, TrainConfig
from moirai_moe_forecaster.errors import InvalidInputError
from moirai_moe_forecaster.training.data.augmentation import augment, hidden_patches
from moirai_moe_forecaster.training.data.corpus import HELD_OUT_SHARE, Array, Integers, Source
from moirai_moe_forecaster.training.data.packing import (
    Disturbances,
    Placement,
    TrainingBatch,
    TrainingWindow,
    assemble,
    fill_rows,
    pack,
)
from moirai_moe_forecaster.training.data.sampler import (
    LARGEST_SYSTEM,
    SHORT_LENGTH,
    SampledWindows,
    SyntheticPools,
    WindowSampler,
)
from moirai_moe_forecaster.training.data.window_values import (
    lose_points,
    mix,
    prefix_points,
    read_pieces,
)
from moirai_moe_forecaster.training.synthetic.generate import coupled, synthesise

GROUP_ROWS = 8
TOKENS_PER_CANDIDATE = 24
TOKENS_PER_SYNTHETIC = 384


class BatchMaker:
    """Makes the training batch of any step, from the seed and the step alone.

    As no state passes from one batch to the next, a resumed run sees the same data as an unbroken
    one, and batches can be made ahead in another thread. The rows of a batch are drawn in groups
    of `GROUP_ROWS`, each from a counter of its own, so that the whole batch is the same however it
    is divided among processes.

    Parameters
    ----------
    sources : sequence of Source
        May be empty if all windows are synthetic. Points stay where they are: windows are read one
        slice each, and only what a batch needs goes to `device`.
    model : ModelConfig
    training : TrainConfig
    device : torch.device or str, default="cpu"
        Where synthetic series are made and windows are standardised, and where batches arrive.
        Synthetic series of one seed differ between kinds of device.

    Raises
    ------
    InvalidInputError
        If there is nothing to draw from, or no window is longer than a patch.
    """

    def __init__(
        self,
        sources: Sequence[Source],
        model: ModelConfig,
        training: TrainConfig,
        device: torch.device | str = "cpu",
    ) -> None:
        if training.max_points <= model.patch_size:
            raise InvalidInputError(
                f"max_points={training.max_points} must be above patch_size={model.patch_size}: "
                "the first patch of a window bears no loss"
            )
        self.model = model
        self.training = training
        self.device = torch.device(device)
        self._corpus = [source.points for source in sources]
        self._sampler = WindowSampler(sources, training, model.patch_size)
        self._pools: tuple[int, SyntheticPools] | None = None

    def batch(self, step: int, part: int = 0, parts: int = 1) -> TrainingBatch:
        """Return the batch of one step, or a part of it: every `parts`-th group of rows.

        Raises
        ------
        InvalidInputError
            If there are fewer groups than parts, or no such part.
        """
        rows = self.training.batch_rows
        groups = range(-(-rows // GROUP_ROWS))[part::parts]
        if not 0 <= part < parts or not groups:
            raise InvalidInputError(
                f"part {part} of {parts} is empty: {rows} rows are "
                f"{-(-rows // GROUP_ROWS)} groups of {GROUP_ROWS}; use more rows or fewer parts"
            )
        pools = self._pools_of(step)
        generators = [_generator(self.training.seed, step, group) for group in groups]
        free = [
            [self.training.row_tokens] * min(GROUP_ROWS, rows - group * GROUP_ROWS)
            for group in groups
        ]
        shape = sum(map(len, free)), self.training.row_tokens
        windows, placement = self._fill(generators, free, pools)
        points = [*self._corpus, *(pool.reshape(-1) for pool in pools.arrays)]
        width = int(placement.tokens.max()) * self.model.patch_size
        pieces = read_pieces(windows, points, width)
        of = np.repeat(np.arange(len(windows.pieces)), windows.variates)
        lose_points(pieces[: len(of)], windows, of, placement.row // GROUP_ROWS, generators)
        disturbances = self._disturb(pieces[: len(of)], placement, generators)
        values = torch.from_numpy(pieces).to(self.device, non_blocking=True)
        values = mix(values, windows)
        return assemble(
            values, placement, shape, self.model, self.training.series_balance, disturbances
        )

    def _disturb(
        self, values: Array, placement: Placement, generators: Sequence[np.random.Generator]
    ) -> Disturbances:
        """Augment windows in place, group by group, and draw what is hidden of them."""
        size = self.model.patch_size
        width = values.shape[1] // size
        groups = np.searchsorted(placement.row, GROUP_ROWS * np.arange(len(generators) + 1))
        ends = np.append(0, placement.variates.cumsum())
        cycles, hidden = [], []
        for number, generator in enumerate(generators):
            windows = slice(*groups[number : number + 2])
            variates = placement.variates[windows]
            rows = slice(*ends[groups[number : number + 2]])
            augment(values[rows], variates, self.training, generator)
            tokens = placement.tokens[windows]
            prefix = tokens - (placement.length - placement.prefix)[windows] // size
            stretches = hidden_patches(prefix, tokens, width, self.training.hidden_share, generator)
            hidden.append(np.repeat(stretches, variates, 0))
            cycles.append(generator.random((variates.sum(), 2)))
        return Disturbances(np.concatenate(cycles), np.concatenate(hidden))

    def _fill(
        self,
        generators: Sequence[np.random.Generator],
        free: list[list[int]],
        pools: SyntheticPools,
    ) -> tuple[SampledWindows, Placement]:
        """Sample windows until the rows of all groups are full; windows in the order of rows."""
        size = self.model.patch_size
        candidates = GROUP_ROWS * self.training.row_tokens // TOKENS_PER_CANDIDATE + 1
        kept: list[SampledWindows] = []
        rows: list[Integers] = []
        while unfilled := [group for group, rooms in enumerate(free) if max(rooms) >= 2]:
            windows = self._sampler.sample([generators[g] for g in unfilled], candidates, pools)
            needs = list(
                zip((-(-windows.length // size)).tolist(), windows.variates.tolist(), strict=True)
            )
            placed = []
            for turn, group in enumerate(unfilled):
                start = turn * candidates
                for window, row, tokens, variates in fill_rows(
                    needs[start : start + candidates], free[group]
                ):
                    placed.append((start + window, GROUP_ROWS * group + row, tokens, variates))
            window, row, tokens, variates = np.array(placed, dtype=np.int64).T
            chosen = windows.select(window)
            kept.append(chosen.cut(variates, np.minimum(chosen.length, tokens * size)))
            rows.append(row)
        in_row = np.concatenate(rows)
        order = np.argsort(in_row, kind="stable")
        windows = SampledWindows.joined(kept).select(order)
        placement = Placement(
            row=in_row[order],
            tokens=-(-windows.length // size),
            variates=windows.variates,
            known_future=windows.known_future,
            length=windows.length,
            prefix=prefix_points(windows.prefix, windows.length, size),
        )
        return windows, placement

    def _pools_of(self, step: int) -> SyntheticPools:
        """Synthetic series that a stretch of steps shares, drawn from the seed and the stretch."""
        config = self.training
        tokens = config.batch_rows * config.row_tokens
        stretch = step // max(1, config.synthetic_pool * TOKENS_PER_SYNTHETIC // tokens)
        if self._pools is None or self._pools[0] != stretch:
            self._pools = stretch, self._make_pools(stretch)
        return self._pools[1]

    def _make_pools(self, stretch: int) -> SyntheticPools:
        config = self.training
        generator = torch.Generator(self.device)
        generator.manual_seed((config.seed * 1_000_003 + stretch) % 2**63)
        count, length = config.synthetic_pool, config.max_points
        long, short = torch.empty(0, 1, length), torch.empty(0, 1, SHORT_LENGTH)
        systems = torch.empty(0, LARGEST_SYSTEM, length)
        if config.synthetic_share:
            long = synthesise(count, length, generator)[:, None]
            short = synthesise(-(-count // 2), SHORT_LENGTH, generator)[:, None]
        if config.coupled_share:
            systems = coupled(-(-count // 16), LARGEST_SYSTEM, length, generator)
        return SyntheticPools(
            long=long.cpu().numpy(), short=short.cpu().numpy(), systems=systems.cpu().numpy()
        )


def validation_batches(
    series: Sequence[Array],
    model: ModelConfig,
    training: TrainConfig,
    rows: int,
    device: torch.device | str = "cpu",
) -> list[TrainingBatch]:
    """Pack the last window of held-out series, scored on its unseen last fifth, each point alike.

    Parameters
    ----------
    series : sequence of ndarray, (time,)
    model : ModelConfig
    training : TrainConfig
    rows : int
        About how many packed sequences to make in all; series are taken evenly until then.
    device : torch.device or str, default="cpu"
    """
    packed: list[list[TrainingWindow]] = [[]]
    free = training.row_tokens
    longest = min(training.max_points, training.row_tokens * model.patch_size)
    order = np.random.Generator(np.random.Philox(0)).permutation(len(series))
    for index in order:
        values = series[index][-longest:]
        unseen = int(HELD_OUT_SHARE * len(series[index]))
        prefix = max(len(values) - unseen, len(values) // 2)
        window = TrainingWindow(values=values[None], prefix=prefix, known_future=0)
        if not np.isfinite(values[: window.prefix]).any():
            continue
        need = -(-len(values) // model.patch_size)
        if need > free:
            if len(packed) == rows:
                break
            packed.append([])
            free = training.row_tokens
        packed[-1].append(window)
        free -= need
    chunk = training.batch_rows
    groups = [packed[start : start + chunk] for start in range(0, len(packed), chunk)]
    return [pack(g, training.row_tokens, model, device=device) for g in groups if any(g)]


def _generator(seed: int, step: int, group: int) -> np.random.Generator:
    """Counter-based: the streams of different steps and groups never meet."""
    return np.random.Generator(np.random.Philox(key=[seed, step], counter=[0, 0, 0, group]))
