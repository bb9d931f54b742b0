"""Compare gating functions at equal active parameters, equal tokens and equal data order.

    python examples/benchmarks/ablation.py --data DIR --eval DIR --output runs/ablation --steps N

Trains a dense network, linear gating, and token clusters with the nearest and with the farthest
centroids, one after the other; the clusters are those of the dense network. A last one, warm, also
starts from the dense network's attention, norms, embedding and head, in whose space the clusters
lie, and so has seen twice the tokens. The same command goes on where it was interrupted, and prints
the table again when all is done. The table is also written to ``OUTPUT/ablation.md``.
"""

# %%
from __future__ import annotations

import argparse
import json
import logging
import os
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from benchmark_sets.tasks import Task, read_task, score_naive, score_pipeline
from moirai_moe_forecaster import ModelConfig, MoiraiMoE, MoiraiMoEPipeline, TrainConfig, pretrain
from moirai_moe_forecaster.checkpoint import save_checkpoint
from moirai_moe_forecaster.evaluation import geometric_mean
from moirai_moe_forecaster.model.moe import expert_counts
from moirai_moe_forecaster.model.tokens import TokenBatch
from moirai_moe_forecaster.training.centroids import centroids_from
from moirai_moe_forecaster.training.data.batches import validation_batches
from moirai_moe_forecaster.training.data.corpus import Source, hold_out, read_corpus
from moirai_moe_forecaster.training.monitoring import METRICS_FILE
from moirai_moe_forecaster.training.pretrain import VALIDATION_ROWS
from moirai_moe_forecaster.training.state import STATE_FILE

WARM = "centroid-nearest-warm"
HEADER = (
    "gating",
    "parameters",
    "active",
    "validation NLL",
    "relative MASE",
    "relative WQL",
    "smallest load / fair share, by layer",
    "effective experts, by layer",
    "tokens/s",
)


# %%
def variants(base: ModelConfig) -> dict[str, ModelConfig]:
    """Networks whose tokens use the same number of feed-forward weights."""
    nearest = replace(base, router="centroid", centroid_choice="nearest")
    active_width = base.d_ff * base.experts_per_token
    return {
        "dense": replace(
            base, router="linear", d_ff=active_width, num_experts=1, experts_per_token=1
        ),
        "linear": replace(base, router="linear"),
        "centroid-nearest": nearest,
        "centroid-farthest": replace(nearest, centroid_choice="farthest"),
        WARM: nearest,
    }


def train(
    base: ModelConfig, training: TrainConfig, sources: Sequence[Source], output: Path
) -> dict[str, MoiraiMoE]:
    """Train what is not trained yet; the dense network comes first and gives the centroids."""
    networks: dict[str, MoiraiMoE] = {}
    centroids: dict[str, Tensor] = {}
    for name, model in variants(base).items():
        started = (output / name / STATE_FILE).exists()
        if model.router == "centroid" and not started and not centroids:
            dense = networks["dense"]
            centroids = centroids_from(dense, sources, model, training, seed=training.seed)
        networks[name] = pretrain(
            model,
            training,
            sources,
            output / name,
            initial=initial_tensors(name, networks, centroids),
            resume=started,
        )
        save_checkpoint(networks[name], output / name)
    return networks


def initial_tensors(
    name: str, networks: Mapping[str, MoiraiMoE], centroids: Mapping[str, Tensor]
) -> dict[str, Tensor] | None:
    """What a network starts from besides random weights."""
    if not name.startswith("centroid"):
        return None
    if name != WARM:
        return dict(centroids)
    shared = {
        key: tensor
        for key, tensor in networks["dense"].state_dict().items()
        if ".experts." not in key and ".router." not in key
    }
    return {**shared, **centroids}


