"""Where checkpoints lie: in the package, in a directory, on the Hugging Face Hub."""

from __future__ import annotations

import re
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from moirai_moe_forecaster.checkpoint.integrity import read_path
from moirai_moe_forecaster.errors import CheckpointError, MissingExtraError

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"
HUB_NAME = re.compile(r"[A-Za-z0-9_][\w.-]*/[A-Za-z0-9_][\w.-]*", re.ASCII)
HUB_SECONDS = 5.0
WHAT_IS_EXPECTED = (
    f"a directory that holds {CONFIG_FILE} and {WEIGHTS_FILE}, a Hub name such as "
    "'Salesforce/moirai-moe-1.0-R-small', or None for the bundled checkpoint"
)


@dataclass(frozen=True, kw_only=True)
class Place:
    """A directory that should hold a checkpoint.

    Attributes
    ----------
    directory : Path
    name : str
        For people to read.
    source : str
        Directory or Hub name.
    revision : str or None
        Commit on the Hub.
    """

    directory: Path
    name: str
    source: str
    revision: str | None


def locate(name_or_path: str | Path | None, revision: str | None) -> Place:
    """Find the directory of a checkpoint; what the Hub has is downloaded.

    Raises
    ------
    CheckpointError
        If there is none.
    MissingExtraError
        If a Hub name is given and huggingface_hub is not installed.
    """
    if name_or_path is None:
        path, name = Path(str(files("moirai_moe_forecaster") / "weights")), "bundled"
        if not (path / CONFIG_FILE).exists():
            raise CheckpointError(
                f"the bundled checkpoint is missing from this installation ({path}): install the "
                "package again, or pass a directory or a Hub name"
            )
    else:
        path = read_path(name_or_path, WHAT_IS_EXPECTED)
        name = path.resolve().name
        if isinstance(name_or_path, str) and not path.exists() and HUB_NAME.fullmatch(name_or_path):
            return _download(name_or_path, revision)
        if not path.is_dir():
            found = "is a file" if path.exists() else "does not exist"
            raise CheckpointError(f"{str(name_or_path)!r} {found}; expected {WHAT_IS_EXPECTED}")
    if revision is not None:
        raise CheckpointError(
            f"revision={revision!r} applies to Hub names only, and {path} is a local checkpoint: "
            "leave it out"
        )
    return Place(directory=path, name=name, source=str(path), revision=None)


def _download(name: str, revision: str | None) -> Place:
    try:
        from huggingface_hub import errors, hf_hub_download
    except ImportError as error:
        purpose = f"loading {name!r}, which is not a local directory, from the Hub"
        raise MissingExtraError("huggingface_hub", "hub", purpose) from error
    advice: dict[type[Exception], str] = {
        errors.GatedRepoError: "accept its terms on its page and log in with `hf auth login`",
        errors.RepositoryNotFoundError: "check the name; if it is private, `hf auth login`",
        errors.RevisionNotFoundError: f"it has no revision {revision!r}; check `revision`",
        errors.LocalEntryNotFoundError: "the Hub is out of reach, or switched off by "
        "HF_HUB_OFFLINE, and the local cache does not hold it; load it once with a connection",
        errors.EntryNotFoundError: f"it does not hold {CONFIG_FILE} and {WEIGHTS_FILE}, so it "
        "is not a checkpoint of this model",
    }
    options: dict[str, Any] = {"etag_timeout": HUB_SECONDS, "local_files_only": not _is_reachable()}
    try:
        config = Path(hf_hub_download(name, CONFIG_FILE, revision=revision, **options))
        # the folder is the commit: both files are of it even if the branch moves meanwhile
        commit = config.parent.name
        hf_hub_download(name, WEIGHTS_FILE, revision=commit, **options)
    # whatever fails in there (HTTP client, file locks, validation) means the same to the caller
    except Exception as error:
        known = (text for kind, text in advice.items() if isinstance(error, kind))
        hint = next(known, f"{type(error).__name__}: {error}".rstrip(" ."))
        raise CheckpointError(
            f"cannot load {name!r} from the Hub, after a directory of that name was looked for in "
            f"{Path.cwd()}: {hint}. Otherwise pass {WHAT_IS_EXPECTED}"
        ) from error
    return Place(directory=config.parent, name=name, source=name, revision=commit)


def _is_reachable() -> bool:
    """Whether the Hub answers at all: asked once, where its library would try for half a minute."""
    from huggingface_hub import constants
    from huggingface_hub.utils import get_session  # type: ignore[attr-defined]

    try:
        get_session().head(constants.ENDPOINT, timeout=HUB_SECONDS)
    except Exception:  # of whichever HTTP client the library uses
        return False
    return True
