"""Long DataFrames of any shape give the forecasts of the series that they hold."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from moirai_moe_forecaster.data.panel import Columns, read_frame, read_panel
from moirai_moe_forecaster.errors import InvalidInputError
from moirai_moe_forecaster.inference.pipeline import MoiraiMoEPipeline
from tiny_network import tiny_network
from work import calls

NAMES = {"id_column": "shop", "timestamp_column": "when", "target_columns": "sold"}
LEVELS = (0.1, 0.5, 0.9)


@pytest.fixture(scope="module")
def pipeline() -> MoiraiMoEPipeline:
    return MoiraiMoEPipeline(tiny_network())


def walk(length: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=length).cumsum()


def long(shop: object, when: Any, seed: int = 0) -> pd.DataFrame:
    return pd.DataFrame({"shop": shop, "when": when, "sold": walk(len(when), seed)})


def days(length: int = 40, start: str = "2024-01-01", freq: str = "D", **options: Any) -> Any:
    return pd.date_range(start, periods=length, freq=freq, **options)


def predict(pipeline: MoiraiMoEPipeline, df: Any, horizon: int = 5, **options: Any) -> Any:
    chosen = {**NAMES, "quantile_levels": LEVELS, "random_state": 0, **options}
    return pipeline.predict_df(df, horizon, **chosen)


def times_ahead(df: pd.DataFrame, horizon: int = 5, **options: Any) -> list[str]:
    """Only the times, which need no network."""
    frame = read_frame(df, Columns("shop", "when", ["sold"], [], []), ahead=horizon, **options)
    codes = np.zeros(horizon, dtype=np.int64)
    ahead = frame.grids.lengths[0] + np.arange(horizon)
    return [str(time) for time in frame.grids.times(codes, ahead)]


# --- numbers ----------------------------------------------------------------------------------


def test_cycles_are_learnt_from_more_than_the_network_reads() -> None:
    """As `predict` does: two repetitions of this one are longer than any context."""
    pipeline = MoiraiMoEPipeline(tiny_network(find_seasons=True))
    rng = np.random.default_rng(0)
    length = pipeline.max_context_length
    values = np.tile(rng.normal(size=length), 3) + 0.1 * rng.normal(size=3 * length)
    df = pd.DataFrame({"shop": "b", "when": np.arange(len(values)), "sold": values})
    direct = pipeline.predict([values], 5, random_state=0, season_length=length)
    assert list(direct.seasons["period"]) == [length]
    result = predict(pipeline, df, season_length=length)
    np.testing.assert_allclose(result["0.9"], direct.quantile(0.9)[0])
    cut = predict(pipeline, df, season_length=length, context_length=length)
    np.testing.assert_allclose(cut["0.9"], predict(pipeline, df, season_length=None)["0.9"])


def test_periods_belong_to_ids_in_the_order_of_the_table() -> None:
    """What docs/cycles.md shows: positions of `Forecast.seasons` are those of a panel's ids."""
    pipeline = MoiraiMoEPipeline(tiny_network(find_seasons=True))
    rng = np.random.default_rng(0)
    cycle = pd.DataFrame({"shop": "a", "when": days(140), "sold": np.tile(rng.normal(size=7), 20)})
    df = pd.concat([long("b", days(140)), cycle], ignore_index=True)
    panel = read_panel(df, **NAMES)
    ids = panel.index.unique("shop")
    forecast = pipeline.predict(panel, 5, random_state=0)
    seasons = forecast.seasons.assign(shop=lambda table: ids.take(table["series"]))
    assert list(seasons.dropna(subset="period")["shop"]) == ["a"]
    assert list(predict(pipeline, df)["shop"].unique()) == list(ids) == ["b", "a"]
    np.testing.assert_allclose(predict(pipeline, df)["0.9"], forecast.quantile(0.9).ravel())


