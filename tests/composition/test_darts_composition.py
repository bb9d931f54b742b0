"""The bundled model inside the tools of Darts, on real series."""

from __future__ import annotations

from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from sktime.datasets import load_airline

pytest.importorskip("darts", reason="needs the extra `darts`")

from darts import TimeSeries
from darts.ad import ForecastingAnomalyModel, GaussianNLLScorer, KMeansScorer, NormScorer
from darts.dataprocessing import Pipeline
from darts.dataprocessing.transformers import (
    BottomUpReconciliator,
    InvertibleMapper,
    MinTReconciliator,
    Scaler,
)
from darts.explainability import ShapExplainer
from darts.metrics import mae, mase, mql
from darts.models import (
    ConformalNaiveModel,
    ConformalQRModel,
    LinearRegressionModel,
    NaiveEnsembleModel,
    NaiveSeasonal,
    RegressionEnsembleModel,
)
from statsmodels.datasets import macrodata

from darts_models import PARAMETERS, QUIET, cyclic, quantiles
from moirai_moe_forecaster import MoiraiMoEModel

HORIZON = 12
PARTS = ["realcons", "realinv", "realgovt"]


def airline() -> TimeSeries:
    return TimeSeries.from_series(load_airline().to_timestamp()).astype(np.float32)


def consumption() -> TimeSeries:
    """Three quarterly components of US output, and their sum as the total of a hierarchy."""
    table = macrodata.load_pandas().data
    index = pd.date_range("1959-01-01", periods=len(table), freq="QS")
    table = table[PARTS].set_index(index)
    table.insert(0, "total", table.sum(axis=1))
    series = TimeSeries.from_dataframe(table).astype(np.float32)
    return series.with_hierarchy({part: ["total"] for part in PARTS})


def model(**changes: Any) -> MoiraiMoEModel:
    options = {
        "input_chunk_length": 60,
        "output_chunk_length": HORIZON,
        "pl_trainer_kwargs": QUIET,
    }
    return MoiraiMoEModel(**options | changes)


def probabilistic(**changes: Any) -> MoiraiMoEModel:
    return model(likelihood=quantiles([0.05, 0.5, 0.95]), **changes)


SERIES = airline()
TRAIN, TEST = SERIES[:-36], SERIES[-36:]
WINDOWS = {"start": -36, "start_format": "position", "forecast_horizon": HORIZON, "stride": 12}


# --- backtesting --------------------------------------------------------------------------------


def test_a_backtest_scores_its_historical_forecasts() -> None:
    fitted = model().fit(TRAIN)
    windows = fitted.historical_forecasts(SERIES, retrain=False, last_points_only=False, **WINDOWS)
    assert [len(window) for window in windows] == [HORIZON] * 3
    score = fitted.backtest(SERIES, retrain=False, metric=mae, **WINDOWS)
    assert score == pytest.approx(np.mean([mae(SERIES, window) for window in windows]), rel=1e-5)
    seasonal = NaiveSeasonal(12).backtest(SERIES, metric=mae, **WINDOWS)
    assert score < seasonal
    assert fitted.backtest(SERIES, retrain=False, metric=mase, **WINDOWS) < 1.5


def test_a_backtest_of_an_unfitted_model_fits_it() -> None:
    with_retraining = model().backtest(SERIES, retrain=True, metric=mae, **WINDOWS)
    without = model().fit(TRAIN).backtest(SERIES, retrain=False, metric=mae, **WINDOWS)
    assert with_retraining == pytest.approx(without, rel=1e-4)


def test_quantiles_and_samples_are_scored_alike() -> None:
    fitted = probabilistic().fit(TRAIN)
    levels = [0.05, 0.5, 0.95]
    options = {"metric": mql, "metric_kwargs": {"q": levels}, "retrain": False, **WINDOWS}
    exact = fitted.backtest(SERIES, predict_likelihood_parameters=True, **options)
    sampled = fitted.backtest(SERIES, num_samples=500, random_state=0, **options)
    np.testing.assert_allclose(sampled, exact, rtol=0.1)


def test_residuals_are_what_forecasts_miss() -> None:
    fitted = model().fit(TRAIN)
    residuals = fitted.residuals(SERIES, retrain=False, last_points_only=True, **WINDOWS)
    forecast = fitted.historical_forecasts(SERIES, retrain=False, last_points_only=True, **WINDOWS)
    missed = SERIES.slice_intersect(forecast).values() - forecast.values()
    np.testing.assert_allclose(residuals.values(), missed, rtol=1e-5)


@pytest.mark.slow
def test_a_grid_search_finds_a_context_of_several_years() -> None:
    best, parameters, score = MoiraiMoEModel.gridsearch(
        {
            "input_chunk_length": [3, 84],
            "output_chunk_length": [HORIZON],
            "pl_trainer_kwargs": [QUIET],
        },
        series=TRAIN,
        val_series=TEST[:HORIZON],
        metric=mae,
    )
    assert parameters["input_chunk_length"] == 84
    assert isinstance(best, MoiraiMoEModel)
    assert score < 60


