"""Forecasts of the Darts model: what they equal, and what they must not depend on."""

from __future__ import annotations

import inspect
import re
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("darts", reason="needs the extra `darts`")

from darts import concatenate
from darts.models.forecasting.foundation_model import FoundationModel
from darts.models.forecasting.pl_forecasting_module import PLForecastingModule
from darts.models.forecasting.torch_forecasting_model import TorchForecastingModel
from darts.utils.likelihood_models.torch import GaussianLikelihood

from darts_models import (
    CHUNK,
    LEVELS,
    PARAMETERS,
    PASS,
    QUIET,
    covariates,
    driven,
    model,
    native,
    quantiles,
    tiny_pipeline,
    walk,
)
from moirai_moe_forecaster import MoiraiMoE, MoiraiMoEModel, MoiraiMoEPipeline
from moirai_moe_forecaster.errors import InvalidInputError

SERIES = walk()


def columns(forecast: Any, levels: list[float] = LEVELS) -> np.ndarray:
    """Native quantiles in the order of Darts' columns: (time, component * level)."""
    values = forecast.quantile(levels).transpose(1, 2, 0)
    return values.reshape(len(values), -1)


# --- the class ----------------------------------------------------------------------------------


def test_it_is_a_foundation_model_with_the_arguments_in_the_usual_order() -> None:
    assert isinstance(model(), FoundationModel)
    assert isinstance(model(), TorchForecastingModel)
    assert list(inspect.signature(MoiraiMoEModel.__init__).parameters) == [
        "self",
        "input_chunk_length",
        "output_chunk_length",
        "output_chunk_shift",
        "likelihood",
        "hub_model_name",
        "hub_model_revision",
        "local_dir",
        "enable_finetuning",
        "season_length",
        "bounds",
        "integer",
        "kwargs",
    ]


