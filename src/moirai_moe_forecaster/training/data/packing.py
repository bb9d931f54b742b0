"""From windows to packed rows of tokens: standardise, cut into patches, lay end to end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from moirai_moe_forecaster.config import ModelConfig
from moirai_moe_forecaster.inference.seasonality.references import reference_cycles
from moirai_moe_forecaster.model.reference import Cycles, points_ahead, reference
from moirai_moe_forecaster.model.tokens import Normaliser, TokenBatch, fit_normaliser
from moirai_moe_forecaster.training.data.corpus import Array, Integers

LARGEST_TARGET = 20.0
# no standardised context of up to this number squared of points holds a larger value, so that
# what a forecast can be asked with is trained on unchanged
LARGEST_INPUT = 64.0
TYPICAL_SCORED = 512
LOST_SHARE = 0.15
WRONG_SHARE = 0.05


class TrainingBatch(NamedTuple):
    """Packed sequences and what their points weigh in the loss.

    Attributes
    ----------
    tokens : TokenBatch
    weights : Tensor, (row, token, patch_size)
        Weight of a point when a token predicts it; 0 where it bears no loss: before the end of the
        prefix, where missing, of covariates known ahead, beyond `LARGEST_TARGET` deviations.
    """

    tokens: TokenBatch
    weights: Tensor

    def to(self, device: torch.device | str) -> TrainingBatch:
        """Return the same batch on another device."""
        return TrainingBatch(self.tokens.to(device), self.weights.to(device, non_blocking=True))


@dataclass(frozen=True, kw_only=True)
class TrainingWindow:
    """One training window.

    Attributes
    ----------
    values : ndarray, (variate, time)
        NaN where missing.
    prefix : int
        Points at the start that serve the normaliser only.
    known_future : int
        How many of the last variates are covariates known ahead, which bear no loss.
    past_only : int, default=0
        How many of the variates before those bear no loss either.
    """

    values: Array
    prefix: int
    known_future: int
    past_only: int = 0


class Disturbances(NamedTuple):
    """What training makes harder than it is.

    Attributes
    ----------
    cycles : ndarray, (variate, 2)
        Uniform numbers by which `prefix_cycles` loses some cycles and makes others wrong.
    hidden : ndarray of bool, (variate, patch)
        Patches that the network does not see but is scored on.
    """

    cycles: NDArray[np.float64]
    hidden: NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True)
class Placement:
    """Windows (window,) in the order in which rows take them, with the row of each.

    `tokens` is per variate, `length` and `prefix` in points. Without `past_only`, all variates that
    are not known ahead bear loss.
    """

    row: Integers
    tokens: Integers
    variates: Integers
    known_future: Integers
    length: Integers
    prefix: Integers
    past_only: Integers | None = None


def fill_rows(needs: Sequence[tuple[int, int]], free: list[int]) -> list[tuple[int, int, int, int]]:
    """Place windows into rows until no row has room for two tokens, or the windows are used up.

    The windows that the rows can hold in all, in the order of drawing so that no length is
    preferred, are placed the largest first, each where it leaves the least room (best-fit
    decreasing), so that long ones stay long; later ones fill the gaps. A window that fits nowhere
    is shortened to the largest gap, and loses its last variates where not two tokens of each fit.

    Parameters
    ----------
    needs : sequence of (int, int)
        Tokens per variate and variates of each window.
    free : list of int
        Free tokens of each row; is updated.

    Returns
    -------
    list of (int, int, int, int)
        Window, row, tokens per variate, variates.
    """
    total = np.cumsum([tokens * variates for tokens, variates in needs])
    enough = int(np.searchsorted(total, sum(free), side="right"))
    order = list(range(len(needs)))
    order[:enough] = sorted(order[:enough], key=lambda i: -needs[i][0] * needs[i][1])
    placed = []
    for window in order:
        largest = max(free)
        if largest < 2:
            break
        tokens, variates = needs[window]
        if tokens * variates > largest:
            variates = min(variates, largest // 2)
            tokens = min(tokens, largest // variates)
        need = tokens * variates
        _, row = min((room, row) for row, room in enumerate(free) if room >= need)
        free[row] -= need
        placed.append((window, row, tokens, variates))
    return placed


def pack(
    packed: Sequence[Sequence[TrainingWindow]],
    row_tokens: int,
    model: ModelConfig,
    series_balance: float = 0.0,
    device: torch.device | str = "cpu",
) -> TrainingBatch:
    """Make a batch of windows that are given as numbers, row by row, each with its sample id."""
    windows = [(row, window) for row, inside in enumerate(packed) for window in inside]
    lengths = np.array([window.values.shape[1] for _, window in windows])
    placement = Placement(
        row=np.array([row for row, _ in windows]),
        tokens=-(-lengths // model.patch_size),
        variates=np.array([len(window.values) for _, window in windows]),
        known_future=np.array([window.known_future for _, window in windows]),
        length=lengths,
        prefix=np.array([window.prefix for _, window in windows]),
        past_only=np.array([window.past_only for _, window in windows]),
    )
    width = placement.tokens.max() * model.patch_size
    values = np.full((placement.variates.sum(), width), np.nan, dtype=np.float32)
    variate = 0
    for _, window in windows:
        values[variate : variate + len(window.values), width - window.values.shape[1] :] = (
            window.values
        )
        variate += len(window.values)
    shape = (len(packed), row_tokens)
    return assemble(torch.from_numpy(values).to(device), placement, shape, model, series_balance)


def assemble(
    values: Tensor,
    placement: Placement,
    shape: tuple[int, int],
    model: ModelConfig,
    series_balance: float,
    disturbances: Disturbances | None = None,
) -> TrainingBatch:
    """Standardise variates by their prefixes and scatter their patches into rows.

    Parameters
    ----------
    values : Tensor, (variate, time)
        Of all windows, one after another, at the right end of a width of whole patches; NaN where
        missing and before the first point.
    placement : Placement
    shape : (int, int)
        Rows, and tokens of each.
    model : ModelConfig
    series_balance : float
        As in `TrainConfig`.
    disturbances : Disturbances, optional

    Returns
    -------
    TrainingBatch
        On the device of `values`.
    """
    size, device = model.patch_size, values.device
    table, basis_end = _lay_out(placement, shape, values.shape[1], model)
    variate, patch, first_scored, *ids = torch.from_numpy(table).to(device)
    time_id, variate_id, sample_id, known_future = ids
    time = torch.arange(values.shape[1], device=device)
    basis = (values.abs() < torch.inf) & (time < torch.from_numpy(basis_end).to(device)[:, None])
    normaliser = fit_normaliser(values, basis, model.scale_rule)

    raw = values.view(-1, size)[patch]
    filled = (sample_id > 0)[..., None]
    observed = (raw.abs() < torch.inf) & filled
    own = Normaliser(*(part[variate] for part in normaliser))
    points = torch.where(filled, own.standardise(torch.where(observed, raw, 0.0)), 0.0)
    scored = observed & (torch.arange(size, device=device) >= first_scored[..., None])
    scored &= (points.abs() < LARGEST_TARGET) & basis.any(1)[variate][..., None]
    count = torch.zeros(len(values), device=device)
    count.index_add_(0, variate.flatten(), scored.sum(-1).flatten().float())
    weight = (count.clamp_min(1) / TYPICAL_SCORED) ** -series_balance
    seen = values.abs() < torch.inf
    if disturbances is not None and model.observed_mask_input:
        hidden = torch.from_numpy(disturbances.hidden).to(device)
        observed = observed & ~hidden.flatten()[patch][..., None]
        seen &= ~hidden.repeat_interleave(size, 1)
    tokens = TokenBatch(
        # values near the end of float32, such as codes for missing ones, have no finite scale
        points.nan_to_num(0.0).clamp(-LARGEST_INPUT, LARGEST_INPUT),
        observed,
        time_id,
        variate_id,
        sample_id,
        known_future.bool(),
        values.new_empty(*shape, 0),
    )
    if model.reference_periods:
        ends = np.where(_known_ahead(placement), 0, basis_end)
        uniforms = None if disturbances is None else disturbances.cycles
        cycles = prefix_cycles(values, ends, model.reference_periods, uniforms)
        signal = normaliser.standardise(torch.where(seen, values, 0.0))
        tokens = tokens._replace(reference=_references(signal, seen, cycles, variate, patch, model))
    return TrainingBatch(tokens, scored * weight[variate][..., None])


def prefix_cycles(
    values: Tensor, ends: Integers, most: int, disturbances: NDArray[np.float64] | None
) -> Cycles:
    """Find the cycles of variates (variate, time), NaN where missing, before their `ends`.

    A network that never met a wrong period would trust all: `disturbances`, two uniform numbers
    (variate, 2), take the periods of some variates away and multiply those of others.
    """
    signals, starts = values.cpu().numpy(), np.zeros_like(ends)
    lost = np.zeros(len(ends), dtype=bool)
    if disturbances is not None:
        lost = disturbances[:, 0] < LOST_SHARE
        starts = _grid_starts(signals, ends)
    ranges = zip(signals, starts, np.where(lost, starts, ends), strict=True)
    cycles = reference_cycles((signal[start:end] for signal, start, end in ranges), most)
    if disturbances is not None:
        chance, factor = torch.from_numpy(disturbances).T[..., None]
        wrong = (cycles.length * (0.4 + 1.5 * factor)).round().long().clamp_min(2)
        wrong = torch.where(cycles.length > 0, wrong, 0)
        length = torch.where(chance < LOST_SHARE + WRONG_SHARE, wrong, cycles.length)
        cycles = cycles._replace(length=length)
    return Cycles(*(part.to(values.device) for part in cycles))


def _grid_starts(signals: Array, ends: Integers) -> Integers:
    """Drop up to an eighth of each prefix's first points, so that it has one of few lengths.

    The detector keeps what depends on the length alone.
    """
    first = np.isfinite(signals).argmax(1)
    length = np.maximum(ends - first, 1)
    step = 2 ** np.maximum(np.log2(length).astype(np.int64) - 3, 0)
    return np.where(ends > first, ends - length + length % step, ends)


def _references(
    signal: Tensor, seen: Tensor, cycles: Cycles, variate: Tensor, patch: Tensor, model: ModelConfig
) -> Tensor:
    """References (row, token, feature) of the patches of standardised variates (variate, time)."""
    size = model.patch_size
    end = (patch - variate * (signal.shape[1] // size) + 1) * size
    signal = signal.nan_to_num(0.0).clamp(-LARGEST_INPUT, LARGEST_INPUT)
    return reference(signal, seen, cycles, variate, end, points_ahead(model))


def _lay_out(
    placement: Placement, shape: tuple[int, int], width: int, model: ModelConfig
) -> tuple[Integers, Integers]:
    """Tell every place of every row what stands there.

    Returns
    -------
    table : ndarray, (7, row, token)
        Which variate of all, which patch of all, the first point of the patch that bears loss,
        and the ids of `TokenBatch` with whether the variate is known ahead. The first patch of a
        variate bears no loss: no token predicts it.
    basis_end : ndarray, (variate,)
        Where in `width` the points end that the normaliser is estimated from. Covariates known
        ahead are standardised as a whole, as they are when a forecast is asked for.
    """
    size = model.patch_size
    window = np.repeat(np.arange(len(placement.row)), placement.variates)
    number = _count_within(placement.variates)
    plain = placement.variates - placement.known_future
    known = _known_ahead(placement)
    targets = plain if placement.past_only is None else plain - placement.past_only
    covariate = number >= targets[window]
    tokens = placement.tokens[window]
    prefix_end = (width - placement.length + placement.prefix)[window]

    variate = np.repeat(np.arange(len(tokens)), tokens)
    time = _count_within(tokens)
    patch = width // size - tokens[variate] + time
    unscored = covariate[variate] | (time == 0)
    first_scored = np.where(unscored, size, prefix_end[variate] - patch * size)
    shift = model.output_patches if model.shift_known_future else 0
    sample = 1 + _count_within(np.bincount(placement.row, minlength=shape[0]))

    per_window = placement.tokens * placement.variates
    per_row = np.bincount(placement.row, per_window, minlength=shape[0]).astype(np.int64)
    place = np.repeat(np.arange(shape[0]) * shape[1], per_row) + _count_within(per_row)
    table = np.zeros((7, *shape), dtype=np.int64)
    table.reshape(7, -1)[:, place] = (
        variate,
        variate * (width // size) + patch,
        first_scored,
        time - shift * known[variate],
        number[variate],
        np.repeat(sample, per_window),
        known[variate],
    )
    return table, np.where(known, width, prefix_end)


def _known_ahead(placement: Placement) -> NDArray[np.bool_]:
    """Which of all variates are known ahead."""
    plain = placement.variates - placement.known_future
    return _count_within(placement.variates) >= np.repeat(plain, placement.variates)


def _count_within(counts: Integers) -> Integers:
    """Concatenate ``arange(count)`` of all counts."""
    ends = counts.cumsum()
    return np.arange(ends[-1] if len(ends) else 0) - np.repeat(ends - counts, counts)
