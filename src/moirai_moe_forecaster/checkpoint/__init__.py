"""Checkpoints: where they lie, their two layouts, and adapters beside them."""

from moirai_moe_forecaster.checkpoint.places import CONFIG_FILE, WEIGHTS_FILE
from moirai_moe_forecaster.checkpoint.store import (
    Checkpoint,
    CheckpointInfo,
    load_checkpoint,
    save_checkpoint,
)

__all__ = [
    "CONFIG_FILE",
    "WEIGHTS_FILE",
    "Checkpoint",
    "CheckpointInfo",
    "load_checkpoint",
    "save_checkpoint",
]
