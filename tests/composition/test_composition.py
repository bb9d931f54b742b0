"""In sktime's composites, on real data: the values are those that the parts give by hand."""

from __future__ import annotations

import pickle
import warnings
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pandas as pd
import pytest
from sktime.benchmarking.forecasting import ForecastingBenchmark
from sktime.datasets import load_airline, load_longley, load_macroeconomic
from sktime.forecasting.base import ForecastingHorizon
from sktime.forecasting.compose import (
    AutoEnsembleForecaster,
    BaggingForecaster,
    ColumnEnsembleForecaster,
    EnsembleForecaster,
    FallbackForecaster,
    ForecastByLevel,
    ForecastingPipeline,
    ForecastX,
    MultiplexForecaster,
    StackingForecaster,
    TransformedTargetForecaster,
)
from sktime.forecasting.conformal import ConformalIntervals
from sktime.forecasting.model_evaluation import evaluate
from sktime.forecasting.model_selection import ForecastingGridSearchCV
from sktime.forecasting.naive import NaiveForecaster
from sktime.forecasting.reconcile import ReconcilerForecaster
from sktime.performance_metrics.forecasting import (
    MeanAbsoluteError,
    MeanAbsoluteScaledError,
)
from sktime.split import ExpandingWindowSplitter, temporal_train_test_split
from sktime.transformations.bootstrap import MovingBlockBootstrapTransformer
from sktime.transformations.boxcox import LogTransformer
from sktime.transformations.detrend import Deseasonalizer, Detrender
from sktime.transformations.difference import Differencer
from sktime.transformations.hierarchical.aggregate import Aggregator
from sktime.transformations.impute import Imputer

from moirai_moe_forecaster import MoiraiMoEForecaster

BUNDLED = files("moirai_moe_forecaster") / "weights" / "model.safetensors"
pytestmark = pytest.mark.skipif(
    not BUNDLED.is_file(), reason="the bundled checkpoint is not in this source tree"
)
FH = list(range(1, 13))


def forecaster(**changes: Any) -> MoiraiMoEForecaster:
    return MoiraiMoEForecaster(**({"random_state": 0} | changes))


def points(result: Any) -> np.ndarray:
    return np.asarray(result, dtype=float).ravel()


@pytest.fixture(scope="module")
def airline() -> tuple[pd.Series, pd.Series]:
    return temporal_train_test_split(load_airline(), test_size=24)


@pytest.fixture(scope="module")
def alone(airline: tuple[pd.Series, pd.Series]) -> pd.Series:
    return forecaster().fit(airline[0]).predict(FH)


@pytest.fixture(scope="module")
def hierarchy() -> pd.DataFrame:
    """Real consumption and investment of the United States, and their sums."""
    data = load_macroeconomic()[["realcons", "realinv", "realgovt"]]
    parts = {
        ("private", "cons"): data["realcons"],
        ("private", "inv"): data["realinv"],
        ("public", "govt"): data["realgovt"],
    }
    table = pd.concat(parts, names=["sector", "part", "quarter"]).to_frame("y")
    return Aggregator().fit_transform(table)


class TestTransformedTargets:
    def test_log(self, airline: tuple[pd.Series, pd.Series]) -> None:
        y, _ = airline
        by_hand = np.exp(forecaster().fit(np.log(y)).predict(FH))
        piped = LogTransformer() * forecaster()
        np.testing.assert_allclose(piped.fit(y).predict(FH), by_hand, rtol=1e-6)
        interval = piped.predict_interval(FH, coverage=0.8)
        inner = forecaster().fit(np.log(y)).predict_interval(FH, coverage=0.8)
        np.testing.assert_allclose(interval, np.exp(inner), rtol=1e-6)
        drawn = piped.predict_proba(FH).quantile(0.9)
        np.testing.assert_allclose(points(drawn), points(interval)[1::2], rtol=0.05)

    def test_difference(self, airline: tuple[pd.Series, pd.Series]) -> None:
        y, _ = airline
        piped = TransformedTargetForecaster([Differencer(lags=12), forecaster()]).fit(y)
        by_hand = forecaster().fit((y - y.shift(12)).fillna(0.0)).predict(FH)
        np.testing.assert_allclose(
            points(piped.predict(FH)), points(by_hand) + points(y.iloc[-12:]), rtol=1e-6
        )

    @pytest.mark.parametrize("transformer", [Detrender(), Deseasonalizer(sp=12)])
    def test_detrended_and_deseasonalised(
        self, airline: tuple[pd.Series, pd.Series], transformer: Any
    ) -> None:
        y, _ = airline
        piped = (transformer * forecaster()).fit(y).predict(FH)
        fitted = transformer.clone().fit(y)
        inner = forecaster().fit(fitted.transform(y)).predict(FH)
        np.testing.assert_allclose(piped, fitted.inverse_transform(inner), rtol=1e-6)

    def test_as_the_detrender(self, airline: tuple[pd.Series, pd.Series]) -> None:
        y, _ = airline
        rest = Detrender(forecaster=forecaster()).fit_transform(y)
        own = forecaster().fit(y)
        told = own.predict(ForecastingHorizon(y.index, is_relative=False))
        np.testing.assert_allclose(points(rest), points(y - told), rtol=1e-4, atol=1e-3)
        assert np.abs(rest.iloc[24:]).mean() < 0.6 * np.abs(y.diff().iloc[24:]).mean()


