"""Forecasts of the Darts model that carry on cycles, and what must not depend on them."""

from __future__ import annotations

import logging
import pickle
import re
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("darts", reason="needs the extra `darts`")

from darts import TimeSeries, concatenate
from darts.utils.serialization import safe_globals

from darts_models import (
    CHUNK,
    LEVELS,
    PARAMETERS,
    PASS,
    QUIET,
    READ,
    cyclic,
    model,
    native,
    quantiles,
    seasonal_checkpoint,
    seasonal_pipeline,
    tiny_pipeline,
)
from moirai_moe_forecaster import MoiraiMoE, MoiraiMoEModel, MoiraiMoEPipeline
from moirai_moe_forecaster.inference.view_weights import LONGEST_HISTORY

LONG = 240
SERIES = cyclic()


def seasonal(context: Any = LONG, chunk: int = CHUNK, **changes: Any) -> MoiraiMoEModel:
    return model(context, chunk, **{"local_dir": seasonal_checkpoint()} | changes)


def bundled(longest: int = 1024, chunk: int = CHUNK, **changes: Any) -> MoiraiMoEModel:
    return MoiraiMoEModel((24, longest), chunk, pl_trainer_kwargs=QUIET, **changes)


def expected(
    series: TimeSeries, horizon: int, pipeline: MoiraiMoEPipeline | None = None, **options: Any
) -> Any:
    """Native forecast from the last `LONG` points."""
    pipeline = seasonal_pipeline() if pipeline is None else pipeline
    return native(series[-LONG:], horizon, pipeline, context_length=None, **options)


def driver(series: TimeSeries, steps: int = 2 * PASS) -> TimeSeries:
    """A covariate with a cycle of its own, known some steps beyond a series."""
    known = cyclic(len(series) + steps, noise=0.5, seed=21)
    return known.with_columns_renamed(known.columns[0], "driver")


def driven_by(known: TimeSeries, points: int, seed: int = 0) -> TimeSeries:
    """A series that has its cycle from a covariate."""
    noise = 0.1 * np.random.default_rng(seed).normal(size=(points, 1))
    return known[:points].with_values((2 * known.values()[:points] + noise).astype(np.float32))


@pytest.fixture
def lengths(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """Tokens of every sequence that a network encodes."""
    found: list[int] = []
    encode = MoiraiMoE.encode

    def counted(self: MoiraiMoE, tokens: Any, *args: Any) -> Any:
        found.append(tokens.values.shape[1])
        return encode(self, tokens, *args)

    monkeypatch.setattr(MoiraiMoE, "encode", counted)
    return found


# --- the argument -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "season_length", [0, -1, 2.5, True, [], "day", [24, "week"], [24, 0], {24: 1}], ids=repr
)
def test_a_bad_length_is_an_error_at_once(season_length: Any) -> None:
    with pytest.raises(ValueError, match="season_length must be"):
        model(season_length=season_length)


def test_the_word_for_finding_them_is_in_the_error() -> None:
    with pytest.raises(ValueError, match=re.escape("'auto', None, or steps such as 24")):
        model(season_length="day")


@pytest.mark.parametrize("season_length", ["auto", None, 1, 12, [12, 24], np.array([12])], ids=repr)
@pytest.mark.parametrize("finds", [False, True])
def test_it_means_what_it_means_to_the_native_pipeline(season_length: Any, finds: bool) -> None:
    pipeline = seasonal_pipeline() if finds else tiny_pipeline()
    series = SERIES[-READ:]
    options = {"local_dir": seasonal_checkpoint()} if finds else {}
    fitted = model(READ, likelihood=quantiles(), season_length=season_length, **options).fit(series)
    forecast = fitted.predict(CHUNK, **PARAMETERS).values()

    def columns(length: Any) -> np.ndarray:
        given = native(series, CHUNK, pipeline, context_length=None, season_length=length)
        return given.quantile(LEVELS)[..., 0].T

    np.testing.assert_allclose(forecast, columns(season_length), rtol=1e-5, atol=1e-5)
    off = ["auto", None, 1][finds:]
    assert np.allclose(forecast, columns(None), atol=1e-3) == (
        not isinstance(season_length, np.ndarray) and season_length in off
    )


