"""Evaluate whichever of the Moirai-MoE paper's 39 sets lie in a folder, beside the paper's rows.

    python examples/benchmarks/paper_protocols.py FOLDER [--model PATH] [--output FOLDER]

Reads .tsf, arrow and parquet files, or folders of arrow files, below FOLDER, named as the Monash
archive, uni2ts or GIFT-Eval do. The protocols, and where the published figures are from, are in
`benchmark_sets.protocols`. With ``--output``, a second run goes on.
"""

# %%
from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from benchmark_sets.forecasts import BASELINE
from benchmark_sets.protocols import PROTOCOLS, PUBLISHED_AGGREGATES, find_protocols, read_protocol
from benchmark_sets.results import SetResult, evaluate_sets
from benchmark_sets.tables import markdown
from moirai_moe_forecaster import MoiraiMoEPipeline
from moirai_moe_forecaster.evaluation import geometric_mean
from moirai_moe_forecaster.evaluation.metrics import relative

OURS = "ours"
METRICS = {"monash": ("MAE",), "zero-shot": ("WQL", "MASE")}
# the paper calls the mean weighted quantile loss CRPS
PAPER_NAMES = {"MAE": "MAE", "WQL": "CRPS", "MASE": "MASE"}


# %%
def table(results: Sequence[SetResult], kind: str) -> str:
    """Scores by set: ours, seasonal naive's, their ratio, and what was published."""
    by_key = {(result.task, result.model): result for result in results}
    protocols = [p for p in PROTOCOLS if p.kind == kind and (p.name, OURS) in by_key]
    models = list(dict.fromkeys(m for p in PROTOCOLS if p.kind == kind for m in p.published))
    names = METRICS[kind]
    heads = [f"{PAPER_NAMES[n]}: ours, naive, ratio" for n in names]
    header = ("set", *heads, *(f"{m} (published)" for m in models))
    rows, ratios = [], {name: [] for name in names}
    for protocol in protocols:
        ours, naive = by_key[protocol.name, OURS], by_key[protocol.name, BASELINE]
        cells = []
        for name in names:
            pair = ours.score(name), naive.score(name)
            ratios[name].append(relative(*pair))
            cells.append(f"{pair[0]:.4g}, {pair[1]:.4g}, {ratios[name][-1]:.3f}")
        published = [_cell(protocol.published.get(model)) for model in models]
        rows.append([protocol.name, *cells, *published])
    means = [f"{geometric_mean(ratios[name]):.3f}" for name in names]
    total = sum(protocol.kind == kind for protocol in PROTOCOLS)
    rows.append([f"geometric mean over {len(protocols)} of {total}", *means, *[""] * len(models)])
    for model, aggregates in PUBLISHED_AGGREGATES.items():
        cells = [f"{aggregates[PAPER_NAMES[name]]:.3f}" for name in names]
        rows.append([f"{model}, published, over all {total}", *cells, *[""] * len(models)])
    return markdown(header, rows)


def _cell(score: float | tuple[float, float] | None) -> str:
    if score is None:
        return ""
    return f"{score:.4g}" if isinstance(score, float) else ", ".join(f"{s:.3f}" for s in score)


def main() -> None:
    """Evaluate what is there, say what is not, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--model", help="directory or Hub name; by default the bundled checkpoint")
    parser.add_argument("--output", type=Path, help="folder of results to go on with")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    arguments = parser.parse_args()
    found = list(find_protocols(arguments.folder))
    if not found:
        parser.error(f"{arguments.folder} holds none of: {', '.join(p.name for p in PROTOCOLS)}")
    tasks = [read_protocol(protocol, path) for protocol, path in found]
    results = evaluate_sets(
        tasks,
        {OURS: MoiraiMoEPipeline.from_pretrained(arguments.model)},
        folder=arguments.output,
        progress=not arguments.quiet,
    )
    for kind, title in (("monash", "Monash, in distribution"), ("zero-shot", "Zero-shot")):
        if any(protocol.kind == kind for protocol, _ in found):
            print(f"\n### {title}\n\n{table(results, kind)}")
    there = {protocol.name for protocol, _ in found}
    absent = [protocol.name for protocol in PROTOCOLS if protocol.name not in there]
    print(f"\nnot there: {', '.join(absent) or 'none'}")


if __name__ == "__main__":
    main()
