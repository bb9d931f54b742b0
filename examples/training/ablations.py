"""Train one arm of the ablations that the second model's recipe was decided by.

    python examples/training/ablations.py ARM --data DIR --output runs/ablations [--seed 0]

All arms read as many tokens in the same order, from random weights of the same seed; an arm differs
from `control` in what its name says. The same command goes on with a run that was interrupted. The
checkpoint in ``OUTPUT/ARM-SEED`` is what `examples/benchmarks/validation.py` scores.
"""

# %%
from __future__ import annotations

import argparse
import json
import logging
from pathlib import Path
from typing import Any, NamedTuple

from moirai_moe_forecaster import ModelConfig, TrainConfig, pretrain
from moirai_moe_forecaster.training.data.corpus import read_corpus
from moirai_moe_forecaster.training.state import STATE_FILE

CORPUS = Path(__file__).parents[2] / "docs" / "second_corpus.json"
RECIPE: dict[str, Any] = {
    "batch_rows": 8,
    "precision": "bfloat16",
    "learning_rate": 1.5e-3,
    "warmup_steps": 100,
    "synthetic_share": 0.3,
    "coupled_share": 0.08,
    "long_share": 0.3,
    "validate_every": 500,
}


class Arm(NamedTuple):
    """What an arm changes of the smallest preset and of `RECIPE`, and sources that it lacks."""

    model: dict[str, Any]
    training: dict[str, Any]
    without: tuple[str, ...] = ()


NEW_SOURCES = (
    "appliances_energy_10min",
    "ausgrid_household",
    "bc_air_quality",
    "beehives_hourly",
    "brightwind_mast",
    "capital_bikeshare",
    "cgm_glucose",
    "chicago_nmmaps_daily",
    "edinburgh_bikes",
    "fitbit_activity",
    "five_cities_pm25",
    "household_power_10min",
    "hue_household",
    "madrid_transport_daily",
    "ontario_grid_2016",
    "sapelo_estuary_30min",
    "seattle_bikes",
    "seoul_bikes",
    "swmp_estuary_15min",
    "twitter_counts",
    "us_smoke_pm25",
    "weather_hourly_misc",
)
REFERENCE = {"reference_periods": 2}
LARGE = {**REFERENCE, "d_model": 256, "num_heads": 4, "d_ff": 320, "num_layers": 6}
ARMS = {
    "control": Arm({}, {}),
    "reference": Arm(REFERENCE, {}),
    "rate-3e-3": Arm(REFERENCE, {"learning_rate": 3e-3}),
    "exchange": Arm({**REFERENCE, "exchange_channels": 24}, {}),
    "float32": Arm(REFERENCE, {"precision": "float32"}),
    "old-sources": Arm(REFERENCE, {}, NEW_SOURCES),
    "one-period": Arm({"reference_periods": 1}, {}),
    "hidden": Arm(REFERENCE, {"hidden_share": 0.3}),
    "augmented": Arm(REFERENCE, {"amplitude_share": 0.2, "censor_share": 0.1, "spike_share": 0.1}),
    "more-synthetic": Arm(REFERENCE, {"synthetic_share": 0.5}),
    "large": Arm(LARGE, {}),
    "muon": Arm(REFERENCE, {"optimiser": "muon"}),
}


# %%
def main() -> None:
    """Train or go on training one arm."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("arm", choices=ARMS)
    parser.add_argument("--data", type=Path, required=True, help="corpus, as for pretrain")
    parser.add_argument("--corpus", type=Path, default=CORPUS, help="weights and exclusions")
    parser.add_argument("--output", type=Path, required=True, help="folder of all runs")
    parser.add_argument("--steps", type=int, default=1000, help="of 1,024 tokens")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    logging.basicConfig(format="%(message)s", level="INFO")
    corpus = json.loads(arguments.corpus.read_text())
    arm = ARMS[arguments.arm]
    folder = arguments.output / f"{arguments.arm}-{arguments.seed}"
    weights = {**corpus["weights"], **dict.fromkeys(arm.without, 0.0)}
    pretrain(
        ModelConfig.preset("tiny", **arm.model),
        TrainConfig(steps=arguments.steps, seed=arguments.seed, **{**RECIPE, **arm.training}),
        read_corpus(arguments.data, weights, corpus["exclude"]),
        folder,
        resume=(folder / STATE_FILE).exists(),
        progress=False,
    )


if __name__ == "__main__":
    main()