def test_the_numbers_are_those_of_predict(pipeline: MoiraiMoEPipeline) -> None:
    df = pd.concat([long("b", days(40)), long("a", days(25, "2023-06-01"), seed=1)])
    result = predict(pipeline, df)
    assert list(result.columns) == ["shop", "when", "mean", "median", "0.1", "0.5", "0.9"]
    assert list(result["shop"]) == ["b"] * 5 + ["a"] * 5
    forecast = pipeline.predict([walk(40), walk(25, 1)], 5, random_state=0)
    np.testing.assert_allclose(result["mean"], forecast.mean.ravel())
    np.testing.assert_allclose(result["median"], forecast.median.ravel())
    for position, level in enumerate(LEVELS):
        np.testing.assert_allclose(
            result[str(level)], forecast.quantile(LEVELS)[:, position].ravel()
        )
    assert list(result["when"][:5]) == list(days(5, "2024-02-10"))
    assert list(result["when"][5:]) == list(days(5, "2023-06-26"))


def test_the_order_of_rows_does_not_matter(pipeline: MoiraiMoEPipeline) -> None:
    df = pd.concat([long("b", days(40)), long("a", days(40), seed=1)])
    shuffled = df.sample(frac=1, random_state=3)
    expected = predict(pipeline, df).sort_values(["shop", "when"], ignore_index=True)
    result = predict(pipeline, shuffled).sort_values(["shop", "when"], ignore_index=True)
    # the order within a pass may round differently
    pd.testing.assert_frame_equal(result, expected, rtol=1e-4, atol=1e-4)
    assert list(predict(pipeline, shuffled)["shop"].unique()) == list(shuffled["shop"].unique())


def test_a_step_without_a_row_is_a_missing_value(pipeline: MoiraiMoEPipeline) -> None:
    df = long("a", days(40))
    gaps = [3, 4, 17]
    with_nan = df.assign(sold=df["sold"].where(~df.index.isin(gaps)))
    pd.testing.assert_frame_equal(predict(pipeline, df.drop(gaps)), predict(pipeline, with_nan))


def test_several_targets_are_variates_of_one_series(pipeline: MoiraiMoEPipeline) -> None:
    df = long("a", days(40)).assign(back=walk(40, 2))
    result = predict(pipeline, df, target_columns=["sold", "back"])
    assert list(result["target_name"]) == ["sold"] * 5 + ["back"] * 5
    forecast = pipeline.predict(df[["sold", "back"]].to_numpy(), 5, random_state=0)
    np.testing.assert_allclose(result["0.9"], forecast.quantile(0.9).T.ravel())
    single = predict(pipeline, df, target_columns=["sold"])
    assert "target_name" not in single


def test_covariates_of_both_kinds_reach_the_network(pipeline: MoiraiMoEPipeline) -> None:
    df = pd.concat([long("a", days(40)), long("b", days(30), 1)], ignore_index=True)
    df = df.assign(visits=walk(70, 3), price=walk(70, 4))
    plan = pd.concat([long("b", days(9, "2024-01-29")), long("a", days(9, "2024-02-08"))])
    plan = plan.drop(columns="sold").assign(price=walk(18, 5)).sample(frac=1, random_state=0)
    result = predict(pipeline, df, past_covariates="visits", future_df=plan)
    shops = [df[df["shop"] == name] for name in ("a", "b")]
    later = [plan[plan["shop"] == name].sort_values("when") for name in ("a", "b")]
    past = [shop["price"] for shop in shops]
    ahead = [later[0]["price"][2:7], later[1]["price"][2:7]]
    forecast = pipeline.predict(
        [shop["sold"].to_numpy() for shop in shops],
        5,
        past_covariates=[shop["visits"].to_numpy() for shop in shops],
        future_covariates=[np.concatenate(p) for p in zip(past, ahead, strict=True)],
        random_state=0,
    )
    np.testing.assert_allclose(result["median"], forecast.median.ravel())
    df = df.assign(price=df["sold"] + 0.1 * df["price"])
    result = predict(pipeline, df, past_covariates="visits", future_df=plan)
    other = predict(pipeline, df, past_covariates="visits", future_df=plan.assign(price=0.0))
    assert not np.allclose(other["median"], result["median"])


