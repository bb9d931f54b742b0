"""Files of a checkpoint: opened only if they are what they seem, written whole or not at all."""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import shutil
import stat
import struct
import tempfile
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from moirai_moe_forecaster.errors import CheckpointError

# in bytes; the official base model has 4e3, 2e5 and 4e9
LARGEST_CONFIG, LARGEST_HEADER, LARGEST_WEIGHTS = 2**20, 2**22, 2**36
NAMES_IN_AN_ERROR = 5
ELEMENTS_IN_FINGERPRINT = 4096
FLOATING = ("F64", "F32", "F16", "BF16")
SHA256 = "sha256"

# processes of different containers can have the same number
_TOKEN = secrets.token_hex(4)


def several(names: Collection[str]) -> str:
    """Give the first few names, and how many there are if that is not all."""
    text = ", ".join(sorted(names)[:NAMES_IN_AN_ERROR])
    return text if len(names) <= NAMES_IN_AN_ERROR else f"{text}, ... ({len(names)} in all)"


def read_path(path: object, expected: str = "a directory") -> Path:
    """Return a path, with the user's home in the place of ``~``.

    Raises
    ------
    CheckpointError
        If it is no text or path, or one that this system can hold no file at.
    """
    text = os.fspath(path) if isinstance(path, str | os.PathLike) else path
    if not isinstance(text, str) or not text:
        raise CheckpointError(f"expected {expected}; got {path!r}")
    try:
        found = Path(os.path.expanduser(text))
        found.stat()
    except (FileNotFoundError, NotADirectoryError):
        pass
    except (OSError, ValueError, RuntimeError) as error:
        reason = getattr(error, "strerror", None) or error
        shown = text if len(text) < 100 else f"{text[:60]}... ({len(text)} characters)"
        raise CheckpointError(f"expected {expected}; got {shown!r} ({reason})") from error
    return found


def check_regular(file: Path, largest: int) -> None:
    """Refuse what is no regular file of a sane size, before it is opened.

    Raises
    ------
    FileNotFoundError, CheckpointError
    """
    status = file.stat()
    if not stat.S_ISREG(status.st_mode):
        raise CheckpointError(f"{file} is not a regular file")
    if status.st_size > largest:
        raise CheckpointError(
            f"{file} is damaged or of another kind: it has {status.st_size:,} bytes, more than the "
            f"{largest:,} that are read"
        )


def open_tensors(file: Path) -> Any:
    """Open a safetensors file; its tensors are read when they are asked for.

    Raises
    ------
    FileNotFoundError
    CheckpointError
        If it is anything else.
    """
    try:
        check_regular(file, LARGEST_WEIGHTS)
        with file.open("rb") as opened:
            start = opened.read(8)
        if len(start) == 8 and struct.unpack("<Q", start)[0] > LARGEST_HEADER:
            raise CheckpointError(f"{file} is damaged, incomplete or not a safetensors file")
        return safe_open(file, framework="pt")
    except (FileNotFoundError, CheckpointError):
        raise
    except (SafetensorError, OSError, ValueError, RuntimeError) as error:
        raise CheckpointError(
            f"{file} is damaged, incomplete or not a safetensors file ({error}): download or save "
            "the checkpoint again (a Git LFS pointer: `git lfs pull`)"
        ) from error


