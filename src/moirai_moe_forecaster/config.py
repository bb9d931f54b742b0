"""What a checkpoint is: its sizes and the conventions under which its weights were trained."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, get_args

from moirai_moe_forecaster.errors import ConfigError

Router = Literal["linear", "centroid"]
CentroidChoice = Literal["nearest", "farthest"]
Component = Literal["student_t", "normal_fixed", "negative_binomial", "log_normal"]
ScaleRule = Literal["relative", "absolute"]
TimeIndex = Literal["position", "observed"]
Precision = Literal["float32", "bfloat16"]
Optimiser = Literal["adamw", "muon"]
BeyondPass = Literal["paths", "hidden"]

MAY_BE_NONE = ("mirror_up_to", "reference_periods", "exchange_channels")
OFFICIAL_MIXTURE: tuple[Component, ...] = (
    "student_t",
    "normal_fixed",
    "negative_binomial",
    "log_normal",
)


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """Architecture and conventions of one Moirai-MoE checkpoint (arXiv 2410.10469, section 3).

    Weights are valid only under the conventions they were trained with, so every convention is a
    field here and travels with the checkpoint.

    Parameters
    ----------
    d_model, d_ff : int
        Width of a token and hidden width of one expert.
    num_layers, num_heads : int
        Decoder blocks, and attention heads per block.
    num_experts, experts_per_token : int
        Experts per block (32 in the paper) and how many of them a token uses (2). One expert,
        `experts_per_token` times as wide, gives the dense model of the same active size.
    patch_size : int, default=16
        Points per token.
    max_seq_len : int, default=512
        Longest sequence of tokens per variate that the weights were trained for.
    router : {"linear", "centroid"}, default="linear"
        Gating by a learned projection, or by distances to token clusters (section 3.2.2).
    centroid_choice : {"nearest", "farthest"}, default="nearest"
        Which clusters a token is sent to. Official checkpoints were trained with the farthest.
    mixture : tuple of str
        Components of the predictive distribution of one point.
    observed_mask_input : bool, default=True
        Feed the mask of observed values beside the values, so that a missing value is not a number.
        False is the official convention: missing values enter as ordinary, filled numbers.
    shift_known_future : bool, default=True
        Feed known-future covariates ``output_patches`` earlier than they happen, so that the token
        that predicts a patch sees the covariates of that patch. False is the official convention.
    output_patches : int, default=1
        How many next patches one token predicts; 1 officially.
    scale_rule : {"relative", "absolute"}, default="relative"
        How a context without variation is scaled: by a floor relative to its level, so that
        forecasts are scale equivariant, or by the official ``sqrt(var + 1e-5)``.
    time_index : {"position", "observed"}, default="position"
        Whether the position of a patch counts all patches, or, as in official checkpoints, those
        from the first on that holds an observed value.
    mirror_up_to : int, default=0
        Contexts of at most this many points are also forecast upside down, and both forecasts
        averaged (`inference.views`). Officially 0: none.
    find_seasons : bool, default=False
        Whether forecasts look for cycles where ``season_length="auto"``, and forecast without them
        too (`inference.seasons`). Officially not.
    dependence_share, dependence_growth, dependence_decay : float, default=0
        How the points that one pass predicts depend on each other in trajectories: their normal
        scores correlate as ``share * decay**lag`` (a Gaussian copula), where a series' share is
        ``dependence_share + dependence_growth * growth`` and `growth` tells how fast its predicted
        uncertainty grows (`inference.dependence.growth`). Officially 0, independent; `pretrain`
        fits them to held-out windows.
    beyond_pass : {"paths", "hidden"}, default="paths"
        How forecasts reach beyond the patches that one token predicts: by paths that draw, read
        what they drew and predict on, as officially; or, for networks that were trained with hidden
        patches, by missing values in its place, without draws and in one pass.
    reference_periods : int, default=0
        For how many periods of its series a token reads what the points that it predicts were one
        cycle earlier (`model.reference`), and predicts by gates on it. Officially 0.
    exchange_channels : int, default=0
        Channels of a convolution by which the points that a token predicts look at each other
        (`model.refinement`). Officially 0: none.

    Raises
    ------
    ConfigError
        If a value is out of range, of the wrong type, or contradicts another.
    """

    d_model: int
    d_ff: int
    num_layers: int
    num_heads: int
    num_experts: int
    experts_per_token: int
    patch_size: int = 16
    max_seq_len: int = 512
    router: Router = "linear"
    centroid_choice: CentroidChoice = "nearest"
    mixture: tuple[Component, ...] = ("student_t", "student_t", "student_t")
    observed_mask_input: bool = True
    shift_known_future: bool = True
    output_patches: int = 1
    scale_rule: ScaleRule = "relative"
    time_index: TimeIndex = "position"
    mirror_up_to: int = 0
    find_seasons: bool = False
    dependence_share: float = 0.0
    dependence_growth: float = 0.0
    dependence_decay: float = 0.0
    beyond_pass: BeyondPass = "paths"
    reference_periods: int = 0
    exchange_channels: int = 0

    def __post_init__(self) -> None:
        if not isinstance(self.mixture, tuple | list):
            raise ConfigError(f"mixture must be a list of components, got {self.mixture!r}")
        object.__setattr__(self, "mixture", tuple(self.mixture))
        for field in fields(self):
            value = getattr(self, field.name)
            least = 0 if field.name in MAY_BE_NONE else 1
            if field.type == "int" and (type(value) is not int or value < least):
                raise ConfigError(
                    f"{field.name} must be an integer of at least {least}, got {value!r}"
                )
            if field.type == "bool" and type(value) is not bool:
                raise ConfigError(f"{field.name} must be True or False, got {value!r}")
        _check_choice("router", self.router, Router)
        _check_choice("centroid_choice", self.centroid_choice, CentroidChoice)
        _check_choice("scale_rule", self.scale_rule, ScaleRule)
        _check_choice("time_index", self.time_index, TimeIndex)
        _check_choice("beyond_pass", self.beyond_pass, BeyondPass)
        if self.beyond_pass == "hidden" and not self.observed_mask_input:
            raise ConfigError("beyond_pass='hidden' needs observed_mask_input")
        for component in self.mixture:
            _check_choice("mixture", component, Component)
        if not self.mixture:
            raise ConfigError("mixture must name at least one component, got none")
        self._check_dependence()
        if self.reference_periods and "student_t" not in self.mixture:
            raise ConfigError("reference_periods must be 0 where the mixture has no 'student_t'")
        if self.d_model % self.num_heads:
            raise ConfigError(
                f"d_model ({self.d_model}) must be a multiple of num_heads ({self.num_heads})"
            )
        if self.head_dim % 4:
            raise ConfigError(
                f"d_model / num_heads must be a multiple of 4 (half of a head is rotated in "
                f"pairs), got {self.head_dim}"
            )
        if self.experts_per_token > self.num_experts:
            raise ConfigError(
                f"experts_per_token ({self.experts_per_token}) cannot exceed num_experts "
                f"({self.num_experts})"
            )

    def _check_dependence(self) -> None:
        for name in ("dependence_share", "dependence_growth", "dependence_decay"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1:
                raise ConfigError(
                    f"{name} must be a number of at least 0 and below 1, got {value!r}"
                )
        if (self.dependence_share or self.dependence_growth) and (
            "negative_binomial" in self.mixture
        ):
            raise ConfigError(
                "dependence_share and dependence_growth must be 0 where the mixture has counts"
            )

    @property
    def head_dim(self) -> int:
        """Width of one attention head."""
        return self.d_model // self.num_heads

    @classmethod
    def official(cls, size: Literal["small", "base"] = "small", **changes: Any) -> ModelConfig:
        """Return the configuration of a published model (paper, table 2), with changes by name."""
        if size not in _PUBLISHED_SIZES:
            raise ConfigError(f"size must be one of {sorted(_PUBLISHED_SIZES)}, got {size!r}")
        conventions: dict[str, Any] = {
            "router": "centroid",
            "centroid_choice": "farthest",
            "mixture": OFFICIAL_MIXTURE,
            "observed_mask_input": False,
            "shift_known_future": False,
            "output_patches": 1,
            "scale_rule": "absolute",
            "time_index": "observed",
        }
        return cls(**{**conventions, **_PUBLISHED_SIZES[size], **changes})

    @classmethod
    def preset(cls, name: Literal["tiny", "small", "base"], **changes: Any) -> ModelConfig:
        """Return one of our own configurations, fields changed by name.

        "tiny" is the bundled checkpoint's. "small" and "base" have the published sizes (paper,
        table 2) under our conventions.
        """
        if name not in _PRESETS:
            raise ConfigError(f"the preset must be one of {sorted(_PRESETS)}, got {name!r}")
        return cls(**{**_PRESETS[name], **changes})

    def to_dict(self) -> dict[str, Any]:
        """Return plain values that JSON can hold."""
        return asdict(self) | {"mixture": list(self.mixture)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> ModelConfig:
        """Build a configuration from plain values; an unknown or missing field is an error."""
        return _from_fields(cls, values)

    def to_json(self) -> str:
        """Return the configuration as JSON text."""
        return json.dumps(self.to_dict(), indent=2)

    @classmethod
    def from_json(cls, text: str) -> ModelConfig:
        """Read what `to_json` wrote."""
        try:
            values = json.loads(text)
        except ValueError as error:
            raise ConfigError(f"the configuration is not valid JSON: {error}") from error
        return cls.from_dict(values)


_PUBLISHED_SIZES: dict[str, dict[str, Any]] = {
    "small": {
        "d_model": 384,
        "d_ff": 512,
        "num_layers": 6,
        "num_heads": 6,
        "num_experts": 32,
        "experts_per_token": 2,
    },
    "base": {
        "d_model": 768,
        "d_ff": 1024,
        "num_layers": 12,
        "num_heads": 12,
        "num_experts": 32,
        "experts_per_token": 2,
    },
}
_PRESETS: dict[str, dict[str, Any]] = {
    "tiny": {
        "d_model": 192,
        "d_ff": 256,
        "num_layers": 4,
        "num_heads": 3,
        "num_experts": 8,
        "experts_per_token": 2,
        "output_patches": 4,
        "max_seq_len": 128,
        "mirror_up_to": 128,
        "find_seasons": True,
    },
    **_PUBLISHED_SIZES,
}


def _check_choice(name: str, value: object, choices: Any) -> None:
    if value not in get_args(choices):
        raise ConfigError(f"{name} must be one of {list(get_args(choices))}, got {value!r}")


def _from_fields(cls: Any, values: Mapping[str, Any]) -> Any:
    if not isinstance(values, Mapping):
        raise ConfigError(f"a {cls.__name__} is read from named fields, got {values!r}")
    known = {field.name for field in fields(cls)}
    unknown = sorted(set(values) - known)
    if unknown:
        raise ConfigError(f"unknown {cls.__name__} fields {unknown}; known are {sorted(known)}")
    try:
        return cls(**values)
    except TypeError as error:
        raise ConfigError(f"incomplete {cls.__name__}: {error}") from error


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """How a model is pretrained; with the same value, corpus and seed, a run is reproducible.

    Parameters
    ----------
    steps : int
        Optimiser steps in all. The schedule follows from it, so that a run can be extended or
        brought to its decay early by resuming it with another number.
    batch_rows, row_tokens : int
        Packed sequences per step, over all processes, and tokens in each.
    accumulate : int, default=1
        Into how many micro-batches a process cuts its rows of a step, to save memory. The
        likelihood is the same for any number; the balance loss of linear routers is the mean of
        the micro-batches'.
    precision : {"float32", "bfloat16"}, default="float32"
        Of the matrix products. Weights, optimiser and likelihood stay in float32.
    optimiser : {"adamw", "muon"}, default="adamw"
        Muon steps the matrices of attention and experts along orthogonal momentum, AdamW the rest.
    learning_rate : float, default=1e-3
        Of AdamW (the paper's, as are `betas` and `weight_decay`), after `warmup_steps` and until
        the last `decay_share` of the steps, over which it falls linearly to 0.
    betas : tuple of float, default=(0.9, 0.98)
    weight_decay : float, default=0.1
        On matrices; not on norms, biases and variate biases.
    clip_norm : float, default=1.0
        Largest norm of the gradient.
    balance_weight : float, default=0.01
        Weight of the load-balancing loss of linear routers.
    series_balance : float, default=0.5
        0 weighs all points alike; at 1, every variate of a window has the same weight in all,
        however long it is. A point weighs (scored points of its variate) ** -series_balance.
    ema_decay : float, default=0.0
        Of the exponential moving average of the weights, which validation and the final network
        use. 0 is no average.
    min_points, max_points : int
        Lengths of training windows, drawn log-uniformly between the two.
    long_share : float, default=0.2
        Share of windows of `max_points` at once, or as long as their series allows.
    prefix_share : tuple of float, default=(0.1, 0.7)
        Range of the share of a window that only serves its normaliser and bears no loss
        (the paper's masking ratio, 0.3 there), drawn per window.
    synthetic_share : float, default=0.5
        Share of windows from the synthetic generators.
    coupled_share : float, default=0.1
        Share of windows that are multivariate synthetic systems, half of them with drivers that
        are known ahead.
    synthetic_pool : int, default=1024
        Long synthetic series that are made at a time, half as many short ones and a sixteenth as
        many systems beside them, for the next `synthetic_pool` * 384 tokens of training. An
        accelerator makes a larger pool in nearly the same time.
    mixing_share : float, default=0.3
        Share of corpus windows that are convex mixtures of several (TSMixup, arXiv 2403.07815).
    related_share : float, default=0.1
        Share of corpus windows with 2 to 8 variates: related series over the same time, 0.3 of
        them with some known ahead.
    stride_share : float, default=0.15
        Share of corpus windows that take every s-th point, or means of s points, s between 2 and
        96 as the series is long enough for.
    time_flip_share : float, default=0.05
        Share of windows, but for synthetic systems, that run backwards in time.
    flip_share : float, default=0.15
        Share of variates with their sign flipped. A positive scale or a shift would change
        nothing: the normaliser takes them out.
    missing_share : float, default=0.15
        Share of windows of which a stretch, or points one by one, are made missing.
    amplitude_share, censor_share, spike_share : float, default=0
        Shares of windows of one variate whose amplitude changes, whose highest or lowest values are
        cut off, and that get spikes.
    hidden_share : float, default=0
        Share of windows of which up to three stretches of patches after the prefix are hidden from
        the network, which must predict through them.
    save_every, log_every, validate_every : int
        Steps between checkpoints, lines of metrics, and validations.
    seed : int, default=0

    Raises
    ------
    ConfigError
        If a number is out of range.
    """

    steps: int
    batch_rows: int = 16
    row_tokens: int = 128
    accumulate: int = 1
    precision: Precision = "float32"
    optimiser: Optimiser = "adamw"
    learning_rate: float = 1e-3
    warmup_steps: int = 300
    decay_share: float = 0.3
    betas: tuple[float, float] = (0.9, 0.98)
    weight_decay: float = 0.1
    clip_norm: float = 1.0
    balance_weight: float = 0.01
    series_balance: float = 0.5
    ema_decay: float = 0.0
    min_points: int = 20
    max_points: int = 2048
    long_share: float = 0.2
    prefix_share: tuple[float, float] = (0.1, 0.7)
    synthetic_share: float = 0.5
    coupled_share: float = 0.1
    synthetic_pool: int = 1024
    mixing_share: float = 0.3
    related_share: float = 0.1
    stride_share: float = 0.15
    time_flip_share: float = 0.05
    flip_share: float = 0.15
    missing_share: float = 0.15
    amplitude_share: float = 0.0
    censor_share: float = 0.0
    spike_share: float = 0.0
    hidden_share: float = 0.0
    save_every: int = 100
    log_every: int = 10
    validate_every: int = 250
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("betas", "prefix_share"):
            pair = getattr(self, name)
            if not isinstance(pair, tuple | list) or len(pair) != 2:
                raise ConfigError(f"{name} must be a pair of numbers, got {pair!r}")
            object.__setattr__(self, name, tuple(pair))
        for field in fields(self):
            value = getattr(self, field.name)
            if field.type == "int" and (type(value) is not int or value < (field.name != "seed")):
                raise ConfigError(f"{field.name} must be a positive integer, got {value!r}")
            fraction = field.name.endswith("_share") or field.name == "series_balance"
            if fraction and not _all_within(value, 0, 1):
                raise ConfigError(f"{field.name} must lie within [0, 1], got {value!r}")
            if field.type == "float" and not _all_within(value, 0, math.inf):
                raise ConfigError(f"{field.name} must be a number of at least 0, got {value!r}")
        if self.seed >= 2**63:
            raise ConfigError(f"seed must be below 2**63, got {self.seed}")
        _check_choice("precision", self.precision, Precision)
        _check_choice("optimiser", self.optimiser, Optimiser)
        for name in ("learning_rate", "clip_norm"):
            if getattr(self, name) == 0:
                raise ConfigError(f"{name} must be above 0, got 0")
        if not _all_within(self.betas, 0, 1) or 1 in self.betas:
            raise ConfigError(f"betas must lie within [0, 1), got {self.betas!r}")
        if self.row_tokens < 2:
            raise ConfigError(f"row_tokens must be at least 2, got {self.row_tokens}")
        if self.ema_decay >= 1:
            raise ConfigError(f"ema_decay must lie within [0, 1), got {self.ema_decay!r}")
        if self.prefix_share[0] > self.prefix_share[1]:
            raise ConfigError(f"prefix_share must not fall, got {self.prefix_share!r}")
        for first, second in (
            ("synthetic_share", "coupled_share"),
            ("mixing_share", "related_share"),
        ):
            if (total := getattr(self, first) + getattr(self, second)) > 1 + 1e-9:
                raise ConfigError(f"{first} + {second} cannot exceed 1, got {total:g}")
        if self.min_points > self.max_points:
            raise ConfigError(
                f"min_points ({self.min_points}) cannot exceed max_points ({self.max_points})"
            )

    def to_dict(self) -> dict[str, Any]:
        """Return plain values that JSON can hold."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> TrainConfig:
        """Build a configuration from plain values; an unknown or missing field is an error."""
        return _from_fields(cls, values)


def _all_within(value: Any, low: float, high: float) -> bool:
    """Whether a number, or all of a tuple, are finite and within bounds."""
    numbers = value if isinstance(value, tuple) else (value,)
    return all(
        isinstance(number, int | float) and math.isfinite(number) and low <= number <= high
        for number in numbers
    )