@pytest.mark.parametrize("kind", ["int32", "text"])
def test_times_of_the_future_need_not_have_the_very_type(
    pipeline: MoiraiMoEPipeline, kind: str
) -> None:
    df, later = long("a", days(40)).assign(price=1.0), days(5, "2024-02-10")
    if kind == "int32":
        df, later = df.assign(when=np.arange(40)), np.arange(40, 45).astype("int32")
    plan = pd.DataFrame({"shop": "a", "when": later, "price": walk(5)})
    expected = predict(pipeline, df, future_df=plan)
    plan["when"] = plan["when"] if kind == "int32" else plan["when"].astype(str)
    pd.testing.assert_frame_equal(predict(pipeline, df, future_df=plan), expected)


def test_one_series_needs_no_ids(pipeline: MoiraiMoEPipeline) -> None:
    df = long("a", days(40))
    alone = predict(pipeline, df.drop(columns="shop"), id_column=None)
    pd.testing.assert_frame_equal(alone, predict(pipeline, df).drop(columns="shop"))


@pytest.mark.parametrize("ids", [[2, 1], [2.5, 1.5], [("x", 1), ("y", 2)], list("ba")])
def test_ids_of_any_type(pipeline: MoiraiMoEPipeline, ids: list[Any]) -> None:
    parts = [long("", days(20), seed).assign(shop=[name] * 20) for seed, name in enumerate(ids)]
    result = predict(pipeline, pd.concat(parts))
    assert list(result["shop"].unique()) == ids


def test_categorical_ids_stay_categorical(pipeline: MoiraiMoEPipeline) -> None:
    df = pd.concat([long("b", days(20)), long("a", days(20))])
    df["shop"] = pd.Categorical(df["shop"], categories=["a", "b", "unused"])
    result = predict(pipeline, df)
    assert result["shop"].dtype == df["shop"].dtype
    assert list(result["shop"].unique()) == ["b", "a"]


@pytest.mark.parametrize("library", ["polars", "pyarrow"])
def test_other_tables_in_are_other_tables_out(pipeline: MoiraiMoEPipeline, library: str) -> None:
    pytest.importorskip(library, reason=f"{library} is not installed")
    pytest.importorskip("pyarrow", reason="pyarrow, which converts tables, is not installed")
    import pyarrow

    df = pd.concat([long("b", days(20)), long("a", days(20), 1)]).assign(price=1.0)
    plan = pd.concat([long(name, days(5, "2024-01-21")) for name in "ba"])
    plan = plan.drop(columns="sold").assign(price=2.0)
    if library == "polars":
        import polars

        table, later = polars.from_pandas(df), polars.from_pandas(plan)
    else:
        table, later = (pyarrow.Table.from_pandas(t, preserve_index=False) for t in (df, plan))
    result = predict(pipeline, table, future_df=later)
    assert type(result) is type(table)
    expected = predict(pipeline, df, future_df=plan)
    pd.testing.assert_frame_equal(result.to_pandas(), expected, check_dtype=False)


def test_only_the_context_asked_for_is_used(pipeline: MoiraiMoEPipeline) -> None:
    df = long("a", days(40))
    short = predict(pipeline, df.tail(10))
    pd.testing.assert_frame_equal(predict(pipeline, df, context_length=10), short)


