"""Score checkpoints on the stretches of a training corpus that training holds out, to tune on.

    python examples/benchmarks/held_out.py FOLDER [--corpus FILE] [--series N]
        [--groups GROUP ...] --model PATH [PATH ...]

Prints, for every group of frequencies, scores relative to seasonal naive: geometric means over the
sources that have series of that group. Evaluation sets are not for choices; these stretches are.
"""

# %%
from __future__ import annotations

import argparse
import json
from collections import defaultdict
from pathlib import Path

import numpy as np
import pyarrow.parquet as parquet

from benchmark_sets.tasks import Task, score_naive, score_pipeline
from moirai_moe_forecaster import MoiraiMoEPipeline
from moirai_moe_forecaster.evaluation import geometric_mean
from moirai_moe_forecaster.training.data.corpus import hold_out, read_corpus

SERIES_PER_TASK = 40
LONGEST_CONTEXT = 2048
# by the ending of a frequency's alias: group, season and horizon
PROTOCOLS = {
    "YS": ("yearly", 1, 6),
    "QS": ("quarterly", 4, 8),
    "MS": ("monthly", 12, 18),
    "W": ("weekly", 52, 13),
    "D": ("daily", 7, 28),
    "B": ("daily", 5, 28),
    "h": ("hourly", 24, 48),
    "30min": ("sub-hourly", 48, 48),
    "15min": ("sub-hourly", 96, 64),
    "10min": ("sub-hourly", 144, 64),
    "5min": ("sub-hourly", 288, 64),
}


# %%
def tasks(
    folder: Path, corpus: dict[str, dict], most: int = SERIES_PER_TASK
) -> list[tuple[str, Task]]:
    """One set per source and frequency: contexts end where the held-out stretches begin."""
    found = []
    for source in read_corpus(folder, corpus.get("weights"), corpus.get("exclude")):
        table = parquet.read_table(folder / f"{source.name}.parquet", columns=["unique_id", "freq"])
        unwanted = set(corpus.get("exclude", {}).get(source.name, ()))
        names, freqs = table["unique_id"].to_pylist(), table["freq"].to_pylist()
        kept = [freq for name, freq in zip(names, freqs, strict=True) if name not in unwanted]
        (training,), _ = hold_out([source])
        cut: dict[str, list] = defaultdict(list)
        for index in np.flatnonzero(training.held_out):
            freq = (kept[index] or "").split("-")[0]
            series, unseen = source.series(index), int(training.held_out[index])
            if freq in PROTOCOLS and unseen >= PROTOCOLS[freq][2]:
                cut[freq].append((series[-unseen - LONGEST_CONTEXT : -unseen], series[-unseen:]))
        for freq, pairs in cut.items():
            group, season, horizon = PROTOCOLS[freq]
            # few series, spread evenly over the source
            pairs = [pairs[i] for i in range(0, len(pairs), -(-len(pairs) // most))]
            pairs = [(c.astype(float), y[:horizon].astype(float)) for c, y in pairs]
            usable = [(c, y) for c, y in pairs if np.isfinite(c[-season:]).any()]
            if len(usable) >= 2:
                contexts, labels = zip(*usable, strict=True)
                task = Task(f"{source.name} {freq}", season, list(contexts), np.stack(labels))
                found.append((group, task))
    return found


def main() -> None:
    """Print one row per group and model."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--corpus", type=Path, help="JSON with 'weights' and 'exclude' by source")
    parser.add_argument("--model", nargs="+", help="directories of checkpoints")
    parser.add_argument("--series", type=int, default=SERIES_PER_TASK, help="most of a source")
    parser.add_argument("--groups", nargs="+", help="such as weekly; all by default")
    arguments = parser.parse_args()
    corpus = json.loads(arguments.corpus.read_text()) if arguments.corpus else {}
    found = tasks(arguments.folder, corpus, arguments.series)
    wanted = arguments.groups or [group for group, _ in found]
    sets = [(group, task, score_naive(task)) for group, task in found if group in wanted]
    sets = [(g, t, naive) for g, t, naive in sets if naive.mase > 0 and naive.wql > 0]
    groups = list(dict.fromkeys(group for group, *_ in sets))
    print("| model | score | " + " | ".join([*groups, "all"]) + " |")
    print("|---|---" + "|---:" * (len(groups) + 1) + "|")
    for model in arguments.model or [None]:
        pipeline = MoiraiMoEPipeline.from_pretrained(model)
        ratios = defaultdict(list)
        for group, task, naive in sets:
            ours = score_pipeline(pipeline, task)
            for name in (group, "all"):
                ratios[name].append((ours.mase / naive.mase, ours.wql / naive.wql))
        for position, score in enumerate(("MASE", "WQL")):
            cells = [
                f"{geometric_mean([pair[position] for pair in ratios[name]]):.3f}"
                for name in [*groups, "all"]
            ]
            print(f"| {model or 'bundled'} | {score} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
