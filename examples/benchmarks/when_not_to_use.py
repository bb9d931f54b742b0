"""Where the bundled checkpoint is not the best choice: by frequency and length of the context.

    python examples/benchmarks/when_not_to_use.py CORPUS VALIDATION [--output FOLDER] [--page FILE]

Holds it against seasonal naive, AutoETS and AutoTheta (extra `stats`) on the stretches of the
training corpus CORPUS that training holds out (held_out.py) and on the sources of VALIDATION
(validation.py), once with a few seasons of context and once with many. Few series of each task, so
that classical methods take minutes. With ``--page``, the tables are put between its two marks. With
``--output``, results are stored there as they come, and a second run goes on.
"""

# %%
from __future__ import annotations

import argparse
import datetime
import hashlib
import json
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from importlib.resources import files
from pathlib import Path
from typing import NamedTuple

import numpy as np

from benchmark_sets.forecasts import BASELINE
from benchmark_sets.results import SetResult, compare_models, evaluate_sets
from benchmark_sets.tables import GROUPS, frequency_group, markdown
from benchmark_sets.tasks import Task
from benchmark_sets.validation import read_validation
from held_out import tasks as held_out_tasks
from moirai_moe_forecaster import MoiraiMoEPipeline
from moirai_moe_forecaster.evaluation import Comparison, geometric_mean, seasonal_naive
from moirai_moe_forecaster.evaluation.peers import Peer

OURS = "bundled"
PEERS = ("AutoETS", "AutoTheta")
METRICS = ("MASE", "WQL")
WINDOWS_PER_GROUP = 24
CORPUS = Path(__file__).parents[2] / "docs" / "bundled_corpus.json"
MARKS = "<!-- numbers begin -->", "<!-- numbers end -->"
SHORTEST_SEASON = 4  # of yearly series, which have none, four years


class Length(NamedTuple):
    """Which contexts are used, and how much of them: fewest and most points."""

    name: str
    fewest_seasons: int
    most_seasons: float
    most_points: int = 1024

    def points(self, season: int) -> tuple[int, int]:
        """Fewest points that a context must have, and how many of it are used at most."""
        season = max(season, SHORTEST_SEASON)
        most = min(self.most_seasons * season, self.most_points)
        return self.fewest_seasons * season, int(most)


LENGTHS = (Length("2 to 3 seasons", 2, 3), Length("7 seasons or more", 7, np.inf))
Row = tuple[str, str]  # group and name of the length


class Better(NamedTuple):
    """Another forecaster with a smaller error in a row of the table: its errors over ours."""

    group: str
    length: str
    other: str
    ratios: dict[str, Comparison]


# %%
def read_tasks(corpus: Path, validation: Path) -> Iterator[tuple[str, Task]]:
    """All tasks with their group: the frequency's and, of long horizons, the horizon."""
    for group, task in held_out_tasks(corpus, json.loads(CORPUS.read_text())):
        yield group, task
    for item in read_validation(validation):
        group = frequency_group(item.task.freq)
        if item.term == "short":
            yield group, item.task
        elif item.term == "medium":
            yield f"{group}, {item.task.horizon} steps ahead", item.task


def usable(task: Task, length: Length) -> list[int]:
    """Windows whose context is long enough, and has a seasonal naive forecast once it is cut."""
    fewest, points = length.points(task.seasonality)
    return [
        index
        for index, context in enumerate(task.contexts)
        if fewest <= min(len(context), points) and _comparable(context[-points:], task)
    ]


def _comparable(context: np.ndarray, task: Task) -> bool:
    """Whether seasonal naive has a forecast of this context, and MASE a scale."""
    observed = context[np.isfinite(context)]
    naive = seasonal_naive(context, task.horizon, task.seasonality)
    enough = len(observed) > len(context) / 2
    return bool(enough and np.isfinite(naive).all() and np.ptp(observed) > 0)


