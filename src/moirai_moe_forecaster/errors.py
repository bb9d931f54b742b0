"""The exceptions a user can meet, all of them also the built-in type one would expect."""

from __future__ import annotations

from typing import Any


class MoiraiMoEError(Exception):
    """Base class of every exception that this package raises on purpose."""


class InvalidInputError(MoiraiMoEError, ValueError):
    """Data or arguments that cannot be forecast as given."""


class BadSeriesError(InvalidInputError):
    """Series among others that cannot be read; the message names the first of them.

    Attributes
    ----------
    reasons : dict from id to str
        Why each of them cannot.
    """

    def __init__(self, message: str, reasons: dict[Any, str]) -> None:
        super().__init__(message)
        self.reasons = reasons


class BadRowsError(InvalidInputError):
    """Rows of a table that cannot be read; the message names the first of them.

    Attributes
    ----------
    rows : ndarray of bool
    reason : str
        The message without the row.
    """

    def __init__(self, message: str, rows: Any, reason: str) -> None:
        super().__init__(message)
        self.rows = rows
        self.reason = reason


class ConfigError(MoiraiMoEError, ValueError):
    """A model or training configuration that contradicts itself or is not known."""


class CheckpointError(MoiraiMoEError, OSError):
    """A checkpoint that is missing, damaged, or not the one its configuration describes."""


class OutOfMemoryError(MoiraiMoEError, MemoryError):
    """A forecast that does not fit into memory even one series at a time."""


class TrainingError(MoiraiMoEError, RuntimeError):
    """Training that cannot go on, for example after several non-finite losses in a row."""


class MissingExtraError(MoiraiMoEError, ImportError):
    """An optional dependency that is not installed; the message names the command to type."""

    def __init__(self, package: str, extra: str, purpose: str) -> None:
        super().__init__(
            f"{purpose} needs the package {package!r}, which is not installed: "
            f"pip install 'moirai-moe-forecaster[{extra}]'"
        )
