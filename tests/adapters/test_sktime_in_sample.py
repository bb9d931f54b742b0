"""Forecasts of the past: made one step ahead from what was known then, and from nothing else."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from sktime.forecasting.base import ForecastingHorizon

from moirai_moe_forecaster import MoiraiMoEForecaster
from tiny_forecaster import TINY, forecaster

MONTHS = pd.period_range("2000-01", periods=70, freq="M", name="month")


@pytest.fixture
def y() -> pd.Series:
    steps = np.arange(70)
    noise = np.random.default_rng(0).normal(size=70)
    return pd.Series(10 + np.sin(steps / 3) + steps / 20 + noise, MONTHS, name="y")


@pytest.fixture
def X() -> pd.DataFrame:
    index = pd.period_range("2000-01", periods=90, freq="M", name="month")
    return pd.DataFrame({"a": np.random.default_rng(1).normal(size=90)}, index)


def everywhere(y: pd.Series) -> ForecastingHorizon:
    return ForecastingHorizon(y.index, is_relative=False)


@pytest.mark.parametrize("method", ["predict", "predict_interval", "predict_var"])
@pytest.mark.parametrize("changed_from", [1, 16, 40, 69])
def test_later_values_change_no_earlier_forecast(
    y: pd.Series, method: str, changed_from: int
) -> None:
    changed = y.copy()
    changed.iloc[changed_from:] = changed.iloc[changed_from:] * 5 - 7
    one, other = (
        getattr(forecaster().fit(data), method)(everywhere(y)).to_numpy() for data in (y, changed)
    )
    np.testing.assert_allclose(
        other[: changed_from + 1], one[: changed_from + 1], rtol=1e-3 if "var" in method else 1e-5
    )
    if changed_from < 69:
        assert not np.allclose(other[changed_from + 1 :], one[changed_from + 1 :], rtol=1e-2)


def test_with_covariates_neither(y: pd.Series, X: pd.DataFrame) -> None:
    driven = y + 5 * X["a"].reindex(y.index)
    changed = driven.copy()
    changed.iloc[50:] = -changed.iloc[50:]
    one, other, blind = (
        fitted.predict(everywhere(y), *known).to_numpy()
        for fitted, known in (
            (forecaster().fit(driven, X), (X,)),
            (forecaster().fit(changed, X), (X,)),
            (forecaster().fit(driven), ()),
        )
    )
    np.testing.assert_allclose(other[:51], one[:51], rtol=1e-5)
    assert not np.allclose(other[51:], one[51:], rtol=1e-2)
    # and they do act, from where there is enough to learn from
    misses = np.abs(np.stack((one, blind)) - driven.to_numpy())[:, 40:].mean(1)
    assert misses[0] < 0.7 * misses[1]


def test_covariates_as_tokens_are_known_ahead(y: pd.Series, X: pd.DataFrame) -> None:
    """As official checkpoints read them; how far ahead changes no more than their unit."""
    config = TINY | {"shift_known_future": False, "output_patches": 1}
    got = forecaster(config=config).fit(y, X).predict(everywhere(y), X)
    for position in (5, 16, 31):
        before = forecaster(config=config).fit(y.iloc[:position], X).predict(range(1, 17), X)
        np.testing.assert_allclose(got.iloc[position], before.iloc[0], rtol=1e-3)
    blind = forecaster(config=config).fit(y).predict(everywhere(y))
    assert not np.allclose(got, blind, rtol=1e-2)


def test_samples_of_the_past_are_independent(y: pd.Series) -> None:
    drawn = forecaster().fit(y).predict_proba([-2, -1, 0]).sample(500)
    ranks = drawn.to_numpy().reshape(500, 3)
    assert np.abs(np.corrcoef(ranks.T)[np.triu_indices(3, 1)]).max() < 0.3


def test_is_one_step_ahead_from_the_values_before(y: pd.Series) -> None:
    """Within the first window the normaliser is that of all values before."""
    got = forecaster().fit(y).predict(everywhere(y))
    for position in (1, 5, 15, 16, 20, 28, 31):
        before = forecaster().fit(y.iloc[:position]).predict([1])
        np.testing.assert_allclose(got.iloc[position], before.iloc[0], rtol=1e-4)


@pytest.mark.parametrize("before", [np.nan, 0.0, 0.1])
def test_what_begins_or_jumps_late_is_forecast_from_what_follows(
    y: pd.Series, before: float
) -> None:
    """Nothing of a launch, or of another level, is in the first half of what lies before."""
    table = pd.DataFrame({"u": y, "v": y + 1000})
    table.iloc[:40, 1] = before * y.iloc[:40]
    got = forecaster().fit(table).predict(everywhere(y))
    for position in (42, 43, 48, 55):
        refitted = forecaster().fit(table.iloc[:position]).predict([1])
        np.testing.assert_allclose(got.iloc[position], refitted.iloc[0], rtol=1e-4)


def test_the_start_is_finite_and_defined(y: pd.Series) -> None:
    fitted = forecaster().fit(y)
    interval = fitted.predict_interval(everywhere(y), coverage=0.9).to_numpy()
    assert np.isfinite(interval).all()
    # the first point has none before it: it takes the forecast of the next
    np.testing.assert_allclose(interval[0], interval[1])
    gap = y.copy()
    gap.iloc[:3] = np.nan
    got = forecaster().fit(gap).predict(everywhere(y))
    assert np.isfinite(got).all()
    np.testing.assert_allclose(got.iloc[3], got.iloc[4])
    later = gap.copy()
    later.iloc[3:] += 1000
    np.testing.assert_allclose(
        forecaster().fit(later).predict(everywhere(y)).iloc[:3], got.iloc[:3], rtol=1e-5
    )


def test_some_steps_are_those_of_all(y: pd.Series) -> None:
    fitted = forecaster().fit(y)
    every = fitted.predict(everywhere(y))
    mixed = fitted.predict([-40, -3, 0, 1, 30])
    np.testing.assert_allclose(mixed.iloc[:3], every.iloc[[29, 66, 69]], rtol=1e-5)
    np.testing.assert_allclose(mixed.iloc[3:], fitted.predict([1, 30]), rtol=1e-5)


def test_multivariate_and_panel_equal_one_by_one(y: pd.Series) -> None:
    both = pd.DataFrame({"u": y, "v": y.shift(3)})
    names = ["id", "month"]
    table = pd.concat({"p": both, "q": both.iloc[::-1].set_axis(MONTHS)}, names=names)
    got = forecaster().fit(table).predict([-60, -20, 0, 2])
    for name in ("p", "q"):
        alone = forecaster(batch_size=1).fit(table.loc[name]).predict([-60, -20, 0, 2])
        pd.testing.assert_frame_equal(got.loc[name], alone, rtol=1e-4, check_freq=False)
    assert np.isfinite(got).all(axis=None)


def test_residuals(y: pd.Series) -> None:
    fitted = forecaster().fit(y)
    residuals = fitted.predict_residuals(y)
    np.testing.assert_allclose(residuals, y - fitted.predict(everywhere(y)), rtol=1e-6)


def test_before_the_context_is_an_error(y: pd.Series) -> None:
    fitted = forecaster(context_length=30).fit(y)
    assert np.isfinite(fitted.predict([-29])).all()
    with pytest.raises(ValueError, match=r"asks for 2003-04, but the context of the series starts"):
        fitted.predict([-30, 1])


def test_interval_covers_about_what_it_says() -> None:
    from sktime.datasets import load_airline

    y = load_airline()
    interval = (
        MoiraiMoEForecaster(random_state=0).fit(y).predict_interval(everywhere(y), coverage=0.8)
    )
    inside = (interval.iloc[:, 0] < y) & (y < interval.iloc[:, 1])
    assert 0.7 < inside.iloc[24:].mean() < 0.95
