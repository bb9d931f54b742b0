"""Fine-tuning the Darts model by Darts' own means."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("darts", reason="needs the extra `darts`")

import torchmetrics
from darts import TimeSeries
from pytorch_lightning.callbacks import EarlyStopping

from darts_models import CHUNK, QUIET, covariates, model, quantiles, tiny_pipeline, walk
from moirai_moe_forecaster import MoiraiMoEModel
from moirai_moe_forecaster.errors import ConfigError

SERIES = walk()
LORA = {"lora": {"rank": 2, "targets": ["attention", "experts"]}}


def tuned(series: Any = SERIES, fit: dict[str, Any] | None = None, **changes: Any) -> Any:
    options = {
        "context": 24,
        "chunk": 6,
        "enable_finetuning": True,
        "n_epochs": 2,
        "optimizer_kwargs": {"lr": 1e-3},
        "random_state": 0,
    }
    return model(**options | changes).fit(series, **fit or {})


def losses(of: MoiraiMoEModel) -> dict[str, float]:
    return {name: float(value) for name, value in of.trainer.callback_metrics.items()}


def changed(of: MoiraiMoEModel) -> set[str]:
    """Names of the network's tensors that training has changed."""
    before = tiny_pipeline().network.state_dict()
    return {
        name
        for name, tensor in of.model.network.state_dict().items()
        if not torch.allclose(before[name].double(), tensor.double(), atol=1e-7)
    }


# --- the loss -----------------------------------------------------------------------------------


def test_training_and_validation_loss_are_the_same_likelihood() -> None:
    still = tuned(
        n_epochs=1,
        optimizer_kwargs={"lr": 0.0},
        batch_size=1000,
        fit={"val_series": SERIES},
        likelihood=quantiles(),
    )
    found = losses(still)
    assert found["train_loss"] == pytest.approx(found["val_loss"], rel=1e-5)
    # and do not depend on what is predicted from it
    bare = tuned(n_epochs=1, optimizer_kwargs={"lr": 0.0}, batch_size=1000)
    assert losses(bare)["train_loss"] == pytest.approx(found["train_loss"], rel=1e-5)


@pytest.mark.parametrize("shift", [0, 5])
def test_training_lowers_the_loss(shift: int) -> None:
    def loss(epochs: int) -> float:
        known = {**covariates(), **{f"val_{k}": v for k, v in covariates().items()}}
        options = {"n_epochs": epochs, "output_chunk_shift": shift, "chunk": 40}
        return losses(tuned(fit={"val_series": SERIES, **known}, **options))["val_loss"]

    assert loss(6) < loss(1) - 0.01


def test_what_is_learnt_is_what_known_covariates_leave_to_the_network() -> None:
    # they act through a regression on the context, and so are no tokens in training either
    rng, points = np.random.default_rng(6), 240
    noise = rng.normal(size=(points, 1))
    season = np.sin(np.arange(points)[:, None] / 3) + 0.05 * rng.normal(size=(points, 1))
    base, known = (walk(points).with_values(values) for values in (season, noise))

    def loss(series: TimeSeries, **given: TimeSeries) -> float:
        options = {"enable_finetuning": True, "n_epochs": 1, "optimizer_kwargs": {"lr": 0.0}}
        bundled = MoiraiMoEModel(96, 12, batch_size=200, pl_trainer_kwargs=QUIET, **options)
        return losses(bundled.fit(series, **given))["train_loss"]

    rest, raised = loss(base), base + 2 * known
    assert loss(raised, future_covariates=known) == pytest.approx(rest, abs=0.05)
    assert loss(raised) > rest + 0.5


@pytest.mark.slow
def test_missing_values_and_short_series_train() -> None:
    values = SERIES.values().copy()
    values[10:20] = np.nan
    values[70:75] = np.nan
    panel = [SERIES.with_values(values), walk(17)]
    assert np.isfinite(losses(tuned(panel, context=(10, 24)))["train_loss"])


def test_weights_of_samples_change_what_is_learnt() -> None:
    plain = tuned().predict(6).values()
    weighted = tuned(fit={"sample_weight": "exponential"}).predict(6).values()
    assert np.abs(plain - weighted).max() > 1e-6
    zero = SERIES.with_values(np.zeros((len(SERIES), 1)))
    assert changed(tuned(fit={"sample_weight": zero})) == set()


def test_a_value_of_weight_zero_is_not_learnt() -> None:
    # the last value is in no context
    weights = SERIES.with_values(np.ones((len(SERIES), 1)))
    weights.all_values(copy=False)[-1] = 0.0

    def loss(last: float, given: TimeSeries | None) -> float:
        values = SERIES.values().copy()
        values[-1] = last
        fit = {"sample_weight": given}
        still = tuned(SERIES.with_values(values), fit, n_epochs=1, optimizer_kwargs={"lr": 0.0})
        return losses(still)["train_loss"]

    assert loss(1.0, weights) == pytest.approx(loss(2.0, weights), rel=1e-5)
    assert loss(1.0, None) != pytest.approx(loss(2.0, None), rel=1e-5)


