"""Writes small random checkpoints in the official layout, bit for bit the same on every machine."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

HEAD_DIM = 64
PATCH_SIZE = 16
MAX_SEQ_LEN = 512
NUM_EXPERTS = 32
CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"

# One entry per mixture component: parameter name -> (mean, spread) of its unconstrained values.
# Chosen so that every component has a visible weight and none of its parameters is extreme.
COMPONENTS: tuple[Mapping[str, tuple[float, float]], ...] = (
    {"df": (1.0, 1.0), "loc": (0.0, 0.9), "scale": (-0.5, 0.7)},
    {"loc": (0.0, 0.9)},
    {"total_count": (0.7, 0.8), "logits": (-0.5, 0.6)},
    {"loc": (-0.3, 0.6), "scale": (-0.6, 0.6)},
)


def official_config(*, d_model: int = 64, num_layers: int = 2, d_ff: int = 32) -> dict[str, object]:
    """The content of config.json."""
    family = "uni2ts.distribution."
    return {
        "attn_dropout_p": 0.0,
        "d_ff": d_ff,
        "d_model": d_model,
        "distr_output": {
            "_target_": family + "mixture.MixtureOutput",
            "components": [
                {"_target_": family + "student_t.StudentTOutput"},
                {"_target_": family + "normal.NormalFixedScaleOutput", "scale": 0.001},
                {"_target_": family + "negative_binomial.NegativeBinomialOutput"},
                {"_target_": family + "log_normal.LogNormalOutput"},
            ],
        },
        "dropout_p": 0.0,
        "max_seq_len": MAX_SEQ_LEN,
        "num_layers": num_layers,
        "patch_sizes": [PATCH_SIZE],
        "scaling": True,
    }


def official_weights(
    *, seed: int, d_model: int = 64, num_layers: int = 2, d_ff: int = 32
) -> dict[str, np.ndarray]:
    """The state dict. Uniform draws only: they need no mathematical library, so are portable."""
    rng = np.random.default_rng(seed)
    weights: dict[str, np.ndarray] = {}

    def draw(name: str, *shape: int, spread: float, mean: float = 0.0) -> None:
        values = rng.uniform(-1.0, 1.0, shape) * (math.sqrt(3.0) * spread) + mean
        weights[name] = values.astype(np.float32)

    def linear(name: str, outputs: int, inputs: int, gain: float = 1.0) -> None:
        draw(f"{name}.weight", outputs, inputs, spread=gain / math.sqrt(inputs))

    def patch_linear(name: str, outputs: int, inputs: int, gain: float = 1.0) -> None:
        draw(f"{name}.weight", 1, outputs, inputs, spread=gain / math.sqrt(inputs))
        draw(f"{name}.bias", 1, outputs, spread=0.3)

    patch_linear("in_proj", d_model, PATCH_SIZE, gain=1.5)
    patch_linear("res_proj", d_model, PATCH_SIZE, gain=0.8)
    patch_linear("feat_proj", d_model, d_model, gain=1.2)

    for index in range(num_layers):
        layer = f"encoder.layers.{index}."
        for name in ("q", "k", "v", "out"):
            linear(f"{layer}self_attn.{name}_proj", d_model, d_model, gain=1.5)
        draw(f"{layer}self_attn.q_norm.weight", HEAD_DIM, mean=1.3, spread=0.4)
        draw(f"{layer}self_attn.k_norm.weight", HEAD_DIM, mean=1.1, spread=0.4)
        bias = f"{layer}self_attn.var_attn_bias.emb.weight"
        draw(bias, 2, d_model // HEAD_DIM, spread=0.25)
        weights[bias] += np.array([[-0.6], [0.6]], np.float32)
        draw(f"{layer}norm1.weight", d_model, mean=1.0, spread=0.3)
        draw(f"{layer}norm2.weight", d_model, mean=1.0, spread=0.3)
        for expert in range(NUM_EXPERTS):
            prefix = f"{layer}ffn.experts.{expert}."
            linear(prefix + "fc1", d_ff, d_model)
            linear(prefix + "fc_gate", d_ff, d_model)
            linear(prefix + "fc2", d_model, d_ff, gain=2.0)
    draw("encoder.norm.weight", d_model, mean=1.0, spread=0.3)
    weights["encoder.centroid"] = rng.uniform(-1.5, 1.5, (num_layers, NUM_EXPERTS, d_model))

    def head(name: str, per_point: int, mean: float, spread: float) -> None:
        size = per_point * PATCH_SIZE
        draw(f"param_proj.proj.{name}.weight", 1, size, d_model, spread=spread / math.sqrt(d_model))
        draw(f"param_proj.proj.{name}.bias", 1, size, mean=mean, spread=0.3)

    head("weights_logits", len(COMPONENTS), 0.0, 0.6)
    for index, parameters in enumerate(COMPONENTS):
        for name, (mean, spread) in parameters.items():
            head(f"components.{index}.{name}", 1, mean, spread)
    return weights


def weights_digest(weights: Mapping[str, np.ndarray]) -> str:
    """SHA-256 over names and bytes, to see at once whether two machines made the same weights."""
    digest = hashlib.sha256()
    for name in sorted(weights):
        digest.update(name.encode())
        digest.update(np.ascontiguousarray(weights[name]).tobytes())
    return digest.hexdigest()


def write_official_checkpoint(
    directory: Path | str, *, seed: int, d_model: int = 64, num_layers: int = 2, d_ff: int = 32
) -> str:
    """Write config.json and model.safetensors into `directory`; returns the weights' digest."""
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    config = official_config(d_model=d_model, num_layers=num_layers, d_ff=d_ff)
    (directory / CONFIG_FILE).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    weights = official_weights(seed=seed, d_model=d_model, num_layers=num_layers, d_ff=d_ff)
    save_file(weights, directory / WEIGHTS_FILE, metadata={"format": "pt"})
    return weights_digest(weights)
