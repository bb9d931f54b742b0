"""Plain arguments, checked and brought into one form."""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

import numpy as np
import torch

from moirai_moe_forecaster.errors import InvalidInputError

OnError: TypeAlias = Literal["raise", "skip"]

DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)


def check_count(name: str, value: Any, least: int = 1) -> int:
    """Return an integer of at least `least`, or raise."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < least:
        raise InvalidInputError(f"{name} must be an integer of at least {least}, got {value!r}")
    return int(value)


def check_count_or_none(name: str, value: Any) -> int | None:
    """Return None, which leaves a count to the callee, or an integer of at least 1, or raise."""
    return None if value is None else check_count(name, value)


def check_on_error(on_error: Any) -> bool:
    """Return whether series that cannot be read are skipped; else they raise."""
    if on_error not in ("raise", "skip"):
        raise InvalidInputError(f"on_error must be 'raise' or 'skip', got {on_error!r}")
    return bool(on_error == "skip")


def read_season_length(
    season_length: Any, name: str = "season_length"
) -> Literal["auto"] | tuple[int, ...] | None:
    """Return "auto", named seasons, shortest first, or None, as 1 is; messages say `name`."""
    if season_length is None:
        return None
    if isinstance(season_length, str) and season_length == "auto":
        return "auto"
    given = [season_length] if np.ndim(season_length) == 0 else list(season_length)
    if any(isinstance(item, str) for item in given) or not given:
        raise InvalidInputError(
            f"{name} must be 'auto', None, or steps such as 24 or [24, 168], got {season_length!r}"
        )
    lengths = sorted({check_count(name, item) for item in given} - {1})
    return tuple(lengths) or None


def read_device(device: str | torch.device) -> torch.device:
    """Return the device; "auto" is CUDA, then MPS, then the CPU."""
    if device == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        chosen = torch.device(device)
        torch.empty(0, device=chosen)
    except (RuntimeError, TypeError, AssertionError) as error:
        raise InvalidInputError(f"the device {device!r} cannot be used: {error}") from error
    return chosen


def read_dtype(dtype: str | torch.dtype | None) -> torch.dtype:
    """Return the floating-point type; None is float32."""
    wanted = torch.float32 if dtype is None else dtype
    number = getattr(torch, wanted, None) if isinstance(wanted, str) else wanted
    if number not in DTYPES:
        names = ", ".join(str(known).removeprefix("torch.") for known in DTYPES)
        raise InvalidInputError(f"dtype must be one of {names}, got {dtype!r}")
    return number
