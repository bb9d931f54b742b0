"""Check the paper's finding on routing: do frequencies choose other experts, and in which layers?

    python examples/benchmarks/routing.py FOLDER [--model PATH]

The folder holds .parquet files with one row per series and the columns freq and y.
"""

# %%
import argparse
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from numpy.typing import NDArray

from moirai_moe_forecaster import MoiraiMoEPipeline, RoutingReport

# aliases of pandas of each group, in the order of the picture
FREQUENCIES = {
    "5 minutes": ("5min",),
    "15 minutes": ("15min",),
    "half-hourly": ("30min",),
    "hourly": ("h",),
    "daily": ("D",),
    "weekly": ("W", "W-SUN", "W-MON", "W-FRI", "7D"),
    "monthly": ("MS",),
    "quarterly": ("QS",),
    "yearly": ("YS",),
}
FEWEST = 48


# %%
def read_series(
    folder: Path, count: int, context: int, seed: int
) -> list[tuple[str, str, NDArray[np.float64]]]:
    """Draw series of each frequency, as evenly as can be from all files that have some."""
    rng = np.random.default_rng(seed)
    found: dict[str, dict[str, list[NDArray[np.float64]]]] = {name: {} for name in FREQUENCIES}
    for file in sorted(folder.glob("*.parquet")):
        table = pd.read_parquet(file, columns=["freq", "y"])
        for name, aliases in FREQUENCIES.items():
            rows = np.flatnonzero(table["freq"].isin(aliases))
            for row in rng.permutation(rows)[: 3 * count]:
                y = np.asarray(table["y"].iloc[row], dtype=np.float64)[-context:]
                if np.isfinite(y).sum() >= FEWEST and np.nanstd(y) > 0:
                    found[name].setdefault(file.stem, []).append(y)
    chosen = []
    for name, sources in found.items():
        turns = [(turn, source, y) for source, ys in sources.items() for turn, y in enumerate(ys)]
        turns.sort(key=lambda entry: entry[0])
        chosen += [(name, source, y) for _, source, y in turns[:count]]
    return chosen


# %%
def compare(report: RoutingReport) -> pd.DataFrame:
    """Agreement by layer: of frequencies, and of two random halves of each frequency's series."""
    between = report.agreement("frequency").groupby("layer")["agreement"]
    halves = report.agreement("half")
    same = halves["first"].str[:-2] == halves["second"].str[:-2]
    table = pd.DataFrame(
        {
            "experts in use": report.entropy().set_index("layer")["effective_experts"],
            "frequencies agree": between.mean(),
            "least alike pair": between.min(),
            "halves of a frequency agree": halves[same].groupby("layer")["agreement"].mean(),
        }
    )
    table.index = table.index + 1
    return table


def print_markdown(table: pd.DataFrame) -> None:
    """Print a table of numbers by layer."""
    print("| layer | " + " | ".join(table.columns) + " |")
    print("|---" * (len(table.columns) + 1) + "|")
    for layer, row in table.iterrows():
        print(f"| {layer} | " + " | ".join(f"{value:.2f}" for value in row) + " |")


# %%
def main() -> None:
    """Print the tables, and write the picture."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--model", help="directory or Hub name (default: the bundled checkpoint)")
    parser.add_argument("--series", type=int, default=100, help="per frequency (default: 100)")
    parser.add_argument(
        "--context",
        type=int,
        nargs="+",
        default=[512, 64],
        help="last points of each series; the picture is of the first (default: 512 64)",
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=Path("docs/images/routing.png"))
    arguments = parser.parse_args()
    pipeline = MoiraiMoEPipeline.from_pretrained(arguments.model)
    for number, context in enumerate(arguments.context):
        chosen = read_series(arguments.folder, arguments.series, context, arguments.seed)
        labels = [name for name, *_ in chosen]
        half = [f"{name} {position % 2}" for position, name in enumerate(labels)]
        report = pipeline.routing([y for *_, y in chosen])
        report = report.with_labels(frequency=labels, half=half)
        print(f"\n{len(chosen)} series, {len(report.tokens)} patches, context {context}\n")
        print_markdown(compare(report))
        if number == 0:
            layers = range(report.num_layers)
            size = (10, 3.6 * -(-len(layers) // 2))
            figure = Figure(figsize=size, layout="constrained")
            axes = figure.subplots(-(-len(layers) // 2), 2, squeeze=False).ravel()
            report.plot("frequency", layers=layers, axes=axes)
            arguments.output.parent.mkdir(parents=True, exist_ok=True)
            figure.savefig(arguments.output, dpi=110)


if __name__ == "__main__":
    main()