def table(
    networks: Mapping[str, MoiraiMoE],
    training: TrainConfig,
    sources: Sequence[Source],
    tasks: Sequence[Task],
    output: Path,
) -> str:
    """One row per network, in Markdown."""
    _, held_out = hold_out(sources)
    lines = ["| " + " | ".join(HEADER) + " |", "|---" + "|---:" * (len(HEADER) - 1) + "|"]
    for name, network in networks.items():
        batches = validation_batches(held_out, network.config, training, VALIDATION_ROWS)
        likelihood, speed = logged(output / name / METRICS_FILE)
        cells = [
            name,
            *(f"{count:,}" for count in network.parameter_counts()),
            likelihood,
            *relative_scores(network, tasks),
            *balance(expert_shares(network, (batch.tokens for batch in batches))),
            speed,
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def logged(file: Path) -> tuple[str, str]:
    """Last validation loss and median tokens per second of a run."""
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    speed = statistics.median(line["tokens_per_second"] for line in lines)
    return f"{lines[-1]['validation_loss']:.4f}", f"{speed:,.0f}"


def relative_scores(network: MoiraiMoE, tasks: Sequence[Task]) -> tuple[str, str]:
    """MASE and WQL relative to seasonal naive, geometric means over the sets."""
    pipeline = MoiraiMoEPipeline(network)
    pairs = [(score_pipeline(pipeline, task), score_naive(task)) for task in tasks]
    mase = geometric_mean([ours.mase / naive.mase for ours, naive in pairs])
    wql = geometric_mean([ours.wql / naive.wql for ours, naive in pairs])
    return f"{mase:.3f}", f"{wql:.3f}"


@torch.no_grad()
def expert_shares(network: MoiraiMoE, batches: Iterable[TokenBatch]) -> Tensor:
    """Shares of each layer's choices that every expert gets, (layer, expert), padding left out."""
    counts = torch.zeros(network.config.num_layers, network.config.num_experts)
    for tokens in batches:
        valid = (tokens.sample_id > 0).flatten()
        for layer, routing in enumerate(network.encode(tokens).routings):
            counts[layer] += expert_counts(routing, valid)
    return counts / counts.sum(1, keepdim=True)


def balance(load: Tensor) -> tuple[str, str]:
    """Smallest load relative to a fair share, and 2 to the load's entropy in bits, by layer."""
    smallest = load.amin(1) * load.shape[1]
    effective = torch.special.entr(load).sum(1).exp()
    return (
        " ".join(f"{value:.2f}" for value in smallest.tolist()),
        " ".join(f"{value:.2f}" for value in effective.tolist()),
    )


# %%
def main() -> None:
    """Train, score and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="corpus, as for pretrain")
    parser.add_argument("--eval", type=Path, required=True, help="sets, as for evaluate.py")
    parser.add_argument("--output", type=Path, required=True, help="folder of the runs")
    parser.add_argument("--steps", type=int, required=True, help="optimiser steps of each run")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--corpus", type=Path, help="JSON with 'weights' and 'exclude' by source")
    arguments = parser.parse_args()
    logging.basicConfig(format="%(message)s", level="INFO")
    corpus = json.loads(arguments.corpus.read_text()) if arguments.corpus else {}
    sources = read_corpus(arguments.data, corpus.get("weights"), corpus.get("exclude"))
    tasks = [read_task(file) for file in sorted(arguments.eval.glob("*.parquet"))]
    if not tasks:
        parser.error(f"no .parquet file in {arguments.eval}")
    base = ModelConfig.preset("tiny")
    training = TrainConfig(steps=arguments.steps, seed=arguments.seed)
    networks = train(base, training, sources, arguments.output)
    tokens = training.steps * training.batch_rows * training.row_tokens
    report = (
        f"{training.steps:,} steps, {tokens:,} tokens, seed {training.seed}; scores relative to "
        f"seasonal naive, geometric means over {len(tasks)} sets.\n\n"
        + table(networks, training, sources, tasks, arguments.output)
        + "\n"
    )
    print(report)
    temporary = arguments.output / "ablation.md.new"
    temporary.write_text(report)
    os.replace(temporary, arguments.output / "ablation.md")


if __name__ == "__main__":
    main()
