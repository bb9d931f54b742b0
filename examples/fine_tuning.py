"""Fine-tune on a pattern that pretraining has never seen, and share the result."""

# %%
from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np

from moirai_moe_forecaster import MoiraiMoEPipeline

HORIZON = 37

# %%
# Twenty series that repeat every 37 steps, flat but for two spikes.
rng = np.random.default_rng(0)
shape = np.zeros(HORIZON)
shape[3:6] = 2, 5, 1
shape[20:22] = -4, -2
phases = rng.integers(HORIZON, size=20)
series = [
    shape[(np.arange(10 * HORIZON) + phase) % HORIZON] + rng.normal(scale=0.1, size=10 * HORIZON)
    for phase in phases
]
history, future = [y[:-HORIZON] for y in series], [y[-HORIZON:] for y in series]

# %%
# A few seconds of training; a real run takes the default of 400 steps.
pipeline = MoiraiMoEPipeline.from_pretrained()
tuned = pipeline.fine_tune(
    history, horizon=HORIZON, max_steps=24, learning_rate=3e-3, progress=False, random_state=0
)
print(tuned.tuning)

# %%
# The original is as it was; compare both on what came next.
for name, candidate in (("zero-shot", pipeline), ("fine-tuned", tuned)):
    median = candidate.predict(history, HORIZON, random_state=0).median
    print(f"{name:<12} mean absolute error {np.abs(median - np.stack(future)).mean():.3f}")

# %%
# Save the whole model, or only what was added to it.
with tempfile.TemporaryDirectory() as folder:
    tuned.save_pretrained(Path(folder, "model"))
    tuned.save_adapters(Path(folder, "adapters"))
    for part in ("model", "adapters"):
        size = sum(file.stat().st_size for file in Path(folder, part).iterdir())
        again = MoiraiMoEPipeline.from_pretrained(Path(folder, part))
        same = np.array_equal(
            again.predict(history, HORIZON, random_state=0).median,
            tuned.predict(history, HORIZON, random_state=0).median,
        )
        print(f"{part:<12} {size / 1e6:5.1f} MB, the same forecasts: {same}")
