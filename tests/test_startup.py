"""The first forecast of a new process comes soon after torch and sktime are imported."""

from __future__ import annotations

import subprocess
import sys
from importlib.resources import files

import pytest

BUNDLED = files("moirai_moe_forecaster") / "weights" / "model.safetensors"
CODE = """
import time
import torch, sktime.forecasting.base
from sktime.datasets import load_airline
y = load_airline()
started = time.perf_counter()
from moirai_moe_forecaster import MoiraiMoEForecaster
MoiraiMoEForecaster(random_state=0).fit(y).predict(range(1, 25))
print(time.perf_counter() - started)
"""


@pytest.mark.skipif(not BUNDLED.is_file(), reason="the bundled checkpoint is not in this tree")
def test_first_forecast_costs_less_than_a_second_and_a_half_more_than_imports() -> None:
    # the best of three: other processes on the machine are not what is measured
    seconds = []
    for _ in range(3):
        done = subprocess.run(
            [sys.executable, "-c", CODE], capture_output=True, text=True, check=True, timeout=120
        )
        seconds.append(float(done.stdout))
        if seconds[-1] < 1.5:
            return
    pytest.fail(f"the first forecast took {seconds} seconds")
