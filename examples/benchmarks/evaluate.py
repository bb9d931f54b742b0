"""Score a checkpoint, and what it is held against, on a folder of benchmark sets.

    python examples/benchmarks/evaluate.py FOLDER [--model PATH ...] [--peers [NAME ...]]
        [--published FOLDER] [--output FOLDER]

Each set is ``NAME.parquet`` (unique_id, ds, y) beside ``NAME.json`` (seasonality, horizon, offset,
perhaps freq). Prints, in Markdown: scores by set, models against each other and against published
ones, scores by frequency, calibration, and confidence intervals of the ratios to every other model.
With ``--output``, results are stored there as they come, and a second run goes on.
"""

# %%
from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from benchmark_sets.forecasts import BASELINE
from benchmark_sets.results import SetResult, compare_models, evaluate_sets
from benchmark_sets.tables import (
    calibration_table,
    group_table,
    markdown,
    model_table,
    read_published,
    scores_frame,
    set_table,
)
from benchmark_sets.tasks import read_task
from moirai_moe_forecaster import MoiraiMoEPipeline
from moirai_moe_forecaster.evaluation.peers import PEERS, Peer

BUNDLED = "bundled"


# %%
def comparison_table(results: Sequence[SetResult], ours: str, others: Sequence[str]) -> str:
    """Ratios of errors, ours over theirs, with 95 % intervals from a bootstrap over series."""
    rows = []
    for other in others:
        cells = []
        for metric in ("MASE", "WQL"):
            ratio = compare_models(results, ours, other, metric)
            cells.append(f"{ratio.ratio:.3f} ({ratio.lower:.3f} to {ratio.upper:.3f})")
        seconds = [sum(r.seconds for r in results if r.model == name) for name in (other, ours)]
        rows.append([f"{ours} / {other}", *cells, f"{seconds[0] / seconds[1]:.1f} x"])
    return markdown(("errors", "MASE", "WQL", "faster"), rows)


def main() -> None:
    """Evaluate, then print all tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument(
        "--model",
        nargs="+",
        default=[BUNDLED],
        help="directories or Hub names; by default the bundled checkpoint",
    )
    parser.add_argument("--peers", nargs="*", help="models of statsforecast; by default all four")
    parser.add_argument("--published", type=Path, help="folder of csv: dataset,model,MASE,WQL")
    parser.add_argument("--output", type=Path, help="folder of results to go on with")
    parser.add_argument("--jobs", type=int, default=1, help="processes; with one, times compare")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    arguments = parser.parse_args()
    tasks = [read_task(file) for file in sorted(arguments.folder.glob("*.parquet"))]
    forecasters = {
        name: MoiraiMoEPipeline.from_pretrained(None if name == BUNDLED else name)
        for name in arguments.model
    }
    peers = PEERS if arguments.peers == [] else arguments.peers or []
    results = evaluate_sets(
        tasks,
        forecasters | {name: Peer(name) for name in peers},
        folder=arguments.output,
        n_jobs=arguments.jobs,
        progress=not arguments.quiet,
    )
    scores = scores_frame(results)
    published = read_published(arguments.published) if arguments.published else None
    for model in forecasters:
        print(f"\n### {model}, by set\n\n{set_table(scores, model)}")
        print(f"\n### {model}, coverage\n\n{calibration_table(scores, model)}")
        others = [name for name in (BASELINE, *forecasters, *peers) if name != model]
        print(f"\n### {model}, compared\n\n{comparison_table(results, model, others)}")
    print(f"\n### By frequency (sets): MASE / WQL\n\n{group_table(scores)}")
    print(f"\n### Models\n\n{model_table(scores, published)}")


if __name__ == "__main__":
    main()
