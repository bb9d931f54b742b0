"""The first forecast of a new process imports next to nothing beyond torch and sktime."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.resources import files

import pytest

BUNDLED = files("moirai_moe_forecaster") / "weights" / "model.safetensors"
CODE = """
import json, sys
import torch, sktime.forecasting.base
from sktime.datasets import load_airline
y = load_airline()
before = set(sys.modules)
from moirai_moe_forecaster import MoiraiMoEForecaster
MoiraiMoEForecaster(random_state=0).fit(y).predict(range(1, 25))
print(json.dumps(sorted(set(sys.modules) - before)))
"""
# each takes milliseconds to import; compilers, scikit-learn or matplotlib would take seconds
EXPECTED = {"moirai_moe_forecaster", "safetensors", "tqdm"}
FEW = 5


@pytest.mark.skipif(not BUNDLED.is_file(), reason="the bundled checkpoint is not in this tree")
def test_the_first_forecast_imports_little_beyond_torch_and_sktime() -> None:
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=True)
    more = json.loads(done.stdout)
    libraries = [name.partition(".")[0] for name in more]
    assert {*libraries} - EXPECTED - {*sys.stdlib_module_names} <= {"torch", "sktime"}
    # parts of those two that the first forecast alone asks for
    assert sum(name in ("torch", "sktime") for name in libraries) <= FEW
