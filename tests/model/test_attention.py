from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from moirai_moe_forecaster.model.attention import (
    AnyVariateAttention,
    AttentionMask,
    Rotation,
    attention_mask,
    rotate,
    rotation,
)
from moirai_moe_forecaster.model.tokens import TokenBatch

D_MODEL, HEADS, HEAD_DIM = 16, 2, 8


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def attention() -> AnyVariateAttention:
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        module = AnyVariateAttention(D_MODEL, HEADS)
        for parameter in module.parameters():
            parameter.add_(0.5 * torch.randn_like(parameter))
    return module.requires_grad_(False)


def tokens(sample_id: list[int], variate_id: list[int], time_id: list[int]) -> TokenBatch:
    count = len(sample_id)
    return TokenBatch(
        torch.zeros(1, count, 4),
        torch.ones(1, count, 4, dtype=torch.bool),
        torch.tensor([time_id]),
        torch.tensor([variate_id]),
        torch.tensor([sample_id]),
        torch.zeros(1, count, dtype=torch.bool),
    )


BATCH = tokens(
    [1, 1, 1, 1, 1, 2, 2, 0, 0], [0, 0, 0, 1, 1, 0, 1, 0, 0], [0, 1, 2, 1, 2, 0, 0, 0, 0]
)


def angles_of(batch: TokenBatch) -> Rotation:
    return rotation(batch.time_id[:, None], HEAD_DIM)


def dense(module: AnyVariateAttention, x: Tensor, batch: TokenBatch) -> Tensor:
    """The definition: one query, one key, one head at a time."""
    count = x.shape[1]
    result = torch.zeros(1, count, D_MODEL)
    projected = x[0] @ module.qkv.weight.T
    query, key, value = (part.view(count, HEADS, HEAD_DIM) for part in projected.split(D_MODEL, 1))

    def normed(part: Tensor, weight: Tensor) -> Tensor:
        return part / (part.square().mean() + 1e-5).sqrt() * weight

    for head in range(HEADS):
        for i in range(count):
            logits, seen = [], []
            for j in range(count):
                same_sample = batch.sample_id[0, i] == batch.sample_id[0, j]
                if not same_sample or batch.time_id[0, j] > batch.time_id[0, i]:
                    continue
                q = normed(query[i, head], module.query_norm.weight)
                k = normed(key[j, head], module.key_norm.weight)
                q = rotate(q[None], rotation(batch.time_id[0, i : i + 1], HEAD_DIM))[0]
                k = rotate(k[None], rotation(batch.time_id[0, j : j + 1], HEAD_DIM))[0]
                same = int(batch.variate_id[0, i] == batch.variate_id[0, j])
                logits.append(q @ k / math.sqrt(HEAD_DIM) + module.variate_bias[same, head])
                seen.append(j)
            weights = torch.stack(logits).softmax(0)
            mixed = (weights[:, None] * value[seen, head]).sum(0)
            result[0, i, head * HEAD_DIM : (head + 1) * HEAD_DIM] = mixed
    return result @ module.out.weight.T


def test_visibility_is_same_sample_and_not_later() -> None:
    mask = attention_mask(BATCH, BATCH)
    for i in range(9):
        for j in range(9):
            same_sample = BATCH.sample_id[0, i] == BATCH.sample_id[0, j]
            not_later = BATCH.time_id[0, j] <= BATCH.time_id[0, i]
            assert bool(mask.blocked[0, i, j] == 0) == bool(same_sample & not_later)
            same = BATCH.variate_id[0, i] == BATCH.variate_id[0, j]
            assert bool(mask.same_variate[0, i, j]) == bool(same)


def test_attention_is_its_definition(attention: AnyVariateAttention) -> None:
    x = random(1, 9, D_MODEL)
    got, cache = attention(x, angles_of(BATCH), attention_mask(BATCH, BATCH))
    torch.testing.assert_close(got, dense(attention, x, BATCH), atol=1e-5, rtol=1e-4)
    assert cache.keys.shape == cache.values.shape == (1, HEADS, 9, HEAD_DIM)


@pytest.mark.parametrize("past_steps", [0, 2])
@pytest.mark.parametrize("paths", [1, 3])
def test_decoding_is_attention_over_context_and_past(
    attention: AnyVariateAttention, paths: int, past_steps: int
) -> None:
    """Two series of two variates; every path is compared with the whole sequence by itself."""
    context_length, series = 4, 2
    total = context_length + past_steps + 1

    def sequence(first: int, last: int) -> TokenBatch:
        span = list(range(first, last))
        return tokens([1] * 2 * len(span), [0] * len(span) + [1] * len(span), span * 2)

    shared = random(series, 2 * context_length, D_MODEL)
    context_tokens = sequence(0, context_length)
    _, context = attention(
        shared,
        angles_of(context_tokens),
        AttentionMask(
            *(p.expand(series, -1, -1) for p in attention_mask(context_tokens, context_tokens))
        ),
    )
    past = context.room(series * paths, 2 * (past_steps + 1))
    inputs, own = [], []
    for step in range(past_steps + 1):
        new = sequence(context_length + step, context_length + step + 1)
        own.append(new)
        seen = TokenBatch(*(torch.cat(parts, 1) for parts in zip(*own, strict=True)))
        x = random(series * paths, 2, D_MODEL, seed=step + 1)
        inputs.append(x)
        got = attention.decode(
            x,
            angles_of(new),
            context,
            past,
            2 * step,
            AttentionMask(*(p.expand(series, -1, -1) for p in attention_mask(new, context_tokens))),
            AttentionMask(*(p.expand(series * paths, -1, -1) for p in attention_mask(new, seen))),
        )
    whole = TokenBatch(*(torch.cat(parts, 1) for parts in zip(context_tokens, *own, strict=True)))
    assert whole.time_id.shape[1] == 2 * total
    for row in range(series * paths):
        x = torch.cat([shared[row // paths], *(part[row] for part in inputs)])[None]
        expected = dense(attention, x, whole)[0, -2:]
        torch.testing.assert_close(got[row], expected, atol=1e-5, rtol=1e-4)


def test_a_token_that_is_not_visible_gets_no_gradient(attention: AnyVariateAttention) -> None:
    x = random(1, 9, D_MODEL).requires_grad_(True)
    out, _ = attention(x, angles_of(BATCH), attention_mask(BATCH, BATCH))
    visible = attention_mask(BATCH, BATCH).blocked[0] == 0
    for i in range(9):
        (gradient,) = torch.autograd.grad(out[0, i].square().sum(), x, retain_graph=True)
        assert ((gradient[0].abs().sum(-1) > 0) == visible[i]).all()
