"""Forecasts of the Darts model: what they equal, and what they must not depend on."""

from __future__ import annotations

import inspect
import re
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("darts", reason="needs the extra `darts`")

from darts import TimeSeries, concatenate
from darts.models.forecasting.foundation_model import FoundationModel
from darts.models.forecasting.pl_forecasting_module import PLForecastingModule
from darts.models.forecasting.torch_forecasting_model import TorchForecastingModel
from darts.utils.likelihood_models.torch import GaussianLikelihood

from darts_models import (
    CHUNK,
    CONTEXT,
    LEVELS,
    PASS,
    QUIET,
    covariates,
    model,
    quantiles,
    tiny_pipeline,
    walk,
)
from moirai_moe_forecaster import MoiraiMoE, MoiraiMoEModel, MoiraiMoEPipeline
from moirai_moe_forecaster.adapters.darts_module import QUANTILE_SEED
from moirai_moe_forecaster.errors import InvalidInputError

SERIES = walk()
PARAMETERS = {"predict_likelihood_parameters": True}


def native(
    series: TimeSeries, horizon: int, pipeline: MoiraiMoEPipeline | None = None, **options: Any
) -> Any:
    """Native forecast of the last context of a series, by the seed of quantiles."""
    options = {"context_length": CONTEXT, "random_state": QUANTILE_SEED} | options
    values = series.values(copy=False)
    return (pipeline or tiny_pipeline()).predict(values, horizon, **options)


def columns(forecast: Any, levels: list[float] = LEVELS) -> np.ndarray:
    """Native quantiles in the order of Darts' columns: (time, component * level)."""
    values = forecast.quantile(levels).transpose(1, 2, 0)
    return values.reshape(len(values), -1)


# --- the class ----------------------------------------------------------------------------------


def test_it_is_a_foundation_model_with_the_arguments_in_the_usual_order() -> None:
    assert isinstance(model(), FoundationModel)
    assert isinstance(model(), TorchForecastingModel)
    assert list(inspect.signature(MoiraiMoEModel.__init__).parameters) == [
        "self",
        "input_chunk_length",
        "output_chunk_length",
        "output_chunk_shift",
        "likelihood",
        "hub_model_name",
        "hub_model_revision",
        "local_dir",
        "enable_finetuning",
        "kwargs",
    ]


