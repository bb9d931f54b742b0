"""Exogenous data of the sktime forecaster: matched by name and label, past or known ahead."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from sktime.forecasting.base import ForecastingHorizon

from sktime_tables import columns, months, panel, wave
from tiny_forecaster import forecaster

NEXT = [1, 2, 3]


class TestExogenous:
    H = range(1, 21)

    @pytest.fixture
    def y(self) -> pd.Series:
        """What the columns drive."""
        return wave(months(60)) + 3 * columns(months(60))["a"] + columns(months(60))["b"]

    def test_future_values_matter(self, y: pd.Series) -> None:
        X = columns(months(80))
        fitted = forecaster().fit(y, X.loc[y.index])
        known = fitted.predict(self.H, X.iloc[60:])
        moved = fitted.predict(self.H, X.iloc[60:].assign(a=lambda t: t.a + 3))
        assert not np.allclose(known, moved, rtol=1e-5)

    def test_past_values_matter(self, y: pd.Series) -> None:
        X = columns(y.index)
        with_past = forecaster().fit(y, X).predict(self.H)
        assert not np.allclose(with_past, forecaster().fit(y).predict(self.H), rtol=1e-5)
        other = forecaster().fit(y, X.assign(b=X.b[::-1].to_numpy())).predict(self.H)
        assert not np.allclose(with_past, other, rtol=1e-5)

    @pytest.mark.parametrize("kind", ["object", "str", "category", "ordered"])
    def test_categories(self, y: pd.Series, kind: str) -> None:
        """As the columns of numbers that they stand for."""
        levels = ["calm", "windy", "storm"]
        codes = np.random.default_rng(2).choice(3, 80, p=[0.5, 0.3, 0.2])
        X = columns(months(80))[["a"]]
        wind = pd.Series(np.array(levels)[codes], index=X.index)
        if kind == "ordered":
            own = X.assign(wind=pd.Categorical(wind, levels, ordered=True))
            plain = X.assign(wind=codes * 1.0)
        else:
            own = X.assign(wind=wind.astype(kind))
            counts = wind[:60].value_counts()
            plain = X.assign(**{level: (wind == level) * 1.0 for level in counts.index})
        y = y + 5.0 * (wind.loc[y.index] == "storm")
        for later in ([*own.columns], ["a"]):
            kept = [name for name in plain.columns if name == "a" or "wind" in later]
            results = [
                forecaster().fit(y, table[:60]).predict(self.H, table.iloc[60:][names])
                for table, names in ((own, later), (plain, kept))
            ]
            np.testing.assert_allclose(results[0], results[1], rtol=1e-5)
        updated = forecaster().fit(y[:50], own[:50]).update(y[50:], own[50:60])
        whole = forecaster().fit(y, own[:60])
        np.testing.assert_allclose(
            updated.predict(self.H, own[60:]), whole.predict(self.H, own[60:]), rtol=1e-5
        )

    def test_columns_are_past_or_known_by_name(self, y: pd.Series) -> None:
        X = columns(months(80))
        fitted = forecaster().fit(y, X.loc[y.index])
        mixed = fitted.predict(self.H, X[["b"]].iloc[60:])
        direct = fitted.pipeline_.predict(
            y.to_numpy(),
            20,
            past_covariates=X[["a"]].iloc[:60].to_numpy(),
            future_covariates=X[["b"]].to_numpy(),
            num_paths=8,
            random_state=0,
        )
        np.testing.assert_allclose(mixed, direct.median, rtol=1e-5)
        turned = fitted.predict(self.H, X[["b", "a"]].iloc[60:])
        np.testing.assert_allclose(turned, fitted.predict(self.H, X.iloc[60:]), rtol=1e-6)

    def test_rows_are_matched_by_label(self, y: pd.Series) -> None:
        X = columns(months(100))
        expected = forecaster().fit(y, X.iloc[:60]).predict(self.H, X.iloc[60:80])
        # the whole table in both calls: rows before, between and after those that are needed
        extra = forecaster().fit(y, X).predict(self.H, X)
        pd.testing.assert_series_equal(extra, expected)
        assert not np.allclose(
            forecaster().fit(y, X).predict(self.H, X.shift(1).fillna(0.0)), expected, rtol=1e-5
        )

    def test_panel_rows_are_matched_by_label(self, three: pd.DataFrame) -> None:
        X = panel({name: columns(months(90)) * k for k, name in enumerate("abc", 1)})
        expected = forecaster().fit(three, X).predict(self.H, X)
        shuffled = pd.concat([X.loc[[name]] for name in "cab"])
        got = forecaster().fit(three, shuffled).predict(self.H, shuffled)
        pd.testing.assert_frame_equal(got, expected, rtol=1e-4)
        for name, part in three.groupby(level=0):
            own = X.loc[name]
            alone = forecaster().fit(part.droplevel(0), own).predict(self.H, own)
            np.testing.assert_allclose(expected.loc[name], alone, rtol=1e-4)

    def test_panel_of_unequal_ends_and_one_last_label(self, three: pd.DataFrame) -> None:
        X = panel({name: columns(months(90)) * k for k, name in enumerate("abc", 1)})
        driven = three.add(3 * X[["a"]].reindex(three.index).set_axis(["y"], axis=1))
        fh = ForecastingHorizon(months(60)[-1:], is_relative=False)
        got = forecaster().fit(driven, X).predict(fh, X)
        for name in "abc":
            own = X.loc[name].iloc[:60]
            alone = forecaster().fit(driven.loc[name], own).predict(fh, own)
            np.testing.assert_allclose(got.loc[name], alone, rtol=1e-4)

    def test_missing_values_of_the_past_are_no_numbers(self, y: pd.Series) -> None:
        X = columns(y.index)
        X.iloc[30:40] = np.nan
        got = forecaster().fit(y, X).predict(self.H)
        assert got.notna().all()
        assert not np.allclose(got, forecaster().fit(y, X.fillna(0.0)).predict(self.H), rtol=1e-5)

    def test_missing_values_are_allowed(self, y: pd.Series) -> None:
        X = columns(months(80))
        X.iloc[[3, 30, 65], 0] = np.nan
        fitted = forecaster().fit(y, X)
        assert fitted.predict(self.H, X).notna().all()
        assert not np.allclose(
            fitted.predict(self.H, X), fitted.predict(self.H, X.fillna(9.0)), rtol=1e-5
        )

    def test_after_an_update(self, y: pd.Series) -> None:
        X = columns(months(80))
        refitted = forecaster().fit(y, X).predict(self.H, X)
        updated = forecaster().fit(y.iloc[:40], X.iloc[:40]).update(y.iloc[40:], X.iloc[40:60])
        pd.testing.assert_series_equal(updated.predict(self.H, X), refitted)
        partly = forecaster().fit(y, X).update(y.iloc[50:], X[["a"]])
        pd.testing.assert_series_equal(partly.predict(self.H, X), refitted)
        late = forecaster().fit(y.iloc[:30], X.iloc[:30] + 1).update(y.iloc[30:50])
        pd.testing.assert_series_equal(late.update(y.iloc[50:], X).predict(self.H, X), refitted)
        ignorant = forecaster().fit(y.iloc[:40], X.iloc[:40]).update(y.iloc[40:])
        unknown = X.copy()
        unknown.iloc[40:60] = np.nan
        np.testing.assert_allclose(
            ignorant.predict(self.H, X), forecaster().fit(y, unknown).predict(self.H, X), rtol=1e-6
        )


class TestBadExogenous:
    def test_steps_that_are_not_asked_for_are_needed_too(self, y: pd.Series) -> None:
        X = columns(months(80))
        fitted = forecaster().fit(y, X.iloc[:60])
        with pytest.raises(ValueError, match=r"no row for 2005-01, 2005-03, 2005-04: the series"):
            fitted.predict([2, 5], X.iloc[[61, 64]])
        np.testing.assert_allclose(
            fitted.predict([2, 5], X.iloc[60:65]), fitted.predict([2, 5], X), rtol=1e-6
        )

    def test_missing_rows_are_named(self, y: pd.Series, three: pd.DataFrame) -> None:
        X = columns(months(80))
        with pytest.raises(ValueError, match=r"row for 2005-03: .* at all steps from 1 to 3"):
            forecaster().fit(y, X).predict(NEXT, X.iloc[:62])
        table = panel({name: columns(months(57)) for name in "abc"})
        with pytest.raises(ValueError, match="X has no row for 2004-10: instance 'a'"):
            forecaster().fit(three, table).predict(NEXT, table)
        with pytest.raises(ValueError, match="X has no rows for instance 'c'"):
            forecaster().fit(three, table).predict([1], table.loc[["a", "b"]])
        with pytest.raises(ValueError, match=r"X has no row for \('c', Period\('2000-01', 'M'\)\)"):
            forecaster().fit(three, table.loc[["a", "b"]])

    def test_unknown_columns(self, y: pd.Series) -> None:
        X = columns(months(80))
        with pytest.raises(ValueError, match=r"X has the columns \['c'\], which fit has not seen"):
            forecaster().fit(y, X).predict(NEXT, X.assign(c=0.0))
        with pytest.raises(ValueError, match="X was not given to fit"):
            forecaster().fit(y).predict(NEXT, X)
        with pytest.raises(ValueError, match="X was not given to fit"):
            forecaster().fit(y.iloc[:50]).update(y.iloc[50:], X)

    def test_what_is_neither_number_nor_category(self, y: pd.Series) -> None:
        X = columns(y.index).assign(kind="1.5")
        with pytest.raises(ValueError, match="must hold real numbers or categories"):
            forecaster().fit(y, X).predict(NEXT)
