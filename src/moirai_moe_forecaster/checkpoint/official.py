"""Official checkpoints: their configuration and tensors in terms of ours, and back."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import EllipsisType
from typing import Any, NamedTuple

import torch
from torch import Tensor

from moirai_moe_forecaster.checkpoint.integrity import several
from moirai_moe_forecaster.config import Component, ModelConfig
from moirai_moe_forecaster.errors import ConfigError
from moirai_moe_forecaster.model.distribution.components import FIXED_SCALE, KINDS

OFFICIAL_LICENCE = "CC-BY-NC-4.0"
OFFICIAL_HEAD_DIM = 64
OFFICIAL_PATCH_SIZES = [16]
OFFICIAL_SIZES = ("d_model", "d_ff", "num_layers", "max_seq_len")
OFFICIAL_EMBEDDING = {"in_proj": "inner", "res_proj": "skip", "feat_proj": "outer"}
OFFICIAL_FAMILY = "uni2ts.distribution."
OFFICIAL_MIXTURE_CLASS = {"_target_": f"{OFFICIAL_FAMILY}mixture.MixtureOutput"}
OFFICIAL_COMPONENTS: dict[Component, dict[str, Any]] = {
    "student_t": {"_target_": f"{OFFICIAL_FAMILY}student_t.StudentTOutput"},
    "normal_fixed": {
        "_target_": f"{OFFICIAL_FAMILY}normal.NormalFixedScaleOutput",
        "scale": FIXED_SCALE,
    },
    "negative_binomial": {"_target_": f"{OFFICIAL_FAMILY}negative_binomial.NegativeBinomialOutput"},
    "log_normal": {"_target_": f"{OFFICIAL_FAMILY}log_normal.LogNormalOutput"},
}


def read_config(settings: Mapping[str, Any]) -> ModelConfig:
    """Read sizes from an official configuration; the conventions are fixed, dropout irrelevant."""
    if missing := sorted({*OFFICIAL_SIZES, "patch_sizes"} - settings.keys()):
        raise ConfigError(
            f"{several(missing)} missing, so this is not an official Moirai-MoE (perhaps a Moirai "
            "without experts?)"
        )
    if settings["patch_sizes"] != OFFICIAL_PATCH_SIZES:
        raise ConfigError(
            f"patch_sizes must be {OFFICIAL_PATCH_SIZES}, got {settings['patch_sizes']!r}"
        )
    if settings.get("scaling", True) is not True:
        raise ConfigError(f"scaling must be true, got {settings['scaling']!r}")
    sizes = {name: settings[name] for name in OFFICIAL_SIZES}
    width = sizes["d_model"]
    if type(width) is not int or width < 1 or width % OFFICIAL_HEAD_DIM:
        raise ConfigError(f"d_model must be a multiple of {OFFICIAL_HEAD_DIM}, got {width!r}")
    mixture = _official_mixture(settings["distr_output"])
    return ModelConfig.official(**sizes, num_heads=width // OFFICIAL_HEAD_DIM, mixture=mixture)


def _official_mixture(output: Any) -> tuple[Component, ...]:
    """Look the named classes up in a fixed table."""
    target = {"_target_": output.get("_target_")} if isinstance(output, dict) else output
    if not _is_described(OFFICIAL_MIXTURE_CLASS, target):
        raise ConfigError(f"distr_output must be a {OFFICIAL_MIXTURE_CLASS}, got {output!r}")
    components = output.get("components")
    if not isinstance(components, list):
        raise ConfigError(f"distr_output must list its components, got {components!r}")
    return tuple(_official_component(component) for component in components)


def _official_component(component: Any) -> Component:
    for kind, known in OFFICIAL_COMPONENTS.items():
        if _is_described(known, component):
            return kind
    raise ConfigError(
        f"unknown component in distr_output: {component!r}; "
        f"known are {list(OFFICIAL_COMPONENTS.values())}"
    )


def _is_described(known: dict[str, Any], found: Any) -> bool:
    """Whether `found` is `known`, the class named by its module or by the package around it."""
    short = OFFICIAL_FAMILY + known["_target_"].rpartition(".")[2]
    return found in (known, known | {"_target_": short})


def official_settings(config: ModelConfig) -> dict[str, Any]:
    mine, official = config.to_dict(), ModelConfig.official().to_dict()
    fixed = official.keys() - {*OFFICIAL_SIZES, "num_heads"}
    differ = [
        f"{name} is {mine[name]!r}, official is {official[name]!r}"
        for name in official
        if name in fixed and mine[name] != official[name]
    ]
    if config.head_dim != OFFICIAL_HEAD_DIM:
        differ.append(
            f"num_heads is {config.num_heads}, official is d_model / {OFFICIAL_HEAD_DIM} "
            f"({config.d_model} / {OFFICIAL_HEAD_DIM})"
        )
    if differ:
        raise ConfigError(
            f"the official layout cannot express this configuration: {'; '.join(differ)}. "
            "Save with layout='native'"
        )
    return {
        **{name: mine[name] for name in OFFICIAL_SIZES},
        "patch_sizes": OFFICIAL_PATCH_SIZES,
        "attn_dropout_p": 0.0,
        "dropout_p": 0.0,
        "scaling": True,
        "distr_output": {
            **OFFICIAL_MIXTURE_CLASS,
            "components": [OFFICIAL_COMPONENTS[kind] for kind in config.mixture],
        },
    }


def count_experts(weights: Any) -> int:
    """How many centroids a layer has; the usual number if there are none, for `_check` to tell."""
    if "encoder.centroid" in weights.keys():  # noqa: SIM118
        shape = weights.get_slice("encoder.centroid").get_shape()
        if len(shape) == 3 and shape[1] > 1:
            return int(shape[1])
    return ModelConfig.official().num_experts


def from_official(
    weights: Any, empty: Mapping[str, Tensor], config: ModelConfig
) -> dict[str, Tensor]:
    state = {
        name: torch.empty(tensor.shape, dtype=torch.float32, device="cpu")
        for name, tensor in empty.items()
    }
    for name, where, native in official_parts(state, config):
        native.copy_(weights.get_tensor(name)[where])
    return state


def to_official(state: Mapping[str, Tensor], config: ModelConfig) -> dict[str, Tensor]:
    tensors = {
        name: torch.empty(shape, dtype=torch.float32, device="cpu")
        for name, shape in official_shapes(official_parts(state, config)).items()
    }
    for name, where, native in official_parts(state, config):
        tensors[name][where] = native.to(torch.float32)
    return tensors | {"encoder.centroid": tensors["encoder.centroid"].double()}


class _Part(NamedTuple):
    """The same numbers in both layouts: `native` is a view of ours, ``name[where]`` is theirs."""

    name: str
    where: int | list[int] | EllipsisType
    native: Tensor


def official_shapes(parts: Iterator[_Part]) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {}
    for name, where, native in parts:
        # stacked parts come in order, so that the last one tells how many there are
        stacked = (where + 1,) if isinstance(where, int) else ()
        shapes[name] = (*stacked, *native.shape)
    return shapes


def official_parts(state: Mapping[str, Tensor], config: ModelConfig) -> Iterator[_Part]:
    for theirs, ours in OFFICIAL_EMBEDDING.items():
        for kind in ("weight", "bias"):
            # the leading axis of the official tensor is that of patch sizes, of which there is one
            yield _Part(f"{theirs}.{kind}", 0, state[f"embedding.{ours}.{kind}"])
    for layer in range(config.num_layers):
        prefix = f"blocks.{layer}."
        block = {
            name.removeprefix(prefix): tensor
            for name, tensor in state.items()
            if name.startswith(prefix)
        }
        yield _Part("encoder.centroid", layer, block["router.centroids"])
        for name, where, native in _official_block_parts(block, config):
            yield _Part(f"encoder.layers.{layer}.{name}", where, native)
    yield _Part("encoder.norm.weight", ..., state["norm.weight"])
    yield from _official_head_parts(state, config)


def _official_block_parts(block: Mapping[str, Tensor], config: ModelConfig) -> Iterator[_Part]:
    pairs = _interleaved_pairs(config.head_dim)
    rows = [head * config.head_dim + row for head in range(config.num_heads) for row in pairs]
    query, key, value = block["attention.qkv.weight"].chunk(3)
    yield _Part("self_attn.q_proj.weight", rows, query)
    yield _Part("self_attn.k_proj.weight", rows, key)
    yield _Part("self_attn.v_proj.weight", ..., value)
    yield _Part("self_attn.out_proj.weight", ..., block["attention.out.weight"])
    yield _Part("self_attn.q_norm.weight", pairs, block["attention.query_norm.weight"])
    yield _Part("self_attn.k_norm.weight", pairs, block["attention.key_norm.weight"])
    yield _Part("self_attn.var_attn_bias.emb.weight", ..., block["attention.variate_bias"])
    yield _Part("norm1.weight", ..., block["attention_norm.weight"])
    yield _Part("norm2.weight", ..., block["expert_norm.weight"])
    for expert in range(config.num_experts):
        gate, linear = block["experts.weight_in"][expert].chunk(2)
        yield _Part(f"ffn.experts.{expert}.fc_gate.weight", ..., gate)
        yield _Part(f"ffn.experts.{expert}.fc1.weight", ..., linear)
        yield _Part(f"ffn.experts.{expert}.fc2.weight", ..., block["experts.weight_out"][expert])


def _interleaved_pairs(head_dim: int) -> list[int]:
    """Where the official layout keeps each dimension of a head.

    It rotates dimension 2i with dimension 2i + 1 of the first half, `model.attention` dimension i
    of the first quarter with dimension i of the second.
    """
    half = head_dim // 2
    return [*range(0, half, 2), *range(1, half, 2), *range(half, head_dim)]


def _official_head_parts(state: Mapping[str, Tensor], config: ModelConfig) -> Iterator[_Part]:
    """Split the projection's rows, which `Mixture.from_raw` reads in the same order."""
    sizes = {"weights_logits": len(config.mixture) * config.patch_size}
    for number, component in enumerate(config.mixture):
        for parameter in KINDS[component].kind._fields:
            sizes[f"components.{number}.{parameter}"] = config.patch_size
    for kind in ("weight", "bias"):
        rows = torch.split(state[f"projection.{kind}"], list(sizes.values()))
        for name, native in zip(sizes, rows, strict=True):
            yield _Part(f"param_proj.proj.{name}.{kind}", 0, native)
