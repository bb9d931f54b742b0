"""Tables of validation results: by task, by group, and of variants against the first of them."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from benchmark_sets.results import SetResult
from benchmark_sets.tables import markdown, scores_frame
from benchmark_sets.validation import ValidationTask
from moirai_moe_forecaster.evaluation.metrics import geometric_mean

SCORES = ["relative MASE", "relative WQL"]


def task_scores(tasks: Sequence[ValidationTask], results: Sequence[SetResult]) -> pd.DataFrame:
    """Scores by task and model as `scores_frame` has them, with source, term and groups."""
    scores = scores_frame(results)
    known = {item.task.name: item for item in tasks}
    items = [known[name] for name in scores["set"]]
    scores["source"] = [item.source for item in items]
    scores["term"] = [item.term for item in items]
    scores["groups"] = [item.groups for item in items]
    return scores


def group_scores(scores: pd.DataFrame) -> pd.DataFrame:
    """Geometric means of `SCORES` by group and model, and the number of tasks.

    Groups of one frequency come in the order of the tasks, then those of several, then all tasks.
    Tasks that seasonal naive forecasts perfectly compare with nothing and do not count.
    """
    rows = scores.dropna(subset=SCORES).explode("groups")
    names = sorted(dict.fromkeys(rows["groups"]), key=lambda name: (name == "all", "," in name))
    found = [
        {
            "group": name,
            "model": model,
            **{score: geometric_mean(list(own[score])) for score in SCORES},
            "tasks": len(own),
        }
        for name in names
        for model in dict.fromkeys(rows["model"])
        for own in [rows[(rows["groups"] == name) & (rows["model"] == model)]]
    ]
    return pd.DataFrame(found)


def task_table(scores: pd.DataFrame, models: Sequence[str]) -> str:
    """By source, frequency and term: MASE / WQL of the models relative to seasonal naive."""
    columns = ["source", "freq", "term", "horizon", "windows"]
    heads = scores.drop_duplicates("set").set_index("set")[columns].astype(str)
    seconds = scores.pivot(index="set", columns="model", values="seconds")[list(models)]
    rows = [
        [
            *heads.loc[name],
            *_pairs(scores[scores["set"] == name], models),
            " / ".join(f"{value:.1f}" for value in seconds.loc[name]),
        ]
        for name in heads.index
    ]
    return markdown((*columns, *models, "seconds"), rows)


def group_table(scores: pd.DataFrame, models: Sequence[str]) -> str:
    """By frequency and term, and over several: MASE / WQL of the models, geometric means."""
    means = group_scores(scores)
    sizes = dict(zip(means["group"], means["tasks"], strict=True))
    rows = [
        [name, str(size), *_pairs(means[means["group"] == name], models)]
        for name, size in sizes.items()
    ]
    return markdown(("group", "tasks", *models), rows)


def task_ratios(scores: pd.DataFrame, model: str, base: str) -> pd.DataFrame:
    """Errors of a model over those of another by task: columns MASE and WQL."""
    return _ratios(scores, "set", model, base)


def group_ratios(scores: pd.DataFrame, model: str, base: str) -> pd.DataFrame:
    """Errors of a model over those of another, geometric means by group: columns MASE and WQL."""
    return _ratios(group_scores(scores), "group", model, base)


def ratio_table(ratios: pd.DataFrame, kind: str) -> str:
    """Ratios by task or by group; first comes where the worse of the two is worst."""
    worst = ratios.max(axis=1).sort_values(ascending=False, kind="stable")
    table = ratios.loc[worst.index].assign(worst=worst)
    cells = [
        [name, *map("{:.3f}".format, row)]
        for name, row in zip(map(str, table.index), table.to_numpy(), strict=True)
    ]
    return markdown((kind, "MASE", "WQL", "worse of both"), cells)


def _ratios(frame: pd.DataFrame, kind: str, model: str, base: str) -> pd.DataFrame:
    first, second = (
        frame[frame["model"] == name].set_index(kind)[SCORES] for name in (model, base)
    )
    return (first / second).set_axis(["MASE", "WQL"], axis=1)


def _pairs(own: pd.DataFrame, models: Sequence[str]) -> list[str]:
    """MASE / WQL of every model."""
    cells = own.set_index("model").loc[list(models), SCORES].to_numpy()
    return [f"{mase:.3f} / {wql:.3f}" for mase, wql in cells]
