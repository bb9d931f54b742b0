"""Causal any-variate attention, and its decoding form over a context shared by many paths.

With the two small parts that it is built from: normalisation by root mean square
(arXiv 1910.07467), and rotary positions over the first half of each head (arXiv 2104.09864).
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from moirai_moe_forecaster.model.tokens import TokenBatch

EPSILON = 1e-5
ROTARY_BASE = 10_000.0


class AttentionMask(NamedTuple):
    """Which keys a query attends to, as numbers that make a bias of logits in one pass.

    Attributes
    ----------
    blocked : Tensor, (..., query, key)
        0 where the query attends to the key, minus infinity where it does not.
    same_variate : Tensor, (..., query, key)
        1 where query and key belong to the same variate, 0 elsewhere.
    """

    blocked: Tensor
    same_variate: Tensor

    def of(self, query_index: Tensor | None) -> AttentionMask:
        """Return the rows of some queries; of all by default."""
        if query_index is None:
            return self
        return AttentionMask(*(part[:, query_index] for part in self))


class KeyValue(NamedTuple):
    """Keys and values of a stretch of tokens, (..., heads, token, head_dim) each."""

    keys: Tensor
    values: Tensor

    def room(self, batch: int, tokens: int) -> KeyValue:
        """Return uninitialised room for tokens like these, (batch, heads, tokens, head_dim).

        In memory the tokens come first, so that a step writes one stretch of it.
        """
        shape = (tokens, batch, self.keys.shape[1], self.keys.shape[3])
        return KeyValue(*(part.new_empty(shape).permute(1, 2, 0, 3) for part in self))

    def put(self, start: int, new: KeyValue) -> KeyValue:
        """Write tokens at `start` of this room and return all up to their end."""
        stop = start + new.keys.shape[-2]
        for room, part in zip(self, new, strict=True):
            room[:, :, start:stop] = part
        return KeyValue(self.keys[:, :, :stop], self.values[:, :, :stop])


def attention_mask(query: TokenBatch, key: TokenBatch) -> AttentionMask:
    """A token attends to all variates of its own sample at its own and at earlier positions."""
    same_sample = query.sample_id[:, :, None] == key.sample_id[:, None, :]
    not_later = key.time_id[:, None, :] <= query.time_id[:, :, None]
    same_variate = query.variate_id[:, :, None] == key.variate_id[:, None, :]
    blocked = torch.zeros(not_later.shape, device=not_later.device)
    blocked.masked_fill_(~(same_sample & not_later), -torch.inf)
    return AttentionMask(blocked, same_variate.float())


class AnyVariateAttention(nn.Module):
    """Multi-head attention with rotary time, normalised queries and keys, and a variate bias.

    A learned number per head is added to a logit, one where query and key belong to the same
    variate and one where they do not (arXiv 2402.02592, equation 3).

    Parameters
    ----------
    d_model, num_heads : int
    """

    def __init__(self, d_model: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        head_dim = d_model // num_heads
        self.qkv = nn.Linear(d_model, 3 * d_model, bias=False)
        self.out = nn.Linear(d_model, d_model, bias=False)
        self.query_norm = RMSNorm(head_dim)
        self.key_norm = RMSNorm(head_dim)
        self.variate_bias = nn.Parameter(torch.zeros(2, num_heads))

    def forward(
        self, x: Tensor, angles: Rotation, mask: AttentionMask, query_index: Tensor | None = None
    ) -> tuple[Tensor, KeyValue]:
        """Attend within `x` (batch, token, d_model); also return what later tokens may reuse.

        `query_index` tells the positions of the tokens that attend, (query,); by default all do.
        """
        query, new = self._project(x, angles, query_index)
        bias = self._bias(mask.of(query_index)).to(query.dtype)
        if not bias.is_cuda and (bias.requires_grad or bias.dtype == torch.bfloat16):
            mixed = _attend(query, new, bias)
        else:
            mixed = F.scaled_dot_product_attention(query, new.keys, new.values, attn_mask=bias)
        return self._merge(mixed), new

    def decode(
        self,
        x: Tensor,
        angles: Rotation,
        context: KeyValue,
        past: KeyValue,
        start: int,
        context_mask: AttentionMask,
        path_mask: AttentionMask,
        query_index: Tensor | None = None,
    ) -> Tensor:
        """Attend from new tokens of many paths to one shared context and to each path's own past.

        The context's keys and values are never copied per path: the queries of all paths of a
        series are stacked and meet them in one product.

        Parameters
        ----------
        x : Tensor, (series * path, token, d_model)
        angles : Rotation
            Of the new tokens, (series * path, 1, token, ...).
        context : KeyValue, (series, heads, context token, head_dim)
        past : KeyValue, (series * path, heads, room, head_dim)
            Holds the paths' own tokens; the new ones are written into it.
        start : int
            How many tokens it holds already.
        context_mask : AttentionMask, (series, token, context token)
        path_mask : AttentionMask, (series * path, token, start + token)
        query_index : Tensor, optional, (query,)
            Positions of the new tokens that attend; by default all do.

        Returns
        -------
        Tensor, (series * path, query, d_model)
        """
        query, new = self._project(x, angles, query_index)
        own = past.put(start, new)
        context_mask, path_mask = context_mask.of(query_index), path_mask.of(query_index)
        series, queries = context.keys.shape[0], query.shape[2]
        paths = x.shape[0] // series
        # (series, heads, path * query, head_dim): one product with the shared keys
        stacked = query.unflatten(0, (series, paths)).transpose(1, 2).flatten(2, 3)
        root = math.sqrt(query.shape[-1])
        shared = (stacked @ context.keys.mT / root).unflatten(2, (paths, queries))
        shared = (shared + self._bias(context_mask)[:, :, None]).transpose(1, 2)
        private = query @ own.keys.mT / root + self._bias(path_mask)
        logits = torch.cat((shared.flatten(0, 1), private), -1)
        weights = logits.softmax(-1).to(query.dtype)
        width = context.keys.shape[-2]
        to_context = weights[..., :width].unflatten(0, (series, paths)).transpose(1, 2)
        mixed = (to_context.flatten(2, 3) @ context.values).unflatten(2, (paths, queries))
        mixed = mixed.transpose(1, 2).flatten(0, 1) + weights[..., width:] @ own.values
        return self._merge(mixed)

    def _project(
        self, x: Tensor, angles: Rotation, query_index: Tensor | None
    ) -> tuple[Tensor, KeyValue]:
        query, key, value = (
            self.qkv(x).unflatten(-1, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
        )
        new = KeyValue(rotate(self.key_norm(key), angles), value)
        if query_index is not None:
            query = query[:, :, query_index]
            angles = Rotation(*(part[:, :, query_index] for part in angles))
        return rotate(self.query_norm(query), angles), new

    def _merge(self, mixed: Tensor) -> Tensor:
        merged: Tensor = self.out(mixed.transpose(1, 2).flatten(2))
        return merged

    def _bias(self, mask: AttentionMask) -> Tensor:
        """Additive logits (batch, heads, query, key)."""
        other, same = self.variate_bias[:, :, None, None].unbind(0)
        return torch.addcmul(
            mask.blocked[:, None] + other, mask.same_variate[:, None], same - other
        )


def _attend(query: Tensor, past: KeyValue, bias: Tensor) -> Tensor:
    """Attend by plain products.

    The library's fused kernels for a CPU learn no bias, and in bfloat16 take twice the time.
    """
    flat = (query.flatten(0, 1), past.keys.flatten(0, 1), past.values.flatten(0, 1))
    logits = torch.baddbmm(
        bias.flatten(0, 1), flat[0], flat[1].mT, alpha=1 / math.sqrt(query.shape[-1])
    )
    return (logits.softmax(-1) @ flat[2]).view_as(query)


class Rotation(NamedTuple):
    """Cosines and sines, (..., token, head_dim / 4) each."""

    cos: Tensor
    sin: Tensor


def rotation(time_id: Tensor, head_dim: int) -> Rotation:
    """Angles of the rotated pairs at positions `time_id` (..., token)."""
    width = head_dim // 2
    exponent = torch.arange(0, width, 2, device=time_id.device, dtype=torch.float32) / width
    angle = time_id[..., None].float() * ROTARY_BASE**-exponent
    return Rotation(angle.cos(), angle.sin())


def rotate(x: Tensor, angles: Rotation) -> Tensor:
    """Rotate the first half of `x` (..., token, head_dim).

    A pair is dimension i of the first quarter with dimension i of the second: contiguous slices,
    faster than interleaved pairs. Official weights, trained with interleaved pairs, are reordered
    when they are loaded (`checkpoint`), which leaves every product of query and key as it was.
    """
    rotated: Tensor = _Rotate.apply(x, angles.cos.to(x.dtype), angles.sin.to(x.dtype))
    return rotated


class _Rotate(torch.autograd.Function):
    """A rotation, whose gradient is the rotation back; in fewer passes than autograd's own."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        ctx.save_for_backward(cos, sin)
        return _rotated(x, cos, sin, 1)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        cos, sin = ctx.saved_tensors
        return _rotated(gradients[0], cos, sin, -1), None, None


