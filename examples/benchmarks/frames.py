"""Seconds that `predict_df` takes for a million rows, apart from `predict`.

    python examples/benchmarks/frames.py

Rows are shuffled; `predict` is replaced by a forecast that is ready.
"""

# %%
import time
from typing import Any

import numpy as np
import pandas as pd

from moirai_moe_forecaster import Forecast, MoiraiMoEPipeline

ROWS = 1_000_000
SHAPES = ((1_000, "h"), (1_000, "D"), (10_000, "B"), (100_000, "MS"))
HORIZON = 12


# %%
class ReadyPipeline(MoiraiMoEPipeline):
    """A pipeline whose forecast is known."""

    ready: Forecast

    def predict(self, *_: Any, **__: Any) -> Forecast:
        """Return it."""
        return self.ready


def measure(series: int, freq: str) -> float:
    """Seconds for a table of so many series of one frequency."""
    rng = np.random.default_rng(0)
    times = pd.date_range("1990-01-01", periods=ROWS // series, freq=freq)
    table = pd.DataFrame(
        {
            "item_id": np.repeat(np.arange(series), len(times)).astype(str),
            "timestamp": np.tile(times, series),
            "target": rng.normal(size=ROWS),
        }
    ).take(rng.permutation(ROWS))
    pipeline = MoiraiMoEPipeline.from_pretrained()
    ready = ReadyPipeline(pipeline.network, pipeline.info)
    one = pipeline.predict([rng.normal(size=32)], HORIZON, random_state=0)
    ready.ready = repeated(one, series)
    started = time.process_time()
    ready.predict_df(table, HORIZON)
    return time.process_time() - started


def repeated(forecast: Forecast, count: int) -> Forecast:
    """The same series many times, without the memory of all."""
    parts = {
        name: None if part is None else np.broadcast_to(part, (count, *part.shape[1:]))
        for name, part in forecast._marginals._asdict().items()
    }
    marginals = type(forecast._marginals)(**parts)
    return Forecast(marginals, single=False, univariate=True, num_samples=100)


# %%
if __name__ == "__main__":
    print("| series | steps | frequency | CPU seconds |\n|---:|---:|---|---:|")
    for count, alias in SHAPES:
        print(f"| {count:,} | {ROWS // count:,} | {alias} | {measure(count, alias):.1f} |")
