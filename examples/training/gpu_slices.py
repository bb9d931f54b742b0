"""Pretrain in slices on a machine that is there for minutes only, and carry the run in and out.

The machine needs torch, numpy, pandas, pyarrow, safetensors and tqdm, and the package's source
beside it:

    PYTHONPATH=src python examples/training/gpu_slices.py --data corpus --output run \\
        --steps 50000 --minutes 9 --set precision=bfloat16 --import carried --export out

``--import`` starts from what an earlier slice exported, if the output folder holds no run yet;
leave it out for the first slice.
``--export`` writes the run in bfloat16 as files under 16 MB. Without ``--steps`` nothing is
trained, so that a run can be rebuilt elsewhere. As an exported run is rounded, one that goes on
from it is not bit by bit the unbroken one.
"""

from __future__ import annotations

import argparse
import logging
import os
import shutil
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from moirai_moe_forecaster.cli.pretrain import (
    PRESETS,
    add_settings,
    corpus_options,
    training_config,
)
from moirai_moe_forecaster.config import ModelConfig
from moirai_moe_forecaster.training.data.corpus import read_corpus
from moirai_moe_forecaster.training.monitoring import METRICS_FILE
from moirai_moe_forecaster.training.pretrain import pretrain
from moirai_moe_forecaster.training.state import (
    RUN_FILE,
    STATE_FILE,
    saved_model,
    saved_settings,
)

SHARD_BYTES = 15_500_000
MOST_FILES = 8


def main() -> None:
    """Bring a run in, train for some minutes, and bring it out."""
    arguments = _parser().parse_args()
    logging.basicConfig(format="%(message)s", level="INFO")
    has_state = (arguments.output / STATE_FILE).exists()
    if arguments.carried and not has_state:
        import_run(arguments.carried, arguments.output)
        has_state = True
    if arguments.steps:
        weights, exclude = corpus_options(arguments.corpus)
        saved = saved_settings(arguments.output) if has_state else {}
        pretrain(
            saved_model(arguments.output) if has_state else ModelConfig.preset(arguments.preset),
            training_config(arguments.settings, arguments.steps, arguments.seed, saved),
            read_corpus(arguments.data, weights, exclude) if arguments.data else [],
            arguments.output,
            resume=has_state,
            device=arguments.device,
            minutes=arguments.minutes,
        )
    if arguments.export:
        export_run(arguments.output, arguments.export, arguments.weights_only)


def export_run(run: Path, folder: Path, weights_only: bool = False) -> None:
    """Write the state in bfloat16 as shards, with the run's settings and metrics."""
    tensors = {
        name: tensor if tensor.ndim == 0 else tensor.bfloat16()
        for name, tensor in load_file(run / STATE_FILE).items()
        if not (weights_only and name.startswith("optimiser."))
    }
    shards: list[dict[str, torch.Tensor]] = [{}]
    filled = 0
    for name, tensor in tensors.items():
        if tensor.nbytes > SHARD_BYTES:
            raise SystemExit(f"{name} alone has {tensor.nbytes} bytes: too large for a shard")
        if filled + tensor.nbytes > SHARD_BYTES:
            shards.append({})
            filled = 0
        shards[-1][name] = tensor
        filled += tensor.nbytes
    if len(shards) + 2 > MOST_FILES:
        raise SystemExit(f"{len(shards)} shards are too many: try --weights-only")
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("state-*.safetensors"):  # an earlier export may have had more shards
        old.unlink()
    for number, shard in enumerate(shards):
        save_file(shard, folder / f"state-{number}.safetensors")
    with safe_open(run / STATE_FILE, "pt") as file:  # a killed run's own file may be older
        (folder / RUN_FILE).write_text(file.metadata()["run"])
    shutil.copy(run / METRICS_FILE, folder / METRICS_FILE)


def import_run(folder: Path, run: Path) -> None:
    """Rebuild a run from what `export_run` wrote."""
    shards = sorted(folder.glob("state-*.safetensors"))
    if not shards:
        raise SystemExit(f"{folder} holds no exported run")
    tensors = {}
    for shard in shards:
        with safe_open(shard, "pt") as file:
            tensors |= {name: file.get_tensor(name).float() for name in file.keys()}  # noqa: SIM118
    run.mkdir(parents=True, exist_ok=True)
    for name in (RUN_FILE, METRICS_FILE):
        shutil.copy(folder / name, run / name)
    temporary = run / (STATE_FILE + ".new")
    save_file(tensors, temporary, metadata={"run": (run / RUN_FILE).read_text()})
    os.replace(temporary, run / STATE_FILE)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=Path, required=True, help="folder of the run")
    parser.add_argument("--data", type=Path, help="folder of series; without, all is synthetic")
    parser.add_argument("--corpus", type=Path, help="as of moirai-moe pretrain")
    parser.add_argument("--preset", choices=PRESETS, default="tiny")
    parser.add_argument("--steps", type=int, help="optimiser steps in all; without, none is taken")
    parser.add_argument("--minutes", type=float, default=9.0, help="(default: 9)")
    parser.add_argument("--seed", type=int)
    parser.add_argument("--device", default="auto")
    add_settings(parser)
    parser.add_argument("--import", dest="carried", type=Path, help="what a slice exported")
    parser.add_argument("--export", type=Path, help="folder for the shards")
    parser.add_argument("--weights-only", action="store_true", help="leave the optimiser behind")
    return parser


if __name__ == "__main__":
    main()
