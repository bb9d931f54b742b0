"""Backtests score each window against what came after it, and nothing else."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sktime.datasets import load_airline
from sktime.forecasting.base import BaseForecaster
from sktime.forecasting.naive import NaiveForecaster
from sktime.forecasting.trend import PolynomialTrendForecaster

import moirai_moe_forecaster
from moirai_moe_forecaster import backtest
from moirai_moe_forecaster.errors import InvalidInputError
from moirai_moe_forecaster.evaluation import (
    LEVELS,
    Variant,
    mase,
    seasonal_naive,
    weighted_quantile_loss,
)
from moirai_moe_forecaster.evaluation.forecasters import naive_quantiles
from moirai_moe_forecaster.inference.pipeline import MoiraiMoEPipeline
from tiny_network import tiny_network

ALL = ("MASE", "RMSSE", "MAE", "RMSE", "WQL", "CRPS", "coverage")


@pytest.fixture(scope="module")
def pipeline() -> MoiraiMoEPipeline:
    return MoiraiMoEPipeline(tiny_network())


@pytest.fixture(scope="module")
def airline() -> pd.Series:
    return load_airline()


@pytest.fixture
def panel() -> pd.Series:
    """Three series of different lengths and ends."""
    rng = np.random.default_rng(0)
    parts = {
        name: pd.Series(
            rng.normal(size=length).cumsum(),
            index=pd.date_range(start, periods=length, freq="D", name="time"),
        )
        for name, length, start in (("b", 40, "2020"), ("a", 31, "2021"), ("c", 50, "2020"))
    }
    return pd.concat(parts, names=["shop"])


def test_windows_end_with_the_series_one_step_apart_each(airline: pd.Series) -> None:
    table = backtest(naive_quantiles, airline, horizon=6, windows=3, step=4)
    assert list(table["window"]) == [0, 1, 2]
    assert list(table["n_train"]) == [130, 134, 138]
    assert list(table["cutoff"]) == [airline.index[n - 1] for n in table["n_train"]]
    assert list(backtest(naive_quantiles, airline, horizon=6, windows=2)["n_train"]) == [132, 138]


def test_a_variant_forecasts_with_its_options(
    pipeline: MoiraiMoEPipeline, airline: pd.Series
) -> None:
    options = {"context_length": 24, "season_length": 12, "random_state": 3}
    table = backtest(Variant(pipeline, options), airline, horizon=24, metrics="MAE")
    forecast = pipeline.predict(airline[:-24], 24, **options)
    error = np.abs(forecast.median - airline[-24:].to_numpy()).mean()
    assert table["MAE"].item() == pytest.approx(error)
    assert backtest(pipeline, airline, horizon=24, metrics="MAE")["MAE"].item() != error
    same = backtest(Variant(pipeline, {}), airline, horizon=24)
    pd.testing.assert_frame_equal(same, backtest(pipeline, airline, horizon=24))


def test_the_scores_are_those_of_every_window_by_itself(
    pipeline: MoiraiMoEPipeline, airline: pd.Series
) -> None:
    table = backtest(pipeline, airline, horizon=6, windows=2)
    assert list(table.columns) == [
        *("series", "window", "cutoff", "n_train", "n_test", "abs_test"),
        *("MASE", "WQL"),
    ]
    values = airline.to_numpy()
    for row in table.to_dict("records"):
        context, label = values[: row["n_train"]], values[row["n_train"] :][None, :6]
        forecast = pipeline.predict([context], 6, random_state=0)
        assert row["MASE"] == pytest.approx(mase(label, forecast.median, [context], 12), rel=1e-4)
        expected = weighted_quantile_loss(label, forecast.quantile(LEVELS))
        assert row["WQL"] == pytest.approx(expected, rel=1e-4)
        assert row["series"] == airline.name
        assert (row["n_test"], row["abs_test"]) == (6, label.sum())


def test_all_windows_of_all_series_are_one_call(
    pipeline: MoiraiMoEPipeline, panel: pd.Series, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []
    real = MoiraiMoEPipeline.predict

    def counted(self: MoiraiMoEPipeline, y: Any, *args: Any, **options: Any) -> Any:
        calls.append(len(y))
        return real(self, y, *args, **options)

    monkeypatch.setattr(MoiraiMoEPipeline, "predict", counted)
    table = backtest(pipeline, panel, horizon=3, windows=2, metrics=ALL)
    assert calls == [6]
    assert np.isfinite(table[["MASE", "RMSSE", "RMSE", "CRPS", "coverage_80"]]).all(axis=None)


def test_every_kind_of_data_is_scored_alike(panel: pd.Series) -> None:
    series = [part.droplevel(0) for _, part in panel.groupby(level=0, sort=False)]
    expected = backtest(naive_quantiles, panel, horizon=3, windows=2)
    assert list(expected["series"]) == ["b", "b", "a", "a", "c", "c"]
    for same in (series, [part.to_numpy() for part in series], panel.to_frame("sold")):
        table = backtest(naive_quantiles, same, horizon=3, windows=2)
        pd.testing.assert_frame_equal(
            table.drop(columns=["series", "cutoff"]), expected.drop(columns=["series", "cutoff"])
        )
    alone = backtest(naive_quantiles, list(series[0]), horizon=3, windows=2)
    np.testing.assert_allclose(alone["MASE"], expected["MASE"][:2])
    assert list(alone["series"]) == [0, 0]


def test_instances_with_several_levels_are_named_by_tuples(panel: pd.Series) -> None:
    nested = pd.concat({"north": panel, "south": panel}, names=["region"])
    table = backtest(NaiveForecaster(), nested, horizon=2)
    assert table["series"].iloc[3] == ("south", "b")
    np.testing.assert_allclose(table["MASE"][:3], table["MASE"][3:])


def test_several_variates_have_a_row_each(pipeline: MoiraiMoEPipeline) -> None:
    rng = np.random.default_rng(0)
    wide = pd.DataFrame(rng.normal(size=(60, 2)).cumsum(0), columns=["x", "z"])
    for forecaster in (pipeline, NaiveForecaster(), naive_quantiles):
        table = backtest(forecaster, wide, horizon=4, windows=2, metrics=ALL)
        assert list(table["variate"]) == ["x", "z", "x", "z"]
        assert np.isfinite(table[["MASE", "WQL", "CRPS"]]).all(axis=None)
    joint = pipeline.predict(wide.to_numpy()[:56], 4, random_state=0).median
    expected = np.abs(wide.to_numpy()[56:] - joint).mean(0)
    found = backtest(pipeline, wide, horizon=4, metrics="MAE")["MAE"]
    np.testing.assert_allclose(found, expected, rtol=1e-4)


def test_series_with_different_numbers_of_variates(pipeline: MoiraiMoEPipeline) -> None:
    rng = np.random.default_rng(0)
    mixed = [rng.normal(size=40), rng.normal(size=(50, 3)), rng.normal(size=(40, 1))]
    table = backtest(pipeline, mixed, horizon=4, metrics=ALL)
    assert list(table["series"]) == [0, 1, 1, 1, 2]
    assert table.notna().all(axis=None)


@pytest.mark.parametrize("sp", [1, 12])
def test_a_point_forecast_of_sktime(airline: pd.Series, sp: int) -> None:
    """Its point stands for all quantiles: WQL is the relative and CRPS the absolute error."""

    class PointOnly(NaiveForecaster):
        _tags = {"capability:pred_int": False}  # noqa: RUF012

    table = backtest(PointOnly(sp=sp), airline, horizon=12, windows=2, metrics=ALL)
    values = airline.to_numpy()
    for row in table.to_dict("records"):
        context, label = values[: row["n_train"]], values[row["n_train"] :][:12]
        error = np.abs(label - seasonal_naive(context, 12, sp))
        assert row["MAE"] == pytest.approx(error.mean())
        assert row["CRPS"] == pytest.approx(error.mean())
        assert row["WQL"] == pytest.approx(error.sum() / label.sum())
        scale = np.abs(context[12:] - context[:-12]).mean()
        assert row["MASE"] == pytest.approx(error.mean() / scale)


def test_quantiles_of_sktime_are_those_it_predicts(airline: pd.Series) -> None:
    row = backtest(NaiveForecaster(sp=12), airline, horizon=6, metrics=ALL).iloc[0]
    fitted = NaiveForecaster(sp=12).fit(airline[:-6], fh=range(1, 7))
    label = airline[-6:].to_numpy()
    quantiles = fitted.predict_quantiles(alpha=list(LEVELS)).to_numpy().T
    assert row["WQL"] == pytest.approx(weighted_quantile_loss(label[None], quantiles[None]))
    assert row["MAE"] == pytest.approx(np.abs(label - fitted.predict().to_numpy()).mean())
    lower, upper = fitted.predict_interval(coverage=0.8).to_numpy().T
    assert row["coverage_80"] == ((lower <= label) & (label <= upper)).mean()


def test_a_panel_is_fitted_once_a_window_and_a_list_series_by_series(
    panel: pd.Series, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []
    real = BaseForecaster.fit

    def counted(self: Any, y: Any, X: Any = None, fh: Any = None) -> Any:
        if not sizes or sizes[-1] != len(y):
            sizes.append(len(y))
        return real(self, y, X=X, fh=fh)

    forecaster = PolynomialTrendForecaster()
    series = [part.droplevel(0) for _, part in panel.groupby(level=0, sort=False)]
    one_by_one = backtest(forecaster, series, horizon=3, windows=2)
    monkeypatch.setattr(BaseForecaster, "fit", counted)
    together = backtest(forecaster, panel, horizon=3, windows=2)
    assert sizes[0] == len(panel) - 3 * 6
    np.testing.assert_allclose(one_by_one["MASE"], together["MASE"])


def test_covariates_known_ahead_reach_both_kinds(pipeline: MoiraiMoEPipeline) -> None:
    rng = np.random.default_rng(0)
    index = pd.date_range("2020", periods=60, freq="h")
    X = pd.DataFrame({"price": rng.normal(size=60)}, index=index)
    y = pd.Series(3 * X["price"].to_numpy() + 1, index=index)
    from sktime.forecasting.compose import YfromX

    table = backtest(YfromX.create_test_instance(), y, horizon=4, windows=2, X=X, metrics="MAE")
    blind = backtest(NaiveForecaster(), y, horizon=4, windows=2, metrics="MAE")
    assert (table["MAE"] < blind["MAE"]).all()
    expected = pipeline.predict(
        y.to_numpy()[:56], 4, future_covariates=X.to_numpy(), random_state=0
    ).median
    found = backtest(pipeline, y, horizon=4, X=X, metrics="MAE")["MAE"]
    np.testing.assert_allclose(found, np.abs(y.to_numpy()[56:] - expected).mean(), rtol=1e-4)


def test_covariates_of_a_panel_are_matched_by_name(panel: pd.Series) -> None:
    X = panel.rename("x").to_frame()[::-1].sort_index()
    assert list(X.index.get_level_values(0).unique()) == ["a", "b", "c"]
    table = backtest(NaiveForecaster(), panel, horizon=2, X=X)
    np.testing.assert_allclose(table["MASE"], backtest(NaiveForecaster(), panel, horizon=2)["MASE"])


def test_missing_values_are_left_out_of_labels(airline: pd.Series) -> None:
    holes = airline.copy()
    holes.iloc[[20, -2]] = np.nan
    row = backtest(naive_quantiles, holes, horizon=4, metrics=("MAE",)).iloc[0]
    assert row["n_test"] == 3
    label = airline.to_numpy()[-4:][[0, 1, 3]]
    naive = airline.to_numpy()[-16:-12][[0, 1, 3]]
    assert row["MAE"] == pytest.approx(np.abs(label - naive).mean())
    everything = holes.copy()
    everything.iloc[-4:] = np.nan
    row = backtest(naive_quantiles, everything, horizon=4).iloc[0]
    assert row["n_test"] == 0
    assert np.isnan([row["MASE"], row["WQL"]]).all()


def test_seasonality_is_the_frequencys_unless_it_is_given(airline: pd.Series) -> None:
    values = airline.to_numpy()
    monthly = backtest(naive_quantiles, airline, horizon=4)["MASE"]
    for same in (
        backtest(naive_quantiles, values, horizon=4, seasonality=12),
        backtest(naive_quantiles, airline.to_timestamp(), horizon=4),
    ):
        np.testing.assert_allclose(same["MASE"], monthly)
    steps = backtest(naive_quantiles, values, horizon=4)["MASE"][0]
    context = values[:-4]
    expected = np.abs(values[-4:] - context[-1]).mean() / np.abs(np.diff(context)).mean()
    assert steps == pytest.approx(expected)


def test_every_series_has_the_season_of_its_own_frequency(airline: pd.Series) -> None:
    monthly = airline.to_timestamp()
    times = pd.date_range("2024-01-01", periods=120, freq="h")
    hourly = pd.Series(10 + np.sin(np.arange(120) * np.pi / 12) + np.arange(120) / 90, times)
    alone = [backtest(naive_quantiles, y, horizon=4, windows=2) for y in (monthly, hourly)]
    for order in ([0, 1], [1, 0]):
        panel = pd.concat({name: (monthly, hourly)[name] for name in order})
        together = backtest(naive_quantiles, panel, horizon=4, windows=2)
        expected = pd.concat([alone[name] for name in order], ignore_index=True)
        columns = ["cutoff", "n_train", "MASE", "WQL"]
        pd.testing.assert_frame_equal(together[columns], expected[columns])


def test_a_series_without_a_frequency_has_the_season_of_the_first(airline: pd.Series) -> None:
    monthly = airline.to_timestamp()
    irregular = monthly.drop(monthly.index[[3, 9]])
    panel = pd.concat({"first": monthly, "second": irregular})
    scores = backtest(naive_quantiles, panel, horizon=4)
    alone = backtest(naive_quantiles, irregular.to_numpy(), horizon=4, seasonality=12)
    assert scores["MASE"][1] == pytest.approx(alone["MASE"][0])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"horizon": 0}, "horizon must be an integer of at least 1"),
        ({"horizon": 4, "windows": 1.5}, "windows must be an integer"),
        ({"horizon": 4, "step": -1}, "step must be an integer"),
        ({"horizon": 4, "seasonality": 0}, "seasonality must be an integer"),
        ({"horizon": 4, "metrics": ("MASE", "SMAPE")}, "unknown metric 'SMAPE'"),
        ({"horizon": 4, "quantile_levels": (0.1, 1.0)}, "strictly between 0 and 1"),
        ({"horizon": 4, "windows": 9}, "series 'a' has 31 steps; 9 windows .* at least 37"),
        ({"horizon": 4, "X": np.zeros((9, 1))}, "X has 1 series, y has 3"),
    ],
)
def test_wrong_arguments_are_refused_before_anything_is_forecast(
    panel: pd.Series, options: dict[str, Any], message: str
) -> None:
    def never(*_: Any) -> Any:
        raise AssertionError("a forecast was made")

    with pytest.raises(InvalidInputError, match=message):
        backtest(never, panel, **options)


def test_data_that_cannot_be_forecast_is_refused() -> None:
    late = np.concatenate([np.full(24, np.nan), np.arange(6.0)])
    for y, message in (
        ([np.arange(9.0), late], "series 1 has only missing values before its first window"),
        (np.array([1.0, np.inf, 2.0]), "infinite"),
        (["a", "b"], "must hold real numbers"),
        ([], "no series"),
        (np.zeros((2, 3, 4)), "expected .time,. or .time, variates."),
    ):
        with pytest.raises(InvalidInputError, match=message):
            backtest(naive_quantiles, y, horizon=2, windows=4)


def test_data_are_read_as_predict_reads_them(pipeline: MoiraiMoEPipeline) -> None:
    values = 10 + np.sin(np.arange(60) * np.pi / 6)
    hidden = np.arange(60) == 58
    masked = np.ma.masked_array(np.where(hidden, 1e6, values), hidden)
    expected = backtest(pipeline, np.where(hidden, np.nan, values), horizon=4)
    pd.testing.assert_frame_equal(backtest(pipeline, masked, horizon=4), expected)
    for strange in (
        np.array(["1", "2"] * 20),
        pd.Series(["1", "2"] * 20),
        [Decimal(1), Decimal(2)] * 20,
        np.array([1j, 2.0] * 20),
        np.ma.masked_array(np.array([1j, 2.0] * 20), [True, False] * 20),
        pd.DataFrame({"a": np.arange(40.0), "b": ["x"] * 40}),
    ):
        for read in (lambda y: backtest(pipeline, y, horizon=4), lambda y: pipeline.predict(y, 4)):
            with pytest.raises(InvalidInputError, match="must hold real numbers"):
                read(strange)


def test_bad_series_are_left_out_on_demand(
    pipeline: MoiraiMoEPipeline, panel: pd.Series, caplog: pytest.LogCaptureFixture
) -> None:
    X = panel.rename("x").to_frame()
    y = panel.copy()
    y.loc["b"] = np.nan
    with pytest.raises(InvalidInputError, match="series 'b' has only missing"):
        backtest(pipeline, y, horizon=4)
    table = backtest(pipeline, y, horizon=4, windows=8, X=X, on_error="skip")
    alone = backtest(pipeline, y[["c"]], horizon=4, windows=8, X=X)
    pd.testing.assert_frame_equal(table, alone, rtol=1e-4)
    assert set(table.attrs["skipped"]) == {"a", "b"}
    assert "skipped 'a': series 'a' has 31 steps" in caplog.text
    series = [part.to_numpy() for _, part in panel.groupby(level=0, sort=False)]
    mixed = [series[0], series[1] * np.inf, np.array(["x"] * 40), series[2]]
    blocks = [np.zeros(len(part)) for part in (series[0], series[1], mixed[2], series[2])]
    table = backtest(naive_quantiles, mixed, horizon=4, X=blocks, on_error="skip")
    assert list(table["series"]) == [0, 3]
    assert set(table.attrs["skipped"]) == {1, 2}
    with pytest.raises(InvalidInputError, match=r"no series of y is left"):
        backtest(naive_quantiles, [series[0][:2]], horizon=4, on_error="skip")


def test_what_cannot_forecast_is_refused(airline: pd.Series) -> None:
    with pytest.raises(InvalidInputError, match="a forecaster must be"):
        backtest("AutoETS", airline, horizon=2)
    with pytest.raises(InvalidInputError, match=r"quantiles of shape \(1,\)"):
        backtest(lambda *_: np.zeros(1), airline, horizon=2)


def test_it_is_a_public_name() -> None:
    assert "backtest" in moirai_moe_forecaster.__all__
