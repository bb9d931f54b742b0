"""Fine-tune a checkpoint on benchmark sets as if they were a user's own, and on an unseen pattern.

    python examples/benchmarks/fine_tune.py FOLDER [--sets NAME ...] [--modes lora full]
        [--windows N] [--model PATH] [--output FOLDER] [--pattern]

Each set is ``NAME.parquet`` (unique_id, ds, y) beside ``NAME.json`` (seasonality, horizon,
offset). Only what lies before the last window is trained and validated on; that window is scored
once, with the weights before and after. With ``--windows N`` these are the last N windows, all
forecast with the weights that were fine-tuned on what lies before the first of them. Minutes are of
the processor, which other work cannot lengthen. ``--pattern`` does the same on series of period 37
with sharp peaks.
With ``--output``, results are stored there as they come, and a second run goes on.
"""

# %%
from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmark_sets.forecasts import predict_task
from benchmark_sets.tables import markdown
from benchmark_sets.tasks import Task, read_task, split_task
from moirai_moe_forecaster import MoiraiMoEPipeline
from moirai_moe_forecaster.data.series import Array
from moirai_moe_forecaster.evaluation import geometric_mean
from moirai_moe_forecaster.evaluation.metrics import score_terms

METRICS = ("MASE", "WQL", "coverage_50", "coverage_80", "coverage_95")
PERIOD = 37


# %%
def sharp_task(count: int = 60, cycles: int = 20) -> Task:
    """Series that are flat but for a high and a low spike at fixed places of a period of 37.

    Each has a level, a size and a phase of its own and a little noise.
    """
    rng = np.random.default_rng(37)
    shape = np.zeros(PERIOD)
    shape[[3, 4, 5]] = (2.0, 5.0, 1.0)
    shape[[20, 21]] = (-4.0, -2.0)
    series = []
    for _ in range(count):
        time = np.arange(PERIOD * cycles) + rng.integers(PERIOD)
        clean = shape[time % PERIOD]
        noisy = clean + rng.normal(scale=0.1, size=len(time))
        series.append(20 + rng.uniform(0.5, 3) * noisy)
    return split_task(f"period {PERIOD}", series, PERIOD, PERIOD, -PERIOD)


def scores(pipeline: MoiraiMoEPipeline, task: Task) -> dict[str, float]:
    """All metrics of the last window, all series together."""
    prediction = predict_task(pipeline, task, METRICS)
    terms = score_terms(task.labels, task.contexts, task.seasonality, prediction, METRICS)
    return {name: terms[name].pooled() for name in METRICS}


def last_windows(task: Task, count: int) -> tuple[Sequence[Array], Task]:
    """What lies before the last windows of all series, and those windows as one task.

    Of series that are two horizons longer than these windows.
    """
    ahead = task.horizon
    whole = [np.concatenate(parts) for parts in zip(task.contexts, task.labels, strict=True)]
    long = [series for series in whole if len(series) >= (count + 2) * ahead]
    parts = []
    for back in range(count):
        series = [values[: len(values) - back * ahead] for values in long]
        parts.append(split_task(task.name, series, ahead, task.seasonality, -ahead))
    contexts = [context for part in parts for context in part.contexts]
    labels = np.concatenate([part.labels for part in parts])
    return parts[-1].contexts, parts[0]._replace(contexts=contexts, labels=labels)


def fine_tuned(
    task: Task, windows: int, model: str | None, mode: Any, minutes: float | None
) -> dict[str, Any]:
    """Score before and after, with what the report says."""
    training, scored = (task.contexts, task) if windows == 1 else last_windows(task, windows)
    base = MoiraiMoEPipeline.from_pretrained(model)
    started = time.process_time()
    tuned = base.fine_tune(
        training, horizon=task.horizon, mode=mode, minutes=minutes, random_state=0
    )
    seconds = time.process_time() - started
    report = tuned.tuning
    assert report is not None
    print(f"\n{task.name}\n{report}", flush=True)
    return {
        "task": task.name,
        "mode": mode,
        "series": len(training),
        "before": scores(base, scored),
        "after": scores(tuned, scored),
        "minutes": seconds / 60,
        "steps": report.steps,
        "best_step": report.best_step,
    }


def table(results: Sequence[dict[str, Any]]) -> str:
    """One row per set and mode, and the geometric means of each mode."""
    rows = []
    for result in results:
        before, after = result["before"], result["after"]
        coverage = [
            f"{100 * before[name]:.0f} / {100 * after[name]:.0f}"
            for name in METRICS
            if name.startswith("coverage")
        ]
        cells = [result["task"], result["mode"], str(result["series"])]
        cells += [f"{before['WQL']:.4f}", f"{after['WQL']:.4f}"]
        cells += [f"{after[name] / before[name]:.3f}" for name in ("WQL", "MASE")]
        rows.append([*cells, *coverage, f"{result['best_step']}", f"{result['minutes']:.1f}"])
    for mode in dict.fromkeys(result["mode"] for result in results):
        mine = [result for result in results if result["mode"] == mode]
        ratios = [
            f"{geometric_mean([r['after'][n] / r['before'][n] for r in mine]):.3f}"
            for n in ("WQL", "MASE")
        ]
        minutes = sum(result["minutes"] for result in mine)
        rows.append(["geometric mean", mode, "", "", "", *ratios, "", "", "", "", f"{minutes:.1f}"])
    header = ("set", "mode", "series", "WQL before", "after", "ratio WQL", "ratio MASE")
    return markdown((*header, "50 %", "80 %", "95 %", "step", "minutes"), rows)


def main() -> None:
    """Fine-tune on every set in every mode, then print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--sets", nargs="*", help="names; by default all of the folder")
    parser.add_argument("--modes", nargs="+", default=["lora", "full"])
    parser.add_argument("--windows", type=int, default=1, help="last windows of every series")
    parser.add_argument("--model", help="directory or Hub name; by default the bundled checkpoint")
    parser.add_argument("--pattern", action="store_true", help="period 37 instead of the sets")
    parser.add_argument("--minutes", type=float, help="limit of each fine-tuning")
    parser.add_argument("--output", type=Path, help="folder of results to go on with")
    arguments = parser.parse_args()
    if arguments.pattern:
        tasks = [sharp_task()]
    else:
        names = arguments.sets or sorted(file.stem for file in arguments.folder.glob("*.parquet"))
        tasks = [read_task(arguments.folder / f"{name}.parquet") for name in names]
    results = []
    for mode in arguments.modes:
        for task in tasks:
            stored = arguments.output and arguments.output / f"{task.name} {mode}.json"
            if stored and stored.exists():
                results.append(json.loads(stored.read_text()))
                continue
            results.append(
                fine_tuned(task, arguments.windows, arguments.model, mode, arguments.minutes)
            )
            if stored:
                stored.parent.mkdir(parents=True, exist_ok=True)
                stored.write_text(json.dumps(results[-1]))
    print(f"\n{table(results)}")


if __name__ == "__main__":
    main()