def test_a_cycle_that_the_context_does_not_hold_twice_is_warned_of(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.WARNING):
        model(47, season_length=[12, 24])
        assert "Make it at least 48" in caplog.text
        caplog.clear()
        model(48, season_length=[12, 24])
        assert not caplog.text


# --- histories longer than what the network reads -----------------------------------------------


@pytest.mark.parametrize("context", [LONG, (24, LONG)])
@pytest.mark.parametrize("horizon", [5, 2 * PASS + 3])
def test_cycles_are_learnt_from_more_than_the_network_reads(
    context: Any, horizon: int, lengths: list[int]
) -> None:
    forecast = seasonal(context).fit(SERIES).predict(horizon).values()
    assert max(lengths) <= READ // 16
    np.testing.assert_allclose(
        forecast, expected(SERIES, horizon).quantile(0.5), rtol=1e-5, atol=1e-5
    )
    short = seasonal(READ).fit(SERIES).predict(horizon).values()
    assert np.abs(forecast - short).max() > 1e-3


@pytest.mark.parametrize("season_length", [None, 1])
def test_without_views_the_context_is_what_the_network_reads(season_length: Any) -> None:
    message = f"`input_chunk_length` {LONG} cannot be greater than model's context_length {READ}"
    with pytest.raises(ValueError, match=message):
        seasonal(season_length=season_length)
    assert seasonal(READ, season_length=season_length).input_chunk_length == READ


def test_a_checkpoint_that_does_not_look_for_seasons_takes_a_longer_context_for_named_ones() -> (
    None
):
    with pytest.raises(ValueError, match="1024 unless `season_length` says which cycles"):
        model(1025)
    assert model(1025, season_length=24).input_chunk_length == 1025


@pytest.mark.parametrize("context", [LONGEST_HISTORY + 1, (10, LONGEST_HISTORY + 1)])
@pytest.mark.parametrize("season_length", ["auto", 12])
def test_a_history_that_cycles_are_not_learnt_from_is_an_error(
    context: Any, season_length: Any
) -> None:
    with pytest.raises(ValueError, match=f"cannot be greater than {LONGEST_HISTORY}, the most"):
        seasonal(context, season_length=season_length)
    assert seasonal(LONGEST_HISTORY).input_chunk_length == LONGEST_HISTORY


def test_what_was_observed_before_the_network_reads_is_no_context() -> None:
    values = cyclic(components=2).values().copy()
    values[-READ:, 0] = np.nan
    series = cyclic(components=2).with_values(values)
    forecast = seasonal().fit(series).predict(CHUNK).values()
    assert np.isnan(forecast[:, 0]).all()
    other = seasonal().fit(series.univariate_component(1)).predict(CHUNK).values()
    np.testing.assert_allclose(forecast[:, 1:], other, atol=1e-5)


def test_a_cycle_is_found_across_missing_stretches_and_at_their_end() -> None:
    values = SERIES.values().copy()
    values[:70] = values[150:170] = values[-5:] = np.nan
    series = SERIES.with_values(values)
    forecast = seasonal().fit(series).predict(CHUNK).values()
    plain = seasonal(READ, season_length=None).fit(series).predict(CHUNK).values()
    assert np.isfinite(forecast).all()
    assert np.abs(forecast - plain).max() > 1e-3


# --- batches, windows, samples ------------------------------------------------------------------


def test_views_count_in_these_series() -> None:
    for series in (SERIES, cyclic(LONG, 15, 0.3, 2)):
        assert (expected(series, CHUNK).seasons["plain"] < 0.9).all()


@pytest.mark.parametrize("horizon", [CHUNK, PASS + 8])
@pytest.mark.parametrize("kind", ["median", "quantiles", "samples"])
def test_a_forecast_does_not_depend_on_its_batch(kind: str, horizon: int) -> None:
    panel = [cyclic(130 + 30 * k, 8 + k, seed=k) for k in range(5)]
    panel.append(panel[0].with_values(np.ones((130, 1))))
    # in float32 the paths beyond the first pass differ in the fourth digit
    panel = [series.astype(np.float64) for series in panel]
    likelihood = None if kind == "median" else quantiles()
    fitted = seasonal((24, LONG), horizon, likelihood=likelihood).fit(panel)
    options: dict[str, Any] = {
        "median": {},
        "quantiles": PARAMETERS,
        "samples": {"num_samples": 5, "random_state": 0},
    }[kind]
    together = fitted.predict(horizon, series=panel, **options)
    small = fitted.predict(horizon, series=panel, batch_size=2, **options)
    alone = [fitted.predict(horizon, series=series, **options) for series in panel]
    for one, two, three in zip(together, small, alone, strict=True):
        np.testing.assert_array_almost_equal(one.all_values(), two.all_values(), 4)
        np.testing.assert_array_almost_equal(one.all_values(), three.all_values(), 4)
    if kind != "samples":
        again = fitted.predict(horizon, series=panel, **options)
        for one, two in zip(together, again, strict=True):
            np.testing.assert_array_equal(one.all_values(), two.all_values())


