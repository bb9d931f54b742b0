"""What a run tells about its steps: speed, share of the machine's peak (MFU), experts' load."""

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

from moirai_moe_forecaster.config import ModelConfig, Precision
from moirai_moe_forecaster.model.distribution.mixture import raw_size
from moirai_moe_forecaster.model.reference import points_ahead
from moirai_moe_forecaster.model.refinement import KERNEL

METRICS_FILE = "metrics.jsonl"
EXACT_DIGITS = 9
DIGITS = 4
CPU_SIZE = 1024
GPU_SIZE = 8192
MEASURED_SECONDS = 0.2


class StepTimer:
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


def training_flops(config: ModelConfig, rows: int, row_tokens: int, predicting: int) -> float:
    """Count the floating-point operations of the matrix products of one training step.

    Six per token and per matrix parameter that the token uses (a product and a sum, forward and
    twice backward), and ``12 d_model`` per layer, query and key for attention (arXiv 2204.02311,
    appendix B): full attention within a row, as a mask saves nothing in a dense product.

    Parameters
    ----------
    config : ModelConfig
    rows, row_tokens : int
        Packed sequences and tokens in each.
    predicting : int
        Tokens that are scored; the others need no distribution.
    """
    width = config.d_model
    inputs = config.patch_size * (2 if config.observed_mask_input else 1)
    embedding = 2 * inputs * width + width**2
    router = width * config.num_experts if config.router == "linear" else 0
    experts = config.experts_per_token * 3 * width * config.d_ff
    block = 4 * width**2 + router + experts
    head = width * config.output_patches * raw_size(config.mixture) * config.patch_size
    ahead, channels = points_ahead(config), 2 * config.reference_periods
    embedding += channels * (ahead + config.output_patches + 1) * width
    head += width * config.output_patches * config.mixture.count("student_t") * channels
    if config.exchange_channels:
        exchanged = 2 * raw_size(config.mixture) + channels
        head += KERNEL * exchanged * config.exchange_channels * ahead
    tokens = rows * row_tokens
    products = 6 * (tokens * (embedding + config.num_layers * block) + predicting * head)
    return products + 12.0 * config.num_layers * width * row_tokens * tokens


def peak_flops(device: torch.device, precision: Precision) -> float:
    """Measure the operations per second of a large square product, for about 0.2 seconds."""
    size = GPU_SIZE if device.type == "cuda" else CPU_SIZE
    # random numbers: products of constants take less power, and run faster on some devices
    generator = torch.Generator(device).manual_seed(0)
    left = torch.randn(size, size, generator=generator, device=device)
    left = left.to(getattr(torch, precision))
    product = torch.empty_like(left)

    def seconds(repeats: int) -> float:
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        started = time.perf_counter()
        for _ in range(repeats):
            torch.mm(left, left, out=product)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return time.perf_counter() - started

    seconds(1)
    repeats = max(int(MEASURED_SECONDS / seconds(1)), 1)
    return 2 * size**3 * repeats / seconds(repeats)


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