# --- times ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("freq", "name"),
    [
        ("h", "h"),
        ("15min", "15min"),
        ("D", "D"),
        ("W-WED", "W"),
        ("B", "B"),
        ("MS", "MS"),
        ("ME", "ME"),
        ("2MS", "2MS"),
        ("QS-FEB", "QS"),
        ("QE", "QE"),
        ("YS", "YS"),
        ("YE-JUN", "YE"),
        ("BME", "BME"),
        ("28D", "28D"),
    ],
)
def test_every_frequency_is_inferred_and_goes_on(freq: str, name: str) -> None:
    expected = days(45, "2021-03-04 06:00", freq)
    df = long("a", expected[:40])
    assert times_ahead(df) == [str(time) for time in expected[40:]]
    frame = read_frame(df, Columns("shop", "when", ["sold"], [], []))
    assert frame.grids.frequencies == [name]
    gaps = df.drop([5, 6, 20])
    frame = read_frame(gaps, Columns("shop", "when", ["sold"], [], []), freq)
    np.testing.assert_array_equal(np.flatnonzero(np.isnan(frame.series[0])), [5, 6, 20])
    assert times_ahead(gaps, freq=freq) == [str(time) for time in expected[40:]]
    if freq != "BME":  # which only pandas can infer, from times without gaps
        assert times_ahead(gaps) == [str(time) for time in expected[40:]]


def test_the_middle_of_the_month_goes_on() -> None:
    middle = days(20, "2020-01-01", "MS") + pd.Timedelta(days=14)
    assert times_ahead(long("a", middle), 2) == ["2021-09-15 00:00:00", "2021-10-15 00:00:00"]


def test_frequencies_differ_by_id(pipeline: MoiraiMoEPipeline) -> None:
    freqs = {"hours": "h", "months": "MS", "days": "D", "offices": "B"}
    df = pd.concat([long(name, days(30, freq=freq)) for name, freq in freqs.items()])
    result = predict(pipeline, df.sample(frac=1, random_state=0), horizon=3)
    for name, freq in freqs.items():
        expected = days(33, freq=freq)[30:]
        assert list(result.loc[result["shop"] == name, "when"]) == list(expected)


def test_a_single_row_takes_the_frequency_of_the_others(pipeline: MoiraiMoEPipeline) -> None:
    df = pd.concat([long("a", days(30, freq="MS")), long("new", [pd.Timestamp("2024-05-01")])])
    result = predict(pipeline, df, horizon=2)
    assert list(result["when"][2:]) == [pd.Timestamp("2024-06-01"), pd.Timestamp("2024-07-01")]
    mixed = pd.concat([df, long("h", days(30, freq="h"))])
    with pytest.raises(InvalidInputError, match=r"id 'new' has a single row.* give freq"):
        predict(pipeline, mixed)
    freq = {"a": "MS", "new": "D", "h": "h"}
    result = predict(pipeline, mixed, horizon=2, freq=freq)
    assert list(result["when"][2:4]) == list(days(2, "2024-05-02"))


@pytest.mark.parametrize("zone", ["Europe/Berlin", "America/New_York"])
@pytest.mark.parametrize("start", ["2024-03-01", "2024-10-01"])
def test_days_follow_the_wall_clock_and_hours_do_not(zone: str, start: str) -> None:
    by_day = days(60, start, tz=zone)
    df = long("a", by_day[:20])
    assert times_ahead(df, 40) == [str(time) for time in by_day[20:]]
    by_hour = days(1500, start, "h", tz=zone)
    df = long("a", by_hour[:700])
    assert times_ahead(df, 800) == [str(time) for time in by_hour[700:]]


def test_a_zone_is_kept(pipeline: MoiraiMoEPipeline) -> None:
    result = predict(pipeline, long("a", days(30, tz="Asia/Tokyo")))
    assert str(result["when"].dt.tz) == "Asia/Tokyo"


