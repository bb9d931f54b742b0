"""Draw how training went: losses, gradient norm and expert load of one or several runs.

    python examples/draw_training.py RUN_FOLDER [RUN_FOLDER ...] [--output docs/images/training.png]

A run's folder holds ``metrics.jsonl`` and ``run.json``, as `moirai-moe pretrain` writes them.
Needs matplotlib: pip install "moirai-moe-forecaster[plot]".
"""

# %%
from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# of Okabe and Ito's palette, which colour-blind people tell apart
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
SMOOTHED_SHARE = 0.02

Curve = tuple[NDArray[np.float64], NDArray[np.float64]]


class Run(NamedTuple):
    """What a run logged, one dict per logged step, and how many tokens a step reads."""

    name: str
    lines: list[dict[str, Any]]
    tokens_per_step: int


# %%
def read_run(folder: Path) -> Run:
    """Read a run; of a step that was repeated after an interruption, the last line counts."""
    with (folder / "metrics.jsonl").open() as stream:
        lines = {line["step"]: line for line in map(json.loads, stream)}
    training = json.loads((folder / "run.json").read_text())["training"]
    ordered = [lines[step] for step in sorted(lines)]
    return Run(folder.resolve().name, ordered, training["batch_rows"] * training["row_tokens"])


def curve(run: Run, key: str) -> Curve:
    """Millions of tokens and what was logged under a key, where it was logged and finite.

    Values are (line,), or (line, layer, expert) for the expert load.
    """
    # null, which what is not finite is written as, becomes NaN
    logged = [(line["step"], np.array(line[key], float)) for line in run.lines if key in line]
    logged = [(step, value) for step, value in logged if np.isfinite(value).all()]
    tokens = np.array([step for step, _ in logged], dtype=float) * run.tokens_per_step / 1e6
    return tokens, np.array([value for _, value in logged])


def smoothed(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Centred moving mean over a small share of the curve, over fewer points at its ends."""
    half = int(SMOOTHED_SHARE * len(values) / 2)
    total = np.concatenate([[0.0], np.cumsum(values)])
    place = np.arange(len(values))
    low, high = np.maximum(place - half, 0), np.minimum(place + half + 1, len(values))
    return (total[high] - total[low]) / (high - low)


# %%
def draw_noisy(ax: Axes, run: Run, key: str, colour: str) -> None:
    """Draw a noisy curve pale and its moving mean on top."""
    tokens, values = curve(run, key)
    ax.plot(tokens, values, color=colour, linewidth=0.4, alpha=0.3)
    ax.plot(tokens, smoothed(values), color=colour, linewidth=1.2, label=run.name)


def draw_validation(ax: Axes, run: Run, colour: str) -> None:
    """Draw the validation loss as it was measured."""
    tokens, values = curve(run, "validation_loss")
    ax.plot(tokens, values, color=colour, linewidth=1.2, marker="o", markersize=2)


def draw_load(ax: Axes, run: Run, colour: str) -> None:
    """Draw the shares of the most and the least used expert of each layer, deeper ones darker."""
    tokens, load = curve(run, "expert_load")
    for layer in range(load.shape[1] if load.ndim == 3 else 0):
        style = {"color": colour, "alpha": 0.3 + 0.7 * (layer + 1) / load.shape[1]}
        ax.plot(tokens, smoothed(load[:, layer].max(1)), linewidth=1.0, **style)
        ax.plot(tokens, smoothed(load[:, layer].min(1)), linewidth=0.8, linestyle=":", **style)


def picture(runs: list[Run]) -> Figure:
    """Draw all runs in four panels."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 5), layout="constrained")
    (loss, validation), (gradient, fourth) = figure.subplots(2, 2, sharex=True)
    with_load = any("expert_load" in line for run in runs for line in run.lines)
    for number, run in enumerate(runs):
        colour = COLOURS[number % len(COLOURS)]
        draw_noisy(loss, run, "loss", colour)
        draw_validation(validation, run, colour)
        draw_noisy(gradient, run, "gradient_norm", colour)
        if with_load:
            draw_load(fourth, run, colour)
        else:
            fourth.plot(*curve(run, "learning_rate"), color=colour, linewidth=1.2)

    tidy(loss, "training loss")
    tidy(validation, "validation loss")
    tidy(gradient, "gradient norm")
    gradient.set_yscale("log")
    gradient.yaxis.set_minor_formatter("")
    if with_load:
        tidy(fourth, "load of the most (—) and the least (···) used expert")
        fourth.axhline(1, color="#888888", linewidth=0.6)
    else:
        tidy(fourth, "learning rate")
    keep_in_sight(loss, [smoothed(curve(run, "loss")[1]) for run in runs])
    if len(runs) > 1:
        loss.legend(frameon=False, fontsize=7)
    for ax in (gradient, fourth):
        ax.set_xlabel("tokens, millions", fontsize=8)
    return figure


def keep_in_sight(ax: Axes, curves: list[NDArray[np.float64]]) -> None:
    """Show all of the curves but their first steep stretch, which would flatten the rest."""
    values = np.concatenate(curves)
    if len(values):
        low, high = values.min(), np.quantile(values, 0.98)
        margin = 0.15 * (high - low) + 1e-3
        ax.set_ylim(low - margin, high + margin)


def tidy(ax: Axes, title: str) -> None:
    """Leave a title, a light grid and two axes."""
    ax.set_title(title, fontsize=9, loc="left")
    ax.spines[["top", "right"]].set_visible(False)
    ax.tick_params(labelsize=7)
    ax.grid(axis="y", color="#DDDDDD", linewidth=0.5)
    ax.set_axisbelow(True)
    ax.margins(x=0.01)


# %%
def main() -> None:
    """Write the picture."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folders", type=Path, nargs="+", metavar="RUN_FOLDER")
    parser.add_argument("--output", type=Path, default=Path("docs/images/training.png"))
    arguments = parser.parse_args()
    figure = picture([read_run(folder) for folder in arguments.folders])
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(arguments.output, dpi=150)


if __name__ == "__main__":
    main()
