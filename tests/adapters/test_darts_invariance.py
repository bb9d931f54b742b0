"""What forecasts of the Darts model do not depend on: batches, windows, types, missing values."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("darts", reason="needs the extra `darts`")

from darts import TimeSeries

from darts_models import (
    CHUNK,
    CONTEXT,
    PARAMETERS,
    PASS,
    covariates,
    driven,
    model,
    native,
    quantiles,
    walk,
)

SERIES = walk()


# --- batches and windows ------------------------------------------------------------------------


@pytest.mark.parametrize("horizon", [CHUNK, PASS + 8])
@pytest.mark.parametrize("kind", ["median", "quantiles", "samples"])
def test_a_forecast_does_not_depend_on_its_batch(kind: str, horizon: int) -> None:
    panel = [walk(seed=seed, points=70 + 3 * seed) for seed in range(7)]
    likelihood = None if kind == "median" else quantiles()
    fitted = model(chunk=horizon, likelihood=likelihood).fit(panel)
    options: dict[str, Any] = {
        "median": {},
        "quantiles": PARAMETERS,
        "samples": {"num_samples": 5, "random_state": 0},
    }[kind]
    together = fitted.predict(horizon, series=panel, **options)
    small = fitted.predict(horizon, series=panel, batch_size=2, **options)
    for one, other in zip(together, small, strict=True):
        np.testing.assert_array_almost_equal(one.all_values(), other.all_values(), 4)
    for series, forecast in zip(panel, together, strict=True):
        alone = fitted.predict(horizon, series=series, **options)
        np.testing.assert_array_almost_equal(alone.all_values(), forecast.all_values(), 4)
    if kind != "samples":
        again = fitted.predict(horizon, series=panel, **options)
        for one, other in zip(together, again, strict=True):
            np.testing.assert_array_equal(one.all_values(), other.all_values())


@pytest.mark.slow
def test_a_forecast_does_not_depend_on_the_number_of_jobs() -> None:
    panel = [walk(seed=seed) for seed in range(3)]
    fitted = model().fit(panel)
    alone, shared = (fitted.predict(CHUNK, series=panel, n_jobs=jobs) for jobs in (1, 2))
    for one, other in zip(alone, shared, strict=True):
        np.testing.assert_array_equal(one.values(), other.values())


@pytest.mark.parametrize(
    ("changes", "options"),
    [
        ({}, {}),
        ({"likelihood": quantiles()}, PARAMETERS),
        ({"output_chunk_shift": 3}, {}),
        ({"context": (20, CONTEXT)}, {}),
        ({"chunk": 4}, {"forecast_horizon": PASS + 4}),
        ({"likelihood": quantiles()}, {"num_samples": 3, "random_state": 0}),
        ({"likelihood": quantiles()}, {"num_samples": 3, "random_state": 0, "covariates": True}),
        ({}, {"components": 2}),
        ({}, {"covariates": True}),
        ({}, {"last_points_only": True, "stride": 3, "start": 0.7}),
    ],
    ids=str,
)
def test_optimised_historical_forecasts_are_the_plain_ones(
    changes: dict[str, Any], options: dict[str, Any]
) -> None:
    options = {"forecast_horizon": 5, "last_points_only": False, "stride": 7} | options
    series = [walk(components=options.pop("components", 1)), walk(88, seed=2)]
    series = series[:1] if series[0].n_components > 1 else series
    known = {}
    if options.pop("covariates", False):
        series = [driven(), driven(88, seed=2)]
        known = {name: [given] * len(series) for name, given in covariates().items()}
    fitted = model(**changes).fit(series, **known)
    fast, slow = (
        fitted.historical_forecasts(
            series, retrain=False, enable_optimization=optimised, **known, **options
        )
        for optimised in (True, False)
    )
    flat = [
        [f for part in run for f in (part if isinstance(part, list) else [part])]
        for run in (fast, slow)
    ]
    assert len(flat[0]) == len(flat[1]) > 0
    for one, other in zip(*flat, strict=True):
        assert one.time_index.equals(other.time_index)
        np.testing.assert_array_almost_equal(one.all_values(), other.all_values(), 4)


def test_a_variable_context_is_the_fixed_one_of_its_length() -> None:
    panel = [driven(points, seed) for seed, points in enumerate((17, 30, 48, 90))]
    known = covariates()
    options = {name: [part] * len(panel) for name, part in known.items()}
    variable = model((10, CONTEXT)).fit(panel, **options)
    together = variable.predict(CHUNK, series=panel, **options)
    for series, forecast in zip(panel, together, strict=True):
        fixed = model(min(len(series), CONTEXT)).fit(series, **known)
        np.testing.assert_array_almost_equal(forecast.values(), fixed.predict(CHUNK).values(), 6)


# --- types and missing values -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fitted_on", "asked_with", "precision", "tolerance"),
    [
        (np.float32, np.float32, None, 1e-5),
        (np.float64, np.float64, None, 1e-5),
        (np.float16, np.float16, None, 1e-5),
        (np.float32, np.float64, None, 1e-5),
        (np.float64, np.float32, None, 1e-5),
        (np.float32, np.float32, "bf16-mixed", 1e-5),
        (np.float64, np.float64, "bf16-mixed", 1e-5),
        (np.float64, np.float64, "32-true", 1e-5),
        (np.float32, np.float32, "64-true", 1e-5),
        (np.float32, np.float32, "bf16-true", 0.2),
    ],
)
def test_every_type_of_number_gives_the_same_forecast(
    fitted_on: type, asked_with: type, precision: str | None, tolerance: float
) -> None:
    horizon = PASS + 3
    # the paths beyond the first pass depend on every bit of the context
    expected = native(SERIES.astype(asked_with), horizon).quantile(0.5)
    trainer = {} if precision is None else {"precision": precision}
    fitted = model(pl_trainer_kwargs=trainer).fit(SERIES.astype(fitted_on))
    default = torch.get_default_dtype()
    forecast = fitted.predict(horizon, series=SERIES.astype(asked_with))
    assert torch.get_default_dtype() == default
    np.testing.assert_allclose(forecast.values(), expected, rtol=0, atol=tolerance)


def test_missing_values_at_the_start_inside_and_everywhere() -> None:
    fitted = model(likelihood=quantiles()).fit(SERIES)

    def forecast(missing: slice) -> np.ndarray:
        values = SERIES.values().copy()
        values[missing] = np.nan
        return fitted.predict(PASS + 3, series=SERIES.with_values(values)).values()

    assert np.isfinite(forecast(slice(60, 70))).all()
    assert np.isfinite(forecast(slice(0, 80))).all()
    assert np.isfinite(forecast(slice(70, None))).all()
    # nothing is known of it
    assert np.isnan(forecast(slice(None))).all()


def test_a_component_without_values_leaves_the_others_their_forecast() -> None:
    values = walk(components=3).values().copy()
    values[:, 1] = np.nan
    series = SERIES.with_columns_renamed(SERIES.columns[0], "x")
    series = TimeSeries.from_times_and_values(series.time_index, values)
    forecast = model().fit(series).predict(5).values()
    others = TimeSeries.from_times_and_values(series.time_index, values[:, [0, 2]])
    np.testing.assert_allclose(
        forecast[:, [0, 2]], model().fit(others).predict(5).values(), atol=1e-6
    )
    assert np.isnan(forecast[:, 1]).all()


def test_one_series_without_values_leaves_the_others_of_its_batch_their_forecast() -> None:
    empty = SERIES.with_values(np.full((len(SERIES), 1), np.nan))
    fitted = model().fit(SERIES)
    forecasts = fitted.predict(5, series=[empty, SERIES])
    assert np.isnan(forecasts[0].values()).all()
    np.testing.assert_allclose(forecasts[1].values(), fitted.predict(5).values(), atol=1e-6)


@pytest.mark.parametrize("level", [0.0, 7.0, 1e9])
def test_a_constant_series_has_a_finite_forecast_near_it(level: float) -> None:
    constant = SERIES.with_values(np.full((len(SERIES), 1), level))
    forecast = model().fit(constant).predict(PASS + 3).values()
    assert np.isfinite(forecast).all()
    assert np.abs(forecast - level).max() <= 0.1 * max(level, 100)