class TestExogenous:
    def test_pipeline_scales_X(self) -> None:
        data = load_macroeconomic()
        y, X = data["realgdp"], data[["realcons", "realinv"]]
        plain = forecaster().fit(y[:-8], X[:-8]).predict(FH[:8], X[-8:])
        from sklearn.preprocessing import StandardScaler
        from sktime.transformations.adapt import TabularToSeriesAdaptor

        piped = ForecastingPipeline([TabularToSeriesAdaptor(StandardScaler()), forecaster()])
        got = piped.fit(y[:-8], X[:-8]).predict(FH[:8], X[-8:])
        np.testing.assert_allclose(got, plain, rtol=1e-3)

    def test_forecast_x(self) -> None:
        y, X = load_longley()
        X = X[["GNP", "POP"]]
        own = forecaster().fit(X).predict([1, 2, 3])
        by_hand = forecaster().fit(y, X).predict([1, 2, 3], own)
        composite = ForecastX(forecaster(), forecaster()).fit(y, X, fh=[1, 2, 3])
        np.testing.assert_allclose(composite.predict([1, 2, 3]), by_hand, rtol=1e-6)

    def test_a_driver_that_is_known_halves_the_error(self) -> None:
        data = load_macroeconomic()
        y, X = data["realgdp"], data[["realcons", "realinv", "realgovt"]]
        errors = []
        for end in range(150, 196, 5):
            past, ahead = slice(0, end), slice(end, end + 8)
            truth = y.iloc[ahead].to_numpy()
            blind = forecaster().fit(y.iloc[past]).predict(FH[:8])
            knowing = forecaster().fit(y.iloc[past], X.iloc[past]).predict(FH[:8], X.iloc[ahead])
            errors.append([np.abs(points(f) - truth).mean() for f in (knowing, blind)])
        knowing, blind = np.mean(errors, axis=0)
        assert knowing < blind / 2