@pytest.mark.parametrize(
    ("changes", "options"),
    [
        ({}, {}),
        ({"context": (30, LONG), "likelihood": quantiles()}, PARAMETERS),
        ({"output_chunk_shift": 5}, {"covariates": True}),
        ({"chunk": 4}, {"forecast_horizon": PASS + 4}),
        ({"likelihood": quantiles()}, {"num_samples": 3, "random_state": 0}),
        ({"season_length": [12, 60]}, {"covariates": True}),
        ({"context": (30, LONG)}, {"components": 2, "covariates": True}),
    ],
    ids=str,
)
def test_optimised_historical_forecasts_are_the_plain_ones(
    changes: dict[str, Any], options: dict[str, Any]
) -> None:
    options = {"forecast_horizon": 5, "last_points_only": False, "stride": 17} | options
    components = options.pop("components", 1)
    panel = [
        cyclic(LONG + 90, components=components),
        cyclic(LONG + 70, 15, 0.3, 2, components=components),
    ]
    known: dict[str, Any] = {}
    if options.pop("covariates", False):
        known = {"future_covariates": [driver(series) for series in panel]}
        if components == 1:
            panel[0] = driven_by(known["future_covariates"][0], LONG + 90)
        known["past_covariates"] = [cyclic(LONG + 170, 7, seed=5)] * 2
    # in float32 the paths beyond the first pass differ in the fourth digit
    panel = [series.astype(np.float64) for series in panel]
    known = {name: [one.astype(np.float64) for one in given] for name, given in known.items()}
    fitted = seasonal(**changes).fit(panel, **known)
    fast, slow = (
        fitted.historical_forecasts(
            panel, retrain=False, enable_optimization=optimised, **known, **options
        )
        for optimised in (True, False)
    )
    assert len(fast[0]) == len(slow[0]) > 2
    for run in zip(fast, slow, strict=True):
        for one, other in zip(*run, strict=True):
            assert one.time_index.equals(other.time_index)
            np.testing.assert_array_almost_equal(one.all_values(), other.all_values(), 4)


def test_samples_are_paths_whose_quantiles_are_those_of_the_model() -> None:
    # a common shift of a whole path, as the level of a walk is
    table = cyclic(LONG, 24)
    walk = 0.3 * np.random.default_rng(3).normal(size=(LONG, 1)).cumsum(0)
    series = table.with_values((table.values() + walk).astype(np.float32))
    fitted = bundled(LONG, 60, likelihood=quantiles()).fit(series)
    values = fitted.predict(60, num_samples=500, random_state=0).all_values()[:, 0]
    ranks = values.argsort(1).argsort(1)
    neighbours = [np.corrcoef(ranks[step], ranks[step + 1])[0, 1] for step in range(59)]
    assert np.mean(neighbours) > 0.3
    exact = fitted.predict(60, **PARAMETERS).values()
    width = (exact[:, 2] - exact[:, 0]).mean()
    assert np.abs(np.quantile(values, LEVELS, axis=1).T - exact).mean() < 0.1 * width


# --- what the forecast is of --------------------------------------------------------------------


def errors(
    series: TimeSeries, steps: int, horizon: int, shift: int = 0, longest: int = 1024, **known: Any
) -> np.ndarray:
    """Mean absolute errors of the bundled model, relative to seasonal naive's, per component."""
    ahead = shift + horizon
    fitted = bundled(longest, output_chunk_shift=shift).fit(series[:-ahead], **known)
    forecast = fitted.predict(horizon).values()
    values = series.values()
    last = values[len(values) - ahead - steps : len(values) - ahead]
    naive = last[np.arange(shift, ahead) % steps]
    truth = values[len(values) - horizon :]
    return np.abs(forecast - truth).mean(0) / np.abs(naive - truth).mean(0)