def test_weights_of_samples_may_differ_between_components() -> None:
    wide = walk(components=2)
    weights = wide.with_values(np.tile([1.0, 0.0], (len(wide), 1)))
    other = wide.with_values(np.tile([0.0, 1.0], (len(wide), 1)))
    runs = [tuned(wide, fit={"sample_weight": w}).predict(6).values() for w in (weights, other)]
    assert np.abs(runs[0] - runs[1]).max() > 1e-6


# --- what is trained ----------------------------------------------------------------------------


def test_all_weights_train_by_default() -> None:
    frozen = {"known_future"}  # nothing is known ahead here
    names = {name for name in tiny_pipeline().network.state_dict() if "known_future" not in name}
    assert len(names - changed(tuned())) < 0.2 * len(names), frozen


@pytest.mark.parametrize("way", ["freeze", "unfreeze"])
def test_patterns_choose_what_trains(way: str) -> None:
    names = changed(tuned(enable_finetuning={way: ["network.projection.*"]}))
    head = {"projection.weight", "projection.bias"}
    if way == "unfreeze":
        assert names == head
    else:
        assert names
        assert not names & head


def test_defaults_suit_pretrained_weights_and_give_way_to_the_users() -> None:
    default = model(enable_finetuning=True)
    assert default.n_epochs == 10
    assert default.trainer_params["gradient_clip_val"] == 1.0
    assert default.pl_module_params["optimizer_kwargs"] == {"lr": 1e-4}
    own = model(
        enable_finetuning=True,
        n_epochs=3,
        optimizer_cls=torch.optim.SGD,
        optimizer_kwargs={"lr": 0.1},
        pl_trainer_kwargs={"gradient_clip_val": 5.0},
    )
    assert own.n_epochs == 3
    assert own.trainer_params["gradient_clip_val"] == 5.0
    assert own.pl_module_params["optimizer_kwargs"] == {"lr": 0.1}
    part = model(enable_finetuning=True, optimizer_kwargs={"weight_decay": 0.1})
    assert part.pl_module_params["optimizer_kwargs"] == {"lr": 1e-4, "weight_decay": 0.1}
    assert (
        "optimizer_kwargs"
        not in model(enable_finetuning=True, optimizer_cls=torch.optim.SGD).pl_module_params
    )
    adapters = model(enable_finetuning=LORA)
    assert adapters.pl_module_params["optimizer_kwargs"] == {"lr": 3e-4}
    assert "gradient_clip_val" not in model().trainer_params


# --- before and after ---------------------------------------------------------------------------


def test_what_was_asked_for_forecasts_can_be_trained() -> None:
    zero_shot = model(24, 6).fit(SERIES)
    expected = zero_shot.predict(40).values()
    trained = tuned()
    trained.predict(40)
    before = trained.predict(6).values()
    trained.fit(SERIES)
    trained.predict(40)
    assert np.abs(trained.predict(6).values() - before).max() > 0
    np.testing.assert_array_equal(zero_shot.predict(40).values(), expected)
    np.testing.assert_array_equal(model(24, 6).fit(SERIES).predict(40).values(), expected)


def test_a_copy_that_was_made_for_forecasts_can_be_trained() -> None:
    copied = copy.deepcopy(tuned())
    with torch.inference_mode():
        before = copied.predict(6).values()
    assert np.abs(copied.fit(SERIES).predict(6).values() - before).max() > 0


def test_training_is_reproducible() -> None:
    np.testing.assert_array_equal(tuned().predict(6).values(), tuned().predict(6).values())


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
@pytest.mark.parametrize("precision", [None, "bf16-mixed"])
def test_narrow_types_train(dtype: type, precision: str | None) -> None:
    trainer = {} if precision is None else {"precision": precision}
    trained = tuned(SERIES.astype(dtype), pl_trainer_kwargs=trainer)
    assert np.isfinite(losses(trained)["train_loss"])
    assert np.isfinite(trained.predict(40).values()).all()


# --- Darts' and Lightning's tools ---------------------------------------------------------------


@pytest.mark.slow
def test_metrics_early_stopping_and_a_search_for_the_rate(tmp_path: Any) -> None:
    stopper = EarlyStopping("val_loss", patience=1, min_delta=10.0)
    trained = tuned(
        n_epochs=8,
        torch_metrics=torchmetrics.MeanAbsoluteError(),
        pl_trainer_kwargs={"callbacks": [stopper]},
        fit={"val_series": SERIES},
    )
    assert trained.epochs_trained < 8
    assert losses(trained)["val_MeanAbsoluteError"] > 0
    searching = model(
        24, 6, enable_finetuning=True, pl_trainer_kwargs={"default_root_dir": str(tmp_path)}
    )
    found = searching.lr_find(SERIES, min_lr=1e-6, max_lr=1e-2, num_training=5)
    assert found.results["lr"]


def test_metrics_of_a_probabilistic_model() -> None:
    metric = torchmetrics.MeanAbsoluteError()
    trained = tuned(likelihood=quantiles(), torch_metrics=metric)
    assert losses(trained)["train_MeanAbsoluteError"] > 0


# --- adapters -----------------------------------------------------------------------------------


