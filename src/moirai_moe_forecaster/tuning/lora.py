"""Low-rank adapters (LoRA, arXiv 2106.09685) of projections and of fused experts.

An adapter adds ``scale * up @ down`` to a weight that stays as it is: up (out, rank) starts at
zero, down (rank, in) at random. A fused tensor of experts (expert, out, in) has a pair for each
expert, or one pair for all of them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from moirai_moe_forecaster.checkpoint.adapters import DOWN, UP
from moirai_moe_forecaster.errors import ConfigError
from moirai_moe_forecaster.model.network import MoiraiMoE

GROUPS: dict[str, tuple[str, ...]] = {
    "attention": ("blocks.*.attention.qkv.weight", "blocks.*.attention.out.weight"),
    "experts": ("blocks.*.experts.weight_in", "blocks.*.experts.weight_out"),
    "input": ("embedding.*.weight",),
    "head": ("projection.weight",),
}
ADAPTABLE = ("weight", "weight_in", "weight_out")
# what the field's configurations call these fields
ALIASES = {"r": "rank", "lora_alpha": "alpha", "target_modules": "targets"}


@dataclass(frozen=True, kw_only=True)
class LoraConfig:
    """Which weights get adapters, and of which rank.

    Parameters
    ----------
    rank : int, default=8
        Of the pairs of plain matrices.
    expert_rank : int, default=2
        Of the pairs of experts if each has one.
    alpha : float, default=16
        The product ``up @ down`` is multiplied by ``alpha / rank``.
    targets : tuple of str, default=("attention", "experts", "input", "head")
        These groups, names of modules such as "qkv", or patterns of names of parameters such as
        "blocks.3.*". All that have a match among the weights with two or more axes.
    shared_experts : bool, default=True
        One pair, of rank `rank`, that is added to all experts of a layer, instead of one for each:
        smaller, and better where it was measured (docs/fine_tuning.md).

    Raises
    ------
    ConfigError
        If a number is out of range or there is no target.
    """

    rank: int = 8
    expert_rank: int = 2
    alpha: float = 16.0
    targets: tuple[str, ...] = ("attention", "experts", "input", "head")
    shared_experts: bool = True

    def __post_init__(self) -> None:
        given: Any = self.targets
        several = tuple(given) if isinstance(given, Iterable) else ()
        targets = (given,) if isinstance(given, str) else several
        object.__setattr__(self, "targets", targets)
        for name in ("rank", "expert_rank"):
            value = getattr(self, name)
            if type(value) is not int or value < 1:
                raise ConfigError(f"{name} must be an integer of at least 1, got {value!r}")
        if not isinstance(self.alpha, int | float) or not 0 < self.alpha < math.inf:
            raise ConfigError(f"alpha must be a number above 0, got {self.alpha!r}")
        if not targets or not all(isinstance(target, str) for target in targets):
            raise ConfigError(f"targets must be names such as {sorted(GROUPS)}, got {given!r}")

    def to_dict(self) -> dict[str, Any]:
        """Return plain values that JSON can hold."""
        return asdict(self) | {"targets": list(self.targets)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> LoraConfig:
        """Build from plain values; ``r``, ``lora_alpha`` and ``target_modules`` are known too.

        Raises
        ------
        ConfigError
            If a name is unknown, or `values` is no mapping.
        """
        if not isinstance(values, Mapping):
            raise ConfigError(
                f"LoRA settings must be a mapping such as {{'rank': 8}}, got {values!r}"
            )
        renamed = {ALIASES.get(name, name): value for name, value in values.items()}
        known = [field.name for field in fields(cls)]
        if unknown := sorted(renamed.keys() - set(known)):
            raise ConfigError(f"unknown LoRA settings {unknown}; known are {known}")
        return cls(**renamed)


class LowRank(nn.Module):
    """The sum of a frozen weight (..., out, in) and its adapter.

    Parameters
    ----------
    weight : Tensor
    rank : int
    scale : float
    shared : bool
        Whether the leading axes share one pair.
    generator : torch.Generator
        Of the CPU.
    """

    def __init__(
        self, weight: Tensor, rank: int, scale: float, shared: bool, generator: torch.Generator
    ) -> None:
        super().__init__()
        *leading, rows, columns = weight.shape
        axes = [] if shared else leading
        draws = torch.randn(*axes, rank, columns, generator=generator) / math.sqrt(columns)
        self.down = nn.Parameter(draws.to(weight))
        self.up = nn.Parameter(weight.new_zeros(*axes, rows, rank))
        self.scale = scale

    def forward(self, weight: Tensor) -> Tensor:
        """Return the weight that the network computes with."""
        return weight + (self.scale * self.up) @ self.down


def add_lora(
    network: nn.Module,
    config: LoraConfig,
    names: Sequence[str] | None = None,
    *,
    seed: int = 0,
) -> list[str]:
    """Freeze a network and put trainable adapters onto some of its weights.

    The network computes what it did before until they are trained. Its other parameters, unfrozen
    afterwards, train beside them.

    Parameters
    ----------
    network : Module
        A `MoiraiMoE` or a module that holds one. Is changed.
    config : LoraConfig
    names : sequence of str, optional
        Of the parameters to adapt; by default those that match the targets.
    seed : int, default=0
        Of the adapters' start.

    Returns
    -------
    list of str
        Names of the adapted parameters.

    Raises
    ------
    ConfigError
        If a target matches nothing.
    """
    chosen = matched(network, config.targets) if names is None else list(names)
    network.requires_grad_(False)
    generator = torch.Generator().manual_seed(seed)
    for name in chosen:
        module, tensor = _owner(network, name)
        weight = getattr(module, tensor)
        fused = weight.ndim > 2
        rank = config.expert_rank if fused and not config.shared_experts else config.rank
        pair = LowRank(weight, rank, config.alpha / config.rank, config.shared_experts, generator)
        parametrize.register_parametrization(module, tensor, pair, unsafe=True)
    return chosen


def merge_lora(network: nn.Module) -> None:
    """Add the adapters to their weights: a plain network again, which computes the same."""
    _take_off(network, keep=True)


def remove_lora(network: nn.Module) -> None:
    """Take the adapters off: the network has the weights again that it had before them."""
    _take_off(network, keep=False)


def lora_state(network: nn.Module) -> dict[str, Tensor]:
    """Return the adapters on the CPU, ``NAME.up`` (scaled) and ``NAME.down`` for every weight."""
    tensors = {}
    for name, pair in _pairs(network):
        tensors[name + UP] = (pair.scale * pair.up).detach().cpu()
        tensors[name + DOWN] = pair.down.detach().cpu().clone()
    return tensors


def matched(network: nn.Module, targets: Sequence[str]) -> list[str]:
    """Names of the weights that any target matches, in the network's order.

    Raises
    ------
    ConfigError
        If a target matches nothing.
    """
    paths = (path for path, module in network.named_modules() if isinstance(module, MoiraiMoE))
    prefix = "".join(f"{path}." for path in list(paths)[:1] if path)
    names = [
        name.removeprefix(prefix)
        for name, parameter in network.named_parameters()
        if parameter.ndim >= 2 and name.endswith(ADAPTABLE)
    ]
    found: set[str] = set()
    for target in targets:
        hits = [name for name in names if _matches(name, target)]
        if not hits:
            raise ConfigError(
                f"the target {target!r} matches no weight; expected one of {sorted(GROUPS)}, the "
                f"name of a module such as 'qkv', or a pattern of names such as {names[0]!r}"
            )
        found.update(hits)
    return [prefix + name for name in names if name in found]


def _matches(name: str, target: str) -> bool:
    if target in GROUPS:
        return any(fnmatchcase(name, pattern) for pattern in GROUPS[target])
    module = name.removesuffix(".weight")
    return fnmatchcase(name, target) or f".{module}".endswith(f".{target}")


def _owner(network: nn.Module, name: str) -> tuple[nn.Module, str]:
    path, _, tensor = name.rpartition(".")
    return network.get_submodule(path), tensor


def _pairs(network: nn.Module) -> list[tuple[str, LowRank]]:
    """Adapters by the name of their weight."""
    found = []
    for path, module in network.named_modules():
        if not parametrize.is_parametrized(module):
            continue
        for tensor, chain in module.parametrizations.items():
            pair = chain[0]
            if isinstance(pair, LowRank):
                found.append((f"{path}.{tensor}" if path else tensor, pair))
    return found


def _take_off(network: nn.Module, keep: bool) -> None:
    for name, _ in _pairs(network):
        module, tensor = _owner(network, name)
        parametrize.remove_parametrizations(module, tensor, leave_parametrized=keep)
