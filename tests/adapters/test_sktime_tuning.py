"""Fine-tuning by `fit_strategy` and by `pretrain`, and what becomes of the weights afterwards."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.model_selection import KFold
from sktime.base import load
from sktime.exceptions import NotFittedError
from sktime.forecasting.model_evaluation import evaluate
from sktime.forecasting.model_selection import ForecastingGridSearchCV
from sktime.split import ExpandingWindowSplitter, InstanceSplitter

from moirai_moe_forecaster import MoiraiMoEForecaster
from moirai_moe_forecaster.inference.pipeline import MoiraiMoEPipeline
from tiny_forecaster import TINY, forecaster

AHEAD = range(1, 7)
ARGS = {"max_steps": 16, "learning_rate": 1e-2, "batch_size": 8, "progress": False}


def tuning(**changes: Any) -> MoiraiMoEForecaster:
    return forecaster(**({"training_args": ARGS} | changes))


def wave(points: int, phase: float = 0.0) -> pd.Series:
    index = pd.period_range("2000-01", periods=points, freq="M", name="time")
    return pd.Series(10 + 3 * np.sin(np.arange(points) / 2 + phase), index, name="y")


def panel(*lengths: int) -> pd.DataFrame:
    parts = {f"s{k}": wave(points, float(k)).to_frame() for k, points in enumerate(lengths)}
    return pd.concat(parts, names=["instance", "time"])


def weights(fitted: MoiraiMoEForecaster) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in fitted.model_.state_dict().items()}


def changed(before: dict[str, torch.Tensor], after: dict[str, torch.Tensor]) -> set[str]:
    assert before.keys() == after.keys()
    return {name for name in before if not torch.equal(before[name], after[name])}


@pytest.fixture(scope="module")
def zero_shot() -> dict[str, torch.Tensor]:
    return weights(forecaster().fit(wave(40)))


@pytest.fixture(scope="module")
def pretrained() -> MoiraiMoEForecaster:
    """Not to be changed: tests work with clones."""
    return tuning().pretrain(panel(60, 50, 60))


def uses(fitted: MoiraiMoEForecaster, pretrained: MoiraiMoEForecaster) -> bool:
    wanted = pretrained.pretrained_weights_.pipeline.network.state_dict()
    return not changed(wanted, weights(fitted))


@pytest.fixture
def no_training(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: Any, **options: Any) -> None:
        pytest.fail("was trained")

    monkeypatch.setattr(MoiraiMoEPipeline, "fine_tune", refuse)


class TestStrategies:
    @pytest.mark.parametrize(
        ("strategy", "mode"), [("minimal", "head"), ("full", "full"), ("peft", "lora")]
    )
    def test_fit_trains_a_copy(
        self, strategy: str, mode: str, zero_shot: dict[str, torch.Tensor]
    ) -> None:
        y = wave(60)
        before = forecaster().fit(y)
        expected = before.predict(AHEAD)
        tuned = tuning(fit_strategy=strategy).fit(y)
        report = tuned.pipeline_.tuning
        assert report.mode == mode
        assert report.improved
        moved = changed(zero_shot, weights(tuned))
        assert moved
        if strategy == "minimal":
            assert all(name.startswith(("projection.", "norm.")) for name in moved)
        assert not np.allclose(tuned.predict(AHEAD), expected, rtol=1e-4)
        # neither that forecaster nor a new one is touched
        pd.testing.assert_series_equal(before.predict(AHEAD), expected)
        pd.testing.assert_series_equal(forecaster().fit(y).predict(AHEAD), expected)
        assert not changed(zero_shot, weights(before))

    def test_zero_shot_trains_nothing(self, no_training: None) -> None:
        fitted = tuning().fit(wave(40))
        assert fitted.pipeline_ is forecaster().fit(wave(40)).pipeline_

    def test_a_panel_in_fit(self) -> None:
        tuned = tuning(fit_strategy="peft").fit(panel(60, 50))
        assert tuned.pipeline_.tuning.improved
        assert len(tuned.predict(AHEAD)) == 12

    def test_peft_config(self) -> None:
        given: dict[str, Any] = {"r": 1, "lora_alpha": 2, "target_modules": ["qkv"]}
        kept = copy.deepcopy(given)
        tuned = tuning(fit_strategy="peft", peft_config=given).fit(wave(60))
        settings = tuned.pipeline_.adapters.settings["lora"]
        assert (settings["rank"], settings["alpha"], settings["targets"]) == (1, 2, ["qkv"])
        assert all("qkv" in name for name in tuned.pipeline_.tuning.trained)
        assert given == kept

    def test_validation_split(self) -> None:
        arguments = ARGS | {"max_steps": 1, "horizon": 5}
        shares = [
            tuning(fit_strategy="minimal", training_args=arguments, validation_split=share)
            .fit(wave(60))
            .pipeline_.tuning.windows
            for share in (0.5, None)
        ]
        assert shares == [6, 2]

    @pytest.mark.parametrize(("fh", "horizon"), [(AHEAD, 6), ([40], 30), (None, 12), ([-1, 0], 12)])
    def test_held_out_windows_are_as_long_as_the_horizon(self, fh: Any, horizon: int) -> None:
        brief = ARGS | {"max_steps": 1}
        tuned = tuning(fit_strategy="minimal", training_args=brief).fit(wave(60), fh=fh)
        assert tuned.pipeline_.tuning.horizon == horizon

    def test_context_length_and_the_users_own_arguments(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        seen: dict[str, Any] = {}

        def spy(self: MoiraiMoEPipeline, y: Any, **options: Any) -> MoiraiMoEPipeline:
            seen.update(options)
            return self

        monkeypatch.setattr(MoiraiMoEPipeline, "fine_tune", spy)
        arguments = {"horizon": 3, "patience": 2}
        tuning(fit_strategy="full", training_args=arguments, context_length=20).fit(
            wave(40), fh=[1, 9]
        )
        assert seen["context_length"] == 20
        assert (seen["horizon"], seen["patience"], seen["random_state"]) == (3, 2, 0)

    @pytest.mark.parametrize("strategy", ["minimal", "full", "peft"])
    def test_what_fit_gets_is_trained_on(self, strategy: str) -> None:
        both = pd.DataFrame({"u": wave(40), "v": wave(40, 1.0)})
        both.iloc[[3, 20], 0] = np.nan
        brief = ARGS | {"max_steps": 2}
        tuned = tuning(fit_strategy=strategy, training_args=brief).fit(both)
        assert np.isfinite(tuned.predict(AHEAD).to_numpy()).all()


class TestExogenous:
    def test_is_trained_on_as_known_ahead(self, monkeypatch: pytest.MonkeyPatch) -> None:
        seen: list[Any] = []

        def spy(self: MoiraiMoEPipeline, y: Any, **options: Any) -> MoiraiMoEPipeline:
            seen.append((y, options["future_covariates"]))
            return self

        monkeypatch.setattr(MoiraiMoEPipeline, "fine_tune", spy)
        y = wave(40).drop(pd.Period("2000-05", "M"))
        X = pd.DataFrame({"a": np.arange(50.0), "b": 1.0}, wave(50).index)
        tuning(fit_strategy="full").fit(y, X)
        (values,), (covariates,) = seen[0]
        assert values.shape == (40, 1)
        assert covariates.shape == (40, 2)
        # the absent month is one of missing values, and the rows of X are matched by label
        assert np.flatnonzero(np.isnan(values[:, 0])).tolist() == [4]
        np.testing.assert_array_equal(np.delete(covariates[:, 0], 4), np.delete(np.arange(40), 4))

    def test_changes_what_is_learned_and_forecasts_with_it(self) -> None:
        X = pd.DataFrame({"a": np.random.default_rng(0).normal(size=66)}, wave(66).index)
        y = wave(60) + 5 * X["a"].iloc[:60]
        with_x = tuning(fit_strategy="minimal").fit(y, X)
        assert changed(weights(with_x), weights(tuning(fit_strategy="minimal").fit(y)))
        assert np.isfinite(with_x.predict(AHEAD, X)).all()

    def test_of_a_panel(self) -> None:
        y = panel(40, 30)
        X = pd.DataFrame({"a": np.arange(70.0)}, y.index)
        brief = ARGS | {"max_steps": 2}
        fitted = tuning(training_args=brief).pretrain(y, X).fit(y, X)
        assert len(fitted.predict(AHEAD, None)) == 12


class TestPretrain:
    @pytest.mark.parametrize(
        ("strategy", "mode"),
        [("zero-shot", "lora"), ("minimal", "head"), ("full", "full"), ("peft", "lora")],
    )
    def test_trains_by_the_strategy(self, strategy: str, mode: str) -> None:
        brief = ARGS | {"max_steps": 2}
        fitted = tuning(fit_strategy=strategy, training_args=brief).pretrain(panel(30, 30))
        assert fitted.state == "pretrained"
        assert fitted._pretrained_attrs == ["pretrained_weights_"]
        assert fitted.pretrained_weights_.pipeline.tuning.mode == mode

    @pytest.mark.parametrize("strategy", ["zero-shot", "full"])
    def test_fit_uses_it_and_does_not_train(
        self,
        strategy: str,
        zero_shot: dict[str, torch.Tensor],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        trained = tuning(fit_strategy=strategy).pretrain(panel(60, 50, 60))
        monkeypatch.setattr(MoiraiMoEPipeline, "fine_tune", None)
        fitted = trained.clone().fit(wave(40))
        assert uses(fitted, trained)
        assert changed(zero_shot, weights(fitted))
        direct = trained.pretrained_weights_.pipeline.predict(
            wave(40).to_numpy(), 6, num_paths=8, random_state=0
        )
        np.testing.assert_allclose(fitted.predict(AHEAD), direct.median, rtol=1e-6)

    def test_goes_on_from_the_last_one(self, pretrained: MoiraiMoEForecaster) -> None:
        again = pretrained.clone()
        first = pretrained.pretrained_weights_.pipeline
        kept = {name: tensor.clone() for name, tensor in first.network.state_dict().items()}
        again.pretrain(panel(60, 50, 60))
        second = again.pretrained_weights_.pipeline
        # the held-out windows were among the data of the first one's last steps
        assert first.tuning.refitted
        assert second.tuning.before.wql < first.tuning.before.wql
        assert changed(kept, second.network.state_dict())
        assert not changed(kept, first.network.state_dict())
        assert again._pretrained_attrs == ["pretrained_weights_"]

    def test_after_a_fit_it_stays_through_later_ones(self) -> None:
        once = tuning().fit(wave(40))
        once.pretrain(panel(60, 50, 60))
        trained = once.clone()
        for _ in range(3):
            assert uses(once.fit(wave(40)), trained)

    @pytest.mark.parametrize("columns", [1, 2])
    def test_a_tiny_panel(self, columns: int) -> None:
        y = pd.concat([panel(10, 10, 10)] * columns, axis=1).set_axis(list("ab")[:columns], axis=1)
        brief = ARGS | {"max_steps": 2}
        fitted = tuning(training_args=brief).pretrain(y, fh=[1, 2, 3]).pretrain(y).fit(y)
        assert fitted.predict([1, 2]).shape == (6, columns)

    def test_time_stamps_without_frequency_and_short_series(self) -> None:
        days = pd.date_range("2024-01-01", periods=30, freq="D")
        parts = {n: pd.DataFrame({"y": np.arange(float(n))}, days[:n]) for n in (30, 20, 2)}
        y = pd.concat(parts, names=["instance", "time"])
        brief = ARGS | {"max_steps": 2}
        trained = tuning(training_args=brief).pretrain(y)
        assert trained.pretrained_weights_.pipeline.tuning.windows > 0

    def test_in_evaluate_over_instances(self) -> None:
        scores = evaluate(
            tuning(training_args=ARGS | {"max_steps": 2}),
            y=panel(30, 30, 30, 30),
            cv=ExpandingWindowSplitter(fh=[1, 2], initial_window=24, step_length=10),
            cv_global=InstanceSplitter(KFold(2)),
            error_score="raise",
        )
        assert np.isfinite(scores["test_MeanAbsolutePercentageError"]).all()


class TestPersistence:
    @pytest.mark.parametrize("by", ["fit", "pretrain"])
    def test_forecasts_stay_the_same(
        self, by: str, pretrained: MoiraiMoEForecaster, tmp_path: Path
    ) -> None:
        y = wave(45)
        fitted = tuning(fit_strategy="peft") if by == "fit" else pretrained.clone()
        fitted.fit(y)
        wanted = fitted.predict(AHEAD)
        assert not np.allclose(wanted, forecaster().fit(y).predict(AHEAD), rtol=1e-4)
        fitted.save(tmp_path / "saved")
        copies = {
            "deepcopy": copy.deepcopy(fitted),
            "pickle": pickle.loads(pickle.dumps(fitted)),
            "save": load(tmp_path / "saved.zip"),
            "save in memory": load(fitted.save()),
            "clone": fitted.clone().fit(y),
            "clone of a pickle": pickle.loads(pickle.dumps(fitted)).clone().fit(y),
            "fit again": copy.deepcopy(fitted).fit(y),
            "fit twice": copy.deepcopy(fitted).fit(y.iloc[:20]).fit(y),
        }
        for name, other in copies.items():
            pd.testing.assert_series_equal(other.predict(AHEAD), wanted, obj=name)
        pd.testing.assert_series_equal(fitted.predict(AHEAD), wanted)

    def test_a_pretrained_pickle_is_fitted_elsewhere(
        self, pretrained: MoiraiMoEForecaster, no_training: None
    ) -> None:
        other = pickle.loads(pickle.dumps(pretrained))
        assert other.state == "pretrained"
        assert uses(other.fit(wave(40)), pretrained)

    def test_copies_share_the_weights(self, pretrained: MoiraiMoEForecaster) -> None:
        weights_ = pretrained.pretrained_weights_
        assert copy.deepcopy(pretrained).pretrained_weights_ is weights_
        assert pretrained.clone().pretrained_weights_ is weights_

    def test_update_keeps_the_weights(self, pretrained: MoiraiMoEForecaster) -> None:
        y = wave(50)
        moved = pretrained.clone().fit(y.iloc[:40]).update(y.iloc[40:])
        pd.testing.assert_series_equal(
            moved.predict(AHEAD), pretrained.clone().fit(y).predict(AHEAD)
        )


class TestSavePretrained:
    @pytest.mark.parametrize("by", ["fit", "pretrain", "nothing"])
    def test_model_path_takes_it(
        self, by: str, pretrained: MoiraiMoEForecaster, tmp_path: Path
    ) -> None:
        y = wave(45)
        if by == "pretrain":
            saved = pretrained.clone()
        else:
            saved = tuning(fit_strategy="full" if by == "fit" else "zero-shot").fit(y)
        saved.save_pretrained(tmp_path / "model")
        loaded = forecaster(config=None, model_path=tmp_path / "model").fit(y)
        wanted = saved.fit(y) if by == "pretrain" else saved
        pd.testing.assert_series_equal(loaded.predict(AHEAD), wanted.predict(AHEAD))

    def test_needs_weights_in_use(self, tmp_path: Path) -> None:
        with pytest.raises(NotFittedError):
            tuning().save_pretrained(tmp_path / "model")
        assert not (tmp_path / "model").exists()

    def test_set_params_loses_what_model_path_keeps(
        self, pretrained: MoiraiMoEForecaster, tmp_path: Path
    ) -> None:
        y = wave(45)
        lost = pretrained.clone().set_params(num_samples=7)
        assert not hasattr(lost, "pretrained_weights_")
        assert not uses(lost.fit(y), pretrained)
        pretrained.save_pretrained(tmp_path)
        kept = forecaster(config=None, model_path=tmp_path).set_params(num_samples=7)
        assert uses(kept.fit(y), pretrained)

    def test_grid_search(self, pretrained: MoiraiMoEForecaster, tmp_path: Path) -> None:
        y = wave(50)
        pretrained.save_pretrained(tmp_path)
        search = ForecastingGridSearchCV(
            forecaster(config=None, model_path=tmp_path),
            cv=ExpandingWindowSplitter(fh=[1, 2, 3], initial_window=40, step_length=5),
            param_grid={"context_length": [20, 40]},
            error_score="raise",
        ).fit(y)
        best = search.best_forecaster_
        assert uses(best, pretrained)
        context_length = search.best_params_["context_length"]
        direct = pretrained.clone().fit(y.iloc[-context_length:])
        pd.testing.assert_series_equal(search.predict(AHEAD), direct.predict(AHEAD))


class TestRandomState:
    def test_governs_training(self) -> None:
        y = wave(60)
        first, again, other = (
            tuning(fit_strategy="peft", random_state=seed).fit(y) for seed in (3, 3, 4)
        )
        assert not changed(weights(first), weights(again))
        assert changed(weights(first), weights(other))
        one, two, three = (
            tuning(random_state=seed).pretrain(panel(40, 40)).fit(y) for seed in (3, 3, 4)
        )
        assert not changed(weights(one), weights(two))
        assert changed(weights(one), weights(three))

    def test_a_generator_stays_as_it_is(self) -> None:
        generator = np.random.RandomState(5)
        y = wave(40)
        brief = ARGS | {"max_steps": 4}
        fitted = tuning(fit_strategy="full", training_args=brief, random_state=generator).fit(y)
        expected = fitted.predict(AHEAD)
        pd.testing.assert_series_equal(fitted.fit(y).predict(AHEAD), expected)

    def test_global_states_stay_untouched(self) -> None:
        numpys = np.random.get_state()[1].copy()  # noqa: NPY002
        torchs = torch.get_rng_state()
        brief = ARGS | {"max_steps": 2}
        tuning(fit_strategy="peft", training_args=brief, random_state=None).fit(wave(40))
        tuning(training_args=brief, random_state=None).pretrain(panel(30, 30))
        np.testing.assert_array_equal(np.random.get_state()[1], numpys)  # noqa: NPY002
        assert torch.equal(torch.get_rng_state(), torchs)


@pytest.mark.parametrize("call", ["fit", "pretrain"])
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"fit_strategy": "lora"}, r"fit_strategy must be one of \['zero-shot', .* got 'lora'"),
        ({"fit_strategy": None}, "fit_strategy must be one of .* got None"),
        ({"training_args": {"max_step": 1}}, r"unknown training_args \['max_step'\]; known are"),
        ({"training_args": {"mode": "router"}}, "cannot hold 'mode': fit_strategy of"),
        ({"training_args": {"random_state": 1}}, "cannot hold 'random_state': random_state of"),
        ({"training_args": 3}, "training_args must be a mapping .* got 3"),
        ({"validation_split": 1.5}, "validation_split must be None or a fraction .* got 1.5"),
        ({"validation_split": 1}, "validation_split must be None or a fraction .* got 1"),
        ({"fit_strategy": "peft", "peft_config": {"rnk": 1}}, r"unknown LoRA settings \['rnk'\]"),
        ({"fit_strategy": "peft", "peft_config": 8}, "peft_config must be a mapping .* got 8"),
        ({"fit_strategy": "full", "peft_config": {"r": 4}}, "peft_config is for fit_strategy='pe"),
    ],
)
def test_bad_parameters(
    call: str, changes: dict[str, Any], message: str, no_training: None
) -> None:
    with pytest.raises(ValueError, match=message):
        getattr(tuning(**changes), call)(panel(30, 30))


def test_what_cannot_be_trained_on() -> None:
    with pytest.raises(ValueError, match="give longer series"):
        tuning(fit_strategy="peft").fit(wave(3))
    with pytest.raises(ValueError, match="only missing values in column 'y'"):
        tuning().pretrain(panel(30, 30) * np.nan)
    with pytest.raises(ValueError, match="matches no weight"):
        tuning(fit_strategy="peft", peft_config={"target_modules": ["q_proj"]}).fit(wave(40))


def test_mappings_of_the_user_are_not_changed() -> None:
    config, arguments = copy.deepcopy(TINY), dict(ARGS, max_steps=1)
    tuning(config=config, training_args=arguments, fit_strategy="full").fit(wave(30), fh=[1, 2])
    assert config == TINY
    assert arguments == ARGS | {"max_steps": 1}
