"""Training batches of windows of a user's own series."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from moirai_moe_forecaster.config import ModelConfig
from moirai_moe_forecaster.data.series import Series
from moirai_moe_forecaster.errors import InvalidInputError
from moirai_moe_forecaster.inference.prompt import causal_mean_fill
from moirai_moe_forecaster.model.network import MoiraiMoE
from moirai_moe_forecaster.training.data.packing import TrainingBatch, TrainingWindow, pack
from moirai_moe_forecaster.tuning.held_out import can_be_learned
from moirai_moe_forecaster.tuning.likelihood import residual_continuations

SHARE_OF_CONTEXT = (0.3, 0.95)
WHOLE_SHARE = 0.6
FEWEST_POINTS = 20
ROW_TOKENS = 64
MOST_ROW_TOKENS = 2048
STEP_TOKENS = 1024
BATCH_SIZES = (16, 256)


class SeriesBatches:
    """Training batches of any step, of windows as forecasts show them to the network.

    A window is cut into a context and what follows it as a forecast would be: the context ends with
    a patch. So short series can be learned from, and each place in it takes every
    place in a patch. What known-future covariates explain of the context leaves the window where it
    does for a forecast, and with it the covariates.

    Parameters
    ----------
    series : sequence of Series
    model : ModelConfig
    batch_size : int or None
        Windows per batch; None is as many as make `STEP_TOKENS` tokens, within `BATCH_SIZES`.
    context_length : int
        Longest window, in points.
    horizon : int
        Steps ahead that will be forecast.
    regress : bool
        Whether known-future covariates act through a regression instead of as tokens.
    series_balance : float
        As in `TrainConfig`.
    seed : int

    Raises
    ------
    InvalidInputError
        If there is no series to learn from.
    """

    def __init__(
        self,
        series: Sequence[Series],
        model: ModelConfig,
        batch_size: int | None,
        context_length: int,
        horizon: int,
        regress: bool,
        series_balance: float,
        seed: int,
    ) -> None:
        self._series = [item for item in series if can_be_learned(item)]
        if not self._series:
            raise InvalidInputError(
                "there is nothing to fine-tune on: every series needs three observed points that "
                "are not held out; give longer series"
            )
        lengths = np.array([item.target.shape[1] for item in self._series])
        self._chance = np.sqrt(lengths) / np.sqrt(lengths).sum()
        self.model = model
        self._longest = context_length
        self._horizon = horizon
        self._regress = regress and any(len(item.future) for item in self._series)
        self.batch_size = self._typical_batch() if batch_size is None else batch_size
        self._balance = series_balance
        self._seed = seed

    def batch(self, step: int, network: MoiraiMoE) -> TrainingBatch:
        """Return the packed windows of one step.

        They depend on the seed and the step, and, as forecasts do, on `network` where there are
        known-future covariates, whose effects are subtracted only if that helps it.
        """
        generator = np.random.Generator(np.random.Philox(key=[self._seed, step]))
        chosen = generator.choice(len(self._series), self.batch_size, p=self._chance)
        cuts = [self._cut(self._series[index], generator) for index in chosen]
        if self._regress:
            cuts = self._residuals(cuts, network)
        windows = [self._window(series, context) for series, context in cuts]
        needs = [len(w.values) * -(-w.values.shape[1] // self.model.patch_size) for w in windows]
        row_tokens = max(*needs, ROW_TOKENS)
        rows = _into_rows(windows, needs, row_tokens)
        batch = pack(rows, row_tokens, self.model, self._balance)
        if self.model.observed_mask_input:
            return batch
        # the network takes filled values for ordinary ones, but nothing is learned from them
        shown = [[_filled(window) for window in row] for row in rows]
        filled = pack(shown, row_tokens, self.model, self._balance)
        return filled._replace(weights=filled.weights * (batch.weights > 0))

    def _typical_batch(self) -> int:
        points = [min(item.target.shape[1], self._longest) for item in self._series]
        variates = [self._variates(item) for item in self._series]
        tokens = float(np.median(np.multiply(points, variates))) / self.model.patch_size
        low, high = BATCH_SIZES
        return min(max(round(STEP_TOKENS / max(tokens, 1)), low), high)

    def _variates(self, series: Series) -> int:
        """How many variates of a series become tokens."""
        return sum(len(part) for part in series) - self._regress * len(series.future)

    def _cut(self, series: Series, generator: np.random.Generator) -> tuple[Series, int]:
        """Draw where a window begins and ends, and the length of its context."""
        size = self.model.patch_size
        room = max(MOST_ROW_TOKENS // self._variates(series) - 1, 2) * size
        available = series.target.shape[1]
        longest = min(available, self._longest, room)
        length = longest
        if generator.random() >= WHOLE_SHARE and longest > FEWEST_POINTS:
            low, high = np.log([FEWEST_POINTS, longest])
            length = int(np.exp(generator.uniform(low, high)))
        start = int(generator.integers(available - length + 1))
        low, high = (round(share * length) for share in SHARE_OF_CONTEXT)
        context = int(generator.integers(max(low, 2), max(min(high, length - 1), 2) + 1))
        known = ~np.isnan(series.target[:, start : start + length])
        if not (known[:, :context].any(1) & known[:, context:].any(1)).any():
            start, length, context = _beside_a_gap(series, longest, generator)
        return Series(*(part[:, start : start + length] for part in series)), context

    def _residuals(
        self, cuts: Sequence[tuple[Series, int]], network: MoiraiMoE
    ) -> list[tuple[Series, int]]:
        """Subtract from windows what their contexts tell about known-future covariates."""
        contexts, futures = residual_continuations(
            network,
            [Series(s.target[:, :end], s.past[:, :end], s.future) for s, end in cuts],
            [series.target[:, end:] for series, end in cuts],
            self._horizon,
        )
        return [
            (Series(np.concatenate((left.target, future), 1), series.past, series.future[:0]), end)
            for left, future, (series, end) in zip(contexts, futures, cuts, strict=True)
        ]

    def _window(self, series: Series, context: int) -> TrainingWindow:
        """Fill the window up with missing values, so that its context ends with a patch."""
        beyond = -(series.target.shape[1] - context) % self.model.patch_size
        values = np.pad(np.concatenate(series), ((0, 0), (0, beyond)), constant_values=np.nan)
        return TrainingWindow(
            values=values.astype(np.float32),
            prefix=context,
            known_future=len(series.future),
            past_only=len(series.past),
        )


def _beside_a_gap(
    series: Series, longest: int, generator: np.random.Generator
) -> tuple[int, int, int]:
    """Draw a window of which the context holds a value, and the next value follows.

    Most windows of a series with a long gap have nothing to predict, or nothing to predict it from.

    Returns
    -------
    start, length, context : int
        Where values are too far apart for that, a window with nothing to score.
    """
    seen = [np.flatnonzero(~np.isnan(target)) for target in series.target]
    pairs = np.concatenate([np.stack((points[:-1], points[1:]), 1) for points in seen])
    pairs = pairs[pairs[:, 1] - pairs[:, 0] < longest]
    if not len(pairs):
        return 0, longest, max(longest - 1, 1)
    before, after = generator.choice(pairs).tolist()
    start = int(generator.integers(max(after + 1 - longest, 0), before + 1))
    return start, min(longest, series.target.shape[1] - start), after - start


def _into_rows(
    windows: Sequence[TrainingWindow], needs: Sequence[int], row_tokens: int
) -> list[list[TrainingWindow]]:
    """Lay windows end to end, each into the first row that has room."""
    rows: list[list[TrainingWindow]] = []
    free: list[int] = []
    for window, need in sorted(zip(windows, needs, strict=True), key=lambda pair: -pair[1]):
        row = next((row for row, room in enumerate(free) if room >= need), len(rows))
        if row == len(rows):
            rows.append([])
            free.append(row_tokens)
        rows[row].append(window)
        free[row] -= need
    return rows


def _filled(window: TrainingWindow) -> TrainingWindow:
    """Fill the missing values of a target that is alone, as forecasts of such a checkpoint do."""
    targets = len(window.values) - window.past_only - window.known_future
    gaps = np.isnan(window.values[0])
    if targets > 1 or not gaps.any() or gaps.all():
        return window
    filled = causal_mean_fill(window.values[0])[None]
    return replace(window, values=np.concatenate((filled, window.values[1:])))
