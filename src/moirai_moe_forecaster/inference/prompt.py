"""A group of alike series as one grid of patches, from which the rollout takes its tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from moirai_moe_forecaster.config import ModelConfig
from moirai_moe_forecaster.data.series import Array, Series
from moirai_moe_forecaster.inference.seasonality.references import reference_cycles
from moirai_moe_forecaster.model.reference import Cycles, patch_references, points_ahead
from moirai_moe_forecaster.model.tokens import (
    Normaliser,
    TokenBatch,
    fit_normaliser,
    patches,
    time_index,
)


@dataclass(frozen=True, kw_only=True)
class Prompt:
    """Standardised patches of a group of series on one axis of patch positions.

    Position 0 is the first patch of the longest context and the context ends before position
    `context`, for every series. Shorter contexts are padded on the left.

    Attributes
    ----------
    values, observed : Tensor, (series, variate, position, patch_size)
        Targets first, then past covariates, then known-future covariates. Only the last have
        values at and after `context`.
    time_id : Tensor of int64, (series, position)
        Time of a target's or past covariate's patch; known-future ones are `shift` earlier.
    present : Tensor of bool, (series, variate, position)
        False for padding, and for past covariates after their end.
    context, shift : int
    targets, known_future : int
        How many variates of these kinds.
    normaliser : Normaliser
        Of the targets, float64, (series, target, 1) each.
    cycles : Cycles
        Of the variates, (series, variate, period) each; of no periods for networks that read none.
    ahead : int
        How many points one token predicts.
    """

    values: Tensor
    observed: Tensor
    time_id: Tensor
    present: Tensor
    context: int
    shift: int
    targets: int
    known_future: int
    normaliser: Normaliser
    cycles: Cycles
    ahead: int

    def to(self, device: torch.device) -> Prompt:
        """Move what tokens are made of; the normaliser, in float64, stays."""
        return replace(
            self,
            values=self.values.to(device),
            observed=self.observed.to(device),
            time_id=self.time_id.to(device),
            present=self.present.to(device),
            cycles=Cycles(*(part.to(device) for part in self.cycles)),
        )

    def given(self) -> TokenBatch:
        """Tokens that no forecast value enters: all up to the last position of the context."""
        earlier = range(self.context)
        covariates = range(min(self.context + self.shift, self.values.shape[2]))
        plain = self.values.shape[1] - self.known_future
        return _join(
            [self._tokens(variate, earlier) for variate in range(plain)]
            + [self._tokens(plain + k, covariates) for k in range(self.known_future)]
        )

    def step(
        self,
        start: int,
        values: Tensor,
        earlier: Tensor | None = None,
        seen: Tensor | None = None,
    ) -> TokenBatch:
        """Tokens that a rollout feeds after it has drawn the target patches from `start` on.

        Parameters
        ----------
        start : int
            Position of the first drawn patch.
        values : Tensor, (series, path, target, patch, patch_size)
            The draws.
        earlier : Tensor, (series, path, target, patch, patch_size), optional
            Draws between the context and `start`, for references to them.
        seen : Tensor of bool, of the shape of `values`, optional
            Which of them are observed, if they are no draws but what came; by default all.

        Returns
        -------
        TokenBatch
            (series * path, token): the targets' patches, variate by variate, then the known-future
            covariates' patches of the same times.
        """
        _, paths, targets, count, _ = values.shape
        times = self.time_id[:, start : start + count].repeat_interleave(paths, 0)
        drawn = values.flatten(0, 1)
        seen = torch.ones_like(drawn, dtype=torch.bool) if seen is None else seen.flatten(0, 1)
        references = self._step_references(values, seen, earlier)
        parts = [
            _tokens(drawn[:, v], seen[:, v], times, v, references[:, v]) for v in range(targets)
        ]
        plain = self.values.shape[1] - self.known_future
        ahead = range(start + self.shift, start + self.shift + count)
        for k in range(self.known_future):
            tokens = self._tokens(plain + k, ahead)
            parts.append(TokenBatch(*(part.repeat_interleave(paths, 0) for part in tokens)))
        return _join(parts)

    def _step_references(self, values: Tensor, seen: Tensor, earlier: Tensor | None) -> Tensor:
        """References (series * path, target, patch, feature) of a step, to the paths' own draws."""
        _, paths, targets, count, _ = values.shape
        shape = len(seen), targets, count
        if not self.cycles.length.shape[-1]:
            return values.new_empty(*shape, 0)
        drawn = values if earlier is None else torch.cat((earlier, values), 3)
        context, context_seen = (
            part[:, :targets, : self.context].repeat_interleave(paths, 0)
            for part in (self.values, self.observed)
        )
        before = torch.ones_like(drawn[:, :, :, :-count], dtype=torch.bool).flatten(0, 1)
        signal = torch.cat((context, drawn.flatten(0, 1)), 2)
        signal_seen = torch.cat((context_seen, before, seen), 2)
        cycles = Cycles(
            *(part[:, :targets].repeat_interleave(paths, 0).flatten(0, 1) for part in self.cycles)
        )
        positions = range(signal.shape[2] - count, signal.shape[2])
        return self._references(
            signal.flatten(0, 1), signal_seen.flatten(0, 1), cycles, positions
        ).unflatten(0, shape[:2])

    def _tokens(self, variate: int, positions: range) -> TokenBatch:
        known = variate >= self.values.shape[1] - self.known_future
        positions = range(positions.start, min(positions.stop, self.values.shape[2]))
        cut = slice(positions.start, positions.stop)
        times = self.time_id[:, cut] - (self.shift if known else 0)
        values, observed = self.values[:, variate], self.observed[:, variate]
        cycles = Cycles(*(part[:, variate] for part in self.cycles))
        references = self._references(values, observed, cycles, positions)
        tokens = _tokens(values[:, cut], observed[:, cut], times, variate, references)
        return tokens._replace(
            sample_id=self.present[:, variate, cut].long(),
            known_future=torch.full_like(times, known, dtype=torch.bool),
        )

    def _references(
        self, values: Tensor, observed: Tensor, cycles: Cycles, positions: range
    ) -> Tensor:
        size = values.shape[-1]
        signal, seen = values.flatten(1), observed.flatten(1)
        return patch_references(signal, seen, cycles, positions, size, self.ahead)


