"""Networks that many forecasters of one process use, loaded once and never changed."""

from __future__ import annotations

import functools
import threading
import warnings
from pathlib import Path
from typing import Any, NamedTuple

import torch

from moirai_moe_forecaster.checkpoint.adapters import ADAPTERS_FILE
from moirai_moe_forecaster.checkpoint.integrity import read_path
from moirai_moe_forecaster.config import ModelConfig
from moirai_moe_forecaster.data.arguments import read_device, read_dtype
from moirai_moe_forecaster.inference.pipeline import MoiraiMoEPipeline
from moirai_moe_forecaster.model.network import MoiraiMoE

NETWORKS_KEPT = 4

_LOADING = threading.Lock()


class ModelSource(NamedTuple):
    """What a network is made from; forecasters with equal ones share it.

    `written` is when a local checkpoint was last written: a new one under an old name is new.
    """

    model_path: str | None
    revision: str | None
    config: ModelConfig | None
    device: str
    dtype: str | torch.dtype | None
    written: int


# what pickles of the first version call it
Source = ModelSource


def last_written(model_path: str | Path | None) -> int:
    """When a local checkpoint was last written, in nanoseconds; 0 for any other."""
    if not model_path:
        return 0
    files = [read_path(model_path) / name for name in ("model.safetensors", ADAPTERS_FILE)]
    return max((file.stat().st_mtime_ns for file in files if file.exists()), default=0)


def shared_pipeline(source: ModelSource) -> MoiraiMoEPipeline:
    """Return the pipeline of a source, the same one to all that ask; not to be trained."""
    # "auto" and the device that it stands for are one, and so are None and float32
    device, dtype = str(read_device(source.device)), read_dtype(source.dtype)
    # the cache alone would let two threads load the same weights
    with _LOADING:
        return _load(source._replace(device=device, dtype=dtype))


@functools.lru_cache(NETWORKS_KEPT)
def _load(source: ModelSource) -> MoiraiMoEPipeline:
    if source.config is None:
        return MoiraiMoEPipeline.from_pretrained(
            source.model_path, revision=source.revision, device=source.device, dtype=source.dtype
        )
    # not torch.manual_seed, which would also seed the generators of GPUs
    with torch.device("cpu"), torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        network = MoiraiMoE(source.config)
    return MoiraiMoEPipeline(network.to(read_device(source.device), read_dtype(source.dtype)))


def warn_of_other_weights(fitted: Any, pipeline: MoiraiMoEPipeline) -> None:
    """Warn once if a pipeline has other weights than what was fitted with it.

    Parameters
    ----------
    fitted : object
        Its `_fingerprint` is that of the weights then; None or none: not known.
    pipeline : MoiraiMoEPipeline

    Warns
    -----
    UserWarning
        Naming both fingerprints.
    """
    # pickles of earlier versions have none
    then, info = getattr(fitted, "_fingerprint", None), pipeline.info
    if then is None or info is None or info.fingerprint in (None, then):
        return
    fitted._fingerprint = None
    warnings.warn(
        f"this was fitted with weights of the fingerprint {then:.12}, and {info.source} holds "
        f"others now, {info.fingerprint:.12}: its forecasts are not those of then. Put the former "
        "weights back, or fit again",
        UserWarning,
        stacklevel=3,
    )
