"""What a sktime forecaster keeps, shares, draws and leaves alone."""

from __future__ import annotations

import copy
import pickle
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from moirai_moe_forecaster import MoiraiMoE, MoiraiMoEForecaster, MoiraiMoEPipeline
from moirai_moe_forecaster.config import ModelConfig
from sktime_tables import columns, months, wave
from tiny_forecaster import TINY, forecaster

NEXT = [1, 2, 3]


class TestRandomness:
    H = range(1, 41)

    def test_seed_is_drawn_in_fit(self, y: pd.Series) -> None:
        fitted = forecaster(random_state=None).fit(y)
        first = fitted.predict(self.H)
        pd.testing.assert_series_equal(fitted.predict(self.H), first)
        assert not np.allclose(fitted.fit(y).predict(self.H), first, rtol=1e-7)

    def test_random_state_decides(self, y: pd.Series) -> None:
        one, same, two = (
            forecaster(random_state=seed).fit(y).predict(self.H) for seed in (1, 1, 2)
        )
        pd.testing.assert_series_equal(one, same)
        assert not np.allclose(one, two, rtol=1e-7)
        np.testing.assert_allclose(one.iloc[:16], two.iloc[:16], rtol=1e-7)

    def test_generator_stays_as_it_was(self, y: pd.Series) -> None:
        generator = np.random.RandomState(3)
        before = generator.get_state()[1].copy()
        fitted = forecaster(random_state=generator)
        first = fitted.fit(y).predict(self.H)
        np.testing.assert_array_equal(generator.get_state()[1], before)
        pd.testing.assert_series_equal(fitted.fit(y).predict(self.H), first)

    def test_global_state_is_untouched(self, y: pd.Series) -> None:
        # a configuration that no other test has loaded, so that its network is built here
        torch.manual_seed(5)
        np.random.seed(5)  # noqa: NPY002
        expected = (torch.rand(3), np.random.rand(3))  # noqa: NPY002
        torch.manual_seed(5)
        np.random.seed(5)  # noqa: NPY002
        forecaster(config=TINY | {"d_ff": 12}).fit(y).predict_proba(self.H)
        assert torch.equal(torch.rand(3), expected[0])
        np.testing.assert_array_equal(np.random.rand(3), expected[1])  # noqa: NPY002

    def test_weights_of_a_configuration_are_always_the_same(self, y: pd.Series) -> None:
        torch.manual_seed(1)
        one = forecaster(config=TINY | {"d_ff": 20}).fit(y)
        weights = copy.deepcopy(one.model_.state_dict())
        torch.manual_seed(2)
        other = MoiraiMoEForecaster(config=TINY | {"d_ff": 20}, dtype="float64").fit(y)
        assert other.model_ is not one.model_
        for name, weight in other.model_.state_dict().items():
            torch.testing.assert_close(weight.float(), weights[name])


class TestSharedNetwork:
    def test_is_shared_and_never_carried(self, y: pd.Series) -> None:
        wide = TINY | {"d_model": 64, "d_ff": 256}
        fitted = forecaster(config=wide).fit(y)
        other = forecaster(config=ModelConfig.from_dict(wide)).fit(y + 1)
        assert isinstance(fitted.model_, MoiraiMoE)
        assert fitted.model_ is other.model_
        device = str(next(fitted.model_.parameters()).device)
        explicit = forecaster(config=wide, dtype="float32", device=device)
        assert explicit.fit(y).model_ is fitted.model_
        assert fitted.get_fitted_params()["model"] is fitted.model_
        assert sum(p.nbytes for p in fitted.model_.parameters()) > 500_000
        assert len(pickle.dumps(fitted)) < 100_000
        expected = fitted.predict(range(1, 41))
        for copied in (pickle.loads(pickle.dumps(fitted)), copy.deepcopy(fitted)):
            pd.testing.assert_series_equal(copied.predict(range(1, 41)), expected)
            assert copied.model_ is fitted.model_
        pd.testing.assert_series_equal(fitted.clone().fit(y).predict(range(1, 41)), expected)

    def test_predict_leaves_a_copy_as_it_is(self, y: pd.Series) -> None:
        copied = pickle.loads(pickle.dumps(forecaster().fit(y, columns(y.index))))
        copied.predict(NEXT)
        before = pickle.dumps(copied)
        copied.predict_interval(NEXT)
        copied.predict_proba(NEXT)
        assert pickle.dumps(copied) == before

    def test_threads(self) -> None:
        series = [wave(months(50), phase) for phase in np.arange(6.0)]
        config = TINY | {"d_ff": 28}

        def run(data: pd.Series) -> pd.Series:
            return forecaster(config=config).fit(data).predict(range(1, 41))

        with ThreadPoolExecutor(4) as pool:
            together = list(pool.map(run, series))
        for data, got in zip(series, together, strict=True):
            pd.testing.assert_series_equal(got, run(data))

    def test_threads_load_once(self, y: pd.Series, monkeypatch: pytest.MonkeyPatch) -> None:
        built: list[ModelConfig] = []

        def slow(config: ModelConfig) -> MoiraiMoE:
            built.append(config)
            time.sleep(0.05)
            return MoiraiMoE(config)

        monkeypatch.setattr("moirai_moe_forecaster.inference.model_cache.MoiraiMoE", slow)
        config = TINY | {"d_ff": 36}
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda _: forecaster(config=config).fit(y), range(8)))
        assert len(built) == 1

    def test_checkpoint_in_a_directory(self, y: pd.Series, tmp_path: Any) -> None:
        first = forecaster().fit(y)
        first.pipeline_.save_pretrained(tmp_path)
        loaded = MoiraiMoEForecaster(tmp_path, num_paths=8, random_state=0).fit(y)
        pd.testing.assert_series_equal(loaded.predict(NEXT), first.predict(NEXT))
        # another network under the same name is loaded by the next fit, not by the last one's
        network = copy.deepcopy(first.model_)
        with torch.no_grad():
            network.projection.bias.add_(1.0)
        MoiraiMoEPipeline(network).save_pretrained(tmp_path)
        again = loaded.clone().fit(y)
        assert not np.allclose(again.predict(NEXT), first.predict(NEXT), rtol=1e-4)
        pd.testing.assert_series_equal(loaded.predict(NEXT), first.predict(NEXT))


def test_keeps_only_the_context() -> None:
    long = wave(months(2000, "1900-01"))
    fitted = forecaster(context_length=50).fit(long, columns(long.index))
    fitted.update(wave(months(500, "2066-09")), columns(months(500, "2066-09")))
    assert len(pickle.dumps(fitted)) < 20_000


def test_user_data_and_later_changes_of_it(y: pd.Series) -> None:
    config = copy.deepcopy(TINY)
    X = columns(months(80))
    given, original = (y.copy(), X.copy()), (y.copy(), X.copy())
    fitted = forecaster(config=config).fit(*given)
    expected = fitted.predict(NEXT, X)
    pd.testing.assert_series_equal(given[0], original[0])
    pd.testing.assert_frame_equal(given[1], original[1])
    assert config == TINY
    given[0].iloc[-5:] = 0.0
    given[1].iloc[:] = 0.0
    pd.testing.assert_series_equal(fitted.predict(NEXT, X), expected)


def test_no_warnings(y: pd.Series) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fitted = forecaster().fit(y.iloc[:40])
        fitted.update(y.iloc[40:], update_params=False).update(y.iloc[40:])
        fitted.predict(NEXT)
        fitted.predict_quantiles(NEXT)
