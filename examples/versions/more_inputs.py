"""Inputs for backtests, training, sktime, Darts and the command line."""

# %%
import contextlib
import io
import re
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from inputs import (
    CHECKPOINT,
    LEVELS,
    PIPELINE,
    TINY,
    Plain,
    bands,
    entry,
    holes,
    long_table,
    network,
    wave,
)

from moirai_moe_forecaster import (
    ModelConfig,
    MoiraiMoEForecaster,
    MoiraiMoEPipeline,
    TrainConfig,
    backtest,
    pretrain,
)
from moirai_moe_forecaster.cli import main as command_line
from moirai_moe_forecaster.evaluation import Variant

NEXT, MIXED = range(1, 20), [-30, -3, 0, 1, 18]
BRIEF = {"max_steps": 2, "learning_rate": 1e-2, "batch_size": 2, "progress": False}


# %% scores and weights
@entry("backtest")
def backtests(rng: np.random.Generator) -> Iterator[Any]:
    """Pipelines, variants, functions and forecasters of sktime, on arrays and panels."""
    from sktime.forecasting.naive import NaiveForecaster

    index = pd.period_range("2001-01", periods=90, freq="M", name="time")
    series = pd.Series(wave(rng, 90)[:, 0], index, name="y")
    parts = {k: pd.DataFrame(wave(rng, 90, 2), index, ["a", "b"]) for k in "yx"}
    panel = pd.concat(parts, names=["shop"])
    X = pd.DataFrame(wave(rng, 90, 2), index, ["u", "v"])
    tiny = MoiraiMoEForecaster(config=TINY, random_state=0, num_paths=4)
    every = ("MASE", "RMSSE", "MAE", "RMSE", "WQL", "CRPS", "coverage")
    for forecaster in (PIPELINE, Variant(PIPELINE, {"season_length": 12}), tiny, NaiveForecaster()):
        metrics = every[:4] if isinstance(forecaster, NaiveForecaster) else every
        given = {"horizon": 7, "windows": 2, "metrics": metrics}
        yield backtest(forecaster, series, step=5, **given)
        yield backtest(forecaster, panel, seasonality=12, **given)
        yield backtest(forecaster, series, X=X, **given)
    arrays = [holes(rng, wave(rng, n)[:, 0], 0.05) for n in (90, 100)]
    yield backtest(PIPELINE, arrays, horizon=20, windows=3, quantile_levels=LEVELS)
    yield backtest(PIPELINE, wave(rng, 100, 3), horizon=20)
    yield backtest(_last_value, panel, horizon=3, windows=2)


def _last_value(
    contexts: Sequence[np.ndarray], horizon: int, seasonality: int, levels: Sequence[float]
) -> np.ndarray:
    last = np.array([context[-1] for context in contexts])
    return last[:, None, None] + np.zeros((1, len(levels), horizon))


# %% training
@entry("fine_tune and pretrain")
def training(rng: np.random.Generator) -> Iterator[Any]:
    """A few steps of every mode, with covariates, and of pretraining on generated series alone."""
    from moirai_moe_forecaster.training.corpus import Source

    y = [wave(rng, n)[:, 0] for n in (90, 120, 150)]
    known = {"future_covariates": [wave(rng, len(values), 1) for values in y]}
    pipeline = MoiraiMoEPipeline(network())
    brief = {"max_steps": 3, "learning_rate": 1e-2, "batch_size": 4, "horizon": 10}
    brief |= {"progress": False, "random_state": 0}
    for given in (
        *({"mode": mode, "validation": None} for mode in ("lora", "full", "head", "router")),
        {"validation": 0.2, "lora": {"rank": 2, "targets": ["experts"]}},
        {"mode": "full", "freeze": "embedding.*", "validation": y},
        {"mode": "full", "validation": None, **known},
    ):
        tuned = pipeline.fine_tune(y, **{**brief, **given})
        assert tuned.tuning is not None
        yield [tuned.predict(y, 20, random_state=0), *map(np.float64, tuned.tuning.losses)]
    points = np.concatenate(y).astype(np.float32)
    source = Source("waves", points, np.array([0, 90, 210, 360]), 1.0)
    for changes in {"synthetic_share": 0.0, "coupled_share": 0.0}, {"synthetic_pool": 8}:
        config = TrainConfig(
            steps=3, batch_rows=2, row_tokens=32, max_points=256, warmup_steps=1, **changes
        )
        with tempfile.TemporaryDirectory() as folder:
            made = pretrain(ModelConfig(**TINY), config, [source], folder, progress=False)
        yield MoiraiMoEPipeline(made).predict(y, 20, random_state=0)


