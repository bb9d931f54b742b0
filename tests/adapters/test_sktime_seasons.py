"""Cycles in the sktime forecaster: the parameter `sp`, the history that is kept, who agrees."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import numpy as np
import pandas as pd
import pytest

from moirai_moe_forecaster import MoiraiMoEForecaster, MoiraiMoEPipeline
from sktime_tables import panel
from tiny_forecaster import TINY, forecaster

FINDS = TINY | {"find_seasons": True}
SHORT = FINDS | {"max_seq_len": 128}
"""Reads 2,048 points at once."""
NEXT = range(1, 49)


def cyclic(points: int, length: int, seed: int = 0, noise: float = 0.1) -> np.ndarray:
    """A random table that repeats itself under noise."""
    generator = np.random.default_rng(seed)
    table = generator.normal(size=length)
    return np.resize(table, points) + noise * generator.normal(size=points)


def hours(values: np.ndarray) -> pd.Series:
    return pd.Series(values, pd.date_range("2020-01-01", periods=len(values), freq="h"), name="y")


def finder(**changes: Any) -> MoiraiMoEForecaster:
    return forecaster(**({"config": FINDS} | changes))


@pytest.fixture
def y() -> pd.Series:
    return hours(cyclic(300, 24))


@pytest.fixture
def long() -> pd.Series:
    """Days and weeks, more of them than the network reads at once."""
    return hours(3 * cyclic(5_000, 24) + cyclic(5_000, 168, seed=1))


class TestParameter:
    def test_comes_after_earlier_ones_and_is_found_by_default(self) -> None:
        # what came later stands behind it
        assert MoiraiMoEForecaster.get_param_names(sort=False)[-3:] == ["sp", "bounds", "integer"]
        assert MoiraiMoEForecaster().sp == "auto"

    @pytest.mark.parametrize("off", [None, 1, [1]])
    def test_off(self, y: pd.Series, off: Any) -> None:
        expected = forecaster().fit(y).predict([-200, 0, *NEXT])
        got = finder(sp=off).fit(y).predict([-200, 0, *NEXT])
        pd.testing.assert_series_equal(got, expected)

    def test_auto_is_what_the_checkpoint_says(self, y: pd.Series) -> None:
        without = forecaster(sp=None).fit(y).predict([-200, 0, *NEXT])
        pd.testing.assert_series_equal(forecaster().fit(y).predict([-200, 0, *NEXT]), without)
        assert not np.allclose(finder().fit(y).predict([-200, 0]), without.iloc[:2], rtol=1e-3)
        assert not np.allclose(finder().fit(y).predict(NEXT), without.iloc[2:], rtol=1e-3)

    def test_named_periods_need_no_finding(self, y: pd.Series) -> None:
        found, named, listed = (
            fitted.fit(y).predict([-30, *NEXT])
            for fitted in (finder(), forecaster(sp=24), forecaster(sp=[24]))
        )
        np.testing.assert_allclose(named, found, rtol=0.01, atol=0.02)
        pd.testing.assert_series_equal(named, listed)

    @pytest.mark.parametrize("bad", [0, -24, 12.0, "weekly", [], [24, "auto"], True])
    def test_others_are_errors_in_fit(self, y: pd.Series, bad: Any) -> None:
        with pytest.raises(ValueError, match=r"^sp must be"):
            forecaster(sp=bad).fit(y)

    def test_what_was_saved_without_it_forecasts_as_it_did(self, y: pd.Series) -> None:
        saved = finder(sp=None).fit(y)
        expected = saved.predict(NEXT)
        del saved.__dict__["sp"]
        loaded = pickle.loads(pickle.dumps(saved))
        assert loaded.sp is None
        pd.testing.assert_series_equal(loaded.predict(NEXT), expected)
        pd.testing.assert_series_equal(loaded.clone().fit(y).predict(NEXT), expected)


class TestHistory:
    def test_forecasts_are_those_of_the_pipeline(self, long: pd.Series) -> None:
        fitted = MoiraiMoEForecaster(random_state=0).fit(long)
        pipeline = MoiraiMoEPipeline.from_pretrained()
        expected = pipeline.predict(long.to_numpy(), len(NEXT), random_state=0)
        assert {24, 168} == set(expected.seasons["period"])
        np.testing.assert_allclose(fitted.predict(NEXT), expected.median, rtol=1e-6)
        bounded = MoiraiMoEForecaster(context_length=1_000, random_state=0).fit(long)
        expected = pipeline.predict(
            long.to_numpy(), len(NEXT), context_length=1_000, random_state=0
        )
        np.testing.assert_allclose(bounded.predict(NEXT), expected.median, rtol=1e-6)

    @pytest.mark.parametrize(
        ("changes", "kept"),
        [({}, 5_000), ({"sp": None}, 2_048), ({"context_length": 700}, 700), ({"sp": 24}, 5_000)],
    )
    def test_as_much_is_kept_as_is_used(
        self, long: pd.Series, changes: dict[str, Any], kept: int
    ) -> None:
        fitted = finder(config=SHORT, **changes).fit(long)
        # a value and a time stamp
        assert 16 * kept < len(pickle.dumps(fitted)) < 16 * kept + 5_000
        updated = finder(config=SHORT, **changes).fit(long.iloc[:-300])
        updated.update(long.iloc[-400:], update_params=False)
        pd.testing.assert_series_equal(updated.predict(NEXT), fitted.predict(NEXT))

    def test_the_longest_history_is_bounded(self) -> None:
        y = hours(cyclic(20_000, 24))
        one, other = finder().fit(y), finder().fit(y.iloc[-16_384:])
        pd.testing.assert_series_equal(one.predict(NEXT), other.predict(NEXT))
        assert len(pickle.dumps(one)) == len(pickle.dumps(other))

    def test_the_past_reaches_as_far_as_the_network_reads(self, long: pd.Series) -> None:
        fitted = finder(config=SHORT).fit(long)
        first = fitted.predict([-2_047, -2_046])
        assert np.isfinite(first).all()
        with pytest.raises(ValueError, match=r"starts at .*has the last 2048 points"):
            fitted.predict([-2_048])
        # cycles are learnt from what lies before
        blind = finder(config=SHORT, context_length=2_048).fit(long)
        assert not np.allclose(blind.predict([-2_046]), first.iloc[1:], rtol=1e-2)

    def test_missing_in_all_that_the_network_reads(self, long: pd.Series) -> None:
        long.iloc[-2_100:] = np.nan
        fitted = finder(config=SHORT).fit(long)
        with pytest.raises(ValueError, match=r"the series has only missing.*'y' among its last 2"):
            fitted.predict(NEXT)


class TestOneDistribution:
    STEPS = (-40, -1, 0, 1, 2, 30)

    def test_all_methods_agree(self, y: pd.Series) -> None:
        fitted = finder().fit(y)
        steps = list(self.STEPS)
        quantiles = fitted.predict_quantiles(steps, alpha=[0.1, 0.5, 0.9])
        interval = fitted.predict_interval(steps, coverage=0.8)
        drawn = fitted.predict_proba(steps)
        np.testing.assert_allclose(quantiles.iloc[:, 1], fitted.predict(steps), rtol=1e-6)
        np.testing.assert_allclose(quantiles.iloc[:, [0, 2]], interval, rtol=1e-6)
        np.testing.assert_allclose(drawn.quantile([0.1, 0.5, 0.9]), quantiles, rtol=1e-5)
        np.testing.assert_allclose(drawn.var(), fitted.predict_var(steps), rtol=1e-6)
        means = finder(prediction_type="mean").fit(y).predict(steps)
        np.testing.assert_allclose(drawn.mean().iloc[:, 0], means, rtol=1e-6)

    def test_mixed_horizons_are_their_parts(self, y: pd.Series) -> None:
        fitted = finder().fit(y)
        got = fitted.predict(list(self.STEPS))
        np.testing.assert_allclose(got.iloc[:3], fitted.predict([-40, -1, 0]), rtol=1e-5)
        np.testing.assert_allclose(got.iloc[3:], fitted.predict([1, 2, 30]), rtol=1e-5)

    def test_copies(self, y: pd.Series) -> None:
        fitted = finder(sp=[24, 48]).fit(y)
        expected = fitted.predict(list(self.STEPS))
        for same in (
            copy.deepcopy(fitted),
            pickle.loads(pickle.dumps(fitted)),
            fitted.clone().fit(y),
        ):
            assert same.sp == [24, 48]
            pd.testing.assert_series_equal(same.predict(list(self.STEPS)), expected)

    def test_update_predict(self, y: pd.Series) -> None:
        from sktime.split import SlidingWindowSplitter

        cv = SlidingWindowSplitter(fh=[1, 2], window_length=48, step_length=48)
        got = finder().fit(y.iloc[:200]).update_predict(y.iloc[200:], cv)
        first = finder().fit(y.iloc[:200]).update(y.iloc[200:248]).predict([1, 2])
        np.testing.assert_allclose(got.iloc[:2, 0], first, rtol=1e-5)


class TestManySeries:
    def test_instances_of_different_periods(self) -> None:
        walk = np.random.default_rng(2).normal(size=250).cumsum()
        parts = {"a": cyclic(300, 24), "b": cyclic(260, 7), "c": walk, "d": cyclic(9, 3)}
        steps = [-100, -3, 0, 1, 40]
        steps = [step for step in steps if step > -9]
        table = panel({name: hours(values) for name, values in parts.items()})
        got = finder().fit(table).predict(steps)
        for name, values in parts.items():
            alone = finder().fit(hours(values)).predict(steps)
            np.testing.assert_allclose(got.loc[name, "y"], alone, rtol=1e-4, atol=1e-4)

    def test_columns_without_a_period(self, y: pd.Series) -> None:
        """They are forecast as without cycles, also beside columns that have them."""
        walk = hours(np.random.default_rng(4).normal(size=300).cumsum())
        table = pd.DataFrame({"cycle": y, "walk": walk})
        steps = [-30, 0, 1, 20]
        got = finder().fit(table).predict(steps)
        plain = finder(sp=None).fit(table).predict(steps)
        np.testing.assert_allclose(got["walk"], plain["walk"], rtol=1e-5)
        assert not np.allclose(got["cycle"], plain["cycle"], rtol=1e-3)

    def test_covariates_whose_effect_carries_the_cycle(self, y: pd.Series) -> None:
        """What they explain is taken out first: nothing is left to repeat, and nothing is lost."""
        X = hours(cyclic(348, 24, noise=0.5)).to_frame("x")
        driven = 5 * X["x"].iloc[:300] + np.random.default_rng(5).normal(size=300)
        steps = [-30, 0, *NEXT]
        fitted = MoiraiMoEForecaster(random_state=0).fit(driven.rename("y"), X.iloc[:300])
        blind = MoiraiMoEForecaster(random_state=0).fit(driven.rename("y"))
        actual = 5 * X["x"].iloc[[269, 299, *range(300, 348)]].to_numpy()
        misses = [
            np.abs(forecast.to_numpy() - actual).mean()
            for forecast in (fitted.predict(steps, X), blind.predict(steps))
        ]
        assert misses[0] < 0.5 * misses[1]
