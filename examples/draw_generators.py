"""Draw a gallery of the synthetic generators: a few series of each, and coupled systems.

    python examples/draw_generators.py [--output docs/images/generators.png]

Needs matplotlib: pip install "moirai-moe-forecaster[plot]".
"""

# %%
from __future__ import annotations

import argparse
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from moirai_moe_forecaster.training.synthetic.generate import GENERATORS, coupled

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLUMNS = 5
SERIES = 3
SYSTEMS = 3
STEPS = 240
# where another length shows better what a generator is about
STEPS_OF = {
    "working_week": 504,
    "retail": 400,
    "tourism": 96,
    "national_accounts": 48,
    "logistic_map": 60,
    "lorenz": 480,
}
# of Okabe and Ito's palette, which colour-blind people tell apart
COLOURS = ("#0072B2", "#D55E00", "#009E73")
TARGET = "#222222"
SPACING = 1.2
SHADES = 96
SEED, SEED_OF_SYSTEMS = 2, 1


# %%
def draw_stacked(ax: Axes, series: torch.Tensor, colours: tuple[str, ...]) -> None:
    """Draw series one below the other, each over its own range: only shapes matter."""
    low, high = series.aminmax(dim=1, keepdim=True)
    shapes = (series - low) / (high - low).clamp_min(1e-6)
    for place, (shape, colour) in enumerate(zip(shapes, colours, strict=True)):
        ax.plot((shape - SPACING * place).numpy(), color=colour, linewidth=0.6)
    ax.set_xlim(0, series.shape[1] - 1)
    ax.set_xticks([0, series.shape[1]])
    ax.set_yticks([])
    ax.tick_params(labelsize=6, length=2, width=0.5, color="#888888", labelcolor="#888888", pad=1)
    ax.spines[["top", "left", "right"]].set_visible(False)
    ax.spines["bottom"].set(color="#888888", linewidth=0.5)


def gallery() -> Figure:
    """Draw every generator and coupled systems."""
    from matplotlib.figure import Figure

    rows = -(-len(GENERATORS) // COLUMNS)
    figure = Figure(figsize=(9, 1.35 * rows + 1.9), layout="constrained")
    heights = [1.35 * rows, 1.9]
    upper, lower = figure.subfigures(2, 1, squeeze=False, height_ratios=heights).ravel()
    panels = upper.subplots(rows, COLUMNS).ravel()
    for ax in panels[len(GENERATORS) :]:
        ax.remove()
    for ax, (name, (process, _)) in zip(panels, GENERATORS.items(), strict=False):
        generator = torch.Generator().manual_seed(SEED)
        draw_stacked(ax, process(SERIES, STEPS_OF.get(name, STEPS), generator), COLOURS)
        ax.set_title(name.replace("_", " "), fontsize=8, loc="left", pad=3)

    systems = coupled(SYSTEMS, 3, STEPS, torch.Generator().manual_seed(SEED_OF_SYSTEMS))
    lower.suptitle(
        "coupled systems: a target (black) and two drivers", fontsize=8, x=0.01, ha="left"
    )
    for ax, system in zip(lower.subplots(1, SYSTEMS), systems, strict=True):
        draw_stacked(ax, system, (TARGET, *COLOURS[:2]))
    return figure


def write_png(figure: Figure, file: Path) -> None:
    """Write with a palette: a picture of thin lines needs few shades and then little space."""
    from PIL import Image

    buffer = BytesIO()
    figure.savefig(buffer, dpi=130)
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.open(buffer).convert("RGB").quantize(SHADES).save(file, optimize=True)


# %%
def main() -> None:
    """Write the gallery."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=Path("docs/images/generators.png"))
    arguments = parser.parse_args()
    write_png(gallery(), arguments.output)


if __name__ == "__main__":
    main()
