"""The page of a backtest loads nothing, and a browser without a network shows all of it."""

from __future__ import annotations

import html
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from moirai_moe_forecaster import backtest, cli
from moirai_moe_forecaster.evaluation import Backtest, Variant
from moirai_moe_forecaster.inference.pipeline import MoiraiMoEPipeline
from moirai_moe_forecaster.reports import html as pages
from tiny_network import tiny_network

pytest.importorskip("plotly", reason="plotly, of the extra report, is not installed")

BROWSER = next(
    (path for name in ("chromium", "chromium-headless-shell") if (path := shutil.which(name))), None
)


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report on two series of two variates, one with a name that is markup."""
    folder = tmp_path_factory.mktemp("report")
    MoiraiMoEPipeline(tiny_network()).save_pretrained(folder / "model")
    rng = np.random.default_rng(0)
    parts = [
        pd.DataFrame(
            {
                "item_id": name,
                "timestamp": pd.date_range("2020-01-01", periods=60, tz="Europe/Berlin"),
                "in": rng.normal(size=60).cumsum(),
                "out": rng.normal(size=60).cumsum(),
                "price": rng.normal(size=60),
            }
        )
        for name in ("north", "<b>south</b></script><script>document.title='gone'</script>")
    ]
    data, file = folder / "<data>.csv", folder / "report.html"
    pd.concat(parts).to_csv(data, index=False)
    command = ["backtest", str(data), "--horizon", "6", "--windows", "2", "--quiet", "--no-peers"]
    command += ["--target", "in", "out", "--covariates", "price"]
    assert cli.main([*command, "--model", str(folder / "model"), "--html", str(file)]) == 0
    return file


def without_scripts(text: str) -> str:
    return re.sub(r"<script.*?</script>", "", text, flags=re.DOTALL)


def test_the_page_loads_nothing(page: Path) -> None:
    text = page.read_text()
    assert not re.search(r"<(script|img|iframe)[^>]*\bsrc=|<link\b", without_scripts(text))
    assert not re.search(r"<script[^>]*\bsrc=", text)
    assert text.count("</html>") == 1


def test_the_page_holds_scores_and_no_foreign_markup(page: Path) -> None:
    text = without_scripts(page.read_text())
    for part in ("Backtest of &lt;data&gt;.csv", "Moirai-MoE", "seasonal naive", "MASE", "WQL"):
        assert part in text
    assert "2 series, 4 windows, 6 steps ahead" in text
    assert "<b>" not in text
    assert "<script>document" not in page.read_text()


def test_the_page_says_what_repeats_in_each_series() -> None:
    """By name and variate, as the last window's forecast says; a panel needs no variate."""
    rng = np.random.default_rng(0)
    cycle = np.tile(rng.normal(size=12), 15) + 0.1 * rng.normal(size=180)
    walk = rng.normal(size=180).cumsum()
    days = pd.date_range("2020-01-01", periods=180)
    y = pd.concat({"<i>shop": pd.DataFrame({"in": cycle, "out": walk}, days)})
    pipeline = MoiraiMoEPipeline(tiny_network(find_seasons=True))
    seasons = pipeline.predict(y.iloc[:-6].to_numpy(), 6, random_state=0).seasons
    result = backtest(pipeline, y, horizon=6, windows=2)
    table = cycles_of(pages.backtest_page(pipeline, y, result, result, "data"))
    kinds = list(seasons.columns[2:])
    assert list(table.columns) == ["series", "variate", *kinds]
    assert set(table["series"]) == {"<i>shop"}
    assert list(table["variate"]) == [["in", "out"][variate] for variate in seasons["variate"]]
    assert 12 in list(table["period"].astype(float))
    expected = seasons[kinds].astype(float)
    np.testing.assert_allclose(table[kinds].astype(float), expected, atol=0.0051)

    options = Variant(pipeline, {"season_length": None})
    table = cycles_of(pages.backtest_page(options, y["in"], result, result, "data"))
    assert list(table.columns) == ["series", *kinds]
    assert table["period"].isna().all()


