"""Synthetic series to pretrain on: `generate` mixes and couples what the other modules simulate."""

from __future__ import annotations

from typing import Any

# what this module held before it became a package
MOVED = ("DRIVERS", "GENERATORS", "coupled", "synthesise")


def __getattr__(name: str) -> Any:
    if name not in MOVED:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from moirai_moe_forecaster.training.synthetic import generate

    return getattr(generate, name)
