"""The forecast of a table is that of its plain arrays, whatever its order, types and names."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest

from moirai_moe_forecaster.inference.pipeline import MoiraiMoEPipeline
from tiny_network import tiny_network

hypothesis = pytest.importorskip("hypothesis", reason="hypothesis, of the extra test, is missing")
st = hypothesis.strategies

HORIZON = 3
FREQS = ("h", "15min", "D", "B", "W-MON", "MS", "ME", "QS", "YE", "SMS")
ZONES = (None, "UTC", "Europe/Berlin", "America/New_York", "Asia/Kathmandu")
IDS: dict[str, Callable[[list[str]], Any]] = {
    "object": lambda names: pd.array(names, dtype=object),
    "str": lambda names: pd.array(names, dtype="str"),
    "category": pd.Categorical,
    "arrow": lambda names: pd.array(names, dtype="string[pyarrow]"),
    "numbers": lambda names: [len(name) * 1000 + sum(map(ord, name)) for name in names],
}
# what a column of times may look like, from its datetimes; text without a zone has none
TIMES: dict[str, Callable[[pd.DatetimeIndex], Any]] = {
    "datetimes": lambda t: t,
    "nanoseconds": lambda t: t.as_unit("ns"),
    "text": lambda t: [time.isoformat() for time in t],
    "text, day first": lambda t: t.strftime("%d.%m.%Y %H:%M"),
    "objects": lambda t: np.array(t.to_pydatetime(), dtype=object),
}


@pytest.fixture(scope="module")
def pipeline() -> MoiraiMoEPipeline:
    return MoiraiMoEPipeline(tiny_network())


@st.composite
def tables(draw: Any) -> dict[str, Any]:
    """Series by name, their times, and how the table of them is written."""
    names = draw(
        st.lists(st.text("abcäß 7-", min_size=1, max_size=4), min_size=1, max_size=4, unique=True)
    )
    kind = draw(st.sampled_from(sorted(TIMES)))
    zone = None if "first" in kind else draw(st.sampled_from(ZONES))
    series = {}
    for name in names:
        length = draw(st.integers(12, 40))
        start = draw(
            st.sampled_from(["2023-01-02", "2024-02-27 06:00", "1999-12-31", "2024-10-25"])
        )
        freq = draw(st.sampled_from(FREQS))
        times = pd.date_range(start, periods=length + HORIZON, freq=freq, tz=zone)
        values = np.random.default_rng(draw(st.integers(0, 99))).normal(size=length).cumsum()
        # neither the first nor the last step, which say where a series begins and ends
        gaps = draw(st.sets(st.integers(3, length - 3), max_size=1))
        values[list(gaps)] = np.nan
        series[name] = (times, values)
    return {
        "series": series,
        "kind": kind,
        "ids": draw(st.sampled_from(sorted(IDS))),
        "order": draw(st.integers(0, 10**6)),
        "drop": draw(st.booleans()),
        "columns": draw(
            st.lists(st.text("xyzé ", min_size=1, max_size=5), min_size=3, max_size=3, unique=True)
        ),
        "float32": draw(st.booleans()),
    }


@hypothesis.settings(max_examples=25, deadline=None, derandomize=True)
@hypothesis.given(tables())
def test_a_table_is_forecast_as_its_arrays_are(
    pipeline: MoiraiMoEPipeline, given: dict[str, Any]
) -> None:
    series = given["series"]
    identifier, when, value = given["columns"]
    parts = [
        pd.DataFrame({identifier: name, when: times[: len(values)], value: values})
        for name, (times, values) in series.items()
    ]
    table = pd.concat(parts, ignore_index=True)
    if given["drop"]:  # a step without a row is as one without a value
        table = table[table[value].notna()]
    table = table.sample(frac=1, random_state=given["order"])
    order = list(dict.fromkeys(table[identifier]))
    write = IDS[given["ids"]]
    table[identifier] = pd.Series(write(list(table[identifier])), index=table.index)
    written = TIMES[given["kind"]](pd.DatetimeIndex(table[when]))
    table[when] = pd.Series(written, index=table.index)
    if given["float32"]:
        table[value] = table[value].astype(np.float32)
    # pandas infers no frequency for some of these with a gap: say what it is
    freq = {
        key: series[name][0].freqstr
        for name, key in zip(order, pd.unique(table[identifier]), strict=True)
    }
    result = pipeline.predict_df(
        table,
        HORIZON,
        id_column=identifier,
        timestamp_column=when,
        target_columns=value,
        freq=freq,
        random_state=0,
        quantile_levels=[0.1, 0.9],
    )
    arrays = [series[name][1] for name in order]
    if given["float32"]:
        arrays = [array.astype(np.float32) for array in arrays]
    forecast = pipeline.predict(arrays, HORIZON, random_state=0)
    np.testing.assert_allclose(result["median"], forecast.median.ravel(), rtol=1e-6)
    np.testing.assert_allclose(result["0.9"], forecast.quantile(0.9).ravel(), rtol=1e-6)
    ahead = [time for name in order for time in series[name][0][-HORIZON:]]
    assert [str(time) for time in result[when]] == [str(time) for time in ahead]
    assert list(result[identifier]) == [key for key in freq for _ in range(HORIZON)]
    assert pd.Series(result[identifier]).dtype == table[identifier].dtype
