from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from moirai_moe_forecaster.data.series import Series
from moirai_moe_forecaster.inference.dependence import INDEPENDENT, Dependence
from moirai_moe_forecaster.inference.prompt import Prompt, make_prompt
from moirai_moe_forecaster.inference.quantile_grid import NODE_LEVELS
from moirai_moe_forecaster.inference.rollout import (
    Draw,
    PassOutput,
    frozen_rollout,
    marginalise,
    reestimated_rollout,
    seeded_draw,
)
from moirai_moe_forecaster.model.distribution.mixture import Mixture
from moirai_moe_forecaster.model.network import MoiraiMoE
from moirai_moe_forecaster.model.tokens import TokenBatch
from tiny_network import OFFICIAL_CONVENTIONS, tiny_network

SIZE = 16
LEVELS = torch.tensor([0.01, 0.1, 0.5, 0.9, 0.99])


def group_of(
    lengths: Sequence[int], horizon: int, targets: int = 1, past: int = 0, future: int = 0
) -> list[Series]:
    rng = np.random.default_rng(sum(lengths))
    return [
        Series(
            rng.normal(size=(targets, n)).cumsum(1),
            rng.normal(size=(past, n)),
            rng.normal(size=(future, n + horizon)),
        )
        for n in lengths
    ]


def fixed_draw(paths: int) -> Draw:
    """Draws that do not depend on the distribution."""

    def draw(block: int, mixture: Mixture) -> Tensor:
        generator = torch.Generator().manual_seed(block)
        series, _, *point = mixture.shape
        return torch.randn(series, paths, *point, generator=generator)

    return draw


def whole_sequence(prompt: Prompt, row: int, drawn: Tensor) -> tuple[TokenBatch, list[int]]:
    """Context and drawn patches (target, patch, size) of one path as one sequence of tokens.

    Also where every target's last token stands.
    """
    count = drawn.shape[1]
    parts, last = [], []
    for variate in range(prompt.values.shape[1]):
        values, observed = (
            prompt.values[row, variate].clone(),
            prompt.observed[row, variate].clone(),
        )
        present = prompt.present[row, variate].clone()
        times, end = prompt.time_id[row], prompt.context
        known = variate >= prompt.values.shape[1] - prompt.known_future
        if variate < prompt.targets:
            end += count
            values[prompt.context : end] = drawn[variate]
            observed[prompt.context : end] = True
            present[prompt.context : end] = True
            last.append(sum(len(part[2]) for part in parts) + end - 1)
        elif known:
            end += count + prompt.shift
            times = times - prompt.shift
        end = min(end, len(times))
        parts.append(
            (
                values[:end],
                observed[:end],
                times[:end],
                torch.full((end,), variate),
                present[:end].long(),
                torch.full((end,), known),
            )
        )
    return TokenBatch(*(torch.cat(column)[None] for column in zip(*parts, strict=True))), last


CASES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "univariate": ({}, {}),
    "several patches": ({"output_patches": 2}, {}),
    "variates": ({}, {"targets": 3}),
    "covariates": ({"output_patches": 2}, {"targets": 2, "past": 1, "future": 2}),
    "covariates not shifted": (
        {"shift_known_future": False},
        {"targets": 2, "past": 1, "future": 1},
    ),
    "official": (OFFICIAL_CONVENTIONS, {"targets": 2}),
    "nearest centroid": ({"router": "centroid"}, {}),
}


