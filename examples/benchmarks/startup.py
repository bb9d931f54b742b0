"""Seconds that a new process takes to import the package, to load a checkpoint, to forecast first.

    python examples/benchmarks/startup.py

Each is the least of several processes, on the processor. Nothing else should run beside it.
"""

# %%
import subprocess
import sys

RUNS = 5
LIBRARIES = "import torch, sktime.forecasting.base\n"
AIRLINE = "from sktime.datasets import load_airline\ny = load_airline()\n"
FORECAST = """
from moirai_moe_forecaster import MoiraiMoEForecaster
MoiraiMoEForecaster(random_state=0).fit(y).predict(range(1, 25))
"""
STEPS = {
    "`import moirai_moe_forecaster`": ("", "import moirai_moe_forecaster"),
    "loading the bundled checkpoint": (
        LIBRARIES + "from moirai_moe_forecaster.checkpoint import load_checkpoint",
        "load_checkpoint()",
    ),
    "first 24-step airline forecast, beyond importing torch and sktime": (
        LIBRARIES + AIRLINE,
        FORECAST,
    ),
}


def seconds(before: str, code: str) -> float:
    """Time `code` in a process of its own that has run `before`."""
    script = (
        f"import time\n{before}\nstarted = time.perf_counter()\n{code}\n"
        "print(time.perf_counter() - started)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    return float(done.stdout.split()[-1])


# %%
if __name__ == "__main__":
    print("| | seconds |\n|---|---:|")
    for name, (before, code) in STEPS.items():
        print(f"| {name} | {min(seconds(before, code) for _ in range(RUNS)):.2f} |")
