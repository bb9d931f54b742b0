"""The Moirai-MoE network, top to bottom (arXiv 2410.10469, section 3).

Patches in, one input projection, a decoder-only transformer whose every feed-forward layer is a
sparse mixture of experts, one output projection, a mixture distribution for the next patches out.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from moirai_moe_forecaster.config import ModelConfig
from moirai_moe_forecaster.model.attention import (
    AnyVariateAttention,
    AttentionMask,
    KeyValue,
    RMSNorm,
    Rotation,
    attention_mask,
    rotation,
)
from moirai_moe_forecaster.model.distribution.mixture import Mixture, raw_size
from moirai_moe_forecaster.model.moe import CentroidRouter, Experts, LinearRouter, Routing
from moirai_moe_forecaster.model.refinement import GatedReference, OutputExchange
from moirai_moe_forecaster.model.tokens import TokenBatch


class Output(NamedTuple):
    """What one pass over tokens gives.

    Attributes
    ----------
    hidden : Tensor, (batch, token, d_model + reference_width)
        Final representations, of all tokens or of those at `query_index`, and after them
        their references, if the network reads any; `MoiraiMoE.head` turns them into distributions.
    cache : list of KeyValue
        Per layer, what later tokens attend to.
    routings : list of Routing
        Per layer, over the flattened (batch * token) that passed through its experts.
    """

    hidden: Tensor
    cache: list[KeyValue]
    routings: list[Routing]


class PatchEmbedding(nn.Module):
    """One residual projection for patches of every frequency, instead of one per frequency."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.observed_mask_input = config.observed_mask_input
        width = config.patch_size * (2 if config.observed_mask_input else 1)
        self.inner = nn.Linear(width, config.d_model)
        self.outer = nn.Linear(config.d_model, config.d_model)
        self.skip = nn.Linear(width, config.d_model)
        if config.shift_known_future:
            self.known_future = nn.Parameter(torch.zeros(config.d_model))
        else:
            self.register_parameter("known_future", None)

    def forward(self, tokens: TokenBatch) -> Tensor:
        """Embed patches: (batch, token, d_model)."""
        x = tokens.values.to(self.skip.weight.dtype)
        if self.observed_mask_input:
            x = torch.cat((torch.where(tokens.observed, x, 0.0), tokens.observed.to(x.dtype)), -1)
        embedded: Tensor = self.outer(F.silu(self.inner(x))) + self.skip(x)
        if self.known_future is not None:
            embedded = embedded + tokens.known_future[..., None].to(x.dtype) * self.known_future
        return embedded