def cut(tasks: Sequence[Task], length: Length) -> list[Task]:
    """Tasks with contexts of a length, and of each some windows, spread evenly."""
    found = [(task, windows) for task in tasks if (windows := usable(task, length))]
    cuts = []
    for task, windows in found:
        most = -(-WINDOWS_PER_GROUP // len(found))
        chosen = windows[:: -(-len(windows) // most)]
        _, points = length.points(task.seasonality)
        contexts = [task.contexts[index][-points:] for index in chosen]
        name = f"{task.name}, {length.name}"
        cuts.append(Task(name, task.seasonality, contexts, task.labels[chosen], task.freq))
    return cuts


def by_row(corpus: Path, validation: Path) -> dict[Row, list[Task]]:
    """Tasks of every row of the table, coarse frequencies first, long horizons last."""
    groups: dict[str, list[Task]] = defaultdict(list)
    for group, task in read_tasks(corpus, validation):
        groups[group].append(task)
    order = list(GROUPS)
    names = sorted(groups, key=lambda name: ("," in name, order.index(name.split(",")[0])))
    rows = {(name, length.name): cut(groups[name], length) for name in names for length in LENGTHS}
    return {row: tasks for row, tasks in rows.items() if tasks}


# %%
def defined(results: Sequence[SetResult], tasks: Sequence[Task]) -> list[SetResult]:
    """Results of these tasks, without those in which somebody's score is 0 or has no scale."""
    names = {task.name for task in tasks}
    undefined = {r.task for r in results for name in METRICS if not r.score(name) > 0}
    return [result for result in results if result.task in names - undefined]


def score_table(rows: dict[Row, list[SetResult]]) -> str:
    """MASE / WQL relative to seasonal naive, geometric means over tasks."""
    cells = []
    for (group, length), results in rows.items():
        naive = {r.task: r for r in results if r.model == BASELINE}
        windows = sum(result.windows for result in naive.values())
        pairs = []
        for model in (OURS, *PEERS):
            own = [result for result in results if result.model == model]
            means = (
                geometric_mean([r.score(name) / naive[r.task].score(name) for r in own])
                for name in METRICS
            )
            pairs.append(" / ".join(f"{mean:.2f}" for mean in means))
        cells.append([group, length, str(len(naive)), str(windows), *pairs])
    return markdown(("series", "context", "tasks", "windows", OURS, *PEERS), cells)


def better(rows: dict[Row, list[SetResult]]) -> list[Better]:
    """Where another has a smaller error than the bundled checkpoint."""
    found = []
    for (group, length), results in rows.items():
        for other in (BASELINE, *PEERS):
            ratios = {name: compare_models(results, other, OURS, name) for name in METRICS}
            if min(ratio.ratio for ratio in ratios.values()) < 1:
                found.append(Better(group, length, other, ratios))
    return found


def better_table(found: Sequence[Better]) -> str:
    """Errors over the bundled checkpoint's."""
    cells = [
        [
            *item[:3],
            *(f"{r.ratio:.2f} ({r.lower:.2f} to {r.upper:.2f})" for r in item.ratios.values()),
        ]
        for item in found
    ]
    return markdown(("series", "context", "better", *METRICS), cells)


def advice(found: Sequence[Better]) -> str:
    """The same in words: where an interval lies below 1, and where it only may."""
    lines = {"Take something else for": [], "Hardly a difference, or too few series to tell": []}
    sure, unsure = lines.values()
    for item in found:
        where = f"{item.group}, context of {item.length}: {item.other}"
        if names := [name for name, ratio in item.ratios.items() if ratio.upper < 1]:
            sure.append(f"{where} ({' and '.join(names)})")
        else:
            names = [name for name, ratio in item.ratios.items() if ratio.ratio < 1]
            unsure.append(f"{where} ({' and '.join(names)})")
    return "\n\n".join(
        "\n".join([f"{head}:", "", *(f"- {line}" for line in members or ["nothing here"])])
        for head, members in lines.items()
    )


def put(page: Path, text: str) -> None:
    """Replace what stands between the marks of a page."""
    begin, end = MARKS
    pattern = re.compile(f"{re.escape(begin)}.*{re.escape(end)}", re.DOTALL)
    block = f"{begin}\n{text}\n{end}"
    page.write_text(pattern.sub(lambda _: block, page.read_text(encoding="utf-8")), "utf-8")


def main() -> None:
    """Evaluate, then print both tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("corpus", type=Path)
    parser.add_argument("validation", type=Path)
    parser.add_argument("--output", type=Path, help="folder of results to go on with")
    parser.add_argument("--page", type=Path, help="page to put the tables into")
    arguments = parser.parse_args()
    tasks = by_row(arguments.corpus, arguments.validation)
    results = evaluate_sets(
        [task for row in tasks.values() for task in row],
        {OURS: MoiraiMoEPipeline.from_pretrained(), **{name: Peer(name) for name in PEERS}},
        metrics=METRICS,
        folder=arguments.output,
        progress=True,
    )
    rows = {row: defined(results, members) for row, members in tasks.items()}
    weights = files("moirai_moe_forecaster") / "weights" / "model.safetensors"
    checkpoint = hashlib.sha256(weights.read_bytes()).hexdigest()[:8]
    found = better(rows)
    text = "\n\n".join(
        (
            f"Measured on {datetime.date.today()} with checkpoint {checkpoint}.",
            advice(found),
            score_table(rows),
            "Where something else is better, its errors relative to the bundled checkpoint's, "
            "with 95 % intervals of a bootstrap over series:",
            better_table(found),
        )
    )
    print(text)
    if arguments.page:
        put(arguments.page, text)


if __name__ == "__main__":
    main()
