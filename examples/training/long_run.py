"""Train a model at a constant rate for as long as it pays, and keep its weights.

    python examples/training/long_run.py --data DIR --output runs/second --minutes 120 \\
        --keep runs-kept/second

The same command goes on where the run was interrupted. Where the run itself is lost, ``--initial
runs-kept/second --seed S`` begins another one from the weights alone, with a fresh optimiser and,
by another seed, with new data; ``--layers N`` adds blocks to it that change nothing yet. Every ten
minutes the state is saved and copied, in turns, to one of two places. ``moirai-moe pretrain
--resume`` on a copy of the folder, with more steps and a ``decay_share``, makes a branch whose rate
falls.
"""

# %%
from __future__ import annotations

import argparse
import json
import logging
import shutil
import time
from pathlib import Path

import torch

from moirai_moe_forecaster import ModelConfig, MoiraiMoE, TrainConfig, pretrain
from moirai_moe_forecaster.checkpoint import load_checkpoint, save_checkpoint
from moirai_moe_forecaster.training.data.corpus import read_corpus
from moirai_moe_forecaster.training.initial import grown
from moirai_moe_forecaster.training.state import STATE_FILE, saved_model

CORPUS = Path(__file__).parents[2] / "docs" / "second_corpus.json"
# wide and flat: blocks can be added to a trained network at no loss (`--layers`), width cannot
MODEL = ModelConfig.preset(
    "tiny",
    d_model=256,
    num_heads=4,
    d_ff=320,
    num_layers=3,
    reference_periods=2,
    beyond_pass="hidden",
)
TRAINING = TrainConfig(
    steps=10_000_000,
    batch_rows=16,
    precision="bfloat16",
    learning_rate=1.2e-3,
    warmup_steps=300,
    decay_share=0.0,
    synthetic_share=0.3,
    coupled_share=0.08,
    long_share=0.3,
    hidden_share=0.15,
    save_every=500,
    validate_every=500,
)
SLICE_MINUTES = 10.0


# %%
def main() -> None:
    """Train slice by slice until the time is up, then keep the weights."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="corpus, as for pretrain")
    parser.add_argument("--corpus", type=Path, default=CORPUS, help="weights and exclusions")
    parser.add_argument("--output", type=Path, required=True, help="folder of the run")
    parser.add_argument("--initial", type=Path, help="checkpoint to begin with")
    parser.add_argument("--layers", type=int, help="blocks to grow what it begins with to")
    parser.add_argument("--minutes", type=float, required=True, help="of this call")
    parser.add_argument("--keep", type=Path, help="folder for the weights in bfloat16")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    logging.basicConfig(format="%(message)s", level="INFO")
    corpus = json.loads(arguments.corpus.read_text())
    sources = read_corpus(arguments.data, corpus["weights"], corpus["exclude"])
    training = TrainConfig.from_dict({**TRAINING.to_dict(), "seed": arguments.seed})
    network = load_checkpoint(arguments.initial).network if arguments.initial else None
    if network is not None and arguments.layers:
        network = grown(network, arguments.layers)
    end = time.monotonic() + 60 * arguments.minutes
    turn = 0
    while (left := (end - time.monotonic()) / 60) > 0:
        resume = (arguments.output / STATE_FILE).exists()
        network = pretrain(
            _model(arguments.output, network),
            training,
            sources,
            arguments.output,
            initial=None if resume or network is None else network.state_dict(),
            resume=resume,
            progress=False,
            minutes=min(SLICE_MINUTES, left),
        )
        copies = arguments.output / f"copy-{turn}"
        copies.mkdir(exist_ok=True)
        shutil.copy(arguments.output / STATE_FILE, copies)
        turn = 1 - turn
    if arguments.keep and network is not None:
        save_checkpoint(network, arguments.keep, dtype=torch.bfloat16, licence="Apache-2.0")


def _model(folder: Path, initial: MoiraiMoE | None) -> ModelConfig:
    """Architecture of the run in `folder`, of what it begins with, or the one above."""
    if (folder / STATE_FILE).exists():
        return saved_model(folder)
    return MODEL if initial is None else initial.config


if __name__ == "__main__":
    main()
