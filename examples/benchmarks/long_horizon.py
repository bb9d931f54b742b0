"""Forecast 480 and 720 steps of hourly and 15-minute series whose ends training held out.

    python examples/benchmarks/long_horizon.py FOLDER [--corpus FILE] [--model PATH]
        [--series N] [--horizons N ...]

FOLDER is the training corpus. Each forecast starts where the held-out stretch does, and those
stretches must be as long as the horizon. Prints, per horizon and frequency: errors relative to
seasonal naive, with a 95 % interval from a bootstrap over series, and three signs of a forecast
going wrong:

- drift: how far the median's mean over the last quarter of the horizon is from the mean of the last
  season seen, in standard deviations of that season; beside it, how far the labels went;
- explosion: width of the 80 % interval in the last quarter over that in the first;
- collapse: standard deviation of the median within the last season over that within the first, and
  how many series have lost nine tenths of it.
"""

# %%
from __future__ import annotations

import argparse
import json
from collections import defaultdict
from pathlib import Path

import numpy as np
import pyarrow.parquet as parquet

from benchmark_sets.tables import markdown
from benchmark_sets.tasks import Task
from moirai_moe_forecaster import MoiraiMoEPipeline
from moirai_moe_forecaster.evaluation import paired_bootstrap
from moirai_moe_forecaster.evaluation.forecasters import naive_quantiles, predict_quantiles
from moirai_moe_forecaster.evaluation.metrics import LEVELS, Prediction, score_terms
from moirai_moe_forecaster.training.data.corpus import hold_out, read_corpus

HORIZONS = (480, 720)
SEASONS = {"h": 24, "15min": 96}
LONGEST_CONTEXT = 4096
SHORTEST_CONTEXT = 4  # seasons


# %%
def tasks(folder: Path, corpus: dict[str, dict], horizon: int, most: int) -> list[Task]:
    """One set per frequency, of at most `most` series, taken from the sources in turn."""
    by_freq: dict[str, list[list[tuple]]] = defaultdict(list)
    for source in read_corpus(folder, corpus.get("weights"), corpus.get("exclude")):
        table = parquet.read_table(folder / f"{source.name}.parquet", columns=["unique_id", "freq"])
        unwanted = set(corpus.get("exclude", {}).get(source.name, ()))
        names, freqs = table["unique_id"].to_pylist(), table["freq"].to_pylist()
        kept = [freq for name, freq in zip(names, freqs, strict=True) if name not in unwanted]
        (training,), _ = hold_out([source])
        cut = defaultdict(list)
        for index in np.flatnonzero(training.held_out >= horizon):
            if kept[index] in SEASONS:
                pair = _split(source.series(index), int(training.held_out[index]), horizon)
                if _usable(*pair, SEASONS[kept[index]]):
                    cut[kept[index]].append(pair)
        for freq, pairs in cut.items():
            by_freq[freq].append(pairs)
    found = []
    for freq, sources in by_freq.items():
        rounds = [pairs[turn] for turn in range(most) for pairs in sources if turn < len(pairs)]
        contexts, labels = zip(*rounds[:most], strict=True)
        found.append(Task(freq, SEASONS[freq], list(contexts), np.stack(labels), freq))
    return found


def _split(series: np.ndarray, unseen: int, horizon: int) -> tuple[np.ndarray, np.ndarray]:
    values = series.astype(float)
    context = values[: len(values) - unseen][-LONGEST_CONTEXT:]
    return context, values[len(values) - unseen :][:horizon]


def _usable(context: np.ndarray, label: np.ndarray, season: int) -> bool:
    last = context[-season:]
    # seasonal naive needs all of it
    seen = len(context) >= SHORTEST_CONTEXT * season and np.isfinite(last).all()
    return bool(seen and np.isfinite(label).mean() > 0.9 and np.nanstd(last) > 0)


def predict(pipeline: MoiraiMoEPipeline, task: Task) -> Prediction:
    """Quantiles at the levels of WQL; the median is the point."""
    forecast = pipeline.predict(task.contexts, task.horizon, random_state=0)
    quantiles = forecast.quantile(LEVELS)
    return Prediction.of(LEVELS, quantiles)


def signs(task: Task, prediction: Prediction) -> list[str]:
    """Drift, explosion and collapse: medians over series, and the extremes that matter."""
    quarter = task.horizon // 4
    season = task.seasonality
    last = np.stack([context[-season:] for context in task.contexts])
    spread = np.nanstd(last, axis=1)

    def away(values: np.ndarray) -> np.ndarray:
        moved = np.nanmean(values[:, -quarter:], axis=1) - np.nanmean(last, axis=1)
        return np.abs(moved) / spread

    width = prediction.quantiles[:, -1] - prediction.quantiles[:, 0]
    growth = width[:, -quarter:].mean(1) / np.maximum(width[:, :quarter].mean(1), 1e-9)

    def within(values: np.ndarray) -> np.ndarray:
        whole = values.shape[1] // season * season
        return values[:, :whole].reshape(len(values), -1, season).std(2).mean(1)

    point = prediction.point
    alive = within(point[:, -season:]) / np.maximum(within(point[:, :season]), 1e-9)
    flat = (alive < 0.1) & (within(point[:, :season]) > 0.05 * spread)
    return [
        f"{np.median(away(point)):.2f}, {np.median(away(task.labels)):.2f}",
        f"{np.median(growth):.2f}, {growth.max():.2f}",
        f"{np.median(alive):.2f}, {int(flat.sum())} of {len(flat)}",
    ]


def main() -> None:
    """Print one row per horizon and frequency."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--corpus", type=Path, help="JSON with 'weights' and 'exclude' by source")
    parser.add_argument("--model", help="directory or Hub name; by default the bundled checkpoint")
    parser.add_argument("--series", type=int, default=40, help="at most, per frequency")
    parser.add_argument("--horizons", type=int, nargs="+", default=HORIZONS, help="in steps")
    arguments = parser.parse_args()
    corpus = json.loads(arguments.corpus.read_text()) if arguments.corpus else {}
    pipeline = MoiraiMoEPipeline.from_pretrained(arguments.model)
    rows = []
    for horizon in arguments.horizons:
        for task in tasks(arguments.folder, corpus, horizon, arguments.series):
            ours = predict(pipeline, task)
            given = task.contexts, task.horizon, task.seasonality
            naive = predict_quantiles(naive_quantiles, *given, LEVELS)
            cells = []
            for metric in ("MASE", "WQL"):
                first, second = (
                    score_terms(task.labels, task.contexts, task.seasonality, p, (metric,))[metric]
                    for p in (ours, naive)
                )
                ratio = paired_bootstrap([first], [second])
                cells.append(f"{ratio.ratio:.3f} ({ratio.lower:.3f} to {ratio.upper:.3f})")
            head = [f"{horizon} x {task.freq}", str(len(task.labels))]
            rows.append([*head, *cells, *signs(task, ours)])
    header = (
        "horizon",
        "series",
        "relative MASE",
        "relative WQL",
        "drift: forecast, label",
        "interval's growth: median, largest",
        "season kept: median, flat series",
    )
    print(markdown(header, rows))


if __name__ == "__main__":
    main()
