"""The exceptions a user can meet, all of them also the built-in type one would expect."""


class MoiraiMoEError(Exception):
    """Base class of every exception that this package raises on purpose."""


class InvalidInputError(MoiraiMoEError, ValueError):
    """Data or arguments that cannot be forecast as given."""


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
