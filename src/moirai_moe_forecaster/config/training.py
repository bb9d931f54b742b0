"""How a model is pretrained."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

from moirai_moe_forecaster.config.checks import all_within, check_choice, from_fields
from moirai_moe_forecaster.errors import ConfigError

Precision = Literal["float32", "bfloat16"]
Optimiser = Literal["adamw", "muon"]


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
            if fraction and not all_within(value, 0, 1):
                raise ConfigError(f"{field.name} must lie within [0, 1], got {value!r}")
            if field.type == "float" and not all_within(value, 0, math.inf):
                raise ConfigError(f"{field.name} must be a number of at least 0, got {value!r}")
        if self.seed >= 2**63:
            raise ConfigError(f"seed must be below 2**63, got {self.seed}")
        check_choice("precision", self.precision, Precision)
        check_choice("optimiser", self.optimiser, Optimiser)
        for name in ("learning_rate", "clip_norm"):
            if getattr(self, name) == 0:
                raise ConfigError(f"{name} must be above 0, got 0")
        if not all_within(self.betas, 0, 1) or 1 in self.betas:
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
        return from_fields(cls, values)