def test_another_model_is_swapped_by_one_line() -> None:
    for candidate in (LinearRegressionModel(lags=24, output_chunk_length=HORIZON), model()):
        score = candidate.fit(TRAIN).backtest(SERIES, retrain=False, metric=mae, **WINDOWS)
        assert 0 < score < 60


# --- ensembles and conformal intervals ----------------------------------------------------------


def test_a_naive_ensemble_is_the_mean_of_its_members() -> None:
    members = [model(), model(input_chunk_length=24)]
    apart = [member.untrained_model().fit(TRAIN).predict(HORIZON).values() for member in members]
    together = NaiveEnsembleModel(members).fit(TRAIN).predict(HORIZON).values()
    np.testing.assert_allclose(together, np.mean(apart, 0), rtol=1e-5)
    fitted = [member.untrained_model().fit(TRAIN) for member in members]
    ready = NaiveEnsembleModel(fitted, train_forecasting_models=False)
    np.testing.assert_allclose(ready.predict(HORIZON, series=TRAIN).values(), together, rtol=1e-5)


@pytest.mark.slow
def test_a_probabilistic_ensemble_keeps_its_quantiles_and_samples() -> None:
    ensemble = NaiveEnsembleModel([probabilistic(), probabilistic(input_chunk_length=24)])
    ensemble.fit(TRAIN)
    assert ensemble.predict(HORIZON, predict_likelihood_parameters=True).n_components == 3
    assert ensemble.predict(HORIZON, num_samples=7).n_samples == 7


def test_a_regression_ensemble_learns_weights_beside_another_model() -> None:
    ensemble = RegressionEnsembleModel(
        [model(), LinearRegressionModel(lags=24, output_chunk_length=HORIZON)],
        regression_train_n_points=24,
        train_using_historical_forecasts=True,
    )
    forecast = ensemble.fit(TRAIN).predict(HORIZON)
    # 1958 was a bad year, in which every model that has seen the years before it is too high
    assert mae(SERIES, forecast) < 100
    assert np.abs(np.ravel(ensemble.ensemble_model.model.coef_)[0]) > 0.05


@pytest.mark.slow
@pytest.mark.parametrize("wrapper", [ConformalNaiveModel, ConformalQRModel])
def test_conformal_intervals_widen_or_narrow_the_models(wrapper: Any) -> None:
    fitted = probabilistic().fit(TRAIN[:-40])
    conformal = wrapper(fitted, quantiles=[0.1, 0.5, 0.9], cal_length=20)
    forecast = conformal.predict(HORIZON, series=TRAIN, predict_likelihood_parameters=True)
    assert (np.diff(forecast.values(), axis=1) >= 0).all()
    options = {"predict_likelihood_parameters": True, "random_state": 0}
    alone = conformal.predict(HORIZON, series=TRAIN, **options)
    pair = conformal.predict(HORIZON, series=[TRAIN, TRAIN[:-5]], **options)
    np.testing.assert_allclose(pair[0].values(), alone.values(), rtol=1e-5)
    windows = conformal.historical_forecasts(
        SERIES, retrain=False, last_points_only=False, num_samples=20, **WINDOWS
    )
    assert windows[0].n_samples == 20


# --- cycles -------------------------------------------------------------------------------------


def hourly() -> TimeSeries:
    """A table of 24 random steps under some noise: what can only be copied."""
    return cyclic(800, 24, seed=7)


def carrying_on(**changes: Any) -> MoiraiMoEModel:
    options = {"input_chunk_length": 480, "likelihood": quantiles()}
    return model(**options | changes)


LAST_DAYS = {"start": -240, "start_format": "position", "forecast_horizon": HORIZON, "stride": 12}


def test_backtests_and_residuals_are_those_of_copied_cycles() -> None:
    series = hourly()
    options = {"retrain": False, **LAST_DAYS}
    fitted, plain = (
        carrying_on(season_length=season_length).fit(series[:-240])
        for season_length in ("auto", None)
    )
    exact = {"metric": mql, "metric_kwargs": {"q": 0.5}, "predict_likelihood_parameters": True}
    naive = NaiveSeasonal(24).backtest(series, metric=mae, **LAST_DAYS)
    score = fitted.backtest(series, **exact, **options)
    assert score < 0.85 * naive
    assert plain.backtest(series, **exact, **options) > 2 * naive
    medians = carrying_on(likelihood=None).fit(series[:-240])
    residuals = medians.residuals(series, last_points_only=False, values_only=True, **options)
    assert np.abs(residuals).mean() == pytest.approx(score, rel=1e-3)


def test_ensembles_average_what_their_members_carry_on() -> None:
    series = hourly()
    train = series[:-HORIZON]
    members = [carrying_on(likelihood=None), carrying_on(likelihood=None, season_length=24)]
    apart = [member.untrained_model().fit(train).predict(HORIZON).values() for member in members]
    together = NaiveEnsembleModel(members).fit(train).predict(HORIZON).values()
    np.testing.assert_allclose(together, np.mean(apart, 0), atol=1e-5)
    stacked = RegressionEnsembleModel(
        [carrying_on(likelihood=None, season_length=length) for length in ("auto", None)],
        regression_train_n_points=48,
        train_using_historical_forecasts=True,
    )
    assert mae(series, stacked.fit(train).predict(HORIZON)) < 0.15
    trust = np.ravel(stacked.ensemble_model.model.coef_)
    assert trust[0] > trust[1]