# %%
def forecaster(**changes: Any) -> MoiraiMoEForecaster:
    """A forecaster of the checkpoint, unless it is given a configuration."""
    path = None if "config" in changes else CHECKPOINT
    return MoiraiMoEForecaster(**{"model_path": path, "random_state": 0, **changes})


def table(rng: np.random.Generator, points: int, variates: int = 1) -> pd.DataFrame:
    """Monthly values."""
    index = pd.period_range("2001-01", periods=points, freq="M")
    return pd.DataFrame(wave(rng, points, variates), index, list("abcde")[:variates])


def everything(fitted: Any, fh: Any, X: pd.DataFrame | None = None) -> list[Any]:
    """All kinds of forecasts of a fitted forecaster."""
    return [
        fitted.predict(fh, X),
        bands(fitted.predict_quantiles(fh, X, alpha=LEVELS)),
        fitted.predict_interval(fh, X, coverage=[0.8, 0.95]),
        fitted.predict_var(fh, X),
        fitted.predict_proba(fh, X).quantile([0.2]),
        fitted.predict_proba(fh, X).sample(2),
    ]


# %%
@entry("sktime: one series")
def sktime_series(rng: np.random.Generator) -> Iterator[Any]:
    """Indexes, parameters, exogenous columns, steps in the past, updates."""
    for index in (
        pd.date_range("2001", periods=90, freq="h"),
        pd.date_range("2001", periods=90, freq="W"),
        pd.period_range("2001", periods=90, freq="Q"),
        pd.RangeIndex(90),
    ):
        y = pd.Series(wave(rng, 90)[:, 0], index, name="sold")
        fitted = forecaster().fit(y)
        yield everything(fitted, NEXT)
        yield fitted.predict(MIXED)
    for changes in (
        {"prediction_type": "mean"},
        {"context_length": 40},
        {"num_paths": 5, "num_samples": 7},
        {"sp": 12},
        {"sp": None},
        {"sp": [6, 12]},
        {"dtype": "float64"},
        {"config": TINY, "random_state": 3},
    ):
        fitted = forecaster(**changes).fit(table(rng, 100))
        yield everything(fitted, range(1, 40))
        yield everything(fitted, MIXED)
    y, X = table(rng, 80, 2), table(rng, 120, 3)
    fitted = forecaster().fit(y[:60], X[:60])
    yield everything(fitted, NEXT, X[60:79])
    yield fitted.predict(NEXT, X[60:79].drop(columns="b"))
    yield fitted.predict(MIXED, X[:79])
    yield everything(fitted.update(y[60:], X[60:80]), NEXT, X[80:99])
    yield fitted.update_predict(y[60:], X=X, reset_forecaster=False)
    yield forecaster().fit(holes(rng, y) + 0 * y).predict(NEXT)
    yield forecaster().fit(y.drop(y.index[[5, 6, 40]])).predict(NEXT)
    yield forecaster().fit_predict(y["a"], fh=NEXT)


