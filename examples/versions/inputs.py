"""Inputs for every entry point, and what an installed version makes of them.

`compare.py` runs this, and `more_inputs.py`, once per version. Only names that all
versions share are used. An entry point is a generator, so that its random numbers do not depend on
the others.
"""

# %%
import contextlib
import os
import tempfile
from collections.abc import Callable, Iterator
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd
import torch

from moirai_moe_forecaster import (
    Forecast,
    ModelConfig,
    MoiraiMoE,
    MoiraiMoEPipeline,
)

Inputs = Callable[[np.random.Generator], Iterator[Any]]
LEVELS = [0.1, 0.5, 0.9]
TINY: dict[str, Any] = {
    "d_model": 32,
    "d_ff": 16,
    "num_layers": 2,
    "num_heads": 2,
    "num_experts": 4,
    "experts_per_token": 2,
    "max_seq_len": 16,
    "output_patches": 2,
}
ENTRIES: dict[str, Inputs] = {}


def entry(name: str) -> Callable[[Inputs], Inputs]:
    """Give the inputs of an entry point a name."""

    def add(inputs: Inputs) -> Inputs:
        ENTRIES[name] = inputs
        return inputs

    return add


# %%
class Plain(NamedTuple):
    """A result without classes of the package.

    Attributes
    ----------
    text : str
        Labels, names and whatever is no number.
    numbers : ndarray
    scale : ndarray
        Broadcasts with `numbers`: width of the 80 % interval, or size where there is none.
    """

    text: str
    numbers: np.ndarray
    scale: np.ndarray


def plain(result: Any) -> list[Plain]:
    """Take a result apart."""
    if isinstance(result, Plain):
        return [result]
    if isinstance(result, str):
        return [Plain(result, np.empty(0), np.empty(0))]
    if isinstance(result, list | tuple):
        return [part for item in result for part in plain(item)]
    if isinstance(result, Forecast):
        lower, upper = result.interval(0.8)
        parts = [lower, result.median, upper, result.mean]
        # of one series or many, samples have one axis more than these, and few series samples
        axis = result.samples.ndim - lower.ndim - 1 + (result.samples.shape[1:] != lower.shape)
        parts.extend(np.moveaxis(result.samples, axis, 0)[:3])
        # weights, strengths and periods of cycles: of the size of 1
        (seasons,) = plain(result.seasons)
        seasons = seasons._replace(scale=np.ones(1))
        return [Plain(repr(result), np.stack(parts), upper - lower), seasons]
    if isinstance(result, pd.Series):
        return plain(result.to_frame())
    if isinstance(result, pd.DataFrame):
        numbers = result.select_dtypes("number")
        labels = result.drop(columns=numbers.columns).reset_index().to_csv()
        text = f"{list(result.columns)} {list(map(str, result.dtypes))}\n{labels}"
        return [Plain(text, numbers.to_numpy(dtype=np.float64), _scale_of(numbers))]
    array = np.asarray(result)
    return [Plain(f"{array.dtype} {array.shape}", array, np.nanmean(np.abs(array), keepdims=True))]


def _scale_of(table: pd.DataFrame) -> np.ndarray:
    """Width of the interval of every row, or the mean size of every column."""
    if {"0.1", "0.9"} <= set(table.columns):
        return (table["0.9"] - table["0.1"]).to_numpy()[:, None]
    return np.nan_to_num(table.abs().mean(axis=0).to_numpy()[None])


def bands(values: Any) -> Plain:
    """Quantiles at `LEVELS`, the level last."""
    array = np.asarray(values, dtype=np.float64)
    array = array.reshape(*array.shape[:-1], -1, len(LEVELS))
    return Plain(str(array.shape), array, array[..., -1:] - array[..., :1])


def network(**changes: Any) -> MoiraiMoE:
    """A random network in which every parameter matters."""
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        made = MoiraiMoE(ModelConfig(**TINY | changes))
        for name, tensor in made.state_dict().items():
            spread = 1.0 if name.endswith(("centroids", "variate_bias", "known_future")) else 0.1
            tensor.add_(spread * torch.randn_like(tensor))
    return made.eval().requires_grad_(False)


# the same one for every version, whichever it comes with
CHECKPOINT = os.environ["CHECKPOINT"]
PIPELINE = MoiraiMoEPipeline.from_pretrained(CHECKPOINT)


def wave(rng: np.random.Generator, points: int = 200, variates: int = 1) -> np.ndarray:
    """Cycles of 12 and 30 steps with a trend, noise and a level of their own, (time, variate)."""
    time = np.arange(points)[:, None]
    size, level, phase = rng.lognormal(0, 2), rng.normal(0, 50), rng.uniform(0, 6, variates)
    cycles = 3 * np.sin(2 * np.pi * time / 12 + phase) + np.sin(2 * np.pi * time / 30 + phase)
    return level + size * (cycles + time / 100 + rng.normal(size=(points, variates)))


