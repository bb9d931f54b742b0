"""What sktime's conformance suite does not look at: forecasts, indices, panels, updates, errors."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sktime.forecasting.base import ForecastingHorizon
from sktime.forecasting.compose import ForecastByLevel
from sktime.forecasting.model_evaluation import evaluate
from sktime.split import ExpandingWindowSplitter

from moirai_moe_forecaster.adapters.sktime.context import Context
from sktime_tables import columns, months, panel, wave
from tiny_forecaster import TINY, forecaster
from work import calls

NEXT = [1, 2, 3]


class TestForecast:
    def test_is_the_pipelines(self, y: pd.Series) -> None:
        fitted = forecaster(random_state=7).fit(y)
        direct = fitted.pipeline_.predict(y.to_numpy(), 20, num_paths=8, random_state=7)
        horizon = range(1, 21)
        np.testing.assert_allclose(fitted.predict(horizon), direct.median, rtol=1e-6)
        quantiles = fitted.predict_quantiles(horizon, alpha=[0.9, 0.05])
        assert list(quantiles.columns) == [("y", 0.9), ("y", 0.05)]
        np.testing.assert_allclose(quantiles.T, direct.quantile([0.9, 0.05]), rtol=1e-6)
        by_mean = forecaster(random_state=7, prediction_type="mean").fit(y)
        mean = by_mean.predict(horizon)
        np.testing.assert_allclose(mean, by_mean.predict_proba(horizon).mean()["y"], rtol=1e-9)
        # that of the stored quantiles, which tell next to nothing beyond the outermost
        np.testing.assert_allclose(mean, direct.mean, rtol=1e-4)
        assert not np.allclose(direct.mean, direct.median, rtol=1e-4)

    def test_interval_is_the_quantiles(self, y: pd.Series) -> None:
        fitted = forecaster().fit(y)
        interval = fitted.predict_interval(NEXT, coverage=0.83)
        quantiles = fitted.predict_quantiles(NEXT, alpha=[0.085, 0.915])
        np.testing.assert_allclose(interval, quantiles, rtol=1e-9)

    @pytest.mark.parametrize("fh", [[2, 5], [20], [3, 17, 40]])
    def test_steps_between_are_skipped(self, y: pd.Series, fh: list[int]) -> None:
        fitted = forecaster().fit(y)
        every = fitted.predict(range(1, 41))
        some = fitted.predict(fh)
        assert list(some.index) == [y.index[-1] + step for step in fh]
        np.testing.assert_allclose(some, every.loc[some.index], rtol=1e-6)

    def test_absolute_and_relative_horizons_agree(self, y: pd.Series) -> None:
        fitted = forecaster().fit(y)
        relative = fitted.predict([2, 5])
        absolute = fitted.predict(ForecastingHorizon(relative.index, is_relative=False))
        pd.testing.assert_series_equal(relative, absolute)

    def test_uses_the_context_length(self, y: pd.Series) -> None:
        short = forecaster(context_length=24).fit(y).predict(NEXT)
        pd.testing.assert_series_equal(short, forecaster().fit(y.iloc[-24:]).predict(NEXT))
        assert not np.allclose(short, forecaster().fit(y).predict(NEXT))

    def test_multivariate_keeps_names_and_is_joint(self, y: pd.Series) -> None:
        both = pd.DataFrame({"u": y, "v": wave(y.index, 2.0)})
        fitted = forecaster().fit(both)
        quantiles = fitted.predict_quantiles(NEXT, alpha=[0.1, 0.9])
        assert list(quantiles.columns) == [("u", 0.1), ("u", 0.9), ("v", 0.1), ("v", 0.9)]
        assert (quantiles["u"][0.1] < quantiles["u"][0.9]).all()
        swapped = forecaster().fit(both[["v", "u"]]).predict(NEXT)
        assert list(swapped.columns) == ["v", "u"]
        changed = forecaster().fit(both.assign(v=wave(y.index, 3.0))).predict(NEXT)
        assert not np.allclose(changed["u"], fitted.predict(NEXT)["u"], rtol=1e-5)

    def test_all_methods_tell_of_one_distribution(self, three: pd.DataFrame) -> None:
        fitted = forecaster().fit(three)
        horizon = [-3, 0, 1, 20]
        levels = [0.013, 0.1, 0.5, 0.9]
        told = fitted.predict_quantiles(horizon, alpha=levels)
        distribution = fitted.predict_proba(horizon)
        pd.testing.assert_frame_equal(distribution.quantile(levels), told, rtol=1e-9)
        pd.testing.assert_frame_equal(distribution.var(), fitted.predict_var(horizon), rtol=1e-9)
        interval = fitted.predict_interval(horizon, coverage=0.8)
        np.testing.assert_allclose(interval, distribution.quantile([0.1, 0.9]), rtol=1e-9)
        point = fitted.predict(horizon)
        pd.testing.assert_frame_equal(distribution.ppf(0.5), point, rtol=1e-9)
        pd.testing.assert_index_equal(distribution.index, point.index)
        np.testing.assert_allclose(distribution.loc[["b"]].ppf(0.5), point.loc[["b"]])

    def test_samples_are_trajectories(self, y: pd.Series) -> None:
        fitted = forecaster(num_samples=400).fit(y)
        horizon = range(1, 41)
        distribution = fitted.predict_proba(horizon)
        drawn = distribution.sample(3000)["y"].to_numpy().reshape(3000, 40)
        direct = fitted.pipeline_.predict(
            y.to_numpy(), 40, num_paths=8, num_samples=400, random_state=0
        ).samples
        wanted, got = (np.corrcoef(draws.argsort(0).argsort(0).T) for draws in (direct, drawn))
        assert np.abs(got - wanted).max() < 0.15
        assert np.abs(wanted[np.triu_indices(40, 1)]).max() > 0.3
        told = distribution.quantile([0.1, 0.9]).to_numpy()
        inside = (drawn > told[:, 0]) & (drawn < told[:, 1])
        assert abs(inside.mean() - 0.8) < 0.01
        again = fitted.predict_proba(horizon)
        pd.testing.assert_frame_equal(again.sample(2), fitted.predict_proba(horizon).sample(2))
        assert not np.allclose(again.sample(2), distribution.sample(2))


class TestIndex:
    @pytest.mark.parametrize(
        "index",
        [
            months(30),
            pd.RangeIndex(5, 35),
            pd.Index(range(3, 33)),
            pd.date_range("2020-01-01", periods=30, freq="MS"),
            pd.date_range("2020-01-01", periods=30, freq="W-MON"),
            pd.date_range("2020-03-28", periods=30, freq="h", tz="Europe/Berlin"),
            pd.date_range("2020-03-01", periods=28, freq="D", tz="Europe/Berlin"),
            pd.DatetimeIndex(list(pd.date_range("2020-01-01", periods=30, freq="15min"))),
            pd.DatetimeIndex(list(pd.date_range("2020-01-01", periods=30, freq="MS"))),
            pd.date_range("2020-01-01", periods=1, freq="D"),
        ],
        ids=lambda index: f"{type(index).__name__}-{getattr(index, 'freqstr', None)}-{len(index)}",
    )
    @pytest.mark.parametrize("is_panel", [False, True])
    def test_labels_and_values(self, index: pd.Index, is_panel: bool) -> None:
        data = pd.DataFrame({"y": wave(index)})
        if isinstance(index, pd.DatetimeIndex):
            # not as sktime counts them: with pandas 2 its days are of 24 hours in any time zone
            freq = index.freq or pd.infer_freq(index)
            expected = pd.date_range(index[-1], periods=4, freq=freq)[[1, 3]]
        else:
            expected = ForecastingHorizon([1, 3]).to_absolute_index(index[-1:])
        fitted = forecaster().fit(panel({"k": data}) if is_panel else data)
        got = fitted.predict([1, 3])
        got = got.loc["k"] if is_panel else got
        assert list(got.index) == list(expected)
        counted = forecaster().fit(data.reset_index(drop=True)).predict([1, 3])
        np.testing.assert_allclose(got, counted, rtol=1e-6)
        last = fitted.predict(ForecastingHorizon(expected[1:], is_relative=False))
        np.testing.assert_allclose(last, counted.iloc[1:], rtol=1e-6)

    @pytest.mark.parametrize(
        "full",
        [months(40), pd.RangeIndex(40), pd.date_range("2020-01-01", periods=40, freq="D")],
        ids=["period", "int", "datetime"],
    )
    def test_absent_rows_are_missing_values(self, full: pd.Index) -> None:
        data = wave(full)
        holes = data.copy()
        holes.iloc[[20, 21, 33]] = np.nan
        # of the datetime index, sktime knows the frequency from the second part
        with_gap = forecaster().fit(holes.iloc[:35].dropna())
        with_gap.update(holes.iloc[35:])
        expected = forecaster().fit(holes).predict(NEXT)
        np.testing.assert_allclose(with_gap.predict(NEXT), expected, rtol=1e-6)
        assert not np.allclose(expected, forecaster().fit(data).predict(NEXT), rtol=1e-5)

    def test_irregular_time_stamps_are_refused(self) -> None:
        index = pd.DatetimeIndex(["2020-01-01", "2020-01-03", "2020-01-09", "2020-02-01"])
        with pytest.raises(ValueError, match=r"no frequency and none can be inferred.*asfreq"):
            forecaster().fit(wave(index)).predict(NEXT)
        irregular = panel({"fine": wave(months(9).to_timestamp()), "odd": wave(index)})
        irregular = irregular.set_index(pd.MultiIndex.from_tuples(list(irregular.index)))
        with pytest.raises(ValueError, match="instance 'odd' has no frequency"):
            forecaster().fit(irregular).predict(NEXT)

    @pytest.mark.parametrize("freq", ["BME", "C", "SMS", "MS", "7D"])
    def test_labels_of_any_frequency(self, freq: str) -> None:
        index = pd.date_range("2020-01-01", periods=45, freq=freq)
        fitted = forecaster().fit(wave(index[:40]))
        labels = pd.DatetimeIndex(list(index[[20, 39, 40, 44]]))
        got = fitted.predict(ForecastingHorizon(labels, is_relative=False))
        expected = fitted.predict([-19, 0, 1, 5])
        pd.testing.assert_series_equal(got, expected, check_freq=False)
        if freq == "7D":
            weeks = ForecastingHorizon(7 * pd.to_timedelta([-19, 0, 1, 5], "D"), is_relative=True)
            pd.testing.assert_series_equal(fitted.predict(weeks), expected, check_freq=False)

    @pytest.mark.parametrize("context_length", [1, 3])
    def test_a_short_context_does_not_change_the_frequency(self, context_length: int) -> None:
        # sktime keeps the frequency of a series, but not of a panel
        days = pd.bdate_range("2020-01-01", periods=12)
        expected = list(pd.bdate_range(days[-1], periods=4)[1:])
        short = forecaster(context_length=context_length)
        for data in (wave(pd.DatetimeIndex(list(days))), panel({"k": wave(days)})):
            fitted = short.clone().fit(data)
            assert list(fitted.predict(NEXT).index.get_level_values(-1)) == expected
            fitted.update(data.iloc[-1:])
            assert list(fitted.predict(NEXT).index.get_level_values(-1)) == expected

    def test_a_gap_before_a_short_context_does_not_matter(self) -> None:
        index = pd.date_range("2020-01-01", periods=30, freq="h").delete(5)
        got = forecaster(context_length=8).fit(wave(index)).predict([1])
        assert got.index[0] == pd.Timestamp("2020-01-02 06:00")

    def test_another_instance_may_tell_the_frequency(self) -> None:
        index = pd.DatetimeIndex(list(pd.date_range("2020-01-01", periods=40, freq="MS")))
        data = panel({"a": wave(index[:30]), "b": wave(index[38:])})
        got = forecaster().fit(data).predict([1, 3])
        assert list(got.loc["a"].index) == list(index[[30, 32]])
        assert list(got.loc["b"].index) == list(pd.to_datetime(["2023-05-01", "2023-07-01"]))

    def test_durations_are_no_time_index(self) -> None:
        with pytest.raises(ValueError, match="is a TimedeltaIndex; use integers, a PeriodIndex or"):
            forecaster().fit(wave(pd.timedelta_range("0D", periods=9)))

    def test_labels_between_the_steps_are_refused(self) -> None:
        data = wave(pd.date_range("2020-01-01", periods=40, freq="MS", tz="Europe/Berlin"))
        for day, message in (
            ("2023-05-15", "asks for 2023-05-15 .* no step of the series: it ends at 2023-04-01"),
            ("2022-05-15", "asks for 2022-05-15 .* the frequency 'MS'"),
            ("2019-05-15", "the context of the series starts at 2020-01-01"),
        ):
            label = pd.DatetimeIndex([day]).tz_localize("Europe/Berlin")
            with pytest.raises(ValueError, match=message):
                forecaster().fit(data).predict(ForecastingHorizon(label, is_relative=False))
        naive = ForecastingHorizon(pd.DatetimeIndex(["2023-05-01"]), is_relative=False)
        with pytest.raises(ValueError, match="the time zone None, but the series has Europe/Berl"):
            forecaster().fit(data).predict(naive)


class TestPanel:
    @pytest.mark.parametrize("method", ["predict", "predict_quantiles"])
    def test_equals_one_by_one(self, three: pd.DataFrame, method: str) -> None:
        horizon = range(1, 41)
        batch = getattr(forecaster().fit(three), method)(horizon)
        loop = getattr(ForecastByLevel(forecaster(), "local").fit(three), method)(horizon)
        pd.testing.assert_frame_equal(batch, loop.sort_index(), rtol=1e-4)
        for name, part in three.groupby(level=0):
            alone = getattr(forecaster().fit(part.droplevel(0)), method)(horizon)
            pd.testing.assert_frame_equal(batch.loc[name], alone, rtol=1e-4, check_freq=False)

    def test_order_and_batch_size_do_not_matter(self, three: pd.DataFrame) -> None:
        horizon = range(1, 41)
        expected = forecaster().fit(three).predict_quantiles(horizon)
        assert list(expected.index.unique(0)) == ["a", "b", "c"]
        turned = pd.concat([three.loc[[name]] for name in ("c", "a", "b")])
        for other in (
            forecaster().fit(turned),
            forecaster(batch_size=1).fit(three),
            forecaster(batch_size=2).fit(turned),
        ):
            pd.testing.assert_frame_equal(other.predict_quantiles(horizon), expected, rtol=1e-4)

    def test_batch_size_bounds_the_passes_of_one_call(self) -> None:
        same = panel({name: wave(months(30), phase) for phase, name in enumerate("abc")})
        config = TINY | {"d_ff": 44}
        for batch_size, expected in ((None, [3]), (2, [2, 1])):
            fitted = forecaster(config=config, batch_size=batch_size).fit(same)
            sizes: list[int] = []
            counter = fitted.model_.embedding.register_forward_hook(
                lambda _, inputs, output, sizes=sizes: sizes.append(len(output))
            )
            fitted.predict(NEXT)
            counter.remove()
            assert sizes == expected

    def test_each_instance_goes_on_from_its_own_end(self, three: pd.DataFrame) -> None:
        got = forecaster().fit(three).predict([2])
        ends = three.reset_index("time").groupby("instance")["time"].last()
        assert list(got.index) == [(name, ends[name] + 2) for name in ("a", "b", "c")]

    def test_absolute_horizon_after_unequal_ends(self, three: pd.DataFrame) -> None:
        label = months(60)[-1:]
        got = forecaster().fit(three).predict(ForecastingHorizon(label, is_relative=False))
        for name, steps in {"a": 5, "b": 20, "c": 30}.items():
            alone = forecaster().fit(three.loc[name]).predict([steps])
            assert got.loc[name].index[0] == alone.index[0] == label[0]
            np.testing.assert_allclose(got.loc[name], alone, rtol=1e-4)

    def test_hierarchy(self, three: pd.DataFrame) -> None:
        names = ["region", "shop", "time"]
        deep = pd.concat({"s": three, "n": three.loc[["a"]] + 1}, names=names)
        got = forecaster().fit(deep).predict(NEXT)
        assert got.index.names == names
        instances = [("n", "a"), ("s", "a"), ("s", "b"), ("s", "c")]
        assert list(got.index.droplevel(-1).unique()) == instances
        flat = forecaster().fit(three).predict(NEXT)
        np.testing.assert_allclose(got.loc["s"], flat, rtol=1e-4)

    def test_time_indices_of_their_own_are_no_burden(self) -> None:
        day, fh = pd.Timedelta(1, "D"), ForecastingHorizon(range(1, 25))
        times = [pd.date_range("2020-01-01", periods=50) + k * day for k in range(200)]
        many = panel({k: pd.DataFrame({"y": 1.0}, index) for k, index in enumerate(times)})
        context = Context.of(many, None, 50)

        def labels_by_sktime() -> None:
            for index in times:
                fh.to_absolute_index(pd.DatetimeIndex(index[-1:], freq="D"))

        assert calls(lambda: context.instances(fh, None)) < calls(labels_by_sktime) / 2

    def test_categories_as_names(self, three: pd.DataFrame) -> None:
        names = pd.CategoricalDtype(["c", "none", "b", "a"])
        levels = three.index.to_frame(index=False).astype({"instance": names})
        data = three.set_axis(pd.MultiIndex.from_frame(levels))
        fitted = forecaster().fit(data)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            got = fitted.predict(NEXT)
        assert list(got.index.unique(0)) == ["c", "b", "a"]
        expected = forecaster().fit(three).predict(NEXT)
        for name in "abc":
            np.testing.assert_allclose(got.loc[name], expected.loc[name], rtol=1e-4)

    def test_different_frequencies(self) -> None:
        days = wave(pd.date_range("2020-01-01", periods=200, freq="D"))
        weeks = wave(pd.date_range("2020-01-06", periods=20, freq="W-MON"))
        got = forecaster().fit(panel({"d": days, "w": weeks})).predict([1, 2])
        assert list(got.loc["d"].index) == list(pd.date_range("2020-07-19", periods=2))
        assert list(got.loc["w"].index) == list(pd.to_datetime(["2020-05-25", "2020-06-01"]))
        alone = forecaster().fit(weeks.to_frame()).predict([1, 2])
        np.testing.assert_allclose(got.loc["w"], alone, rtol=1e-4)


class TestMissing:
    def test_are_not_numbers(self, y: pd.Series) -> None:
        holes = y.copy()
        holes.iloc[[10, 50, 51, 58]] = np.nan
        got = forecaster().fit(holes).predict(NEXT)
        direct = forecaster().fit(y).pipeline_.predict(holes.to_numpy(), 3)
        np.testing.assert_allclose(got, direct.median, rtol=1e-6)
        assert not np.allclose(got, forecaster().fit(holes.fillna(0.0)).predict(NEXT), rtol=1e-3)

    def test_nothing_but_missing_is_refused(self, three: pd.DataFrame) -> None:
        three.loc[["b"]] = np.nan
        with pytest.raises(ValueError, match="instance 'b' has only missing values in column 'y'"):
            forecaster().fit(three).predict(NEXT)
        with pytest.raises(ValueError, match="the series has only missing values"):
            forecaster().fit(three.loc["b"]).predict(NEXT)


class TestUpdate:
    @pytest.mark.parametrize("update_params", [True, False])
    def test_equals_refitting(self, y: pd.Series, update_params: bool) -> None:
        refitted = forecaster(context_length=32).fit(y).predict(NEXT)
        step = forecaster(context_length=32).fit(y.iloc[:40])
        for k in range(40, 60):
            step.update(y.iloc[k : k + 1], update_params=update_params)
        pd.testing.assert_series_equal(step.predict(NEXT), refitted)
        overlap = forecaster(context_length=32).fit(y.iloc[:40])
        overlap.update(y, update_params=update_params)
        pd.testing.assert_series_equal(overlap.predict(NEXT), refitted)

    def test_later_values_win(self, y: pd.Series) -> None:
        wrong = y.copy()
        wrong.iloc[35:40] = 99.0
        corrected = forecaster().fit(wrong.iloc[:40]).update(y.iloc[35:])
        pd.testing.assert_series_equal(corrected.predict(NEXT), forecaster().fit(y).predict(NEXT))

    def test_rows_may_come_late(self, y: pd.Series) -> None:
        early = forecaster().fit(pd.concat([y.iloc[:20], y.iloc[30:]]))
        late = early.update(y.iloc[20:30]).predict(NEXT)
        pd.testing.assert_series_equal(late, forecaster().fit(y).predict(NEXT))

    def test_panel(self, three: pd.DataFrame) -> None:
        early = three.groupby(level=0, group_keys=False).head(25)
        late = three.groupby(level=0, group_keys=False).tail(-25)
        updated = forecaster(context_length=32).fit(early).update(late).predict(NEXT)
        refitted = forecaster(context_length=32).fit(three).predict(NEXT)
        pd.testing.assert_frame_equal(updated, refitted)

    def test_single_rows_without_frequency(self) -> None:
        data = wave(pd.DatetimeIndex(list(pd.date_range("2020-01-01", periods=30, freq="MS"))))
        step = forecaster().fit(data.iloc[:29]).update(data.iloc[29:])
        expected = forecaster().fit(data).predict([1, 3])
        pd.testing.assert_series_equal(step.predict([1, 3]), expected, check_freq=False)
        fh = ForecastingHorizon(pd.DatetimeIndex(list(expected.index)), is_relative=False)
        pd.testing.assert_series_equal(step.predict(fh), expected, check_freq=False)

    def test_evaluation_does_not_depend_on_the_strategy(self, y: pd.Series) -> None:
        cv = ExpandingWindowSplitter(fh=NEXT, initial_window=36, step_length=6)
        scores = [
            evaluate(forecaster(), cv, y, strategy=strategy, error_score="raise").iloc[:, 0]
            for strategy in ("refit", "update", "no-update_params")
        ]
        np.testing.assert_allclose(scores[1], scores[0], rtol=1e-9)
        np.testing.assert_allclose(scores[2], scores[0], rtol=1e-9)

    def test_other_indices_are_refused(self, y: pd.Series, three: pd.DataFrame) -> None:
        stamps = y.set_axis(y.index.to_timestamp())
        berlin = stamps.tz_localize("Europe/Berlin")
        for known, later, message in (
            (y, stamps, "y is time stamps; expected periods of frequency 'M', as in fit"),
            (stamps, y, "y is periods of frequency 'M'; expected time stamps, as in fit"),
            (stamps, y.reset_index(drop=True), "y is integers; expected time stamps"),
            (y, y.iloc[::3].asfreq("Q"), "periods of frequency 'Q-DEC'; expected periods of freq"),
            (berlin, stamps, "y is time stamps; expected time stamps of time zone Europe/Berlin"),
            (berlin, berlin.tz_convert("UTC"), "of time zone UTC; expected .* Europe/Berlin"),
            (three, y, "'M'; expected periods of frequency 'M' in the last of 2 levels"),
            (three, pd.concat({"r": three}), "last of 3 levels; expected .* last of 2 levels"),
        ):
            with pytest.raises(ValueError, match=message):
                forecaster().fit(known).update(later)

    def test_other_columns_are_refused(self, y: pd.Series) -> None:
        both = pd.DataFrame({"u": y, "v": y + 1})
        with pytest.raises(ValueError, match=r"columns \['u', 'w'\]; expected"):
            forecaster().fit(both).update(both.rename(columns={"v": "w"}))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"prediction_type": "mode"}, "prediction_type must be 'median' or 'mean', got 'mode'"),
        (
            {"model_path": 3, "config": None},
            "model_path must be a directory, a Hub name or None, g",
        ),
        (
            {"config": [1]},
            r"config must be a mapping of the fields of ModelConfig, or one, got \[1",
        ),
        ({"model_path": "somewhere"}, "model_path and config cannot both be given"),
        ({"config": TINY | {"d_modle": 3}}, "unknown ModelConfig fields"),
        ({"context_length": 0}, "context_length must be an integer of at least 1, got 0"),
        ({"num_samples": None}, "num_samples must be an integer of at least 1, got None"),
        ({"batch_size": 2.5}, "batch_size must be an integer of at least 1, got 2.5"),
        ({"device": "abacus"}, "the device 'abacus' cannot be used: Expected one of"),
        ({"device": "cuda:77"}, "the device 'cuda:77' cannot be used"),
        ({"dtype": "int8"}, "dtype must be one of"),
    ],
)
def test_bad_parameters(y: pd.Series, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        forecaster(**changes).fit(y)


def test_bad_labels_and_values(y: pd.Series, three: pd.DataFrame) -> None:
    X = columns(months(80))
    twice = pd.concat([X, X.iloc[[3]]]).sort_index()
    for fit, ahead in ((twice, X), (X, twice)):
        with pytest.raises(ValueError, match="a label of X is there twice: 2000-04"):
            forecaster().fit(y, fit).predict(NEXT, ahead)
    with pytest.raises(ValueError, match="a label of y is there twice: 2000-04"):
        forecaster().fit(pd.concat([y, y.iloc[[3]]]).sort_index())
    with pytest.raises(ValueError, match="y is empty"):
        forecaster().fit(y.iloc[:0])
    nameless = three.rename(index={"b": np.nan}, level=0)
    with pytest.raises(ValueError, match=r"a label of y is missing: \(nan, Period"):
        forecaster().fit(nameless)
    three.iloc[-1] = np.inf
    with pytest.raises(ValueError, match="instance 'c' is infinite at 2002-06; use NaN"):
        forecaster().fit(three).predict(NEXT)
    X.iloc[70, 1] = np.inf
    with pytest.raises(ValueError, match="X of the series is infinite at 2005-11; use NaN"):
        forecaster().fit(y, X).predict(range(1, 21), X)


def test_one_label_may_be_in_sample_for_some_instances(three: pd.DataFrame) -> None:
    # sktime takes the end of the last update for the end of all
    fitted = forecaster().fit(three).update(panel({"c": wave(months(35), 2.0)}))
    label = ForecastingHorizon(months(50)[-1:], is_relative=False)
    got = fitted.predict(label)
    steps = {"a": -5, "b": 10, "c": 15}
    for name, step in steps.items():
        part = wave(months(35), 2.0) if name == "c" else three.loc[name]
        alone = forecaster().fit(part).predict([step])
        np.testing.assert_allclose(
            got.loc[name].to_numpy().ravel(), alone.to_numpy().ravel(), rtol=1e-4
        )