@entry("sktime: panels and tuning")
def sktime_panels(rng: np.random.Generator) -> Iterator[Any]:
    """Panels, hierarchies, weights of one's own, pipelines, saves."""
    from sktime.base import load
    from sktime.transformations.series.detrend import Deseasonalizer

    parts = {k: table(rng, 60 + 10 * n, 2) for n, k in enumerate("yxz")}
    panel = pd.concat(parts, names=["shop", "time"])
    hierarchy = pd.concat({"n": panel, "m": panel + 1}, names=["town"])
    for data in panel, panel[["a"]], hierarchy:
        fitted = forecaster().fit(data)
        yield everything(fitted, NEXT)
        yield fitted.predict(MIXED)
    X = pd.concat({k: table(rng, len(part) + 19, 2) for k, part in parts.items()}, names=["shop"])
    seen = X.groupby(level=0, group_keys=False).apply(lambda part: part.iloc[:-19])
    seen.index = seen.index.set_names(panel.index.names)
    ahead = X.groupby(level=0, group_keys=False).tail(19).rename_axis(panel.index.names)
    yield everything(forecaster().fit(panel, seen), NEXT, ahead)
    later = pd.concat({k: table(rng, len(p) + 5, 2)[-5:] for k, p in parts.items()}, names=["shop"])
    yield forecaster().fit(panel).update(later).predict(NEXT)
    for strategy in ("minimal", "full", "peft"):
        options = {"config": TINY, "training_args": BRIEF, "random_state": 0}
        tuned = MoiraiMoEForecaster(fit_strategy=strategy, **options)
        yield tuned.fit(panel, fh=NEXT).predict()
    pretrained = MoiraiMoEForecaster(**options).pretrain(panel)
    yield pretrained.fit(parts["y"]).predict(NEXT)
    with tempfile.TemporaryDirectory() as folder:
        forecaster().fit(parts["y"]).save(f"{folder}/kept")
        yield load(Path(folder, "kept.zip")).predict(NEXT)
    composed = Deseasonalizer(sp=12) * forecaster()
    yield composed.fit(parts["y"]["a"]).predict(NEXT)


# %%
@entry("Darts")
def darts(rng: np.random.Generator) -> Iterator[Any]:
    """Horizons, likelihoods, covariates, shifts, past forecasts, tuning, saves."""
    from darts import TimeSeries
    from darts.utils.likelihood_models.torch import QuantileRegression

    from moirai_moe_forecaster import MoiraiMoEModel

    quiet = {"accelerator": "cpu", "enable_progress_bar": False, "enable_model_summary": False}
    common = {"likelihood": QuantileRegression(LEVELS), "pl_trainer_kwargs": quiet}
    common |= {"random_state": 0, "local_dir": CHECKPOINT}

    def series(points: int, variates: int = 1, kind: str = "float32") -> TimeSeries:
        times = pd.date_range("2001", periods=points, freq="D")
        return TimeSeries.from_times_and_values(times, wave(rng, points, variates).astype(kind))

    def predicted(model: Any, n: int = 12, **given: Any) -> Plain:
        forecast = model.predict(n, predict_likelihood_parameters=True, **given)
        return bands(forecast.values())._replace(text=f"{forecast.time_index} {forecast.columns}")

    y, past, known = series(120, 2), series(160, 1), series(160, 2)
    for changes in (
        {},
        {"season_length": 12},
        {"season_length": None},
        {"output_chunk_shift": 3},
    ):
        model = MoiraiMoEModel(96, 24, **common, **changes).fit(y)
        yield [predicted(model), predicted(model, 24), predicted(model, series=series(100, 2))]
        if "output_chunk_shift" not in changes:
            yield model.predict(80, num_samples=3).all_values()
        yield model.historical_forecasts(
            y, start=100, forecast_horizon=5, retrain=False, stride=4, verbose=False
        ).values()
    for given in (
        {"past_covariates": past},
        {"future_covariates": known},
        {"past_covariates": past, "future_covariates": known},
    ):
        model = MoiraiMoEModel(96, 24, **common).fit(y, **given)
        yield [predicted(model), model.predict(30, num_samples=2).all_values()]
        both = {name: [value, value] for name, value in given.items()}
        model = MoiraiMoEModel(96, 12, **common).fit([y, y * 2], **both)
        yield predicted(model, series=y, **given)
    flexible = MoiraiMoEModel((20, 96), 12, **common).fit(series(60))
    yield [predicted(flexible), predicted(flexible, series=series(25))]
    yield predicted(MoiraiMoEModel(48, 12, **common).fit(series(90, 1, "float64")))
    with tempfile.TemporaryDirectory() as folder:
        MoiraiMoEPipeline(network()).save_pretrained(f"{folder}/tiny")
        for way in (True, {"lora": {"rank": 2}}, {"unfreeze": ["network.projection.*"]}):
            tuning = {"enable_finetuning": way, "n_epochs": 1, "local_dir": f"{folder}/tiny"}
            model = MoiraiMoEModel(48, 12, **{**common, **tuning}, work_dir=folder).fit(y)
            yield [predicted(model), predicted(model, 12, series=series(80, 2))]
            model.save(f"{folder}/model.pt")
            yield predicted(MoiraiMoEModel.load(f"{folder}/model.pt"))


