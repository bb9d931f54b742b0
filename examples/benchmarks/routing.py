"""Check the paper's finding on routing: are experts chosen by frequency, and in which layers?

Arguments: a folder of .parquet files with one row per series and the columns freq and y.
"""

# %%
import argparse
from pathlib import Path

import numpy as np
import pandas as pd
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
            "within a frequency": report.entropy("frequency")
            .groupby("layer")["effective_experts"]
            .mean(),
            "frequencies agree": between.mean(),
            "least": between.min(),
            "halves agree": halves[same].groupby("layer")["agreement"].mean(),
        }
    )
    table.index = table.index + 1
    return table


# %%
def main() -> None:
    """Print the table, and write the picture."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--model", help="directory or Hub name (default: the bundled checkpoint)")
    parser.add_argument("--series", type=int, default=100, help="per frequency (default: 100)")
    parser.add_argument("--context", type=int, default=512, help="points (default: 512)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=Path("docs/images/routing.png"))
    arguments = parser.parse_args()
    chosen = read_series(arguments.folder, arguments.series, arguments.context, arguments.seed)
    labels = [name for name, _, _ in chosen]
    half = [f"{name} {number % 2}" for number, name in enumerate(labels)]
    report = MoiraiMoEPipeline.from_pretrained(arguments.model).routing([y for *_, y in chosen])
    report = report.with_labels(frequency=labels, half=half)
    counts = report.tokens.groupby("frequency", sort=False)["series"].agg(["nunique", "size"])
    print(counts.set_axis(["series", "patches"], axis=1).to_string(), "\n")
    print(compare(report).to_string(float_format=lambda x: f"{x:.2f}"))
    axes = report.plot("frequency", layers=range(report.num_layers))
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    axes[0].figure.savefig(arguments.output, dpi=110)


if __name__ == "__main__":
    main()