def test_integers_and_periods_are_times_too(pipeline: MoiraiMoEPipeline) -> None:
    result = predict(pipeline, long("a", np.arange(10, 90, 2)), horizon=3)
    assert list(result["when"]) == [90, 92, 94]
    assert result["when"].dtype.kind == "i"
    months = pd.period_range("2020-01", periods=30, freq="M")
    result = predict(pipeline, long("a", months), horizon=3)
    assert list(result["when"].astype(str)) == ["2022-07", "2022-08", "2022-09"]
    assert result["when"].dtype == "period[M]"
    result = predict(pipeline, long("a", [3]), horizon=2, freq=4)
    assert list(result["when"]) == [7, 11]


def test_text_is_read_as_times(pipeline: MoiraiMoEPipeline) -> None:
    df = long("a", days(30))
    result = predict(pipeline, df.assign(when=df["when"].dt.strftime("%Y-%m-%d")))
    pd.testing.assert_frame_equal(result, predict(pipeline, df), check_dtype=False)


# --- panels -----------------------------------------------------------------------------------


def test_a_panel_has_every_step() -> None:
    df = pd.concat([long("b", days(20).delete(4)), long("a", days(5, freq="MS"))])
    panel = read_panel(df.sample(frac=1, random_state=1), **NAMES)
    assert panel.index.names == ["shop", "when"]
    assert panel.groupby(level=0).size().to_dict() == {"b": 20, "a": 5}
    assert np.isnan(panel.loc[("b", pd.Timestamp("2024-01-05"))])
    single = read_panel(df[df["shop"] == "b"], **{**NAMES, "id_column": None})
    np.testing.assert_array_equal(single, panel.loc["b"])
    assert single.index.name == "when"
    both = read_panel(df.assign(x=1.0), **{**NAMES, "target_columns": ["sold", "x"]})
    assert list(both.columns) == ["sold", "x"]


# --- errors -----------------------------------------------------------------------------------

FRAME = long("a", days(30)).assign(price=1.0)
PLAN = pd.DataFrame({"shop": "a", "when": days(5, "2024-01-31"), "price": 2.0})
JITTER = pd.to_timedelta(np.random.default_rng(0).integers(0, 3600, 30), "s")