class TestEnsembles:
    def test_mean_of_two(self, airline: tuple[pd.Series, pd.Series], alone: pd.Series) -> None:
        y, _ = airline
        naive = NaiveForecaster(sp=12)
        both = EnsembleForecaster([("m", forecaster()), ("n", naive)]).fit(y).predict(FH)
        np.testing.assert_allclose(both, (alone + naive.clone().fit(y).predict(FH)) / 2, rtol=1e-6)

    def test_learnt_weights(self, airline: tuple[pd.Series, pd.Series], alone: pd.Series) -> None:
        y, _ = airline
        bad = NaiveForecaster(strategy="mean")
        members = [("m", forecaster()), ("n", bad)]
        auto = AutoEnsembleForecaster(members, method="inverse-variance").fit(y, fh=FH)
        assert auto.weights_[0] > 0.7
        weights = np.array(auto.weights_) / np.sum(auto.weights_)
        by_hand = weights[0] * alone + weights[1] * bad.clone().fit(y).predict(FH)
        np.testing.assert_allclose(auto.predict(), by_hand, rtol=1e-6)

    def test_stacking(self, airline: tuple[pd.Series, pd.Series]) -> None:
        y, truth = airline
        members = [("m", forecaster()), ("n", NaiveForecaster(strategy="mean"))]
        stacked = StackingForecaster(members).fit(y, fh=FH).predict()
        flat = NaiveForecaster(strategy="mean").fit(y).predict(FH)
        truth = truth.iloc[:12]
        assert np.abs(stacked - truth).mean() < np.abs(flat - truth).mean() / 2

    def test_chosen_one(self, airline: tuple[pd.Series, pd.Series], alone: pd.Series) -> None:
        y, _ = airline
        members = [("m", forecaster()), ("n", NaiveForecaster(sp=12))]
        chosen = MultiplexForecaster(members, selected_forecaster="m").fit(y)
        np.testing.assert_allclose(chosen.predict(FH), alone, rtol=1e-6)

    def test_fallback(self, airline: tuple[pd.Series, pd.Series], alone: pd.Series) -> None:
        y, _ = airline
        broken = forecaster(context_length=-1)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            safe = FallbackForecaster([("bad", broken), ("good", forecaster())]).fit(y, fh=FH)
            np.testing.assert_allclose(safe.predict(), alone, rtol=1e-6)

    def test_bagging(self, airline: tuple[pd.Series, pd.Series], alone: pd.Series) -> None:
        y, _ = airline
        bootstrap = MovingBlockBootstrapTransformer(
            n_series=3, block_length=24, return_actual=True, random_state=0
        )
        bagged = BaggingForecaster(bootstrap, forecaster()).fit(y, fh=FH)
        copies = bootstrap.clone().fit_transform(y)
        members = forecaster().fit(copies).predict(FH)
        by_hand = members.groupby(level=-1).mean()
        np.testing.assert_allclose(points(bagged.predict()), points(by_hand), rtol=1e-4)
        last = [name for name in members.index.unique(0) if np.allclose(members.loc[name].T, alone)]
        assert len(last) == 1  # the series itself is among them

    def test_columns(self) -> None:
        data = load_macroeconomic()[["realcons", "realinv"]]
        members = [("c", forecaster(), "realcons"), ("i", forecaster(), "realinv")]
        got = ColumnEnsembleForecaster(members).fit(data).predict(FH)
        for name in data.columns:
            one = forecaster().fit(data[[name]]).predict(FH)
            np.testing.assert_allclose(points(got[name]), points(one), rtol=1e-6)


def test_conformal_intervals(airline: tuple[pd.Series, pd.Series]) -> None:
    y, truth = airline
    # no share of the windows: sktime draws it from the global random state
    conformal = ConformalIntervals(forecaster(), initial_window=96)
    interval = conformal.fit(y, fh=FH).predict_interval(coverage=0.9)
    truth = truth.iloc[:12].to_numpy()
    inside = (points(interval.iloc[:, 0]) < truth) & (truth < points(interval.iloc[:, 1]))
    np.testing.assert_allclose(conformal.predict(), forecaster().fit(y).predict(FH), rtol=1e-6)
    assert inside.mean() >= 0.5
    own = forecaster().fit(y).predict_interval(FH, coverage=0.9)
    widths = [(part.iloc[:, 1] - part.iloc[:, 0]).mean() for part in (interval, own)]
    assert 0.4 < widths[0] / widths[1] < 2.5


class TestHierarchies:
    def test_by_level(self, hierarchy: pd.DataFrame) -> None:
        together = forecaster().fit(hierarchy).predict(FH)
        local = ForecastByLevel(forecaster(), groupby="local").fit(hierarchy).predict(FH)
        pd.testing.assert_frame_equal(together, local.sort_index(), rtol=1e-4)

    @pytest.mark.parametrize(
        "method", ["bu", "ols", "wls_str", "wls_var", "mint_cov", "mint_shrink"]
    )
    def test_reconciled(self, hierarchy: pd.DataFrame, method: str) -> None:
        test = hierarchy.groupby(level=[0, 1]).tail(8)
        train = hierarchy.drop(test.index)
        got = ReconcilerForecaster(forecaster(), method=method).fit(train).predict(FH[:8])
        assert got.notna().all(axis=None)
        total = got.xs("__total", level=0)["y"].to_numpy()
        leaves = got[got.index.get_level_values(1) != "__total"]
        sums = leaves.groupby(level=2).sum()["y"].to_numpy()
        np.testing.assert_allclose(total, sums, rtol=1e-6)
        base = forecaster().fit(train).predict(FH[:8])
        error = np.abs(got - test).mean().iloc[0]
        assert error < 1.3 * np.abs(base - test).mean().iloc[0]


def test_imputer_fills_gaps_from_the_past(airline: tuple[pd.Series, pd.Series]) -> None:
    y, _ = airline
    gaps = y.copy()
    gaps.iloc[[50, 51, 90]] = np.nan
    filled = Imputer(method="forecaster", forecaster=forecaster()).fit_transform(gaps)
    np.testing.assert_allclose(filled[gaps.notna()], y[gaps.notna()])
    held = gaps.ffill()
    told = forecaster().fit(held).predict(ForecastingHorizon(y.index, is_relative=False))
    np.testing.assert_allclose(filled[gaps.isna()], told[gaps.isna()], rtol=1e-4)
    assert np.abs(filled - y)[gaps.isna()].mean() < np.abs(held - y)[gaps.isna()].mean()


