"""Pipelines around tiny random networks, and series to forecast."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from moirai_moe_forecaster.inference.pipeline import MoiraiMoEPipeline
from tiny_network import OFFICIAL_CONVENTIONS, tiny_network


@pytest.fixture(scope="session")
def pipeline() -> MoiraiMoEPipeline:
    """One patch per pass: every patch of the horizon after the first needs paths."""
    return MoiraiMoEPipeline(tiny_network())


@pytest.fixture(scope="session")
def long_block_pipeline() -> MoiraiMoEPipeline:
    """Four patches per pass, as the bundled model."""
    return MoiraiMoEPipeline(tiny_network(output_patches=4))


@pytest.fixture(scope="session")
def official_pipeline() -> MoiraiMoEPipeline:
    return MoiraiMoEPipeline(tiny_network(**OFFICIAL_CONVENTIONS))


@pytest.fixture
def walk() -> NDArray[np.float64]:
    """A random walk of 100 points."""
    return random_walk(100)


def random_walk(*shape: int, seed: int = 0) -> NDArray[np.float64]:
    return np.random.default_rng(seed).normal(size=shape).cumsum(0)