@pytest.mark.parametrize(
    ("df", "options", "message"),
    [
        (
            FRAME.drop(columns="sold"),
            {},
            r"no column 'sold'.*\['shop', 'when', 'price'\].*name yours",
        ),
        (FRAME, {"past_covariates": ["visits"]}, "no column 'visits'"),
        (pd.concat([FRAME, FRAME[3:4]]), {}, r"row 3 \(id 'a', 2024-01-04.*and row 3; keep one"),
        (FRAME.assign(when=FRAME["when"].where(FRAME.index != 7)), {}, "no time in 1 rows.* row 7"),
        (FRAME.assign(shop=FRAME["shop"].where(FRAME.index != 7)), {}, "no id in 1 rows.* row 7"),
        (
            FRAME.assign(when=FRAME["when"].astype(str).where(FRAME.index != 7, "soon")),
            {},
            "'when' must hold times: row 7 holds 'soon'",
        ),
        (FRAME.assign(when=FRAME["sold"]), {}, "must hold times, periods or integers.*float64"),
        (
            FRAME.assign(sold=FRAME["sold"].astype(object).where(FRAME.index != 7, "n/a")),
            {},
            "'sold' must hold numbers: row 7 holds 'n/a'",
        ),
        (
            FRAME.assign(sold=FRAME["sold"].astype(str).where(FRAME.index != 7, "n/a")),
            {},
            "'sold' must hold numbers: row 7 holds 'n/a'; correct it",
        ),
        (FRAME.assign(sold="1.5"), {}, "row 0 holds '1.5'; convert the column to numbers"),
        (FRAME.assign(sold=FRAME["sold"].where(FRAME.index != 7, np.inf)), {}, "infinite in row 7"),
        (FRAME.assign(sold=np.nan), {}, "'sold' of id 'a' is missing in all"),
        (
            FRAME.assign(when=FRAME["when"] + JITTER),
            {},
            "times of id 'a' have no regular frequency",
        ),
        (FRAME.assign(when=FRAME["when"] + JITTER), {"freq": "D"}, r"row 1 \(id 'a'.*off the grid"),
        (FRAME, {"freq": "often"}, "alias of pandas.*got 'often'"),
        (FRAME, {"freq": {"b": "D"}}, r"freq lacks the ids \['a'\]"),
        (FRAME, {"freq": 3}, "alias of pandas"),
        (FRAME.assign(when=range(30)), {"freq": "D"}, "positive integer.*got 'D'"),
        (FRAME, {"target_columns": []}, "target_columns is empty"),
        (FRAME, {"target_columns": ["sold", "sold"]}, "two purposes"),
        (FRAME, {"horizon": 0}, "horizon must be an integer of at least 1"),
        (FRAME, {"quantile_levels": [0.5, 1]}, "strictly between 0 and 1"),
        (FRAME.rename(columns={"shop": "mean"}), {"id_column": "mean"}, "may not be called"),
        (FRAME.to_dict(), {}, "must be a DataFrame of pandas or polars"),
        (FRAME, {"future_df": PLAN[:3]}, "lacks 2 of 5 rows.*2024-02-03.*id 'a'"),
        (
            FRAME,
            {"future_df": PLAN.assign(shop="b")},
            "no id of df: its first is 'b', that of df 'a'",
        ),
        (
            FRAME.assign(shop=1),
            {"future_df": PLAN.assign(shop="1")},
            "its first is '1', that of df 1; give both",
        ),
        (FRAME, {"future_covariates": np.zeros((35, 1))}, "columns of df and future_df"),
        (FRAME, {"future_df": PLAN.assign(extra=1)}, r"the columns \['extra'\], df has not"),
        (FRAME, {"future_df": PLAN.assign(sold=1)}, "holds the target 'sold'"),
        (FRAME, {"future_df": PLAN, "past_covariates": "price"}, "known up to now, or ahead"),
        (
            FRAME,
            {"future_df": PLAN.assign(when=PLAN["when"].dt.tz_localize("UTC"))},
            "same type and time zone",
        ),
    ],
)
def test_errors_name_the_culprit_and_the_fix(
    pipeline: MoiraiMoEPipeline,
    df: Any,
    options: dict[str, Any],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def forecast(*_: Any, **__: Any) -> None:
        raise AssertionError("something was forecast before the error")

    monkeypatch.setattr(MoiraiMoEPipeline, "predict", forecast)
    with pytest.raises(InvalidInputError, match=message):
        predict(pipeline, df, **{"horizon": 5, **options})


# --- work -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("series", "length", "freq"), [(10, 1_000, "h"), (1_000, 10, "MS"), (100, 100, "B")]
)
def test_nothing_is_done_row_by_row_apart_from_the_model(
    pipeline: MoiraiMoEPipeline, series: int, length: int, freq: str, monkeypatch: Any
) -> None:
    def table(length: int) -> pd.DataFrame:
        rng = np.random.default_rng(0)
        df = pd.DataFrame(
            {
                "shop": np.repeat(np.arange(series), length).astype(str),
                "when": np.tile(days(length, freq=freq), series),
                "sold": rng.normal(size=series * length),
            }
        )
        return df.take(rng.permutation(len(df)))

    forecast = pipeline.predict([walk(20)] * series, 1, random_state=0)
    monkeypatch.setattr(MoiraiMoEPipeline, "predict", lambda *_, **__: forecast)
    short, long = table(length), table(2 * length)
    assert len(predict(pipeline, short, horizon=1)) == series
    count = calls(lambda: predict(pipeline, short, horizon=1))
    assert calls(lambda: predict(pipeline, long, horizon=1)) <= 1.1 * count
    # measured: 2,800 and 6 for each series; examples/benchmarks/frames.py measures seconds
    assert count < 5_000 + 12 * series
