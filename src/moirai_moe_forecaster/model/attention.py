"""Causal any-variate attention, and its decoding form over a context shared by many paths."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from moirai_moe_forecaster.model.norm import RMSNorm
from moirai_moe_forecaster.model.rotary import Rotation, rotate
from moirai_moe_forecaster.model.tokens import TokenBatch


class Visibility(NamedTuple):
    """What a query may see, as numbers that make a bias of logits in one pass.

    Attributes
    ----------
    blocked : Tensor, (..., query, key)
        0 where the key is visible, minus infinity where it is not.
    same_variate : Tensor, (..., query, key)
        1 where query and key belong to the same variate, 0 elsewhere.
    """

    blocked: Tensor
    same_variate: Tensor

    def of(self, wanted: Tensor | None) -> Visibility:
        """Return the rows of some queries; of all by default."""
        return self if wanted is None else Visibility(*(part[:, wanted] for part in self))


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


def visibility(query: TokenBatch, key: TokenBatch) -> Visibility:
    """A token sees all variates of its own sample at its own and at earlier positions."""
    same_sample = query.sample_id[:, :, None] == key.sample_id[:, None, :]
    not_later = key.time_id[:, None, :] <= query.time_id[:, :, None]
    same_variate = query.variate_id[:, :, None] == key.variate_id[:, None, :]
    blocked = torch.zeros(not_later.shape, device=not_later.device)
    blocked.masked_fill_(~(same_sample & not_later), -torch.inf)
    return Visibility(blocked, same_variate.float())


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
        self, x: Tensor, angles: Rotation, sight: Visibility, wanted: Tensor | None = None
    ) -> tuple[Tensor, KeyValue]:
        """Attend within `x` (batch, token, d_model); also return what later tokens may reuse.

        `wanted` tells the positions of the tokens that attend, (query,); by default all do.
        """
        query, new = self._project(x, angles, wanted)
        bias = self._bias(sight.of(wanted)).to(query.dtype)
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
        context_sight: Visibility,
        path_sight: Visibility,
        wanted: Tensor | None = None,
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
        context_sight : Visibility, (series, token, context token)
        path_sight : Visibility, (series * path, token, start + token)
        wanted : Tensor, optional, (query,)
            Positions of the new tokens that attend; by default all do.

        Returns
        -------
        Tensor, (series * path, query, d_model)
        """
        query, new = self._project(x, angles, wanted)
        own = past.put(start, new)
        context_sight, path_sight = context_sight.of(wanted), path_sight.of(wanted)
        series, queries = context.keys.shape[0], query.shape[2]
        paths = x.shape[0] // series
        # (series, heads, path * query, head_dim): one product with the shared keys
        stacked = query.unflatten(0, (series, paths)).transpose(1, 2).flatten(2, 3)
        root = math.sqrt(query.shape[-1])
        shared = (stacked @ context.keys.mT / root).unflatten(2, (paths, queries))
        shared = (shared + self._bias(context_sight)[:, :, None]).transpose(1, 2)
        private = query @ own.keys.mT / root + self._bias(path_sight)
        logits = torch.cat((shared.flatten(0, 1), private), -1)
        weights = logits.softmax(-1).to(query.dtype)
        width = context.keys.shape[-2]
        to_context = weights[..., :width].unflatten(0, (series, paths)).transpose(1, 2)
        mixed = (to_context.flatten(2, 3) @ context.values).unflatten(2, (paths, queries))
        mixed = mixed.transpose(1, 2).flatten(0, 1) + weights[..., width:] @ own.values
        return self._merge(mixed)

    def _project(
        self, x: Tensor, angles: Rotation, wanted: Tensor | None
    ) -> tuple[Tensor, KeyValue]:
        query, key, value = (
            self.qkv(x).unflatten(-1, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
        )
        new = KeyValue(rotate(self.key_norm(key), angles), value)
        if wanted is not None:
            query, angles = query[:, :, wanted], Rotation(*(part[:, :, wanted] for part in angles))
        return rotate(self.query_norm(query), angles), new

    def _merge(self, mixed: Tensor) -> Tensor:
        merged: Tensor = self.out(mixed.transpose(1, 2).flatten(2))
        return merged

    def _bias(self, sight: Visibility) -> Tensor:
        """Additive logits (batch, heads, query, key)."""
        other, same = self.variate_bias[:, :, None, None].unbind(0)
        return torch.addcmul(
            sight.blocked[:, None] + other, sight.same_variate[:, None], same - other
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