def holes(rng: np.random.Generator, values: np.ndarray, share: float = 0.2) -> np.ndarray:
    """Some values are missing."""
    return np.where(rng.random(values.shape) < share, np.nan, values)


# %% the native interface
@entry("predict: arrays")
def arrays(rng: np.random.Generator) -> Iterator[Any]:
    """Types, lengths and horizons of one series, and lists."""
    for dtype in ("float64", "float32", "float16", "int64", "int8", "bool"):
        y = wave(rng)[:, 0]
        for given in (y / np.abs(y).max() * 100).astype(dtype), np.sign(y).astype(dtype):
            yield PIPELINE.predict(given, 24, random_state=0)
    for points in (1, 2, 15, 16, 17, 100, 600, 2100):
        yield PIPELINE.predict(wave(rng, points)[:, 0], 20, random_state=0)
    for horizon in (1, 15, 16, 17, 64, 65, 200):
        yield PIPELINE.predict(wave(rng)[:, 0].tolist(), horizon, random_state=1)
    yield PIPELINE.predict([wave(rng, n)[:, 0] for n in (30, 200, 90, 300)], 70, random_state=2)
    yield PIPELINE.predict([[1.0, 2, 3, 4], [2, 1, 2, 1, 2]], 5, random_state=2)
    for scale in (1e-200, 1e-5, 1e6, 1e200):
        yield PIPELINE.predict(wave(rng)[:, 0] * scale, 30, random_state=0)


@entry("predict: multivariate")
def multivariate(rng: np.random.Generator) -> Iterator[Any]:
    """Several variates, alone and in ragged lists."""
    for variates in (1, 2, 5):
        for horizon in (12, 80):
            yield PIPELINE.predict(wave(rng, 150, variates), horizon, random_state=0)
    ragged = [wave(rng, 50 + 40 * v, v) for v in (1, 3, 2)]
    for horizon in (12, 80):
        yield PIPELINE.predict(ragged, horizon, random_state=0, batch_size=2)
    yield PIPELINE.predict(ragged, 30, random_state=0)[1]


@entry("predict: pandas")
def pandas_objects(rng: np.random.Generator) -> Iterator[Any]:
    """Series, wide tables and panels, with several kinds of index."""
    for freq in ("h", "D", "W-MON", "MS", "QE", "B"):
        index = pd.date_range("2001", periods=120, freq=freq)
        yield PIPELINE.predict(pd.Series(wave(rng, 120)[:, 0], index), 20, random_state=0)
    periods = pd.period_range("2001", periods=120, freq="M")
    for index in (periods, pd.RangeIndex(120), pd.Index(np.arange(120) * 2)):
        yield PIPELINE.predict(pd.DataFrame(wave(rng, 120, 2), index), 20, random_state=0)
    parts = {k: pd.DataFrame(wave(rng, 40 + 20 * k, 2), columns=["a", "b"]) for k in range(3)}
    panel = pd.concat(parts, names=["shop", "time"])
    for given in (
        panel,
        panel["a"],
        pd.concat({"x": panel}, names=["town"]),
        panel.round().astype("Int64"),
    ):
        yield PIPELINE.predict(given, 20, random_state=0)
    yield PIPELINE.predict(list(parts.values()), 20, random_state=0)
    yield PIPELINE.predict(pd.Series([1, None, 3, 4] * 9, dtype="Float64"), 5, random_state=0)


@entry("predict: missing values")
def missing(rng: np.random.Generator) -> Iterator[Any]:
    """NaN at the start, the end, in stretches and at random; masked arrays; constants."""
    for share in (0.05, 0.5, 0.9):
        yield PIPELINE.predict(holes(rng, wave(rng)[:, 0], share), 30, random_state=0)
        yield PIPELINE.predict(holes(rng, wave(rng, 100, 3), share), 30, random_state=0)
    for hidden in (slice(0, 70), slice(-40, None), slice(60, 120), slice(1, None), slice(0, -1)):
        y = wave(rng)[:, 0]
        y[hidden] = np.nan
        yield PIPELINE.predict(y, 30, random_state=0)
        masked = np.ma.masked_invalid(y)
        masked.data[hidden] = 1e9
        yield PIPELINE.predict(masked, 30, random_state=0)
        yield PIPELINE.predict([masked, wave(rng, 50)[:, 0]], 30, random_state=0)
    for constant in (0.0, -7.0, 1e9):
        yield PIPELINE.predict(holes(rng, np.full(60, constant), 0.1), 30, random_state=0)


