"""Model FLOPs utilisation: arithmetic that a step needs over what the machine can do."""

from __future__ import annotations

import time

import torch

from moirai_moe_forecaster.config import ModelConfig, Precision
from moirai_moe_forecaster.model.distribution.mixture import raw_size
from moirai_moe_forecaster.model.reference import points_ahead
from moirai_moe_forecaster.model.refinement import KERNEL

CPU_SIZE = 1024
GPU_SIZE = 8192
MEASURED_SECONDS = 0.2


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