@pytest.mark.parametrize("case", CASES)
def test_decoding_equals_encoding_the_whole_sequence(case: str) -> None:
    changes, variates = CASES[case]
    network = tiny_network(**changes)
    count, horizon = network.config.output_patches, 70
    blocks = -(-horizon // (count * SIZE))
    group = group_of([5, 64, 50], horizon, **variates)
    group[1].target[0, 20:45] = np.nan
    prompt = make_prompt(group, horizon, network.config, 1000)
    paths = 3
    rollout = list(frozen_rollout(network, prompt, blocks, fixed_draw(paths)))
    assert len(rollout) == blocks
    for number, block in enumerate(rollout):
        for row in range(len(group)):
            for path in range(paths if number else 1):
                before = [b.draws[row, path] for b in rollout[:number]]
                drawn = torch.cat([torch.empty(prompt.targets, 0, SIZE), *before], 1)
                tokens, last = whole_sequence(prompt, row, drawn)
                expected = network.head(network.encode(tokens).hidden[0, last])
                got = block.mixture.map(lambda x, r=row, p=path: x[:, r, p])
                torch.testing.assert_close(
                    flat_parameters(got), flat_parameters(expected), atol=2e-4, rtol=2e-4
                )


def flat_parameters(mixture: Mixture) -> Tensor:
    tensors = [mixture.log_weights, *(p for c in mixture.components for p in c)]
    return torch.cat([tensor.flatten() for tensor in tensors])


def test_paths_part_only_after_their_first_draws() -> None:
    network = tiny_network()
    prompt = make_prompt(group_of([50], 48), 48, network.config, 1000)
    first, second, _ = frozen_rollout(network, prompt, 3, fixed_draw(4))
    assert first.mixture.shape[1] == 1
    median = second.mixture.icdf(torch.tensor([0.5]))[0, 0]
    assert (median[1:] - median[:1]).abs().amax((1, 2, 3)).min() > 1e-4


@pytest.mark.parametrize("changes", [{}, {"output_patches": 2}, OFFICIAL_CONVENTIONS])
def test_reestimated_blocks_are_forecasts_of_the_series_extended_by_the_draws(
    changes: dict[str, Any],
) -> None:
    network = tiny_network(**changes)
    config, horizon = network.config, 80
    size = config.output_patches * SIZE
    blocks = -(-horizon // size)
    group = group_of([40, 37], horizon, targets=2, past=1, future=1)
    draw = fixed_draw(2)
    rollout = list(reestimated_rollout(network, group, horizon, blocks, draw, 1000))
    frame = make_prompt(group, horizon, config, 1000).normaliser
    for number, block in enumerate(rollout):
        for row, series in enumerate(group):
            for path in range(2 if number else 1):
                raw = [frame_restore(frame, row, b.draws[row, path]) for b in rollout[:number]]
                extended = series._replace(target=np.concatenate([series.target, *raw], 1))
                prompt = make_prompt([extended], horizon - number * size, config, 1000)
                (alone,) = frozen_rollout(network, prompt, 1, fixed_draw(1))
                # the same probabilities at the same raw values, in either normaliser's unit
                raw_values = torch.linspace(-30, 30, 41).double().view(-1, 1, 1)
                inner = (raw_values - prompt.normaliser.location[0]) / prompt.normaliser.scale[0]
                expected = alone.mixture.cdf(inner.float()[:, None, None, :, None])[:, 0, 0]
                inner = (raw_values - frame.location[row]) / frame.scale[row]
                whole = block.mixture.map(lambda x, r=row, p=path: x[:, r, p])
                got = whole.cdf(inner.float()[:, :, None])
                torch.testing.assert_close(got, expected, rtol=1e-3, atol=1e-4)


def frame_restore(frame: Any, row: int, draws: Tensor) -> np.ndarray:
    return (draws.flatten(1).double() * frame.scale[row] + frame.location[row]).numpy()


def test_the_first_block_is_the_same_under_both_normalisers() -> None:
    network = tiny_network()
    group = group_of([40, 16, 3], 16, targets=2)
    prompt = make_prompt(group, 16, network.config, 1000)
    (frozen,) = frozen_rollout(network, prompt, 1, fixed_draw(1))
    (anew,) = reestimated_rollout(network, group, 16, 1, fixed_draw(1), 1000)
    torch.testing.assert_close(frozen.mixture.icdf(LEVELS), anew.mixture.icdf(LEVELS))


def plain_mixture(*shape: int, seed: int = 0) -> Mixture:
    raw = torch.randn(*shape[:-1], 12, shape[-1], generator=torch.Generator().manual_seed(seed))
    return Mixture.from_raw(raw, ("student_t",) * 3)


DEPENDENCES = [INDEPENDENT, Dependence(share=0.3, growth=0.5, decay=0.9)]


@pytest.mark.parametrize("dependence", DEPENDENCES)
def test_draws_of_a_series_do_not_depend_on_the_others(dependence: Dependence) -> None:
    seeds = torch.arange(6).view(3, 2)
    mixture = plain_mixture(3, 1, 2, 2, SIZE)
    for block in range(2):
        many = seeded_draw(seeds, 5, dependence)(block, mixture)
        assert many.shape == (3, 5, 2, 2, SIZE)
        alone = mixture.map(lambda x: x[:, 1:2])
        own = seeded_draw(seeds[1:2], 5, dependence)(block, alone)
        torch.testing.assert_close(many[1:2], own, atol=1e-5, rtol=1e-5)


def test_no_two_blocks_paths_variates_or_points_share_their_draws() -> None:
    mixture = plain_mixture(1, 1, 1, 1, 1).map(lambda x: x.expand(1, 2, 1, 2, 2, SIZE))
    draw = seeded_draw(torch.arange(4).view(2, 2), 8)
    draws = torch.stack([draw(block, mixture) for block in range(4)])
    assert len(draws.unique()) > 0.99 * draws.numel()


def test_seeded_draws_follow_the_mixture() -> None:
    mixture = plain_mixture(1, 1, 1, 1, 4)
    draws = seeded_draw(torch.zeros(1, 1, dtype=torch.int64), 4000)(3, mixture)
    level = mixture.map(lambda x: x.expand(1, 1, 4000, 1, 1, 4)).cdf(draws)[0, :, 0, 0]
    for point in level.double().numpy().T:
        distance = np.abs(np.sort(point) - (np.arange(4000) + 0.5) / 4000).max()
        assert distance < 1.95 / np.sqrt(4000)


def test_the_marginal_of_a_step_is_the_average_of_the_paths_mixtures() -> None:
    mixture = plain_mixture(2, 3, 1, 1, SIZE)
    draws = torch.zeros(2, 3, 1, 1, SIZE)
    levels = torch.tensor(NODE_LEVELS, dtype=torch.float32)
    summary = marginalise(iter([PassOutput(mixture, draws)]), 10, levels)
    assert summary.quantiles.shape == (len(levels), 2, 1, 10)
    points = summary.quantiles[:, :, None, :, None]
    cdf = mixture.map(lambda x: x[..., :10]).cdf(points).mean(2)[:, :, 0, 0]
    expected = levels[:, None, None].expand_as(cdf)
    torch.testing.assert_close(cdf, expected, atol=5e-4, rtol=0)
    expected = mixture.mean().mean(1).flatten(-2)[..., :10]
    inside = expected.clamp(summary.quantiles[0], summary.quantiles[-1])
    torch.testing.assert_close(summary.mean, inside)


def test_blocks_are_joined_in_order_and_cut_at_the_horizon() -> None:
    def blocks() -> Iterator[PassOutput]:
        for number in range(3):
            yield PassOutput(
                plain_mixture(1, 1 + number, 1, 2, SIZE, seed=number),
                torch.full((1, 4, 1, 2, SIZE), float(number)),
            )

    whole = marginalise(blocks(), 96, LEVELS)
    cut = marginalise(blocks(), 70, LEVELS)
    for part in ("quantiles", "mean", "draws"):
        one, other = getattr(whole, part), getattr(cut, part)
        torch.testing.assert_close(one[..., :70], other, rtol=1e-4, atol=1e-4)
        assert torch.equal(whole.draws[..., :70], cut.draws)
        assert other.shape[-1] == 70
    assert whole.draws[0, 0, 0, ::32].tolist() == [0, 1, 2]


def test_a_mean_that_is_infinite_is_kept_within_the_quantiles() -> None:
    raw = torch.tensor([0.0, 30.0]).view(1, 1, 1, 1, 2, 1)
    raw = torch.cat((torch.zeros(1, 1, 1, 1, 1, 1), raw), -2)
    block = PassOutput(Mixture.from_raw(raw, ("log_normal",)), torch.zeros(1, 1, 1, 1, 1))
    summary = marginalise(iter([block]), 1, LEVELS)
    assert summary.quantiles[0] <= summary.mean <= summary.quantiles[-1]


def test_the_network_is_run_once_over_the_context(monkeypatch: pytest.MonkeyPatch) -> None:
    passes: list[str] = []
    for name in ("encode", "decode"):
        original = getattr(MoiraiMoE, name)
        monkeypatch.setattr(
            MoiraiMoE,
            name,
            lambda *args, n=name, o=original: (passes.append(n), o(*args))[1],
        )
    network = tiny_network()
    prompt = make_prompt(group_of([40, 20], 64), 64, network.config, 1000)
    list(frozen_rollout(network, prompt, 4, fixed_draw(3)))
    assert passes == ["encode", "decode", "decode", "decode"]
