"""Draw the pictures of docs/architecture.md, and write its list of files.

python docs/draw_architecture.py
"""

# %%
from __future__ import annotations

import ast
import itertools
import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "moirai_moe_forecaster"
PAGE = ROOT / "docs" / "architecture.md"
TREE = re.compile(r"(?<=<!-- files -->\n```text\n).*?(?=```)", re.DOTALL)
# subpackages in the order of their imports: one knows those above it only
ORDER = (
    "config",
    "data",
    "model",
    "checkpoint",
    "inference",
    "training",
    "evaluation",
    "plotting",
    "tuning",
    "reports",
    "adapters",
    "cli",
)
# (what it is, where it is done): boxes from left to right, rows from top to bottom
FORECAST = [
    [
        ("what the user passes", "arrays, pandas, tables, sktime, Darts"),
        ("list of Series", "data/: read and checked once"),
        ("residuals", "inference/covariates: what covariates\nexplain is taken out"),
        ("Seasons", "inference/seasonality: periods;\nview_weights: hindcasts weigh views"),
    ],
    [
        ("views of each series", "inference/views: plain, cycles out,\nsign flipped"),
        ("Prompt", "inference/prompt: patches, masks,\nnormaliser, in groups (batching)"),
        ("tokens -> mixtures", "model/: one pass over the context;\nrollout: paths beyond it"),
        ("quantiles", "model/distribution: pooled over paths,\nat fixed levels (quantile_grid)"),
    ],
    [
        ("Marginals", "inference/views: brought back and\naveraged by weight"),
        ("Forecast", "inference/forecast: any level, mean,\nsamples, without the network"),
        ("what the user gets", "arrays, tables, sktime, Darts,\npictures, reports"),
    ],
]
TRAINING = [
    [
        ("sources", "training/data: corpus of parquet files;\ntraining/synthetic: generators"),
        ("windows", "training/data: sampler draws series,\nvariates, ends and augmentations"),
        ("packed rows", "training/data: windows side by side,\nsample ids keep them apart"),
    ],
    [
        ("loss", "training/objective: likelihood of the\nnext patches, balance of the experts"),
        ("weights", "training/step: clip, AdamW or Muon,\nin one process or several"),
        ("state", "training/state: all that a resumed run\nneeds, written to a new name first"),
    ],
]


# %%
def main() -> None:
    """Write the pictures and the list."""
    draw(FORECAST, "forecast_path")
    draw(TRAINING, "training_batch")
    page = PAGE.read_text(encoding="utf-8")
    PAGE.write_text(TREE.sub(lambda _: tree(), page), encoding="utf-8")


def tree() -> str:
    """List subpackages and files, each with the first line of its docstring."""
    lines = []
    for name in ("__init__.py", "errors.py", "moved.py", "__main__.py"):
        lines.append(_line(PACKAGE / name, name, 0))
    for room in ORDER:
        lines += _room(PACKAGE / room, 0)
    return "\n".join(line for line in lines if line) + "\n"


def _room(folder: Path, depth: int) -> list[str]:
    lines = [_line(folder / "__init__.py", f"{folder.name}/", depth)]
    files = sorted(folder.glob("*.py"))
    lines += [_line(file, file.name, depth + 1) for file in files if file.name != "__init__.py"]
    for child in sorted(folder.iterdir()):
        if (child / "__init__.py").exists():
            lines += _room(child, depth + 1)
    return lines


def _line(file: Path, name: str, depth: int) -> str:
    if not file.exists():
        return ""
    docstring = ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or ""
    return f"{'  ' * depth + name:<34}{docstring.splitlines()[0]}"


def draw(rows: list[list[tuple[str, str]]], name: str) -> None:
    """Draw boxes row by row, joined by arrows, as ``docs/images/NAME.svg``."""
    import matplotlib.pyplot as plt
    from matplotlib.patches import FancyBboxPatch

    # text stays text, and the same drawing is the same file
    plt.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": name})
    width, height = 4.0, 1.9
    columns = max(map(len, rows))
    figure, axes = plt.subplots(figsize=(3.4 * columns, 1.45 * len(rows)))
    centres = [
        (width * column, -height * row)
        for row, boxes in enumerate(rows)
        for column in range(len(boxes))
    ]
    for (x, y), (title, text) in zip(
        centres, [box for boxes in rows for box in boxes], strict=True
    ):
        style = {"boxstyle": "round,pad=0.02", "fc": "#eef1fb", "ec": "#3f51b5"}
        patch = FancyBboxPatch((x - 1.6, y - 0.62), 3.2, 1.24, **style)
        axes.add_patch(patch)
        axes.text(x, y + 0.3, title, ha="center", va="center", weight="bold", size=10)
        axes.text(x, y - 0.2, text, ha="center", va="center", size=7.5)
    arrow = {"arrowstyle": "-|>", "color": "#3f51b5", "shrinkA": 0, "shrinkB": 0}
    for (x, y), (to_x, to_y) in itertools.pairwise(centres):
        if y == to_y:
            axes.annotate("", (to_x - 1.64, y), (x + 1.64, y), arrowprops=arrow)
        else:
            axes.annotate("", (to_x, to_y + 0.68), (x, y - 0.66), arrowprops=arrow)
    axes.set(xlim=(-1.8, width * (columns - 1) + 1.8), ylim=(-height * (len(rows) - 1) - 0.8, 0.8))
    axes.axis("off")
    path = ROOT / "docs" / "images" / f"{name}.svg"
    figure.savefig(path, metadata={"Date": None}, bbox_inches="tight")
    plt.close(figure)


if __name__ == "__main__":
    main()