@entry("predict: covariates")
def covariates(rng: np.random.Generator) -> Iterator[Any]:
    """Past and known ahead, as tokens and by regression, with holes, in lists."""
    for horizon in (12, 70):
        y, past, known = (wave(rng, n, 2) for n in (120, 120, 120 + horizon))
        y = y + known[:120]
        for use in (None, "tokens", "regression"):
            for target in (y, y[:, 0]):
                given = {"future_covariates": known, "covariate_use": use}
                yield PIPELINE.predict(target, horizon, **given, random_state=0)
                given["past_covariates"] = past
                yield PIPELINE.predict(target, horizon, **given, random_state=0)
        yield PIPELINE.predict(y, horizon, past_covariates=holes(rng, past), random_state=0)
        known = {"future_covariates": [holes(rng, known), known[:, :1]]}
        yield PIPELINE.predict([y, y[:, 0]], horizon, **known, random_state=0)


@entry("predict: seasons")
def seasons(rng: np.random.Generator) -> Iterator[Any]:
    """What `season_length` takes, on series that repeat, with gaps and several variates."""
    for length in ("auto", None, 1, 12, 24, [12, 30], np.int64(12)):
        yield PIPELINE.predict(wave(rng)[:, 0], 40, season_length=length, random_state=0)
        yield PIPELINE.predict(
            holes(rng, wave(rng, 400, 2)), 90, season_length=length, random_state=0
        )
    long = np.tile(rng.normal(size=1440), 4) + rng.normal(0, 0.1, 5760)
    for options in ({}, {"context_length": 3000}, {"season_length": 1440}):
        yield PIPELINE.predict(long, 50, **options, random_state=0)


@entry("predict: options")
def options(rng: np.random.Generator) -> Iterator[Any]:
    """Context lengths, paths, samples, batch sizes, seeds, the reestimated normaliser."""
    y = [wave(rng, n)[:, 0] for n in (60, 150, 240)]
    for given in (
        *({"context_length": n} for n in (1, 16, 100, 5000)),
        *({"num_paths": n} for n in (1, 7, 40)),
        *({"num_samples": n} for n in (1, 20)),
        *({"batch_size": n} for n in (1, 2)),
        {"normaliser": "reestimated"},
        {"normaliser": "reestimated", "num_paths": 5, "season_length": None},
        {"random_state": np.random.default_rng(5)},
        {"random_state": np.random.RandomState(5)},
    ):
        yield PIPELINE.predict(y, 80, **{"random_state": 3, **given})
    pipeline = MoiraiMoEPipeline.from_pretrained(CHECKPOINT)
    pipeline.memory_budget = 2**22
    yield pipeline.predict(y * 5, 80, random_state=0)
    for dtype in ("bfloat16", "float64"):
        other = MoiraiMoEPipeline.from_pretrained(CHECKPOINT, dtype=dtype)
        yield other.predict(y, 30, random_state=0)


@entry("predict: other checkpoints")
def checkpoints(rng: np.random.Generator) -> Iterator[Any]:
    """Conventions of networks."""
    conventions: list[dict[str, Any]] = [
        {},
        {"router": "centroid"},
        {"mixture": ["student_t", "log_normal", "normal_fixed"]},
        {"beyond_pass": "hidden", "reference_periods": 2, "exchange_channels": 3},
        {"find_seasons": True, "mirror_up_to": 128, "observed_mask_input": False},
        {"dependence_share": 0.2, "dependence_growth": 0.5, "dependence_decay": 0.9},
    ]
    for changes in conventions:
        yield from of_network(rng, network(**changes))


@entry("predict: mixtures with counts")
def counts(rng: np.random.Generator) -> Iterator[Any]:
    """A mixture of counts, and the official conventions in the official layout."""
    yield from of_network(rng, network(mixture=["negative_binomial", "log_normal"]))
    official = ModelConfig.official(d_model=64, d_ff=8, num_layers=2, num_heads=1, max_seq_len=16)
    yield from of_network(rng, network(**official.to_dict()), "official")


def of_network(
    rng: np.random.Generator, made: MoiraiMoE, layout: Literal["native", "official"] = "native"
) -> Iterator[Any]:
    """Save and load a network, and forecast with it."""
    with tempfile.TemporaryDirectory() as folder:
        MoiraiMoEPipeline(made).save_pretrained(folder, layout=layout)
        pipeline = MoiraiMoEPipeline.from_pretrained(folder)
    known = wave(rng, 190, 1)
    yield pipeline.predict(holes(rng, wave(rng, 150, 2)), 40, random_state=0)
    yield pipeline.predict(np.abs(wave(rng, 9)[:, 0]).round(), 40, random_state=0)
    yield pipeline.predict(wave(rng, 150), 40, future_covariates=known, random_state=0)
    again = {"normaliser": "reestimated", "num_paths": 4, "past_covariates": known[:150]}
    yield pipeline.predict(wave(rng, 150), 40, random_state=0, **again)


