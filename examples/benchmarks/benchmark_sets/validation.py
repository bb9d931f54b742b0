"""Validation sources that no training sees, cut into tasks of short, medium and long horizons."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from benchmark_sets.tables import frequency_group
from benchmark_sets.tasks import Task
from moirai_moe_forecaster.errors import InvalidInputError

Array = NDArray[np.float64]

TERMS = ("short", "medium", "long")
FEWEST_SEEN = 65
LABEL_SHARE = 0.5
FIELDS = frozenset(
    {"source", "freq", "seasonality", "term", "horizon", "windows", "step", "unique_ids"}
)


class ValidationTask(NamedTuple):
    """A task, and what it is grouped by.

    Attributes
    ----------
    task : Task
        Named by its source, frequency and term.
    source : str
    term : {"short", "medium", "long"}
    """

    task: Task
    source: str
    term: str

    @property
    def groups(self) -> tuple[str, ...]:
        """Names of the groups that the task's scores are averaged in, the smallest first."""
        own = f"{self.task.freq} {self.term}"
        if frequency_group(self.task.freq) not in ("hourly", "sub-hourly"):
            return own, "all"
        terms = "short" if self.term == "short" else "medium and long"
        return own, f"hourly and finer, {terms}", "all"


def read_validation(folder: str | Path, containing: str = "") -> list[ValidationTask]:
    """Read the tasks of a folder of validation sources, coarse frequencies and short terms first.

    Parameters
    ----------
    folder : str or Path
        ``tasks.json`` lists the tasks, each with the fields of `FIELDS`; ``SOURCE.parquet`` has one
        row per series: unique_id, freq, start and the list y.
    containing : str, default=""
        Only tasks whose name, such as "some_source 15min short", contains this.

    Raises
    ------
    InvalidInputError
        If a field, a column or a series is missing, or no task is left.
    """
    file = Path(folder, "tasks.json")
    if not file.is_file():
        raise InvalidInputError(f"{folder} holds no tasks.json that lists its tasks")
    found = []
    for facts in json.loads(file.read_text(encoding="utf-8")):
        if absent := FIELDS - facts.keys():
            raise InvalidInputError(f"a task of {file} lacks {sorted(absent)}: {facts}")
        if containing in _name(facts):
            found.append(facts)
    if not found:
        raise InvalidInputError(f"no name of a task of {file} contains {containing!r}")
    # a day has the more steps, the finer a frequency is
    found.sort(key=lambda facts: (facts["seasonality"], TERMS.index(facts["term"])))
    sources = {
        name: pd.read_parquet(Path(folder, f"{name}.parquet"), columns=["unique_id", "freq", "y"])
        for name in sorted({facts["source"] for facts in found})
    }
    return [_read_task(facts, sources[facts["source"]]) for facts in found]


def cut_windows(
    name: str, series: Sequence[Array], seasonality: int, horizon: int, windows: int, step: int
) -> Task:
    """Cut windows, `step` apart, out of the end of every series; the last label ends with it.

    Contexts are whole. A window counts if more than half of its label and at least `FEWEST_SEEN`
    points of its context are observed.

    Raises
    ------
    InvalidInputError
        If no window counts.
    """
    contexts, labels, numbers = [], [], []
    for number, values in enumerate(series):
        for back in range(windows, 0, -1):
            cut = len(values) - back * step - (horizon - step)
            context, label = values[: max(cut, 0)], values[max(cut, 0) :][:horizon]
            seen = np.isfinite(context).sum() >= FEWEST_SEEN
            if seen and np.isfinite(label).sum() > LABEL_SHARE * horizon:
                contexts.append(context)
                labels.append(label)
                numbers.append(number)
    if not contexts:
        raise InvalidInputError(
            f"no window of {name} has {FEWEST_SEEN} observed points before a label of {horizon} "
            "steps of which more than half are observed"
        )
    return Task(name, seasonality, contexts, np.stack(labels), series=np.array(numbers))


def _read_task(facts: Mapping[str, Any], source: pd.DataFrame) -> ValidationTask:
    own = source[source["freq"] == facts["freq"]].set_index("unique_id")["y"]
    if absent := sorted(set(facts["unique_ids"]) - set(own.index)):
        raise InvalidInputError(f"{_name(facts)} lacks the series {absent[:5]}")
    series = [np.asarray(own[key], dtype=np.float64) for key in facts["unique_ids"]]
    sizes = (facts[field] for field in ("seasonality", "horizon", "windows", "step"))
    task = cut_windows(_name(facts), series, *sizes)
    return ValidationTask(task._replace(freq=facts["freq"]), facts["source"], facts["term"])


def _name(facts: Mapping[str, Any]) -> str:
    return f"{facts['source']} {facts['freq']} {facts['term']}"
