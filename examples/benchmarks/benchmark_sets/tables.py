"""Tables of results, as text in Markdown."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from pathlib import Path

import pandas as pd

from benchmark_sets.forecasts import BASELINE
from benchmark_sets.results import SetResult
from moirai_moe_forecaster.errors import InvalidInputError
from moirai_moe_forecaster.evaluation.metrics import COVERAGES, geometric_mean, relative

# by the unit of a frequency, in the order of the table
GROUPS = {
    "yearly": ("Y", "YS", "YE", "A", "AS"),
    "quarterly": ("Q", "QS", "QE"),
    "monthly": ("M", "MS", "ME"),
    "weekly": ("W",),
    "daily": ("D", "B", "C"),
    "hourly": ("h", "H"),
    "sub-hourly": ("min", "T", "s", "S"),
}


def scores_frame(results: Sequence[SetResult]) -> pd.DataFrame:
    """One row per set and model: what was forecast, the scores, and those relative to naive.

    Columns ``relative NAME`` hold the errors over those of seasonal naive on the same set.
    """
    naive = {result.task: result for result in results if result.model == BASELINE}
    rows = []
    for result in results:
        row = {
            "set": result.task,
            "model": result.model,
            "freq": result.freq,
            "group": frequency_group(result.freq),
            "horizon": result.horizon,
            "windows": result.windows,
            "seconds": result.seconds,
        }
        scores = {name: result.score(name) for name in result.terms}
        ratios = {
            f"relative {name}": relative(score, naive[result.task].score(name))
            for name, score in scores.items()
            if not name.startswith("coverage")
        }
        rows.append(row | scores | ratios)
    return pd.DataFrame(rows)


def frequency_group(freq: str) -> str:
    """Return the group of `GROUPS` that an alias of pandas belongs to, or "other"."""
    unit = freq.lstrip("0123456789").split("-")[0]
    return next((group for group, units in GROUPS.items() if unit in units), "other")


def set_table(scores: pd.DataFrame, model: str) -> str:
    """One model's scores by set, and their geometric means relative to seasonal naive."""
    header = ("set", "windows", "MASE", "WQL", "relative MASE", "relative WQL", "seconds")
    own = scores[scores["model"] == model]
    rows = [
        [
            row["set"],
            str(row["windows"]),
            f"{row['MASE']:.3f}",
            f"{row['WQL']:.4f}",
            f"{row['relative MASE']:.3f}",
            f"{row['relative WQL']:.3f}",
            f"{row['seconds']:.1f}",
        ]
        for row in own.to_dict("records")
    ]
    means = [f"{geometric_mean(list(own[f'relative {name}'])):.3f}" for name in ("MASE", "WQL")]
    rows.append(["geometric mean", "", "", "", *means, f"{own['seconds'].sum():.1f}"])
    return markdown(header, rows)


def model_table(scores: pd.DataFrame, published: pd.DataFrame | None = None) -> str:
    """All models over all sets: geometric means relative to seasonal naive, and time.

    `published` adds the models of `read_published`, over those of its sets that are here, relative
    to its own seasonal naive; of the models that were run, it adds the means over the same sets.
    """
    names = list(dict.fromkeys(scores["set"]))
    rows = [_summary(scores, model, names) for model in dict.fromkeys(scores["model"])]
    if published is not None:
        shared = [name for name in names if name in set(published["set"])]
        if 0 < len(shared) < len(names):
            rows += [_summary(scores, model, shared) for model in dict.fromkeys(scores["model"])]
        for model in dict.fromkeys(published["model"]):
            here = published[(published["model"] == model) & published["set"].isin(shared)]
            if len(here) == len(shared) > 0 and model != BASELINE:
                rows.append(_summary(published, model, shared, " (published)"))
    return markdown(("model", "sets", "relative MASE", "relative WQL", "seconds"), rows)


def group_table(scores: pd.DataFrame) -> str:
    """Geometric means relative to seasonal naive, by frequency: MASE / WQL."""
    groups = [name for name in (*GROUPS, "other") if name in set(scores["group"])]
    rows = []
    for model in dict.fromkeys(scores["model"]):
        own = scores[scores["model"] == model]
        parts = [own[own["group"] == group] for group in groups]
        rows.append(
            [
                model,
                *(
                    " / ".join(
                        f"{geometric_mean(list(part[f'relative {name}'])):.3f}"
                        for name in ("MASE", "WQL")
                    )
                    for part in parts
                ),
            ]
        )
    sizes = [scores[scores["group"] == group]["set"].nunique() for group in groups]
    heads = [f"{group} ({size})" for group, size in zip(groups, sizes, strict=True)]
    return markdown(("model", *heads), rows)


def calibration_table(scores: pd.DataFrame, model: str) -> str:
    """Share of labels inside the central intervals, by set."""
    own = scores[scores["model"] == model]
    rows = [
        [row["set"], *(f"{row[f'coverage_{percent}']:.1%}" for percent in COVERAGES)]
        for row in own.to_dict("records")
    ]
    means = [f"{own[f'coverage_{percent}'].mean():.1%}" for percent in COVERAGES]
    rows.append(["mean", *means])
    return markdown(("set", *(f"{percent} %" for percent in COVERAGES)), rows)


def read_published(folder: str | Path) -> pd.DataFrame:
    """Read published scores from the files ``*.csv`` (dataset, model, MASE, WQL) of a folder.

    Returns
    -------
    DataFrame
        Columns set, model, MASE, WQL, relative MASE and relative WQL: relative to the rows of
        the model "seasonal-naive".

    Raises
    ------
    InvalidInputError
        If there is no file, a column is missing, or a set has no row of seasonal naive.
    """
    files = sorted(Path(folder).glob("*.csv"))
    if not files:
        raise InvalidInputError(f"the folder {folder} holds no .csv file of published scores")
    frames = [pd.read_csv(file) for file in files]
    for file, frame in zip(files, frames, strict=True):
        if absent := {"dataset", "model", "MASE", "WQL"} - set(frame.columns):
            raise InvalidInputError(f"{file} lacks the columns {sorted(absent)}")
    table = pd.concat(frames, ignore_index=True).rename(columns={"dataset": "set"})
    naive = table[table["model"] == BASELINE].drop_duplicates("set").set_index("set")
    if absent := set(table["set"]) - set(naive.index):
        raise InvalidInputError(f"no row of {BASELINE!r} for the sets {sorted(absent)[:5]}")
    for name in ("MASE", "WQL"):
        table[f"relative {name}"] = table[name] / table["set"].map(naive[name])
    return table


def markdown(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Write a table, its first column aligned left and the others right."""
    lines = ["| " + " | ".join(header) + " |", "|---" + "|---:" * (len(header) - 1) + "|"]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)])


def _summary(scores: pd.DataFrame, model: str, sets: Sequence[str], note: str = "") -> list[str]:
    own = scores[(scores["model"] == model) & scores["set"].isin(sets)]
    means = [geometric_mean(list(own[f"relative {name}"])) for name in ("MASE", "WQL")]
    seconds = float(own["seconds"].sum()) if "seconds" in own else math.nan
    time = "" if math.isnan(seconds) else f"{seconds:.1f}"
    return [model + note, str(len(own)), *(f"{mean:.3f}" for mean in means), time]
