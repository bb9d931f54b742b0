"""Saving, loading, copying and refitting the Darts model."""

from __future__ import annotations

import copy
import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pytest
import torch

pytest.importorskip("darts", reason="needs the extra `darts`")

from darts.models import NaiveEnsembleModel
from darts.utils.serialization import clear_safe_globals
from darts.utils.serialization.registry import add_safe_globals

from darts_models import (
    CHUNK,
    LEVELS,
    PASS,
    covariates,
    model,
    quantiles,
    tiny_checkpoint,
    walk,
)
from moirai_moe_forecaster import MoiraiMoEModel
from moirai_moe_forecaster.inference.model_cache import _load

SERIES = walk()
LARGEST_WITHOUT_WEIGHTS = 100_000


def fitted(**changes: Any) -> MoiraiMoEModel:
    return model(**changes).fit(SERIES)


def tuned(**changes: Any) -> MoiraiMoEModel:
    options = {"enable_finetuning": True, "n_epochs": 1, "optimizer_kwargs": {"lr": 1e-2}}
    return fitted(**options | changes)


def values(of: MoiraiMoEModel, n: int = CHUNK) -> np.ndarray:
    return of.predict(n, series=SERIES).values()


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "model.pt")


# --- save and load ------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [fitted, tuned])
@pytest.mark.parametrize("clean", [False, True])
def test_a_loaded_model_forecasts_as_the_saved_one(
    make: Callable[[], MoiraiMoEModel],
    clean: bool,
    path: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # a clean one has forgotten the trainer too, whose default is to write logs where it is
    monkeypatch.chdir(Path(path).parent)
    saved = make()
    saved.save(path, clean=clean)
    loaded = MoiraiMoEModel.load(path)
    # and whose default is float32
    np.testing.assert_allclose(values(loaded), values(saved), atol=1e-6 if clean else 0)
    assert (loaded.training_series is None) == clean
    # the weights are in the file beside it, and only there
    assert Path(path).stat().st_size < LARGEST_WITHOUT_WEIGHTS


@pytest.mark.parametrize("precision", ["32-true", "bf16-true", "bf16-mixed"])
def test_a_model_of_any_precision_is_loaded(precision: str, path: str) -> None:
    series = SERIES.astype(np.float32)
    trainer = {"precision": precision}
    saved = model(enable_finetuning=True, n_epochs=1, pl_trainer_kwargs=trainer).fit(series)
    saved.save(path)
    expected = saved.predict(CHUNK, series=series).values()
    loaded = MoiraiMoEModel.load(path).predict(CHUNK, series=series)
    np.testing.assert_array_equal(loaded.values(), expected)


def test_what_was_loaded_can_be_saved_at_once(path: str, tmp_path: Path) -> None:
    saved = tuned()
    saved.save(path)
    again = str(tmp_path / "again.pt")
    MoiraiMoEModel.load(path).save(again)
    np.testing.assert_array_equal(values(MoiraiMoEModel.load(again)), values(saved))


@pytest.mark.parametrize("kind", [str, Path])
def test_a_saved_model_needs_its_checkpoint_no_more(
    kind: Callable[[str], Any], path: str, tmp_path: Path
) -> None:
    folder = tmp_path / "checkpoint"
    shutil.copytree(tiny_checkpoint(), folder)
    saved = fitted(local_dir=kind(str(folder)), likelihood=quantiles())
    expected = saved.predict(CHUNK, predict_likelihood_parameters=True).values()
    saved.save(path)
    shutil.rmtree(folder)
    _load.cache_clear()
    loaded = MoiraiMoEModel.load(path)
    forecast = loaded.predict(CHUNK, predict_likelihood_parameters=True)
    np.testing.assert_array_equal(forecast.values(), expected)
    copied = pickle.loads(pickle.dumps(loaded))
    np.testing.assert_array_equal(
        copied.predict(CHUNK, predict_likelihood_parameters=True).values(), expected
    )


@pytest.mark.slow
def test_a_fresh_process_loads_it_after_importing_the_model_alone(path: str) -> None:
    saved = fitted(likelihood=quantiles())
    saved.save(path)
    code = f"""
from moirai_moe_forecaster import MoiraiMoEModel
loaded = MoiraiMoEModel.load({path!r})
print(*loaded.predict({CHUNK}, predict_likelihood_parameters=True).values()[:, 1])
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=240, check=True
    )
    printed = [float(number) for number in done.stdout.splitlines()[-1].split()]
    expected = saved.predict(CHUNK, predict_likelihood_parameters=True).values()[:, 1]
    np.testing.assert_allclose(printed, expected, rtol=1e-6)


def test_it_loads_when_the_list_of_safe_classes_was_cleared(path: str) -> None:
    saved = fitted()
    saved.save(path)
    clear_safe_globals()
    try:
        np.testing.assert_array_equal(values(MoiraiMoEModel.load(path)), values(saved))
        other = model()
        other.load_weights(path)
    finally:
        add_safe_globals([MoiraiMoEModel])


def test_an_ensemble_of_it_is_saved_and_loaded(tmp_path: Path) -> None:
    ensemble = NaiveEnsembleModel([model(), model(24)])
    ensemble.fit(SERIES)
    expected = ensemble.predict(CHUNK).values()
    path = str(tmp_path / "ensemble.pkl")
    ensemble.save(path)
    np.testing.assert_array_equal(NaiveEnsembleModel.load(path).predict(CHUNK).values(), expected)


def test_checkpoints_of_training_are_loaded_by_name(tmp_path: Path) -> None:
    trained = model(
        24,
        6,
        enable_finetuning=True,
        n_epochs=2,
        optimizer_kwargs={"lr": 1e-3},
        save_checkpoints=True,
        model_name="tuned",
        work_dir=str(tmp_path),
    ).fit(SERIES[:60], val_series=SERIES[-40:], load_best=True)
    best = MoiraiMoEModel.load_from_checkpoint("tuned", work_dir=str(tmp_path), best=True)
    best.to_cpu()
    np.testing.assert_array_equal(values(best, 6), values(trained, 6))
    last = MoiraiMoEModel.load_from_checkpoint("tuned", work_dir=str(tmp_path), best=False)
    assert values(last, 6).shape == (6, 1)


# --- weights alone ------------------------------------------------------------------------------


def test_weights_load_into_other_chunk_lengths_likelihoods_and_directories(
    path: str, tmp_path: Path
) -> None:
    saved = tuned()
    saved.save(path)
    folder = tmp_path / "other"
    shutil.copytree(tiny_checkpoint(), folder)
    other = model((10, 30), 5, likelihood=quantiles(), local_dir=folder, output_chunk_shift=2)
    other.load_weights(path)
    for name, tensor in saved.model.network.state_dict().items():
        assert torch.equal(other.model.network.state_dict()[name], tensor), name
    forecast = other.predict(5, series=SERIES, predict_likelihood_parameters=True)
    assert forecast.n_components == len(LEVELS)
    # and they stay with copies
    copied = copy.deepcopy(other).predict(5, series=SERIES, predict_likelihood_parameters=True)
    np.testing.assert_array_equal(copied.values(), forecast.values())


# --- copies -------------------------------------------------------------------------------------


def through_joblib(of: MoiraiMoEModel, tmp_path: Path) -> MoiraiMoEModel:
    joblib.dump(of, tmp_path / "model.joblib")
    return joblib.load(tmp_path / "model.joblib")


COPIES: dict[str, Callable[[MoiraiMoEModel, Path], MoiraiMoEModel]] = {
    "pickle": lambda of, _: pickle.loads(pickle.dumps(of)),
    "deepcopy": lambda of, _: copy.deepcopy(of),
    "copy": lambda of, _: copy.copy(of),
    "joblib": through_joblib,
}


@pytest.mark.parametrize("make", [fitted, tuned])
@pytest.mark.parametrize("way", COPIES)
def test_a_copy_forecasts_as_the_original(
    way: str, make: Callable[[], MoiraiMoEModel], tmp_path: Path
) -> None:
    original = make()
    expected = values(original, PASS + 3)
    copied = COPIES[way](original, tmp_path)
    np.testing.assert_array_equal(values(copied, PASS + 3), expected)
    np.testing.assert_array_equal(values(COPIES[way](copied, tmp_path), PASS + 3), expected)


def test_a_copy_finds_its_checkpoint_from_another_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(tiny_checkpoint(), tmp_path / "checkpoint")
    monkeypatch.chdir(tmp_path)
    original = fitted(local_dir="checkpoint")
    monkeypatch.chdir(tmp_path.parent)
    np.testing.assert_array_equal(values(copy.deepcopy(original)), values(original))


def test_only_weights_that_were_trained_are_in_a_pickle() -> None:
    assert len(pickle.dumps(fitted())) < LARGEST_WITHOUT_WEIGHTS
    assert len(pickle.dumps(tuned())) > LARGEST_WITHOUT_WEIGHTS


def test_a_copy_that_was_not_asked_yet_is_saved_whole(path: str) -> None:
    original = tuned()
    pickle.loads(pickle.dumps(original)).save(path)
    np.testing.assert_array_equal(values(MoiraiMoEModel.load(path)), values(original))


def test_a_copy_is_trained_without_the_original() -> None:
    original = tuned()
    expected = values(original)
    copied = copy.deepcopy(original)
    copied.fit(SERIES)
    np.testing.assert_array_equal(values(original), expected)
    assert not np.array_equal(values(copied), expected)


def test_an_unfitted_copy_is_unfitted() -> None:
    copied = copy.deepcopy(model())
    with pytest.raises(ValueError, match="fit"):
        copied.predict(3)
    assert copied.fit(SERIES).predict(3).n_timesteps == 3


# --- fitted again -------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [fitted, tuned])
def test_a_fitted_model_is_fitted_again_to_other_dimensions(
    make: Callable[[], MoiraiMoEModel],
) -> None:
    again = make()
    wide = walk(components=3)
    assert again.fit(wide).predict(4).n_components == 3
    assert again.fit(SERIES, **covariates()).predict(4).n_components == 1
    assert again.uses_past_covariates
    assert again.fit(wide).predict(4).n_components == 3
    assert not again.uses_past_covariates
    assert again.fit(SERIES).predict(4).n_components == 1


def test_the_type_of_numbers_is_that_of_the_last_fit() -> None:
    again = model()
    for dtype, kept in ((np.float32, torch.float32), (np.float64, torch.float64)):
        for components in (1, 2):
            again.fit(walk(components=components).astype(dtype))
        assert again.predict(3).dtype == dtype
        assert again.model.dtype == kept


def test_a_zero_shot_model_forecasts_the_same_after_other_dimensions() -> None:
    again = fitted()
    expected = values(again)
    again.fit(walk(components=2), **covariates())
    again.fit(SERIES)
    np.testing.assert_array_equal(values(again), expected)


def test_training_goes_on_from_the_weights_it_had_for_other_dimensions() -> None:
    once = tuned(optimizer_kwargs={"lr": 0.0})
    once.model.network.projection.bias.data.add_(1)
    bias = once.model.network.projection.bias.detach().clone()
    once.fit(walk(components=2))
    assert torch.equal(once.model.network.projection.bias, bias)


def test_an_untrained_twin_has_the_same_parameters() -> None:
    original = fitted(likelihood=quantiles(), random_state=1)
    twin = original.untrained_model()
    assert dict(twin.model_params) == dict(original.model_params)
    np.testing.assert_array_equal(
        twin.fit(SERIES).predict(4, num_samples=2).all_values(),
        fitted(likelihood=quantiles(), random_state=1).predict(4, num_samples=2).all_values(),
    )
