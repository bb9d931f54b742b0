"""What was fitted says so when its folder holds other weights by the time it is used again."""

from __future__ import annotations

import pickle
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from moirai_moe_forecaster import MoiraiMoEForecaster, MoiraiMoEPipeline
from moirai_moe_forecaster.checkpoint import load_checkpoint, save_checkpoint
from moirai_moe_forecaster.inference import model_cache
from tiny_network import tiny_network

OTHERS = "fitted with weights"
Y = pd.Series(np.sin(np.arange(60.0)))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_checkpoint(tiny_network(), tmp_path / "model")
    return tmp_path / "model"


def change(folder: Path) -> None:
    network = load_checkpoint(folder).network
    with torch.no_grad():
        network.projection.bias.add_(1)
    save_checkpoint(network, folder)


def in_a_new_process(stored: bytes) -> Any:
    """Where nothing of the former weights is in memory."""
    model_cache._load.cache_clear()
    return pickle.loads(stored)


def fingerprint_of(folder: Path) -> str:
    info = MoiraiMoEPipeline.from_pretrained(folder).info
    assert info is not None
    assert info.fingerprint is not None
    return info.fingerprint


def test_the_fingerprint_is_that_of_the_weights(folder: Path) -> None:
    first = fingerprint_of(folder)
    network = load_checkpoint(folder).network
    save_checkpoint(network, folder.parent / "half", dtype=torch.bfloat16)
    save_checkpoint(load_checkpoint(folder.parent / "half").network, folder.parent / "again")
    assert fingerprint_of(folder.parent / "half") == fingerprint_of(folder.parent / "again")
    assert fingerprint_of(folder) == first
    change(folder)
    assert fingerprint_of(folder) != first


def test_a_pickled_sktime_forecaster(folder: Path) -> None:
    fitted = MoiraiMoEForecaster(str(folder), random_state=0).fit(Y)
    before, stored = fitted.predict([1, 2, 3]), pickle.dumps(fitted)
    first = fingerprint_of(folder)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pd.testing.assert_series_equal(in_a_new_process(stored).predict([1, 2, 3]), before)
    change(folder)
    later = in_a_new_process(stored)
    with pytest.warns(UserWarning, match=OTHERS) as caught:
        after = later.predict([1, 2, 3])
    text = str(caught[0].message)
    assert first[:12] in text
    assert fingerprint_of(folder)[:12] in text
    assert not np.allclose(after, before)
    with warnings.catch_warnings():  # at the first use
        warnings.simplefilter("error")
        later.predict([1, 2, 3])
        later.fit(Y).predict([1, 2, 3])


def test_a_darts_model(folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("darts", reason="needs the extra `darts`")
    from darts import TimeSeries

    from moirai_moe_forecaster import MoiraiMoEModel

    series = TimeSeries.from_values(Y.to_numpy())
    model = MoiraiMoEModel(
        32, 4, local_dir=str(folder), pl_trainer_kwargs={"accelerator": "cpu", "logger": False}
    )
    stored = pickle.dumps(model.fit(series))
    change(folder)
    with pytest.warns(UserWarning, match=OTHERS):
        in_a_new_process(stored).predict(4, series)