class Block(nn.Module):
    """One pre-norm decoder block: any-variate attention, then routed experts."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.attention_norm = RMSNorm(config.d_model)
        self.attention = AnyVariateAttention(config.d_model, config.num_heads)
        self.expert_norm = RMSNorm(config.d_model)
        sizes = (config.d_model, config.num_experts, config.experts_per_token)
        self.router: LinearRouter | CentroidRouter = (
            LinearRouter(*sizes)
            if config.router == "linear"
            else CentroidRouter(*sizes, config.centroid_choice)
        )
        self.experts = Experts(config.d_model, config.d_ff, config.num_experts)

    def forward(
        self, x: Tensor, angles: Rotation, mask: AttentionMask, query_index: Tensor | None = None
    ) -> tuple[Tensor, KeyValue, Routing]:
        """Transform tokens (batch, token, d_model) that attend to each other, or some of them."""
        attended, cache = self.attention(self.attention_norm(x), angles, mask, query_index)
        x, routing = self._finish(_some(x, query_index) + attended)
        return x, cache, routing

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
        """Transform new tokens (series * path, token, d_model) of paths that share a context."""
        attended = self.attention.decode(
            self.attention_norm(x),
            angles,
            context,
            past,
            start,
            context_mask,
            path_mask,
            query_index,
        )
        return self._finish(_some(x, query_index) + attended)[0]

    def _finish(self, x: Tensor) -> tuple[Tensor, Routing]:
        normed = self.expert_norm(x).flatten(0, 1)
        routing = self.router(normed)
        return x + self.experts(normed, routing).view_as(x), routing


class MoiraiMoE(nn.Module):
    """Sparse mixture-of-experts transformer for time series.

    Parameters
    ----------
    config : ModelConfig
        Sizes and conventions. The weights are random until a checkpoint is loaded; they are drawn
        from torch's global random state, as in any `torch.nn` module.

    Notes
    -----
    Inputs are standardised values; `moirai_moe_forecaster.model.tokens` makes them. Different from
    a language model: a token is a patch of numbers, attention spans the variates of a sample, and
    the head gives a continuous mixture per point instead of logits over a vocabulary.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.embedding = PatchEmbedding(config)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.num_layers))
        self.norm = RMSNorm(config.d_model)
        outputs = config.output_patches * raw_size(config.mixture) * config.patch_size
        self.projection = nn.Linear(config.d_model, outputs)
        self.reference = GatedReference(config) if config.reference_periods else None
        self.exchange = OutputExchange(config) if config.exchange_channels else None
        self._initialise()

    def forward(self, tokens: TokenBatch) -> Mixture:
        """Return the distribution of the next patches: points (batch, token, patch, patch_size)."""
        return self.head(self.encode(tokens).hidden)

    def encode(self, tokens: TokenBatch, query_index: Tensor | None = None) -> Output:
        """Run all blocks over tokens that attend to each other.

        Parameters
        ----------
        tokens : TokenBatch
        query_index : Tensor, optional, (query,)
            Positions of the tokens whose representations are returned, in this order: the last
            block gives keys and values of the others and nothing else. By default of all.
        """
        mask = attention_mask(tokens, tokens)
        angles = self._angles(tokens)
        x = self._embed(tokens)
        cache, routings = [], []
        for block in self.blocks:
            last = block is self.blocks[-1]
            x, layer_cache, routing = block(x, angles, mask, query_index if last else None)
            cache.append(layer_cache)
            routings.append(routing)
        return Output(self._with_reference(self.norm(x), tokens, query_index), cache, routings)

    def decode(
        self,
        tokens: TokenBatch,
        context: list[KeyValue],
        past: list[KeyValue],
        start: int,
        context_mask: AttentionMask,
        path_mask: AttentionMask,
        query_index: Tensor | None = None,
    ) -> Tensor:
        """Run all blocks over new tokens (series * path, token) of paths that share a context.

        `AnyVariateAttention.decode` has the shapes and writes to `past`. The result is the
        representations (series * path, query, ...) of `Output.hidden`, of all tokens or of those
        at `query_index`.
        """
        angles = self._angles(tokens)
        x = self._embed(tokens)
        for block, layer_context, layer_past in zip(self.blocks, context, past, strict=True):
            x = block.decode(  # type: ignore[operator]  # a Block
                x,
                angles,
                layer_context,
                layer_past,
                start,
                context_mask,
                path_mask,
                query_index if block is self.blocks[-1] else None,
            )
        return self._with_reference(self.norm(x), tokens, query_index)

    def parameter_counts(self) -> tuple[int, int]:
        """Count all parameters, and those that one token uses."""
        total = sum(parameter.numel() for parameter in self.parameters())
        experts = sum(
            parameter.numel() for name, parameter in self.named_parameters() if ".experts." in name
        )
        idle = self.config.num_experts - self.config.experts_per_token
        return total, total - experts * idle // self.config.num_experts

    def head(self, hidden: Tensor) -> Mixture:
        """Distributions (..., output patch, patch_size) from representations `Output.hidden`."""
        shape = (self.config.output_patches, -1, self.config.patch_size)
        width = self.config.d_model
        own, features = hidden[..., :width], hidden[..., width:]
        raw = self.projection(own).unflatten(-1, shape).float()
        if self.reference is not None:
            raw = self.reference(raw, own, features)
        if self.exchange is not None:
            raw = self.exchange(raw, features)
        return Mixture.from_raw(raw, self.config.mixture)

    def _embed(self, tokens: TokenBatch) -> Tensor:
        x: Tensor = self.embedding(tokens)
        return x if self.reference is None else x + self.reference.embedding(tokens.reference)

    def _with_reference(
        self, hidden: Tensor, tokens: TokenBatch, query_index: Tensor | None
    ) -> Tensor:
        if self.reference is None:
            return hidden
        return torch.cat((hidden, _some(tokens.reference, query_index).to(hidden.dtype)), -1)

    def _angles(self, tokens: TokenBatch) -> Rotation:
        """Rotation with an axis for the heads."""
        return rotation(tokens.time_id[:, None], self.config.head_dim)

    @torch.no_grad()
    def _initialise(self) -> None:
        """Draw weights of variance 1 / fan-in; what writes to the residual stream starts small."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                module.weight.normal_(std=1 / math.sqrt(module.in_features))
                if module.bias is not None:
                    module.bias.zero_()
            elif isinstance(module, Experts):
                module.weight_in.normal_(std=1 / math.sqrt(module.weight_in.shape[-1]))
                module.weight_out.normal_(std=1 / math.sqrt(module.weight_out.shape[-1]))
        depth = 1 / math.sqrt(2 * self.config.num_layers)
        for module in self.modules():
            if isinstance(module, Block):
                module.attention.out.weight.mul_(depth)
                module.experts.weight_out.mul_(depth)
        self.projection.weight.mul_(0.1)
        if self.reference is not None:
            self.reference.gate.weight.zero_()
        if self.exchange is not None:
            for parameter in self.exchange.second.parameters():
                parameter.zero_()


def _some(x: Tensor, query_index: Tensor | None) -> Tensor:
    """Tokens (batch, query, d_model) of `x`; all by default."""
    return x if query_index is None else x[:, query_index]