def _rotated(x: Tensor, cos: Tensor, sin: Tensor, direction: int) -> Tensor:
    quarter = x.shape[-1] // 4
    first, second = x[..., :quarter], x[..., quarter : 2 * quarter]
    turned = x.clone()
    turned[..., :quarter].mul_(cos).addcmul_(second, sin, value=-direction)
    turned[..., quarter : 2 * quarter].mul_(cos).addcmul_(first, sin, value=direction)
    return turned


class RMSNorm(nn.Module):
    """Divide the last axis by its root mean square and scale it by learned weights.

    Parameters
    ----------
    width : int
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        """Normalise `x` (..., width)."""
        if x.is_cuda:
            return F.rms_norm(x, self.weight.shape, self.weight.to(x.dtype), EPSILON)
        # torch has one kernel for it on a GPU, and many small ones on a CPU
        normed: Tensor = _Normalise.apply(x, self.weight)
        return normed


class _Normalise(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        ctx.dtype = x.dtype
        x = x.float()
        norm = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
        inverse = norm.square_().div_(x.shape[-1]).add_(EPSILON).rsqrt_()
        ctx.save_for_backward(x, inverse, weight)
        return (x * inverse).mul_(weight).to(ctx.dtype)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor]:
        x, inverse, weight = ctx.saved_tensors
        gradient = gradients[0].float()
        unit = x * inverse
        of_weight = (gradient * unit).flatten(0, -2).sum(0)
        of_unit = gradient * weight
        along = (of_unit * unit).mean(-1, keepdim=True)
        of_x = of_unit.addcmul_(unit, along, value=-1).mul_(inverse)
        return of_x.to(ctx.dtype), of_weight