def make_prompt(
    group: Sequence[Series],
    horizon: int,
    config: ModelConfig,
    context_length: int,
    prefixes: Sequence[int] | None = None,
) -> Prompt:
    """Lay out series with equal numbers of variates and covariates of each kind.

    Parameters
    ----------
    group : sequence of Series
    horizon : int
        Steps that known-future covariates reach beyond the context.
    config : ModelConfig
        Conventions of the checkpoint.
    context_length : int
        Earlier points are dropped, after they have helped to fill missing ones.
    prefixes : sequence of int, optional
        How many of each series' first points the normaliser of targets and past covariates may
        see; all by default.
    """
    size = config.patch_size
    filled = [_filled(series.target, config)[:, -context_length:] for series in group]
    group = [series.last(context_length) for series in group]
    width = max(series.target.shape[1] for series in group)
    context = -(-width // size)
    ahead = -(-horizon // size)
    targets, past, future = (len(part) for part in group[0])
    stacked = np.full((len(group), targets + past + future, (context + ahead) * size), np.nan)
    present = torch.zeros(*stacked.shape[:2], context + ahead, dtype=torch.bool)
    for row, series in enumerate(group):
        start = context * size - series.target.shape[1]
        variate = 0
        for part in (filled[row], series.past, series.future):
            end = start + part.shape[1]
            variates = slice(variate, variate + len(part))
            stacked[row, variates, start:end] = part
            present[row, variates, start // size : -(-end // size)] = True
            variate += len(part)
    values = torch.from_numpy(stacked)
    observed = values.isfinite()
    values = torch.where(observed, values, 0.0)
    seen = _observed_targets(group, context, size)
    observed[:, :targets, : context * size] = seen
    counted = observed
    if prefixes is not None:
        counted = observed & _first_points(group, prefixes, observed, context * size)
    normaliser = fit_normaliser(values, counted, config.scale_rule)
    any_target = patches(seen, size).any(-1).any(1)
    past_times = time_index(any_target, config.time_index)
    future_times = past_times[:, -1:] + 1 + torch.arange(ahead)
    return Prompt(
        values=patches(normaliser.standardise(values).float(), size),
        observed=patches(observed, size),
        time_id=torch.cat((past_times, future_times), 1),
        present=present,
        context=context,
        shift=config.output_patches if config.shift_known_future else 0,
        targets=targets,
        known_future=future,
        normaliser=Normaliser(*(part[:, :targets] for part in normaliser)),
        cycles=_cycles(values, counted, targets + past, config),
        ahead=points_ahead(config),
    )


def _cycles(values: Tensor, counted: Tensor, plain: int, config: ModelConfig) -> Cycles:
    """Cycles of the variates (series, variate, time), but for covariates known ahead."""
    shape = (*values.shape[:2], config.reference_periods)
    cycles = Cycles(torch.zeros(shape, dtype=torch.long), torch.zeros(shape))
    if config.reference_periods:
        signals = torch.where(counted, values, torch.nan)[:, :plain].flatten(0, 1).numpy()
        found = reference_cycles(signals, config.reference_periods)
        for part, own in zip(cycles, found, strict=True):
            part[:, :plain] = own.view(shape[0], plain, -1)
    return cycles


def _filled(target: Array, config: ModelConfig) -> Array:
    """Fill missing values where the checkpoint takes them for ordinary numbers."""
    if config.observed_mask_input or len(target) > 1 or not np.isnan(target).any():
        return target
    return causal_mean_fill(target[0])[None]


def causal_mean_fill(values: Array) -> Array:
    """Replace a missing value by the mean of all before it, as official checkpoints expect.

    In that mean a missing value counts as the last observed one before it; leading missing values
    become the first observed one.
    """
    missing = np.isnan(values)
    last_seen = np.maximum.accumulate(np.where(missing, -1, np.arange(len(values))))
    forward = values[np.where(last_seen < 0, np.argmin(missing), last_seen)]
    before = np.concatenate((forward[:1], forward.cumsum()[:-1] / np.arange(1, len(values))))
    return np.where(missing, before, values)


def _observed_targets(group: Sequence[Series], context: int, size: int) -> Tensor:
    observed = np.zeros((len(group), len(group[0].target), context * size), dtype=bool)
    for row, series in enumerate(group):
        observed[row, :, context * size - series.target.shape[1] :] = ~np.isnan(series.target)
    return torch.from_numpy(observed)


def _first_points(
    group: Sequence[Series], prefixes: Sequence[int], like: Tensor, end: int
) -> Tensor:
    """Mask (series, variate, time) of first points; all of those of known-future covariates."""
    mask = torch.ones_like(like)
    for row, (series, prefix) in enumerate(zip(group, prefixes, strict=True)):
        plain = len(series.target) + len(series.past)
        mask[row, :plain, end - series.target.shape[1] + prefix :] = False
    return mask


def _tokens(
    values: Tensor, observed: Tensor, times: Tensor, variate: int, references: Tensor
) -> TokenBatch:
    """Tokens of one variate: present, and not known ahead."""
    ids = torch.full_like(times, variate)
    return TokenBatch(
        values,
        observed,
        times,
        ids,
        torch.ones_like(times),
        torch.zeros_like(times, dtype=torch.bool),
        references,
    )


def _join(parts: Sequence[TokenBatch]) -> TokenBatch:
    return TokenBatch(*(torch.cat(tensors, 1) for tensors in zip(*parts, strict=True)))