class TestEvaluation:
    @pytest.fixture
    def cv(self) -> ExpandingWindowSplitter:
        return ExpandingWindowSplitter(fh=FH, initial_window=96, step_length=12)

    def scores(self, cv: Any, **options: Any) -> pd.Series:
        table = evaluate(
            forecaster(),
            cv,
            load_airline(),
            scoring=[MeanAbsoluteScaledError(sp=12)],
            error_score="raise",
            **options,
        )
        return table["test_MeanAbsoluteScaledError"]

    def test_strategies_agree(self, cv: ExpandingWindowSplitter) -> None:
        refit = self.scores(cv, strategy="refit")
        for strategy in ("update", "no-update_params"):
            np.testing.assert_allclose(self.scores(cv, strategy=strategy), refit, rtol=1e-6)
        assert refit.mean() < 1.0

    @pytest.mark.parametrize(
        "backend", ["threading", pytest.param("loky", marks=pytest.mark.slow), "dask"]
    )
    def test_backends_agree(self, cv: ExpandingWindowSplitter, backend: str) -> None:
        if backend == "dask" and find_spec("dask") is None:
            pytest.skip("dask is not installed")
        options = {} if backend == "dask" else {"backend_params": {"n_jobs": 2}}
        parallel = self.scores(cv, backend=backend, **options)
        np.testing.assert_allclose(parallel, self.scores(cv), rtol=1e-4)

    def test_grid_search_over_the_context(self, airline: tuple[pd.Series, pd.Series]) -> None:
        y, _ = airline
        cv = ExpandingWindowSplitter(fh=FH, initial_window=84, step_length=12)
        grid = {"context_length": [16, 120]}
        search = ForecastingGridSearchCV(forecaster(), cv, grid, scoring=MeanAbsoluteError()).fit(y)
        # a season is 12 points: more than one of them helps
        assert search.best_params_ == {"context_length": 120}
        best = forecaster(context_length=120).fit(y).predict(FH)
        np.testing.assert_allclose(search.predict(FH), best, rtol=1e-6)

    def test_benchmark(self, tmp_path: Path, cv: ExpandingWindowSplitter) -> None:
        benchmark = ForecastingBenchmark()
        benchmark.add_estimator(forecaster(), "moirai-moe")
        benchmark.add_estimator(NaiveForecaster(sp=12), "naive")
        benchmark.add_task(load_airline, cv, [MeanAbsoluteScaledError(sp=12)])
        table = benchmark.run(str(tmp_path / "results.csv")).set_index("model_id")
        column = "MeanAbsoluteScaledError_mean"
        ours, naive = float(table.loc["moirai-moe", column]), float(table.loc["naive", column])
        np.testing.assert_allclose(ours, self.scores(cv).mean(), rtol=1e-6)
        assert ours < naive


class TestRoundTrips:
    @pytest.fixture
    def fitted(self, airline: tuple[pd.Series, pd.Series]) -> MoiraiMoEForecaster:
        return forecaster().fit(airline[0])

    def test_pickle_joblib_and_save(
        self, fitted: MoiraiMoEForecaster, alone: pd.Series, tmp_path: Path
    ) -> None:
        from sktime.base import load

        assert len(pickle.dumps(fitted)) < 100_000
        joblib.dump(fitted, tmp_path / "forecaster.joblib")
        fitted.save(tmp_path / "saved")
        copies = (
            pickle.loads(pickle.dumps(fitted)),
            joblib.load(tmp_path / "forecaster.joblib"),
            load(tmp_path / "saved.zip"),
            load(fitted.save()),
        )
        for copy in copies:
            pd.testing.assert_series_equal(copy.predict(FH), alone)

    def test_mlflow(self, fitted: MoiraiMoEForecaster, alone: pd.Series, tmp_path: Path) -> None:
        pytest.importorskip("mlflow", reason="mlflow is not installed")
        from sktime.utils import mlflow_sktime

        mlflow_sktime.save_model(fitted, str(tmp_path / "model"))
        loaded = mlflow_sktime.load_model(str(tmp_path / "model"))
        pd.testing.assert_series_equal(loaded.predict(FH), alone)