def test_adapters_train_and_the_weights_stay() -> None:
    trained = tuned(enable_finetuning=LORA)
    plain = model(24, 6).fit(SERIES)
    state = trained.model.network.state_dict()
    originals = {name: value for name, value in state.items() if name.endswith(".original")}
    for name, value in originals.items():
        path, _, weight = name.removesuffix(".original").partition(".parametrizations.")
        assert torch.equal(
            value.float(), plain.model.network.state_dict()[f"{path}.{weight}"].float()
        )
    assert originals
    assert any(value.abs().max() > 0 for name, value in state.items() if name.endswith(".up"))
    assert np.abs(trained.predict(6).values() - plain.predict(6).values()).max() > 1e-4
    count = sum(p.numel() for p in trained.model.parameters() if p.requires_grad)
    assert count < 0.5 * sum(p.numel() for p in trained.model.parameters())


def test_adapters_start_as_the_zero_shot_model() -> None:
    still = tuned(enable_finetuning=LORA, optimizer_kwargs={"lr": 0.0})
    plain = model(24, 6).fit(SERIES)
    np.testing.assert_allclose(still.predict(40).values(), plain.predict(40).values(), atol=1e-6)


def test_adapters_are_saved_copied_and_trained_on(tmp_path: Any) -> None:
    trained = tuned(enable_finetuning=LORA)
    expected = trained.predict(6).values()
    path = str(tmp_path / "model.pt")
    trained.save(path)
    for copied in (MoiraiMoEModel.load(path), copy.deepcopy(trained)):
        np.testing.assert_allclose(copied.predict(6, series=SERIES).values(), expected, atol=1e-9)
        copied.fit(SERIES)
        assert changed_adapters(copied, trained)


def changed_adapters(one: MoiraiMoEModel, other: MoiraiMoEModel) -> bool:
    states = [of.model.network.state_dict() for of in (one, other)]
    differing = {name for name in states[0] if not torch.equal(states[0][name], states[1][name])}
    return bool(differing) and all(".parametrizations." in name for name in differing)


def test_weights_with_adapters_load_into_models_without_and_the_reverse(tmp_path: Any) -> None:
    trained = tuned(enable_finetuning=LORA)
    path = str(tmp_path / "adapted.pt")
    trained.save(path)
    zero_shot = model(24, 6)
    zero_shot.load_weights(path)
    assert not any("parametrizations" in name for name in zero_shot.model.state_dict())
    np.testing.assert_allclose(
        zero_shot.predict(6, series=SERIES).values(), trained.predict(6).values(), atol=1e-6
    )

    full = tuned()
    path = str(tmp_path / "full.pt")
    full.save(path)
    adapted = model(24, 6, enable_finetuning=LORA, n_epochs=1)
    adapted.load_weights(path)
    np.testing.assert_allclose(
        adapted.predict(6, series=SERIES).values(), full.predict(6).values(), atol=1e-6
    )
    adapted.fit(SERIES)


@pytest.mark.parametrize(
    ("how", "count"), [(True, None), ({"unfreeze": ["network.projection.*"]}, 2)]
)
def test_weights_with_adapters_train_as_the_model_they_are_loaded_into(
    how: Any, count: int | None, tmp_path: Any
) -> None:
    path = str(tmp_path / "adapted.pt")
    tuned(enable_finetuning=LORA).save(path)
    loaded = model(24, 6, enable_finetuning=how)
    loaded.load_weights(path)
    trained = [name for name, part in loaded.model.named_parameters() if part.requires_grad]
    assert len(trained) == (count or len(list(loaded.model.parameters())))


@pytest.mark.parametrize("settings", [{"ranks": 4}, {"rank": 0}, {"targets": []}])
def test_lora_settings_are_checked_at_once(settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        model(enable_finetuning={"lora": settings})


def test_adapters_and_patterns_do_not_mix() -> None:
    with pytest.raises(ValueError, match="exactly one key"):
        model(enable_finetuning={**LORA, "freeze": ["*"]})


# --- what it is for -----------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("how", [True, {"lora": {}}], ids=["full", "lora"])
def test_tuning_the_bundled_model_learns_a_pattern_it_does_not_know(how: Any) -> None:
    # an irregular code of 24 steps, repeated: hard in one period, easy once seen often
    code = np.random.default_rng(3).normal(size=24)
    rng = np.random.default_rng(4)
    values = np.tile(code, 20) + 0.1 * rng.normal(size=480)
    import pandas as pd

    index = pd.date_range("2020", periods=480, freq="h")
    series = TimeSeries.from_times_and_values(index, values.astype(np.float32))
    trainer = {"accelerator": "cpu", "enable_progress_bar": False}

    def error(**changes: Any) -> float:
        made = MoiraiMoEModel(30, CHUNK, random_state=0, pl_trainer_kwargs=trainer, **changes)
        made.fit(series[120:360])
        windows = made.historical_forecasts(
            series[330:], forecast_horizon=CHUNK, retrain=False, stride=6, last_points_only=False
        )
        return float(
            np.mean(
                [np.abs(w.values() - series.slice_intersect(w).values()).mean() for w in windows]
            )
        )

    assert error(enable_finetuning=how) < 0.8 * error()