def digest(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 of tensors with their names, types and shapes."""
    return _digest((name, tensors[name]) for name in sorted(tensors))


def fingerprint(network: nn.Module) -> str:
    """Tell checkpoints apart: a digest of the start of every tensor, the same in any precision."""
    digest = hashlib.sha256()
    for name, tensor in network.state_dict().items():
        start = tensor.detach().flatten()[:ELEMENTS_IN_FINGERPRINT].to("cpu", torch.bfloat16)
        digest.update(f"{name} {tuple(tensor.shape)}".encode())
        digest.update(start.contiguous().view(torch.int16).numpy().tobytes())
    return digest.hexdigest()


def check_digest(stored: Any, file: Path, expected: str | None = None) -> None:
    """Compare an open file's tensors with the digest in its metadata, or with `expected`.

    Raises
    ------
    CheckpointError
        If they differ.
    """
    expected = (stored.metadata() or {}).get(SHA256, expected)
    if expected is None:
        return
    found = _digest((name, stored.get_tensor(name)) for name in sorted(stored.keys()))
    if found != expected:
        raise CheckpointError(
            f"{file} was damaged or changed after it was saved: the SHA-256 of its tensors is "
            f"{found:.12}..., it should be {expected!s:.12}...; download or save it again"
        )


def check_tensors(weights: Any, expected: Mapping[str, tuple[int, ...]], file: Path) -> None:
    """Compare names, shapes and types in an open file with those of the configuration.

    Raises
    ------
    CheckpointError
        Naming the tensors that differ.
    """
    found = {name: weights.get_slice(name) for name in weights.keys()}  # noqa: SIM118
    shapes = {name: tuple(part.get_shape()) for name, part in found.items()}
    common = expected.keys() & found.keys()
    problems = {
        "missing": expected.keys() - found.keys(),
        "unexpected": found.keys() - expected.keys(),
        "of another shape": {
            f"{name} {shapes[name]}, expected {expected[name]}"
            for name in common
            if shapes[name] != expected[name]
        },
        "not of a floating-point type": {
            f"{name} {found[name].get_dtype()}"
            for name in common
            if found[name].get_dtype() not in FLOATING
        },
    }
    if any(problems.values()):
        text = "; ".join(f"{what}: {several(names)}" for what, names in problems.items() if names)
        raise CheckpointError(
            f"{file} does not hold the tensors that its configuration says: {text}"
        )


def check_finite(tensors: Mapping[str, Tensor], file: Path) -> None:
    """Refuse weights with which every forecast would be NaN.

    Raises
    ------
    CheckpointError
        Naming the tensors.
    """
    # the extremes of anything with a NaN are NaN, and one pass finds them
    extremes = {name: torch.aminmax(x) for name, x in tensors.items() if x.numel()}
    wrong = [
        name for name, (low, high) in extremes.items() if not (low.isfinite() & high.isfinite())
    ]
    if wrong:
        raise CheckpointError(
            f"{file} holds values that are not finite, in {several(wrong)}: it is damaged, or the "
            "training that it comes from diverged"
        )


@contextmanager
def saving(directory: Path) -> Iterator[Path]:
    """Give a folder within `directory` for new files, which are then moved into it.

    It is gone afterwards, and so are those that earlier saves left when they were killed.

    Raises
    ------
    CheckpointError
        If anything cannot be written.
    """
    try:
        if directory.exists() and not directory.is_dir():
            raise CheckpointError(f"{directory} is a file; what is saved is a directory")
        directory.mkdir(parents=True, exist_ok=True)
        for left in directory.glob(".saving-*"):
            if _is_abandoned(left.name):
                shutil.rmtree(left, ignore_errors=True)
        with tempfile.TemporaryDirectory(
            prefix=f".saving-{os.getpid()}-{_TOKEN}-", dir=directory
        ) as folder:
            yield Path(folder)
    except CheckpointError:
        raise
    except (SafetensorError, OSError) as error:
        raise CheckpointError(
            f"cannot save to {directory} ({error}): what it held is unchanged; make room and allow "
            "writing there, or choose another folder"
        ) from error


def _is_abandoned(name: str) -> bool:
    """Whether the process that made a folder of `saving` is no more."""
    named = re.fullmatch(r"\.saving-(\d+)-([0-9a-f]{8})-.*", name)
    if named is None:  # of an earlier version
        return True
    number = int(named[1])
    if number == os.getpid():
        return named[2] != _TOKEN
    if os.name == "nt":  # where there is no asking without ending it
        return False
    try:
        os.kill(number, 0)
    except ProcessLookupError:
        return True
    except (OSError, OverflowError):
        return False
    return False


def _digest(tensors: Iterator[tuple[str, Tensor]]) -> str:
    result = hashlib.sha256()
    for name, tensor in tensors:
        result.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        result.update(tensor.contiguous().flatten().view(torch.uint8).numpy().data)
    return result.hexdigest()
