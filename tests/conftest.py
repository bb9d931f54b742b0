"""Settings and fixtures for all tests."""

import sys
from pathlib import Path

import pytest
import torch

from moirai_moe_forecaster.inference.pipeline import MoiraiMoEPipeline
from tiny_network import tiny_network

torch.set_num_threads(1)
# what reads and scores benchmark sets is beside the scripts, not in the package
sys.path.append(str(Path(__file__).parents[1] / "examples" / "benchmarks"))


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Directory of a tiny checkpoint, for the command line."""
    directory = tmp_path_factory.mktemp("model")
    MoiraiMoEPipeline(tiny_network()).save_pretrained(directory)
    return str(directory)