def mean_errors(count: int, make: Any, *args: Any, **options: Any) -> np.ndarray:
    return np.mean([errors(make(seed), *args, **options) for seed in range(count)], 0)


@pytest.mark.parametrize(("horizon", "shift"), [(48, 0), (12, 7)])
def test_a_table_is_copied_beyond_the_chunk_and_after_a_shift(horizon: int, shift: int) -> None:
    def make(seed: int) -> TimeSeries:
        return cyclic(700 + horizon + shift, 24, 0.1, seed)

    assert mean_errors(6, make, 24, horizon, shift)[0] <= 0.85


def test_a_week_that_the_network_does_not_read_twice_is_copied() -> None:
    def make(seed: int) -> TimeSeries:
        return cyclic(6 * 1200 + 96, 1200, 0.1, seed)

    assert mean_errors(3, make, 1200, 96, longest=8192)[0] <= 0.85


def test_of_several_components_one_may_have_a_cycle() -> None:
    def make(seed: int) -> TimeSeries:
        table = cyclic(748, 24, 0.1, seed)
        walk = 0.1 * np.random.default_rng(seed + 50).normal(size=(748, 1)).cumsum(0)
        return concatenate([table.with_values(walk.astype(np.float32)), table], axis=1)

    assert mean_errors(6, make, 24, 48)[1] <= 0.85
    # and the other is forecast as it would be without
    series = make(0)[:700]
    found, without = (
        bundled(season_length=season_length).fit(series).predict(48).values()
        for season_length in ("auto", None)
    )
    np.testing.assert_allclose(found[:, 0], without[:, 0], atol=0.2)
    assert np.abs(found[:, 1] - without[:, 1]).max() > 0.5


def test_a_cycle_that_a_known_covariate_carries_is_not_added_twice() -> None:
    def make(known: TimeSeries, seed: int) -> TimeSeries:
        return driven_by(known, 748, seed)

    known = driver(cyclic(748))
    found = [errors(make(known, seed), 12, 12, future_covariates=known)[0] for seed in range(4)]
    # seasonal naive does not see that the covariate departs from its cycle
    assert np.mean(found) < 0.4


@pytest.mark.parametrize(
    ("dtype", "precision", "tolerance"),
    [
        (np.float64, None, 1e-5),
        (np.float16, None, 1e-5),
        (np.float32, "bf16-mixed", 1e-5),
        (np.float32, "64-true", 1e-5),
        (np.float32, "bf16-true", 0.2),
    ],
)
def test_every_type_of_number_gives_the_same_forecast(
    dtype: type, precision: str | None, tolerance: float
) -> None:
    series = SERIES.astype(dtype)
    trainer = {} if precision is None else {"precision": precision}
    forecast = seasonal(pl_trainer_kwargs=trainer).fit(series).predict(PASS + 3).values()
    given = expected(series, PASS + 3).quantile(0.5)
    np.testing.assert_allclose(forecast, given, rtol=0, atol=tolerance)


# --- training -----------------------------------------------------------------------------------


def tuned(series: TimeSeries = SERIES, **changes: Any) -> MoiraiMoEModel:
    options = {"enable_finetuning": True, "n_epochs": 1, "optimizer_kwargs": {"lr": 1e-3}}
    fit = changes.pop("fit", {})
    return seasonal(**options | changes).fit(series, **fit)


@pytest.mark.parametrize("how", [True, {"lora": {"rank": 2}}], ids=["full", "lora"])
def test_a_tuned_model_forecasts_in_views(how: Any) -> None:
    trained = tuned(enable_finetuning=how)
    forecast = trained.predict(CHUNK).values()
    pipeline = MoiraiMoEPipeline(trained.model.network)
    given = expected(SERIES, CHUNK, pipeline).quantile(0.5)
    np.testing.assert_allclose(forecast, given, rtol=1e-4, atol=1e-4)
    plain = expected(SERIES, CHUNK, pipeline, season_length=None).quantile(0.5)
    assert np.abs(forecast - plain).max() > 1e-3
    assert np.abs(forecast - seasonal().fit(SERIES).predict(CHUNK).values()).max() > 1e-6