@pytest.mark.parametrize("wrapper", [ConformalNaiveModel, ConformalQRModel])
def test_conformal_intervals_around_a_copied_cycle_are_narrow(wrapper: Any) -> None:
    series = hourly()
    fitted = carrying_on().fit(series[:-60])
    conformal = wrapper(fitted, quantiles=[0.1, 0.5, 0.9], cal_length=20)
    forecast = conformal.predict(HORIZON, series=series[:-HORIZON], **PARAMETERS)
    low, median, high = forecast.values().T
    # the noise is 0.1, the table 1: 80 % of the noise lie within 0.26
    assert (np.diff(forecast.values(), axis=1) >= 0).all()
    assert 0.1 < (high - low).mean() < 0.6
    assert np.abs(median - series[-HORIZON:].values()[:, 0]).mean() < 0.2


# --- transformers, hierarchies, covariates ------------------------------------------------------


def test_scaling_the_series_changes_nothing_but_the_scale() -> None:
    plain = model().fit(TRAIN).predict(HORIZON)
    scaler = Scaler()
    back = scaler.inverse_transform(model().fit(scaler.fit_transform(TRAIN)).predict(HORIZON))
    np.testing.assert_allclose(back.values(), plain.values(), rtol=1e-3)


def test_pipelines_of_transformers_apply_within_historical_forecasts() -> None:
    pipeline = Pipeline([InvertibleMapper(np.log, np.exp), Scaler()])
    fitted = model().fit(pipeline.fit_transform(TRAIN))
    windows = fitted.historical_forecasts(
        SERIES,
        retrain=False,
        last_points_only=False,
        data_transformers={"series": pipeline},
        **WINDOWS,
    )
    assert np.mean([mae(SERIES, window) for window in windows]) < 60


@pytest.mark.parametrize("reconciliator", [BottomUpReconciliator(), MinTReconciliator("ols")])
def test_reconciled_forecasts_of_a_hierarchy_add_up(reconciliator: Any) -> None:
    series = consumption()
    forecast = model(output_chunk_length=8).fit(series[:-8]).predict(8)
    assert forecast.hierarchy == series.hierarchy
    if isinstance(reconciliator, MinTReconciliator):
        reconciliator.fit(forecast)
    coherent = reconciliator.transform(forecast)
    total = coherent["total"].values()[:, 0]
    np.testing.assert_allclose(total, coherent[PARTS].values().sum(1), rtol=1e-4)
    assert mae(series, coherent) < 0.15 * series.values().mean()


def test_encoders_make_covariates_on_the_way() -> None:
    encoders = {"cyclic": {"future": ["month"]}, "position": {"past": ["relative"]}}
    encoded = model(add_encoders=encoders).fit(TRAIN)
    assert encoded.uses_future_covariates
    assert encoded.uses_past_covariates
    forecast = encoded.predict(HORIZON)
    assert np.abs(forecast.values() - model().fit(TRAIN).predict(HORIZON).values()).max() > 0


# --- anomalies, explanations, pictures ----------------------------------------------------------


def test_an_anomaly_is_where_the_forecast_failed() -> None:
    values = SERIES.values().copy()
    where = len(values) - 10
    values[where] *= 2
    spoilt = SERIES.with_values(values)
    scorers = [NormScorer(), KMeansScorer(window=2, k=3), GaussianNLLScorer()]
    anomalies = ForecastingAnomalyModel(probabilistic().fit(TRAIN), scorers)
    anomalies.fit(TRAIN, start=0.6, num_samples=20)
    norm, _, likelihood = anomalies.score(spoilt, start=0.7, num_samples=20)
    for score in (norm, likelihood):
        assert score.time_index[score.values()[:, 0].argmax()] == SERIES.time_index[where]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_shap_explains_a_forecast() -> None:
    fitted = model(input_chunk_length=4, output_chunk_length=1).fit(TRAIN)
    explainer = ShapExplainer(
        fitted, background_series=TRAIN[-14:], shap_method="permutation", test_stationarity=False
    )
    explained = explainer.explain(TRAIN[-6:])
    values = explained.get_explanation(horizon=1).values()
    assert np.isfinite(values).all()
    # the last month says more of the next one than any before it
    assert np.abs(values).mean(0).argmax() == 3


def test_forecasts_are_drawn() -> None:
    fitted = probabilistic().fit(TRAIN)
    figure, axes = plt.subplots()
    TRAIN.plot(ax=axes)
    fitted.predict(HORIZON, num_samples=30).plot(low_quantile=0.1, high_quantile=0.9, ax=axes)
    fitted.predict(HORIZON, predict_likelihood_parameters=True).plot(ax=axes)
    assert len(axes.lines) == 5
    plt.close(figure)