@entry("predict_stream")
def stream(rng: np.random.Generator) -> Iterator[Any]:
    """Series of several lengths and numbers of variates, read ahead by a few."""
    series = [wave(rng, 40 + 30 * n, 1 + n % 2) for n in range(6)]
    series[2] = series[2][:, 0]
    for batch in (1, 4, 256):
        yield from PIPELINE.predict_stream(iter(series), 70, batch_size=batch, random_state=0)


@entry("embed and routing")
def representations(rng: np.random.Generator) -> Iterator[Any]:
    """Single series, lists, panels, covariates."""
    known = wave(rng, 130, 1)
    for y in wave(rng)[:, 0], wave(rng, 100, 3), [wave(rng, n, v) for n, v in ((30, 1), (90, 2))]:
        yield [*map(np.asarray, PIPELINE.embed(y)[:1]), *_tokens(PIPELINE.embed(y).tokens)]
        yield _routed(PIPELINE.routing(y))
    y, past = wave(rng, 100, 2), wave(rng, 100, 2)
    given = {"past_covariates": past, "future_covariates": known, "horizon": 30}
    yield [PIPELINE.embed(y, **given).pooled, _routed(PIPELINE.routing(y, **given))]
    panel = pd.concat({k: pd.Series(wave(rng, 60)[:, 0]) for k in "ba"}, names=["shop", "time"])
    report = PIPELINE.routing(panel, context_length=48).with_labels(kind_of_shop=["x", "y"])
    yield [_routed(report), report.choices(), report.agreement(by="kind_of_shop")]


def _tokens(tokens: Any) -> list[np.ndarray]:
    return tokens if isinstance(tokens, list) else [tokens]


def _routed(report: Any) -> list[Any]:
    return [report.tokens, report.experts, report.weights, report.load(), repr(report)]


# %% tables
@entry("predict_df")
def frames(rng: np.random.Generator) -> Iterator[Any]:
    """Frequencies, gaps, several targets, covariates, other libraries and names."""
    wanted = {"quantile_levels": LEVELS, "random_state": 0}
    for freq in ("15min", "h", "D", "B", "W-SUN", "MS", "ME", "QS", "YS", "2h", "45D"):
        table = long_table(rng, freq)
        yield PIPELINE.predict_df(table.sample(frac=1, random_state=0), 9, **wanted)
        gaps = table.drop(table.index[rng.permutation(len(table))[:20]])
        yield PIPELINE.predict_df(gaps, 9, freq=None if freq == "45D" else freq, **wanted)
    table = long_table(rng, "D")
    text = table.assign(timestamp=table["timestamp"].astype(str))
    zone = table.assign(timestamp=table["timestamp"].dt.tz_localize("Europe/Berlin"))
    period = table.assign(timestamp=table["timestamp"].dt.to_period("D"))
    steps = table.assign(timestamp=table.groupby("item_id").cumcount() * 2, item_id=3)
    for given in (text, zone, period, steps[:60]):
        yield PIPELINE.predict_df(given, 5, **wanted)
    two = table.assign(second=wave(rng, len(table)), price=wave(rng, len(table)))
    ahead = long_table(rng, "D", start=80, points=12).drop(columns="target")
    ahead = ahead.assign(price=wave(rng, len(ahead)))
    for given in (
        {"target_columns": ["target", "second"]},
        {"future_df": ahead},
        {"future_df": ahead, "past_covariates": "second", "num_paths": 9},
        {"past_covariates": ["second", "price"], "season_length": 7},
        {"context_length": 20, "quantile_levels": [0.025, 0.975]},
    ):
        yield PIPELINE.predict_df(two, 12, **{**wanted, **given})
    one = two[two["item_id"] == "b"].drop(columns="item_id").rename(columns={"timestamp": "ds"})
    yield PIPELINE.predict_df(one, 70, id_column=None, timestamp_column="ds", **wanted)
    with contextlib.suppress(ImportError):
        import polars
        import pyarrow

        yield PIPELINE.predict_df(polars.from_pandas(two), 4, **wanted).to_pandas()
        yield PIPELINE.predict_df(pyarrow.Table.from_pandas(two), 4, **wanted).to_pandas()


def long_table(
    rng: np.random.Generator, freq: str, start: int = 0, points: int = 80
) -> pd.DataFrame:
    """Two series of one frequency."""
    times = pd.date_range("2001-01-01", periods=start + points, freq=freq)[start:]
    parts = [pd.DataFrame({"timestamp": times, "target": wave(rng, points)[:, 0]}) for _ in "ba"]
    return pd.concat(dict(zip("ba", parts, strict=True)), names=["item_id"]).reset_index(level=0)