# %%
COMMANDS = """
forecast sales.csv --horizon 9 -o out.csv
forecast nixtla.csv --horizon 9 -o out.csv --levels 0.1,0.25,0.9
forecast sales.parquet --horizon 70 -o out.parquet --seed 3
forecast sales.csv --horizon 9 -o out.csv --covariates price --future plan.csv
forecast sales.csv --horizon 9 -o out.csv --covariates price --context-length 30
forecast sales.csv --horizon 9 -o out.csv --target target price --season-length 7,14 --freq D
backtest sales.csv --horizon 9 -o out.csv --no-peers
backtest sales.csv --horizon 9 -o out.csv --no-peers --windows 3 --step 4 --metrics MAE CRPS
backtest sales.parquet --horizon 9 -o out.csv --no-peers --covariates price --seasonality 7
routing sales.csv -o out.csv
routing sales.csv -o out.csv --by id
forecast sales.csv --horizon 9 -o out.csv --model tiny --season-length none
"""
FINETUNE = "finetune sales.csv --horizon 9 --model tiny --output tuned --steps 4 --quiet"


@entry("command line")
def commands(rng: np.random.Generator) -> Iterator[Any]:
    """What commands print, and the files that they write."""
    sales = long_table(rng, "D")
    sales["price"] = wave(rng, len(sales))
    plan = long_table(rng, "D", start=80, points=9).drop(columns="target")
    plan["price"] = wave(rng, len(plan))
    names = {"item_id": "unique_id", "timestamp": "ds", "target": "y"}
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        sales.to_csv("sales.csv", index=False)
        sales.to_parquet("sales.parquet")
        sales.rename(columns=names).to_csv("nixtla.csv", index=False)
        plan.to_csv("plan.csv", index=False)
        MoiraiMoEPipeline(network()).save_pretrained("tiny")
        for line in COMMANDS.strip().splitlines():
            yield [printed(f"{line} --quiet"), *read_written()]
        printed(FINETUNE)
        printed("forecast sales.csv --horizon 9 --model tuned --quiet -o out.csv")
        yield read_written()


def printed(line: str) -> str:
    """Run a command; what it prints, without seconds and folders."""
    with contextlib.redirect_stdout(io.StringIO()) as stdout:
        model = [] if "--model" in line else ["--model", CHECKPOINT]
        code = command_line([*line.split(), *model])
    text = re.sub(r"\S*/(?=out\.)", "", stdout.getvalue())
    if line.startswith("backtest"):
        text = re.sub(r" +[\d.e-]+$", "", text, flags=re.MULTILINE)
    return f"{line}: {code}\n{text}"


def read_written() -> list[pd.DataFrame]:
    """Read the tables that a command wrote, and delete them."""
    tables = [pd.read_csv(f) for f in Path().glob("out.csv")]
    tables += [pd.read_parquet(f) for f in Path().glob("out.parquet")]
    for file in Path().glob("out.*"):
        file.unlink()
    return tables
