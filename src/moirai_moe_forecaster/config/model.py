"""What a checkpoint is: its sizes and the conventions under which its weights were trained."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

from moirai_moe_forecaster.config.checks import check_choice, from_fields
from moirai_moe_forecaster.errors import ConfigError

Router = Literal["linear", "centroid"]
CentroidChoice = Literal["nearest", "farthest"]
Component = Literal["student_t", "normal_fixed", "negative_binomial", "log_normal"]
ScaleRule = Literal["relative", "absolute"]
TimeIndex = Literal["position", "observed"]
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
        Contexts of at most this many points are also forecast with their sign flipped, and both
        forecasts averaged (`inference.views`). Officially 0: none.
    find_seasons : bool, default=False
        Whether forecasts look for cycles where ``season_length="auto"``, and forecast without them
        too (`inference.seasons`). Officially not.
    fill_gaps : bool, default=False
        Whether gaps inside a series are filled before the network reads it, and forecasts begin
        after its last observed step (`inference.gaps`). Officially not.
    drop_outliers : bool, default=False
        Whether typing errors count as missing (`inference.outliers`). Officially not.
    own_distribution : bool, default=False
        Whether constants forecast themselves, and lumpy series without order their own
        distribution (`inference.own_distribution`). Officially not.
    dependence_share, dependence_growth, dependence_decay : float, default=0
        How the points that one pass predicts depend on each other in trajectories: their normal
        scores correlate as ``share * decay**lag`` (a Gaussian copula), where a series' share is
        ``dependence_share + dependence_growth * growth`` and `growth` tells how fast its predicted
        uncertainty grows (`inference.dependence.growth`). Officially 0, independent; `pretrain`
        fits them to held-out windows.
    dependence_walk : float, default=0
        Share in which the points of a series whose uncertainty grows as fast as can be depend on
        each other like those of a random walk (`inference.dependence.Shares`). Officially 0.
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
    fill_gaps: bool = False
    drop_outliers: bool = False
    own_distribution: bool = False
    dependence_share: float = 0.0
    dependence_growth: float = 0.0
    dependence_decay: float = 0.0
    dependence_walk: float = 0.0
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
        check_choice("router", self.router, Router)
        check_choice("centroid_choice", self.centroid_choice, CentroidChoice)
        check_choice("scale_rule", self.scale_rule, ScaleRule)
        check_choice("time_index", self.time_index, TimeIndex)
        check_choice("beyond_pass", self.beyond_pass, BeyondPass)
        if self.beyond_pass == "hidden" and not self.observed_mask_input:
            raise ConfigError("beyond_pass='hidden' needs observed_mask_input")
        for component in self.mixture:
            check_choice("mixture", component, Component)
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
        for name in (
            "dependence_share",
            "dependence_growth",
            "dependence_decay",
            "dependence_walk",
        ):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1:
                raise ConfigError(
                    f"{name} must be a number of at least 0 and below 1, got {value!r}"
                )
        shares = self.dependence_share, self.dependence_growth, self.dependence_walk
        if any(shares) and "negative_binomial" in self.mixture:
            raise ConfigError(
                "dependence_share, dependence_growth and dependence_walk must be 0 where the "
                "mixture has counts"
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
        return from_fields(cls, values)

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
        "fill_gaps": True,
        "drop_outliers": True,
        "own_distribution": True,
    },
    **_PUBLISHED_SIZES,
}
