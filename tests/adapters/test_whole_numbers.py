"""Bounds and whole numbers through sktime, and the distribution of what counts."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from moirai_moe_forecaster.adapters.sktime import MoiraiMoEForecaster
from moirai_moe_forecaster.adapters.sktime.whole_numbers import WholeNumbers
from moirai_moe_forecaster.errors import InvalidInputError
from moirai_moe_forecaster.inference.quantile_grid import NODE_SCORES

TINY = {
    "d_model": 16,
    "d_ff": 16,
    "num_layers": 1,
    "num_heads": 2,
    "num_experts": 2,
    "experts_per_token": 1,
}
FH = [-1, 0, 1, 2, 30]


def counts() -> pd.Series:
    return pd.Series(np.random.default_rng(0).poisson(0.7, 80).astype(float))


@pytest.mark.parametrize("prediction_type", ["median", "mean"])
def test_everything_a_forecaster_gives_is_possible(prediction_type: str) -> None:
    forecaster = MoiraiMoEForecaster(
        config=TINY,
        bounds=(0, None),
        integer=True,
        prediction_type=prediction_type,
        random_state=0,
    ).fit(counts())
    points = forecaster.predict(FH)
    quantiles = forecaster.predict_quantiles(FH, alpha=[0.1, 0.5, 0.9])
    distribution = forecaster.predict_proba(FH)
    for values in (quantiles, distribution.sample(5)):
        assert ((values >= 0) & (values == values.round())).all(axis=None)
    np.testing.assert_array_equal(distribution.ppf(0.9), quantiles[[(0, 0.9)]])
    if prediction_type == "mean":
        np.testing.assert_allclose(points, distribution.mean()[0])
    else:
        np.testing.assert_array_equal(points, distribution.ppf(0.5)[0])


def test_bounds_alone_keep_a_continuous_distribution() -> None:
    forecaster = MoiraiMoEForecaster(config=TINY, bounds=(0, 1), random_state=0).fit(counts())
    distribution = forecaster.predict_proba(FH)
    assert not isinstance(distribution, WholeNumbers)
    assert ((distribution.sample(20) >= 0) & (distribution.sample(20) <= 1)).all(axis=None)
    with pytest.raises(InvalidInputError, match="bounds"):
        MoiraiMoEForecaster(config=TINY, bounds=(1, 0)).fit(counts())


def test_probabilities_of_whole_numbers() -> None:
    count = WholeNumbers(np.clip(2 + 1.5 * NODE_SCORES, 0, None)[None, None], random_state=0)
    numbers = range(12)
    masses = [count.pmf(k).to_numpy()[0, 0] for k in numbers]
    assert sum(masses) == pytest.approx(1, abs=1e-6)
    assert count.pmf(1.5).to_numpy()[0, 0] == 0
    assert count.cdf(3).to_numpy()[0, 0] == pytest.approx(sum(masses[:4]), abs=1e-9)
    mean = sum(k * mass for k, mass in zip(numbers, masses, strict=True))
    variance = sum(k**2 * mass for k, mass in zip(numbers, masses, strict=True)) - mean**2
    assert count.mean().to_numpy()[0, 0] == pytest.approx(mean, abs=0.005)
    assert count.var().to_numpy()[0, 0] == pytest.approx(variance, abs=0.05)
    assert count.sample(2000).to_numpy().mean() == pytest.approx(mean, abs=0.15)
