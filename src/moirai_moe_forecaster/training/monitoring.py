"""What a run tells about its steps: a line of JSON each, with speed and the experts' load."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

METRICS_FILE = "metrics.jsonl"
EXACT_DIGITS = 9
DIGITS = 4


class Clock:
    """Mean time of the steps since it was last read, without what was spent in pauses."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._since = time.perf_counter()
        self._steps = 0
        self._flops = 0.0

    def count(self, flops: float) -> None:
        """Count a step that this process spent so many operations on."""
        self._steps += 1
        self._flops += flops

    def read(self) -> tuple[float, float]:
        """Seconds per step, and operations per second of this process; starts afresh."""
        seconds = time.perf_counter() - self._since
        result = seconds / max(self._steps, 1), self._flops / seconds
        self._since, self._steps, self._flops = time.perf_counter(), 0, 0.0
        return result

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Leave out the time spent within the context."""
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        started = time.perf_counter()
        yield
        self._since += time.perf_counter() - started


def expert_load(counts: Tensor) -> list[list[float]]:
    """Each expert's tokens relative to its fair share, per layer; (layer, expert) counts."""
    fair = counts.sum(-1, keepdim=True).clamp_min(1) / counts.shape[-1]
    return (counts / fair).tolist()


def load_entropy(counts: Tensor) -> list[float]:
    """Entropy of the load over experts per layer: 1 when even, 0 when one expert has all."""
    experts = counts.shape[-1]
    if experts == 1:
        return [1.0] * len(counts)
    share = counts / counts.sum(-1, keepdim=True).clamp_min(1)
    return (torch.special.entr(share).sum(-1) / math.log(experts)).tolist()


def append(file: Path, metrics: Mapping[str, Any]) -> None:
    """Add a line: losses in full, to compare runs bit by bit; null for what is not finite."""
    rounded = {
        name: _rounded(value, EXACT_DIGITS if name.endswith("loss") else DIGITS)
        for name, value in metrics.items()
    }
    with file.open("a", encoding="utf-8") as stream:
        stream.write(json.dumps(rounded, separators=(",", ":")) + "\n")


def _rounded(value: Any, digits: int) -> Any:
    if isinstance(value, list):
        return [_rounded(item, digits) for item in value]
    if not isinstance(value, float):
        return value
    return float(f"{value:.{digits}g}") if math.isfinite(value) else None
