"""What sampled windows hold: values read from their arrays, mixed, and with points lost."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from moirai_moe_forecaster.model.tokens import fit_normaliser
from moirai_moe_forecaster.training.data.corpus import Array, Integers
from moirai_moe_forecaster.training.data.sampler import MOST_MIXED, Floats, SampledWindows

FEWEST_IN_PREFIX = 4


def prefix_points(share: Floats, length: Integers, patch_size: int) -> Integers:
    """Turn shares of windows into points of prefixes that end with a patch, as contexts do.

    A prefix has at least `FEWEST_IN_PREFIX` points, and leaves at least one patch to predict,
    where the window has that many.
    """
    tokens = -(-length // patch_size)
    pad = tokens * patch_size - length
    fewest = -(-(pad + FEWEST_IN_PREFIX) // patch_size)
    patches = np.maximum(np.round(share * tokens).astype(np.int64), fewest)
    return np.maximum(np.minimum(patches, tokens - 1), 1) * patch_size - pad


def read_pieces(windows: SampledWindows, points: Sequence[Array], width: int) -> Array:
    """Read what windows are made of from their arrays.

    Parameters
    ----------
    windows : SampledWindows
    points : sequence of ndarray
        The arrays that `windows` refers to by number.
    width : int
        At least the longest window.

    Returns
    -------
    ndarray, (piece, width)
        At the right end of rows that are NaN otherwise: the variates of all windows in order, the
        first part of a mixture standing for it, then the other parts of all mixtures.
    """
    numbers = np.arange(windows.first.shape[1])
    first = np.nonzero(numbers < windows.variates[:, None])
    others = np.nonzero(
        windows.mixed[:, None] & (numbers > 0) & (numbers < windows.pieces[:, None])
    )
    window, piece = (np.concatenate(pair) for pair in zip(first, others, strict=True))
    read = np.full((len(window), width), np.nan, dtype=np.float32)
    columns = [part[window, piece] for part in (windows.array, windows.first, windows.sign)]
    shared = (windows.step[window], windows.block[window], windows.length[window])
    rows = zip(*(column.tolist() for column in (*columns, *shared)), strict=True)
    for row, (array, start, sign, step, block, length) in zip(read, rows, strict=True):
        low = min(start, start + step * (length - 1))
        taken = points[array][low : low + abs(step) * (length - 1) + block]
        taken = taken[:: abs(step)] if block == 1 else _block_means(taken.reshape(length, block))
        row[width - length :] = taken if step > 0 else taken[::-1]
        if sign < 0:
            np.negative(row, out=row)
    return read


def mix(pieces: Tensor, windows: SampledWindows) -> Tensor:
    """Replace each mixture's first part by the weighted sum of its standardised parts (TSMixup,
    arXiv 2403.07815), missing where a part is, and drop the other parts.

    Parameters
    ----------
    pieces : Tensor, (piece, width)
        From `read_pieces`.
    windows : SampledWindows

    Returns
    -------
    Tensor, (variate, width)
    """
    variates = int(windows.variates.sum())
    if variates == len(pieces):
        return pieces
    mixed = np.flatnonzero(windows.mixed)
    target = (windows.variates.cumsum() - windows.variates)[mixed]
    others = windows.pieces[mixed] - 1
    part = np.repeat(target[:, None], MOST_MIXED, 1)
    filled = np.arange(1, MOST_MIXED) <= others[:, None]
    part[:, 1:][filled] = np.arange(variates, len(pieces))
    raw = pieces[torch.from_numpy(part).to(pieces.device)]
    standard = fit_normaliser(raw, raw.abs() < torch.inf, "relative").standardise(raw)
    weights = torch.from_numpy(windows.mixing[mixed]).to(pieces)
    total = (weights[..., None] * standard).sum(1)
    return pieces[:variates].index_copy(0, torch.from_numpy(target).to(pieces.device), total)


def lose_points(
    values: Array,
    windows: SampledWindows,
    of: Integers,
    group: Integers,
    generators: Sequence[np.random.Generator],
) -> None:
    """Make points of windows missing in place: a stretch of all variates, or points one by one.

    Parameters
    ----------
    values : ndarray, (variate, width)
        From `read_pieces`, without the later parts of mixtures.
    windows : SampledWindows
    of, group : ndarray of int64
        The window of each variate (variate,), and the generator of each window (window,).
    generators : sequence of numpy Generator
    """
    for index in np.flatnonzero((windows.scattered + windows.stretch)[of]):
        window = of[index]
        length = int(windows.length[window])
        points = values[index, -length:]
        width = int(windows.stretch[window] * length)
        start = int(windows.stretch_at[window] * (length - width))
        points[start : start + width] = np.nan
        if rate := windows.scattered[window]:
            generator = generators[group[window]]
            points[generator.random(length, dtype=np.float32) < rate] = np.nan


def _block_means(blocks: Array) -> Array:
    """Means of the observed points of blocks (time, block); NaN where there is none."""
    seen = np.isfinite(blocks)
    count = seen.sum(1, dtype=np.float32)
    total = np.where(seen, blocks, 0).sum(1, dtype=np.float32)
    return np.divide(total, count, out=np.full_like(total, np.nan), where=count > 0)