def test_no_window_is_forecast_twice(figures: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    y = [np.random.default_rng(seed).normal(size=60 + seed).cumsum() for seed in range(3)]
    pipeline = MoiraiMoEPipeline(tiny_network())
    backtest = Backtest.of(y, horizon=6, windows=2, step=3)
    forecast = backtest.forecast(pipeline)
    result = backtest.score_forecast(forecast)
    pages.backtest_page(pipeline, y, result, result, "data")
    monkeypatch.setattr(MoiraiMoEPipeline, "predict", None)
    pages.backtest_page(pipeline, y, result, result, "data", forecast=forecast)
    again, known = figures[:3], figures[3:]
    for one, other in zip(again, known, strict=True):
        assert one.to_json() == other.to_json()


def test_series_that_were_skipped_are_left_out(figures: list[Any]) -> None:
    rng = np.random.default_rng(0)
    y = [rng.normal(size=length).cumsum() for length in (60, 5, 70)]
    X = [rng.normal(size=(len(part), 1)) for part in y]
    y[0][3] = np.inf
    pipeline = MoiraiMoEPipeline(tiny_network())
    run = Backtest.of(y, horizon=6, windows=2, X=X, on_error="skip")
    forecast = run.forecast(pipeline)
    result = run.score_forecast(forecast)
    assert "1 series, 2 windows" in pages.backtest_page(
        pipeline, y, result, result, "data", X=X, forecast=forecast
    )
    assert [button.label for button in figures[0].layout.updatemenus[0].buttons] == ["2"]
    np.testing.assert_array_equal(figures[0].data[-1].y, y[2])


def cycles_of(page: str) -> pd.DataFrame:
    """Table of the page's section on cycles."""
    section = page.split("<h2>Cycles</h2>")[1].split("<h2>")[0]
    rows = [re.findall(r"<t[hd]>(.*?)</t[hd]>", row) for row in section.split("<tr")[1:]]
    cells = [[html.unescape(cell) for cell in row] for row in rows]
    table = pd.DataFrame(cells[1:], columns=cells[0])
    return table.assign(period=table["period"].replace("none", np.nan))


@pytest.fixture
def figures(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What `backtest_page` draws, in this order: forecasts, calibration, routing."""
    from plotly.graph_objects import Figure

    drawn: list[Any] = []
    write = Figure.to_html

    def to_html(figure: Any, **options: Any) -> str:
        drawn.append(figure)
        return write(figure, **options)

    monkeypatch.setattr(Figure, "to_html", to_html)
    return drawn


def test_the_pictures_show_the_numbers(
    figures: list[Any], monkeypatch: pytest.MonkeyPatch, long_names: tuple[str, str]
) -> None:
    monkeypatch.setattr(pages, "MOST_SERIES", 2)
    rng = np.random.default_rng(0)
    keys = [*long_names, "left out"]
    index = pd.MultiIndex.from_product([keys, pd.date_range("2020-01-01", periods=60)])
    y = pd.DataFrame(rng.normal(size=(180, 2)).cumsum(0), index, columns=["in", "out"])
    X = pd.DataFrame({"price": rng.normal(size=180)}, index)
    y.iloc[[1, 3, 58], 1] = np.nan
    pipeline = MoiraiMoEPipeline(tiny_network())
    result = backtest(pipeline, y, horizon=6, windows=2, X=X)
    page = pages.backtest_page(pipeline, y, result, result, "data", X=X)
    assert "3 series, 6 windows, 6 steps ahead" in page
    assert "Pictures show the first 2 series." in page
    fans, calibration, loads = figures

    # forecasts: the menu's second entry shows the second variate of the first series, no other
    first = y.loc[keys[0]]
    labels = [button.label for button in fans.layout.updatemenus[0].buttons]
    short = ["&lt;" + 15 * "x" + "…" + 15 * "x" + end for end in "12"]
    assert labels == [f"{name}, {variate}" for name in short for variate in ("in", "out")]
    (shown,) = fans.layout.updatemenus[0].buttons[1].args[1:]
    traces = [trace for trace, own in zip(fans.data, shown, strict=True) if own]
    assert len(traces) == len(fans.data) / 4
    *windows, truth = traces
    np.testing.assert_array_equal(truth.y, first["out"])
    assert list(np.flatnonzero(truth.marker.size)) == [0, 2, 59]
    forecasts = []
    for cut, (wide, narrow, median) in zip((48, 54), (windows[:3], windows[3:]), strict=True):
        known = X.loc[keys[0]].iloc[: cut + 6]
        forecast = pipeline.predict(first[:cut], 6, future_covariates=known, random_state=0)
        forecasts.append(forecast)
        assert list(median.x) == list(first.index[cut : cut + 6])
        np.testing.assert_allclose(median.y, forecast.median[:, 1], rtol=1e-4)
        for band, coverage in ((wide, 0.8), (narrow, 0.5)):
            lower, upper = (edge[:, 1] for edge in forecast.interval(coverage))
            np.testing.assert_allclose(band.y, [*upper, *lower[::-1]], rtol=1e-4)

    # calibration, of both series
    levels = []
    for key in keys[:2]:
        for cut in (48, 54):
            own, known = y.loc[key], X.loc[key].iloc[: cut + 6]
            forecast = pipeline.predict(own[:cut], 6, future_covariates=known, random_state=0)
            levels.append(forecast.cdf(own[cut : cut + 6].to_numpy()))
    levels = np.ravel(levels)
    levels = levels[~np.isnan(levels)]
    assert len(levels) == 47
    _, inside, density = calibration.data
    expected = [(abs(levels - 0.5) <= share / 2).mean() for share in inside.x]
    np.testing.assert_allclose(inside.y, expected)
    assert sum(density.y) == pytest.approx(10)

    # routing, by layer
    table = pipeline.routing([y.loc[key] for key in keys[:2]]).load("series")
    for layer, heat in enumerate(loads.data):
        share = table.loc[table["layer"] == layer, "share"].to_numpy().reshape(2, -1)
        np.testing.assert_allclose(heat.z, share)
    assert list(loads.layout.yaxis.ticktext) == short
    assert len({*loads.data[0].y}) == 2


@pytest.fixture
def long_names() -> tuple[str, str]:
    """Names that differ only where they are cut off."""
    return "<" + 50 * "x" + "1", "<" + 50 * "x" + "2"


@pytest.mark.skipif(BROWSER is None, reason="no chromium to open the page in")
def test_a_browser_without_a_network_draws_all_pictures(page: Path, tmp_path: Path) -> None:
    # a proxy that refuses everything stands for the network
    options = ["--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path}"]
    options += ["--proxy-server=127.0.0.1:9", "--virtual-time-budget=10000", "--dump-dom"]
    done = subprocess.run(
        [BROWSER, *options, page.as_uri()], capture_output=True, text=True, timeout=120, check=True
    )
    drawn = without_scripts(done.stdout)
    assert drawn.count('class="plotly-graph-div') == drawn.count("js-plotly-plot") == 3
    assert "<title>Backtest of" in drawn
    for part in ("80% interval", "median", "Coverage of intervals", "layer 2", "north, in"):
        assert part in drawn, f"{part!r} was not drawn"
