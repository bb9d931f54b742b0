"""Bounds and whole numbers through Darts."""

from __future__ import annotations

import numpy as np
import pytest

from darts_models import CHUNK, model, quantiles, walk
from moirai_moe_forecaster.adapters.darts import MoiraiMoEModel


def test_samples_and_quantiles_are_possible(tmp_path_factory: pytest.TempPathFactory) -> None:
    series = walk()
    fitted = model(likelihood=quantiles(), bounds=(0, np.float64(1.5)), integer=True).fit(series)
    file = tmp_path_factory.mktemp("saved") / "model.pt"
    fitted.save(str(file))
    for each in (fitted, MoiraiMoEModel.load(str(file))):
        for options in ({"num_samples": 20}, {"predict_likelihood_parameters": True}):
            values = each.predict(CHUNK, **options).all_values()
            assert set(np.unique(values)) <= {0.0, 1.0}


def test_impossible_bounds_are_an_error_at_once() -> None:
    with pytest.raises(ValueError, match="bounds"):
        model(bounds=(1, 0))