def test_fitting_does_not_train() -> None:
    fitted = model().fit(SERIES)
    for name, tensor in tiny_pipeline().network.state_dict().items():
        assert torch.equal(fitted.model.network.state_dict()[name], tensor.double()), name
    assert fitted.epochs_trained == 0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"likelihood": GaussianLikelihood()}, "Only QuantileRegression likelihood is supported"),
        ({"context": 1025}, "1025 cannot be greater than model's context_length 1024"),
        ({"context": (10, 2000)}, "2000 cannot be greater than model's context_length 1024"),
        ({"context": (20, 10)}, "1 <= min_length <= max_length"),
        ({"context": [10, 20]}, "an integer or a `(min_length, max_length)` tuple"),
        ({"context": 0}, "must be >= 1"),
        ({"chunk": 0}, "output_chunk_length must be an integer of at least 1, got 0"),
        ({"chunk": 2.5}, "output_chunk_length must be an integer of at least 1, got 2.5"),
        ({"output_chunk_shift": -1}, "output_chunk_shift must be an integer of at least 0, got -1"),
        ({"use_static_covariates": True}, "does not support static covariates"),
        ({"local_dir": "/nowhere"}, "`local_dir` /nowhere is not a directory"),
        ({"layers": 3}, "no args/kwargs `['layers']`"),
        ({"enable_finetuning": {"thaw": ["*"]}}, "'freeze' or 'unfreeze'"),
        ({"enable_finetuning": "lora"}, "'freeze', 'unfreeze' and 'lora', got 'lora'"),
        ({"enable_finetuning": {"lora": 8}}, "a mapping such as {'rank': 8}, got 8"),
        ({"enable_finetuning": {"lora": {"targets": ["none"]}}}, "'none' matches no weight"),
        ({"enable_finetuning": {"freeze": ["head.*"]}}, "'head.*' of `enable_finetuning` matches"),
        ({"enable_finetuning": {"freeze": ["*"]}}, "leaves no parameter to train"),
        ({"enable_finetuning": {"unfreeze": []}}, "leaves no parameter to train"),
    ],
)
def test_bad_arguments_raise_before_any_work(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        model(**changes)


def test_an_empty_directory_is_no_checkpoint(tmp_path: Any) -> None:
    with pytest.raises(OSError, match=r"config\.json"):
        model(local_dir=tmp_path)


def test_static_covariates_of_a_series_are_left_aside_and_kept() -> None:
    import pandas as pd

    labelled = SERIES.with_static_covariates(pd.DataFrame({"size": [3.0]}))
    forecast = model().fit(labelled).predict(3)
    np.testing.assert_array_equal(forecast.values(), model().fit(SERIES).predict(3).values())
    assert forecast.static_covariates.equals(labelled.static_covariates)


def test_no_horizon_is_an_error() -> None:
    for n in (0, -1):
        with pytest.raises(InvalidInputError, match=f"n must be an integer of at least 1, got {n}"):
            model().fit(SERIES).predict(n)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("where", ["series", "past_covariates", "future_covariates"])
def test_an_infinite_value_is_an_error_that_says_where(where: str, training: bool) -> None:
    known = {"series": SERIES, **covariates()}
    values = known[where].values().copy()
    values[len(SERIES) - 3] = np.inf
    known[where] = known[where].with_values(values)
    message = rf"{where}: component 0 is infinite at step \d+ of the \d+ of a window; use NaN"
    with pytest.raises(InvalidInputError, match=message):
        model(24, 6, enable_finetuning=training, n_epochs=1).fit(**known).predict(3)


# --- equal to the native pipeline ---------------------------------------------------------------


@pytest.mark.parametrize("components", [1, 3])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_one_shot_quantiles_are_those_of_the_native_pipeline(components: int, dtype: type) -> None:
    series = walk(components=components).astype(dtype)
    forecast = model(likelihood=quantiles()).fit(series).predict(CHUNK, **PARAMETERS)
    expected = columns(native(series, CHUNK))
    np.testing.assert_allclose(forecast.values(), expected, rtol=1e-5, atol=1e-5)
    assert forecast.dtype == dtype


def test_one_shot_quantiles_with_covariates_and_gaps_are_those_of_the_native_pipeline() -> None:
    series, known = driven(), covariates()
    values = series.values().copy()
    values[-20:-15] = np.nan
    series = series.with_values(values)
    past = known["past_covariates"].values()[: len(series)]
    future = known["future_covariates"].values()[: len(series) + CHUNK]
    expected = columns(native(series, CHUNK, past_covariates=past, future_covariates=future))
    fitted = model(likelihood=quantiles()).fit(series, **known)
    forecast = fitted.predict(CHUNK, **PARAMETERS)
    np.testing.assert_allclose(forecast.values(), expected, rtol=1e-5, atol=1e-5)
    for left_out in known:
        part = {name: given for name, given in known.items() if name != left_out}
        without = model(likelihood=quantiles()).fit(series, **part).predict(CHUNK, **PARAMETERS)
        assert np.abs(without.values() - expected).max() > 1e-3


def test_the_bundled_checkpoint_is_the_default() -> None:
    bundled = MoiraiMoEModel(60, 24, likelihood=quantiles([0.025, 0.5, 0.975]))
    bundled.to_cpu()
    forecast = bundled.fit(SERIES).predict(24, **PARAMETERS)
    pipeline = MoiraiMoEPipeline.from_pretrained(device="cpu")
    expected = columns(native(SERIES, 24, pipeline, context_length=60), [0.025, 0.5, 0.975])
    np.testing.assert_allclose(forecast.values(), expected, rtol=1e-5, atol=1e-5)


def test_a_long_horizon_is_decoded_natively_whatever_the_chunk() -> None:
    series, horizon = SERIES.astype(np.float32), 2 * PASS + 5
    expected = native(series, horizon).quantile(0.5)
    for chunk in (3, CHUNK, horizon):
        forecast = model(chunk=chunk).fit(series).predict(horizon)
        np.testing.assert_allclose(forecast.values(), expected, rtol=1e-5, atol=1e-5)
    wide = model(chunk=horizon, likelihood=quantiles()).fit(series)
    expected = columns(native(series, horizon))
    np.testing.assert_allclose(
        wide.predict(horizon, **PARAMETERS).values(), expected, rtol=1e-5, atol=1e-5
    )


@pytest.mark.parametrize("likelihood", [None, quantiles()])
def test_a_shifted_chunk_is_the_end_of_a_longer_horizon(likelihood: Any) -> None:
    shifted = model(chunk=6, output_chunk_shift=9, likelihood=likelihood).fit(SERIES)
    forecast = shifted.predict(6, predict_likelihood_parameters=likelihood is not None)
    levels = LEVELS if likelihood else [0.5]
    expected = columns(native(SERIES, 15), levels)[9:]
    np.testing.assert_allclose(forecast.values(), expected, rtol=1e-5, atol=1e-5)
    assert forecast.start_time() == SERIES.end_time() + 10 * SERIES.freq


def test_known_future_covariates_are_missing_in_the_gap_of_a_shift() -> None:
    # moved by the covariate two steps before: after the gap by its values in the gap
    series, known = driven(lag=2), covariates()["future_covariates"]
    shifted = model(chunk=6, output_chunk_shift=4).fit(series, future_covariates=known)
    forecast = shifted.predict(6, future_covariates=known).values()
    values = known.values()[: len(series) + 10].copy()
    for missing in (np.nan, 0.0):
        values[len(series) : len(series) + 4] = missing
        expected = native(series, 10, future_covariates=values).quantile(0.5)[4:]
        same = np.allclose(forecast, expected, rtol=1e-5, atol=1e-5)
        assert same == np.isnan(missing)


# --- samples ------------------------------------------------------------------------------------


@pytest.mark.parametrize("horizon", [CHUNK, PASS + 8])
def test_samples_have_the_native_distribution(horizon: int) -> None:
    fitted = model(likelihood=quantiles()).fit(SERIES)
    count = 2000
    samples = fitted.predict(horizon, num_samples=count, random_state=1).all_values()[:, 0]
    grid = np.linspace(0.05, 0.95, 19)
    expected = native(SERIES, horizon).quantile(grid)[..., 0]
    found = (samples[None] <= expected[..., None]).mean(-1)
    # four standard deviations of a share, and what 100 paths leave open beyond the first pass
    slack = 4 * np.sqrt(0.25 / count) + (0.1 if horizon > PASS else 0)
    assert np.abs(found - grid[:, None]).max() < slack


def test_a_sample_is_one_path_through_all_steps() -> None:
    bundled = MoiraiMoEModel(60, 6, likelihood=quantiles(), pl_trainer_kwargs=QUIET).fit(SERIES)
    values = bundled.predict(100, num_samples=200, random_state=0).all_values()[:, 0]
    ranks = values.argsort(1).argsort(1)
    neighbours = [np.corrcoef(ranks[step], ranks[step + 1])[0, 1] for step in range(99)]
    assert np.mean(neighbours) > 0.3


def test_samples_of_components_belong_together() -> None:
    base = walk()
    series = concatenate([base, base], axis=1)
    horizon = 2 * PASS
    values = model(likelihood=quantiles()).fit(series).predict(horizon, num_samples=20)
    assert values.all_values().shape == (horizon, 2, 20)


def test_a_context_is_encoded_once_for_all_its_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = []
    encode = MoiraiMoE.encode

    def counted(self: MoiraiMoE, tokens: Any, query_index: Any) -> Any:
        rows.append(len(tokens.values))
        return encode(self, tokens, query_index)

    monkeypatch.setattr(MoiraiMoE, "encode", counted)
    panel = [walk(seed=seed) for seed in range(5)]
    fitted = model(likelihood=quantiles()).fit(panel)
    fitted.predict(PASS + CHUNK, series=panel, num_samples=50)
    assert sum(rows) == len(panel)


def test_random_states_follow_the_rules_of_darts() -> None:
    fitted = model(likelihood=quantiles(), random_state=3).fit(SERIES)

    def draw(**options: Any) -> np.ndarray:
        return fitted.predict(CHUNK, num_samples=4, **options).all_values()

    before = torch.get_rng_state()
    first, second = draw(), draw()
    assert torch.equal(torch.get_rng_state(), before)
    assert not np.array_equal(first, second)
    np.testing.assert_array_equal(draw(random_state=7), draw(random_state=7))
    assert not np.array_equal(draw(random_state=7), draw(random_state=8))

    fitted = model(likelihood=quantiles(), random_state=3).fit(SERIES)
    np.testing.assert_array_equal(draw(), first)
    draw(random_state=7)  # must not advance the stream of the others
    np.testing.assert_array_equal(draw(), second)


def test_darts_own_loop_over_samples_still_works() -> None:
    fitted = model(likelihood=quantiles()).fit(SERIES)
    fitted.model.__class__ = type(
        "Plain", (type(fitted.model),), {"predict_step": PLForecastingModule.predict_step}
    )
    forecast = fitted.predict(2 * CHUNK + 3, num_samples=3)
    assert forecast.all_values().shape == (2 * CHUNK + 3, 1, 3)
    assert np.isfinite(forecast.all_values()).all()


def test_the_pipeline_reads_series_of_darts() -> None:
    pipeline = tiny_pipeline()
    both = concatenate([SERIES, walk(seed=1)], axis=1)
    for series, values in ((SERIES, SERIES.values()[:, 0]), (both, both.values())):
        for data, plain in ((series, values), ([series, series], [values, values])):
            read = pipeline.predict(data, 3, random_state=0).median
            np.testing.assert_array_equal(read, pipeline.predict(plain, 3, random_state=0).median)