def test_what_was_forecast_in_views_can_be_trained() -> None:
    trained = tuned()
    before = trained.predict(PASS + 3).values()
    trained.fit(SERIES)
    assert np.abs(trained.predict(PASS + 3).values() - before).max() > 0


@pytest.mark.parametrize("known", [False, True])
def test_training_is_on_what_the_network_reads_of_a_long_history(
    known: bool, lengths: list[int]
) -> None:
    def loss(context: int, shift: int = 0) -> float:
        series = SERIES[-context - CHUNK - shift :]  # a single window
        fit = {"future_covariates": driver(SERIES)} if known else {}
        options = {"optimizer_kwargs": {"lr": 0.0}, "output_chunk_shift": shift}
        still = tuned(series, context=context, fit=fit, **options)
        return float(still.trainer.callback_metrics["train_loss"])

    for shift in (0, 3):
        assert loss(LONG, shift) == pytest.approx(loss(READ, shift), rel=1e-5)
    # and the patches of the output chunk that a second pass is fed
    assert max(lengths) <= READ // 16


def test_windows_of_many_lengths_train() -> None:
    trained = tuned(context=(24, LONG), fit={"val_series": SERIES}, batch_size=16)
    found = {name: float(value) for name, value in trained.trainer.callback_metrics.items()}
    assert np.isfinite([found["train_loss"], found["val_loss"]]).all()


# --- saving -------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [seasonal, tuned])
@pytest.mark.parametrize(
    "season_length", ["auto", None, 12, [12, 24], np.array([12, 24])], ids=repr
)
def test_a_saved_or_copied_model_keeps_its_seasons(
    make: Any, season_length: Any, tmp_path: Any
) -> None:
    original = make(context=READ, season_length=season_length).fit(SERIES)
    forecast = original.predict(CHUNK).values()
    path = str(tmp_path / "model.pt")
    original.save(path)
    for other in (MoiraiMoEModel.load(path), pickle.loads(pickle.dumps(original))):
        np.testing.assert_array_equal(other.predict(CHUNK).values(), forecast)
        assert other.model.season_length == original.model.season_length
    twin = original.untrained_model()
    assert dict(twin.model_params) == dict(original.model_params)


@pytest.mark.parametrize(
    ("before", "after"), [((LONG, 12), (READ, None)), ((48, None), (LONG, 12))]
)
def test_weights_load_into_a_model_of_other_seasons_and_chunks(
    before: tuple[int, Any], after: tuple[int, Any], tmp_path: Any
) -> None:
    path = str(tmp_path / "model.pt")
    trained = tuned(context=before[0], season_length=before[1])
    trained.save(path)
    other = seasonal(after[0], season_length=after[1])
    other.load_weights(path)
    forecast = other.predict(CHUNK, series=SERIES).values()
    pipeline = MoiraiMoEPipeline(trained.model.network)
    given = expected(SERIES[-after[0] :], CHUNK, pipeline, season_length=after[1])
    np.testing.assert_allclose(forecast, given.quantile(0.5), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("make", [seasonal, tuned])
def test_models_from_before_there_were_views_load_and_forecast(make: Any, tmp_path: Any) -> None:
    old = make(context=READ).fit(SERIES)
    forecast = old.predict(CHUNK).values()
    del old._model_params["season_length"]
    copied = pickle.loads(pickle.dumps(old))
    np.testing.assert_array_equal(copied.predict(CHUNK).values(), forecast)
    path = str(tmp_path / "model.pt")
    old.save(path)
    with safe_globals([]):
        state = torch.load(f"{path}.ckpt", weights_only=False)
    del state["hyper_parameters"]["season_length"]
    # nor did configurations say whether a checkpoint looks for seasons
    del state["hyper_parameters"]["config"]["find_seasons"]
    torch.save(state, f"{path}.ckpt")
    loaded = MoiraiMoEModel.load(path)
    pipeline = MoiraiMoEPipeline(old.model.network)
    plain = native(SERIES, CHUNK, pipeline, context_length=READ, season_length=None).quantile(0.5)
    np.testing.assert_allclose(loaded.predict(CHUNK).values(), plain, rtol=1e-5, atol=1e-5)
