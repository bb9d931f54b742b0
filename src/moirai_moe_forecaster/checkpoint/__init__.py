"""Checkpoints: where they lie, their two layouts, and adapters beside them."""

from moirai_moe_forecaster.checkpoint.store import (
    CONFIG_FILE,
    WEIGHTS_FILE,
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