def test_fitting_does_not_train() -> None:
    fitted = model().fit(SERIES)
    for name, tensor in tiny_pipeline().network.state_dict().items():
        assert torch.equal(fitted.model.network.state_dict()[name], tensor.double()), name
    assert fitted.epochs_trained == 0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"likelihood": GaussianLikelihood()}, "Only QuantileRegression likelihood is supported"),
        ({"context": 1025}, "1025 cannot be greater than model's context_length 1024"),
        ({"context": (10, 2000)}, "2000 cannot be greater than model's context_length 1024"),
        ({"context": (20, 10)}, "1 <= min_length <= max_length"),
        ({"context": [10, 20]}, "an integer or a `(min_length, max_length)` tuple"),
        ({"context": 0}, "must be >= 1"),
        ({"use_static_covariates": True}, "does not support static covariates"),
        ({"local_dir": "/nowhere"}, "`local_dir` /nowhere is not a directory"),
        ({"layers": 3}, "no args/kwargs `['layers']`"),
        ({"enable_finetuning": {"thaw": ["*"]}}, "'freeze' or 'unfreeze'"),
    ],
)
def test_bad_arguments_raise_before_any_work(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        model(**changes)


def test_an_empty_directory_is_no_checkpoint(tmp_path: Any) -> None:
    with pytest.raises(OSError, match=r"config\.json"):
        model(local_dir=tmp_path)


def test_static_covariates_of_a_series_are_left_aside_and_kept() -> None:
    import pandas as pd

    labelled = SERIES.with_static_covariates(pd.DataFrame({"size": [3.0]}))
    forecast = model().fit(labelled).predict(3)
    np.testing.assert_array_equal(forecast.values(), model().fit(SERIES).predict(3).values())
    assert forecast.static_covariates.equals(labelled.static_covariates)


def test_an_infinite_value_is_an_error_that_says_where() -> None:
    values = SERIES.values().copy()
    values[-3] = np.inf
    with pytest.raises(InvalidInputError, match="infinite"):
        model().fit(SERIES).predict(3, series=SERIES.with_values(values))


# --- equal to the native pipeline ---------------------------------------------------------------


@pytest.mark.parametrize("components", [1, 3])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_one_shot_quantiles_are_those_of_the_native_pipeline(components: int, dtype: type) -> None:
    series = walk(components=components).astype(dtype)
    forecast = model(likelihood=quantiles()).fit(series).predict(CHUNK, **PARAMETERS)
    expected = columns(native(series, CHUNK))
    np.testing.assert_allclose(forecast.values(), expected, rtol=1e-5, atol=1e-5)
    assert forecast.dtype == dtype


def test_one_shot_quantiles_with_covariates_and_gaps_are_those_of_the_native_pipeline() -> None:
    values = SERIES.values().copy()
    values[-20:-15] = np.nan
    series, known = SERIES.with_values(values), covariates()
    fitted = model(likelihood=quantiles()).fit(series, **known)
    past = known["past_covariates"].values()[: len(series)]
    future = known["future_covariates"].values()[: len(series) + CHUNK]
    expected = columns(native(series, CHUNK, past_covariates=past, future_covariates=future))
    forecast = fitted.predict(CHUNK, **PARAMETERS)
    np.testing.assert_allclose(forecast.values(), expected, rtol=1e-5, atol=1e-5)
    without = model(likelihood=quantiles()).fit(series).predict(CHUNK, **PARAMETERS)
    assert np.abs(without.values() - expected).max() > 1e-3


def test_the_bundled_checkpoint_is_the_default() -> None:
    bundled = MoiraiMoEModel(60, 24, likelihood=quantiles([0.025, 0.5, 0.975]))
    bundled.to_cpu()
    forecast = bundled.fit(SERIES).predict(24, **PARAMETERS)
    pipeline = MoiraiMoEPipeline.from_pretrained(device="cpu")
    expected = columns(native(SERIES, 24, pipeline, context_length=60), [0.025, 0.5, 0.975])
    np.testing.assert_allclose(forecast.values(), expected, rtol=1e-5, atol=1e-5)


def test_a_long_horizon_is_decoded_natively_whatever_the_chunk() -> None:
    series, horizon = SERIES.astype(np.float32), 2 * PASS + 5
    expected = native(series, horizon).quantile(0.5)
    for chunk in (3, CHUNK, horizon):
        forecast = model(chunk=chunk).fit(series).predict(horizon)
        np.testing.assert_allclose(forecast.values(), expected, rtol=1e-5, atol=1e-5)
    wide = model(chunk=horizon, likelihood=quantiles()).fit(series)
    expected = columns(native(series, horizon))
    np.testing.assert_allclose(
        wide.predict(horizon, **PARAMETERS).values(), expected, rtol=1e-5, atol=1e-5
    )


@pytest.mark.parametrize("likelihood", [None, quantiles()])
def test_a_shifted_chunk_is_the_end_of_a_longer_horizon(likelihood: Any) -> None:
    shifted = model(chunk=6, output_chunk_shift=9, likelihood=likelihood).fit(SERIES)
    forecast = shifted.predict(6, predict_likelihood_parameters=likelihood is not None)
    levels = LEVELS if likelihood else [0.5]
    expected = columns(native(SERIES, 15), levels)[9:]
    np.testing.assert_allclose(forecast.values(), expected, rtol=1e-5, atol=1e-5)
    assert forecast.start_time() == SERIES.end_time() + 10 * SERIES.freq


def test_known_future_covariates_are_missing_in_the_gap_of_a_shift() -> None:
    known = covariates()["future_covariates"]
    shifted = model(chunk=6, output_chunk_shift=4).fit(SERIES, future_covariates=known)
    values = known.values()[: len(SERIES) + 10].copy()
    values[len(SERIES) : len(SERIES) + 4] = np.nan
    expected = native(SERIES, 10, future_covariates=values).quantile(0.5)[4:]
    forecast = shifted.predict(6, future_covariates=known)
    np.testing.assert_allclose(forecast.values(), expected, rtol=1e-5, atol=1e-5)


# --- samples ------------------------------------------------------------------------------------


@pytest.mark.parametrize("horizon", [CHUNK, PASS + 8])
def test_samples_have_the_native_distribution(horizon: int) -> None:
    fitted = model(likelihood=quantiles()).fit(SERIES)
    count = 2000
    samples = fitted.predict(horizon, num_samples=count, random_state=1).all_values()[:, 0]
    grid = np.linspace(0.05, 0.95, 19)
    expected = native(SERIES, horizon).quantile(grid)[..., 0]
    found = (samples[None] <= expected[..., None]).mean(-1)
    # four standard deviations of a share, and what 100 paths leave open beyond the first pass
    slack = 4 * np.sqrt(0.25 / count) + (0.1 if horizon > PASS else 0)
    assert np.abs(found - grid[:, None]).max() < slack


def test_a_sample_is_one_path_through_all_steps() -> None:
    bundled = MoiraiMoEModel(60, 6, likelihood=quantiles(), pl_trainer_kwargs=QUIET).fit(SERIES)
    values = bundled.predict(100, num_samples=200, random_state=0).all_values()[:, 0]
    ranks = values.argsort(1).argsort(1)
    neighbours = [np.corrcoef(ranks[step], ranks[step + 1])[0, 1] for step in range(99)]
    assert np.mean(neighbours) > 0.3


def test_samples_of_components_belong_together() -> None:
    base = walk()
    series = concatenate([base, base], axis=1)
    horizon = 2 * PASS
    values = model(likelihood=quantiles()).fit(series).predict(horizon, num_samples=20)
    assert values.all_values().shape == (horizon, 2, 20)


def test_a_context_is_encoded_once_for_all_its_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = []
    encode = MoiraiMoE.encode

    def counted(self: MoiraiMoE, tokens: Any) -> Any:
        rows.append(len(tokens.values))
        return encode(self, tokens)

    monkeypatch.setattr(MoiraiMoE, "encode", counted)
    panel = [walk(seed=seed) for seed in range(5)]
    fitted = model(likelihood=quantiles()).fit(panel)
    fitted.predict(PASS + CHUNK, series=panel, num_samples=50)
    assert sum(rows) == len(panel)


def test_random_states_follow_the_rules_of_darts() -> None:
    fitted = model(likelihood=quantiles(), random_state=3).fit(SERIES)

    def draw(**options: Any) -> np.ndarray:
        return fitted.predict(CHUNK, num_samples=4, **options).all_values()

    before = torch.get_rng_state()
    first, second = draw(), draw()
    assert torch.equal(torch.get_rng_state(), before)
    assert not np.array_equal(first, second)
    np.testing.assert_array_equal(draw(random_state=7), draw(random_state=7))
    assert not np.array_equal(draw(random_state=7), draw(random_state=8))

    fitted = model(likelihood=quantiles(), random_state=3).fit(SERIES)
    np.testing.assert_array_equal(draw(), first)
    draw(random_state=7)  # must not advance the stream of the others
    np.testing.assert_array_equal(draw(), second)


def test_darts_own_loop_over_samples_still_works() -> None:
    fitted = model(likelihood=quantiles()).fit(SERIES)
    fitted.model.__class__ = type(
        "Plain", (type(fitted.model),), {"predict_step": PLForecastingModule.predict_step}
    )
    forecast = fitted.predict(2 * CHUNK + 3, num_samples=3)
    assert forecast.all_values().shape == (2 * CHUNK + 3, 1, 3)
    assert np.isfinite(forecast.all_values()).all()


# --- what a forecast must not depend on ---------------------------------------------------------


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
        np.testing.assert_array_almost_equal(one.all_values(), other.all_values(), 6)
    for series, forecast in zip(panel, together, strict=True):
        alone = fitted.predict(horizon, series=series, **options)
        np.testing.assert_array_almost_equal(alone.all_values(), forecast.all_values(), 6)
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
    known = {k: [v] * len(series) for k, v in covariates().items()}
    known = known if options.pop("covariates", False) else {}
    fitted = model(**changes).fit(series, **known)
    if "num_samples" in options:
        # unoptimised, every window is a call, and draws anew
        fast, slow = (
            fitted.historical_forecasts(
                series, retrain=False, enable_optimization=optimised, **options
            )
            for optimised in (True, False)
        )
        assert [len(part) for part in fast] == [len(part) for part in slow]
        return
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
        np.testing.assert_array_almost_equal(one.all_values(), other.all_values(), 6)


def test_a_variable_context_is_the_fixed_one_of_its_length() -> None:
    panel = [walk(seed=seed, points=points) for seed, points in enumerate((17, 30, 48, 90))]
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
