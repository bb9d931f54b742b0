"""From the prompt of a group of series to the distributions of every step of their horizon.

One pass over the context gives the distributions of the next patches. Further ahead the
uncertainty of what happens in between is carried by paths: each draws the next patches, reads them
and predicts the following ones; the distribution of a step is the average of the paths'.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from moirai_moe_forecaster.data.series import Series
from moirai_moe_forecaster.inference.dependence import (
    INDEPENDENT,
    Dependence,
    Shares,
    dependent,
)
from moirai_moe_forecaster.inference.prompt import Prompt, make_prompt
from moirai_moe_forecaster.inference.sampling import stratified
from moirai_moe_forecaster.model.attention import KeyValue, attention_mask
from moirai_moe_forecaster.model.distribution.mixture import Affine, Mixture
from moirai_moe_forecaster.model.network import MoiraiMoE
from moirai_moe_forecaster.model.tokens import Normaliser, TokenBatch


class PassOutput(NamedTuple):
    """The patches that one pass predicts.

    Attributes
    ----------
    mixture : Mixture
        Points (series, path, target, patch, patch_size), in the unit of the context's normaliser;
        the first block has one path.
    draws : Tensor, (series, path, target, patch, patch_size)
        What the paths drew from it.
    """

    mixture: Mixture
    draws: Tensor


Draw = Callable[[int, Mixture], Tensor]
"""Gives the draws of a block from its number and its mixture."""


def seeded_draw(seeds: Tensor, paths: int, dependence: Dependence = INDEPENDENT) -> Draw:
    """Draw from each series' own random numbers, whatever other series there are.

    Parameters
    ----------
    seeds : Tensor of int64, (series, target)
    paths : int
    dependence : Dependence, optional
        Of the points of one block; by default they are independent.
    """

    def draw(block: int, mixture: Mixture) -> Tensor:
        shape = mixture.shape[3:]
        count = shape.numel() * (1 if dependence.exists else 3)
        if dependence.walk:
            count = 2 * shape.numel()
        numbers = stratified(seeds, paths, count * block, count).transpose(1, 2)
        of_paths = mixture.map(lambda x: x.expand(-1, -1, paths, -1, -1, -1))
        if not dependence.exists:
            return of_paths.sample(numbers.unflatten(-1, (3, *shape)).movedim(3, 0))
        levels = dependent(numbers, dependence.shares(mixture), dependence.decay)
        return of_paths.icdf_at(levels.unflatten(-1, shape))

    return draw


def no_draw(block: int, mixture: Mixture) -> Tensor:
    """Stand for draws that nobody reads, where one block is all there is."""
    return mixture.log_weights.new_zeros(mixture.shape)


def frozen_rollout(
    network: MoiraiMoE, prompt: Prompt, blocks: int, draw: Draw
) -> Iterator[PassOutput]:
    """Decode with the normaliser of the context: its keys and values are computed once.

    Parameters
    ----------
    network : MoiraiMoE
    prompt : Prompt
    blocks : int
        How many times `output_patches` patches to predict.
    draw : Draw

    Yields
    ------
    PassOutput
    """
    prompt = prompt.to(next(network.parameters()).device)
    given, count = prompt.given(), network.config.output_patches
    output = network.encode(given, _ends(prompt, prompt.context))
    mixture = network.head(output.hidden[:, None])
    context, query_index = output.cache, _ends(prompt, count)
    own: TokenBatch | None = None
    past: list[KeyValue] = []
    drawn: Tensor | None = None
    for block in range(blocks):
        draws = draw(block, mixture)
        yield PassOutput(mixture, draws)
        if block == blocks - 1:
            return
        new = prompt.step(prompt.context + block * count, draws, drawn)
        drawn = draws if drawn is None else torch.cat((drawn, draws), 3)
        start = 0 if own is None else own.values.shape[1]
        own = new if own is None else TokenBatch(*map(_joined, own, new))
        rows, width = new.values.shape[:2]
        past = past or [layer.room(rows, (blocks - 1) * width) for layer in context]
        paths = draws.shape[1]
        hidden = network.decode(
            new,
            context,
            past,
            start,
            attention_mask(TokenBatch(*(part[::paths] for part in new)), given),
            attention_mask(new, own),
            query_index,
        )
        mixture = network.head(hidden.unflatten(0, (-1, paths)))


def hidden_rollout(
    network: MoiraiMoE, prompt: Prompt, blocks: int, draw: Draw
) -> Iterator[PassOutput]:
    """Predict all blocks in one pass, in which the patches of earlier ones are missing values.

    Nothing is drawn on the way: every block has the distribution of what comes so far ahead.

    Parameters
    ----------
    network : MoiraiMoE
    prompt : Prompt
    blocks : int
        How many times `output_patches` patches to predict.
    draw : Draw

    Yields
    ------
    PassOutput
        Each with one path.
    """
    prompt = prompt.to(next(network.parameters()).device)
    count = network.config.output_patches
    tokens, query_index = prompt.given(), _ends(prompt, prompt.context)
    if fed := (blocks - 1) * count:
        before = tokens.values.shape[1]
        size = prompt.values.shape[-1]
        nothing = prompt.values.new_zeros(len(prompt.values), 1, prompt.targets, fed, size)
        missing = torch.zeros_like(nothing, dtype=torch.bool)
        later = prompt.step(prompt.context, nothing, seen=missing)
        tokens = TokenBatch(*map(_joined, tokens, later))
        target = torch.arange(prompt.targets, device=query_index.device)
        block = torch.arange(1, blocks, device=query_index.device)[:, None]
        ends = before + target * fed + block * count - 1
        query_index = torch.cat((query_index[None], ends)).flatten()
    hidden = network.encode(tokens, query_index).hidden.unflatten(1, (blocks, prompt.targets))
    for block_number in range(blocks):
        mixture = network.head(hidden[:, None, block_number])
        yield PassOutput(mixture, draw(block_number, mixture))


def reestimated_rollout(
    network: MoiraiMoE,
    group: Sequence[Series],
    horizon: int,
    blocks: int,
    draw: Draw,
    context_length: int,
) -> Iterator[PassOutput]:
    """Decode as the official implementation does: what was drawn counts as context.

    The normaliser changes with every block, so that nothing can be cached and every path of every
    series is computed anew as a series of its own.
    """
    config = network.config
    device = next(network.parameters()).device
    size = config.output_patches * config.patch_size
    extended, limit, paths = list(group), context_length, 1
    first = make_prompt(group, horizon, config, context_length).normaliser
    frame = Normaliser(*(part[:, None, :, :, None] for part in first))
    for block in range(blocks):
        prompt = make_prompt(extended, max(horizon - block * size, 1), config, limit).to(device)
        output = network.encode(prompt.given(), _ends(prompt, prompt.context))
        mixture = network.head(output.hidden.unflatten(0, (-1, paths)))
        now = Normaliser(*(part.unflatten(0, (-1, paths))[..., None] for part in prompt.normaliser))
        shift, factor = (now.location - frame.location) / frame.scale, now.scale / frame.scale
        unit = (part.float().to(device).expand(1, *mixture.shape) for part in (shift, factor))
        mixture = mixture._replace(unit=Affine(*unit))
        draws = draw(block, mixture)
        yield PassOutput(mixture, draws)
        raw = frame.restore(draws.cpu().double()).flatten(3).numpy()
        extended = [
            _extend(extended[row * paths + path % paths], raw[row, path])
            for row in range(len(group))
            for path in range(raw.shape[1])
        ]
        paths, limit = raw.shape[1], limit + size


@dataclass(frozen=True, kw_only=True)
class Marginal:
    """Summary of a group's distributions, in the unit of the contexts' normalisers.

    Attributes
    ----------
    quantiles : Tensor, (level, series, target, time)
    mean : Tensor, (series, target, time)
    draws : Tensor, (series, path, target, time)
    shares : Shares, (series, target) each
        How the points of the first block depend on each other.
    """

    quantiles: Tensor
    mean: Tensor
    draws: Tensor
    shares: Shares


def marginalise(
    blocks: Iterator[PassOutput], horizon: int, levels: Tensor, dependence: Dependence = INDEPENDENT
) -> Marginal:
    """Average the paths' mixtures and take quantiles of the averages."""
    quantiles, means, draws = [], [], []
    left, shares = horizon, Shares(torch.empty(0))
    for number, block in enumerate(blocks):
        if number == 0:
            steady, walk = dependence.shares(block.mixture)
            shares = Shares(steady[:, 0], None if walk is None else walk[:, 0])
        points = min(block.mixture.shape[3:].numel(), left)
        cut = block.mixture.map(lambda x, n=points: x.flatten(-2)[..., :n])  # type: ignore[misc]
        pooled = cut.pool(1)
        quantiles.append(pooled.icdf(levels))
        # heavy-tailed components can have a mean beyond every quantile that is kept, or none
        means.append(pooled.mean().nan_to_num().clamp(quantiles[-1][0], quantiles[-1][-1]))
        draws.append(block.draws.flatten(-2)[..., :points])
        left -= points
    quantile, mean, draw = (torch.cat(tensors, -1) for tensors in (quantiles, means, draws))
    return Marginal(quantiles=quantile, mean=mean, draws=draw, shares=shares)


def _ends(prompt: Prompt, length: int) -> Tensor:
    """Positions of the targets' last tokens: the first variates, `length` tokens each."""
    numbers = torch.arange(1, prompt.targets + 1, device=prompt.values.device)
    return numbers * length - 1


def _joined(earlier: Tensor, later: Tensor) -> Tensor:
    return torch.cat((earlier, later), 1)


def _extend(series: Series, values: NDArray[np.float64]) -> Series:
    """Append drawn target values (target, time); past covariates end where they ended."""
    return series._replace(target=np.concatenate((series.target, values), 1))
