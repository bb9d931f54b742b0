"""What the configurations check of their fields."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import fields
from typing import Any, get_args

from moirai_moe_forecaster.errors import ConfigError


def check_choice(name: str, value: object, choices: Any) -> None:
    """Raise unless `value` is one of the arguments of the `Literal` type `choices`."""
    if value not in get_args(choices):
        raise ConfigError(f"{name} must be one of {list(get_args(choices))}, got {value!r}")


def from_fields(cls: Any, values: Mapping[str, Any]) -> Any:
    """Build a configuration from plain values; an unknown or missing field is an error."""
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


def all_within(value: Any, low: float, high: float) -> bool:
    """Whether a number, or all of a tuple, are finite and within bounds."""
    numbers = value if isinstance(value, tuple) else (value,)
    return all(
        isinstance(number, int | float) and math.isfinite(number) and low <= number <= high
        for number in numbers
    )
