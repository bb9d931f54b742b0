"""Panels, backtests, calibration and routing: what is drawn is what the numbers say."""

from __future__ import annotations

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from moirai_moe_forecaster.errors import InvalidInputError
from moirai_moe_forecaster.inference.forecast import Forecast
from moirai_moe_forecaster.inference.pipeline import MoiraiMoEPipeline
from moirai_moe_forecaster.plotting import (
    plot_coverage,
    plot_forecast,
    plot_load,
    plot_panel,
    plot_pit,
    plot_routing,
    plot_windows,
)
from moirai_moe_forecaster.reports.routing import RoutingReport
from tiny_network import tiny_network

mpl.use("Agg")

HORIZON = 12


def walk(length: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=length).cumsum()


@pytest.fixture(scope="module")
def pipeline() -> MoiraiMoEPipeline:
    return MoiraiMoEPipeline(tiny_network())


@pytest.fixture(scope="module")
def forecast(pipeline: MoiraiMoEPipeline) -> Forecast:
    return pipeline.predict([walk(60, seed) for seed in range(5)], HORIZON, random_state=0)


@pytest.fixture(scope="module")
def report(pipeline: MoiraiMoEPipeline) -> RoutingReport:
    report = pipeline.routing([walk(200, seed) for seed in range(3)])
    return report.with_labels(group=["one", "two", "two"])


@pytest.fixture
def ax() -> Axes:
    return Figure().subplots()


def lines(ax: Axes, label: str) -> list[np.ndarray]:
    return [line.get_ydata() for line in ax.lines if line.get_label() == label]


# --- forecasts --------------------------------------------------------------------------------


def test_samples_are_thin_lines_of_the_forecast(forecast: Forecast, ax: Axes) -> None:
    plot_forecast(forecast, ax=ax, series=2, samples=3)
    thin = [line.get_ydata() for line in ax.lines if line.get_linewidth() < 1]
    np.testing.assert_array_equal(thin, forecast[2].samples[:3])
    assert [text.get_text() for text in ax.get_legend().texts].count("samples") == 1


def test_a_panel_has_one_picture_per_series(forecast: Forecast) -> None:
    history = [walk(60, seed) for seed in range(5)]
    truth = [walk(HORIZON, seed) for seed in range(5, 10)]
    axes = plot_panel(forecast, history, truth=truth, names=list("abcde"))
    assert [ax.get_title(loc="left") for ax in axes] == list("abcde")
    for series, ax in enumerate(axes):
        np.testing.assert_array_equal(lines(ax, "history")[0], history[series])
        np.testing.assert_array_equal(lines(ax, "median")[0], forecast[series].median)
        np.testing.assert_array_equal(lines(ax, "truth")[0], truth[series])
    (legend,) = axes[0].figure.legends
    assert [text.get_text() for text in legend.texts][:2] == ["history", "80% interval"]
    assert not any(ax.get_legend() for ax in axes)
    assert [ax.get_visible() for ax in axes[0].figure.axes] == [True] * 5 + [False]


def test_a_panel_draws_chosen_series_on_given_axes(forecast: Forecast) -> None:
    given = list(Figure().subplots(1, 2))
    assert plot_panel(forecast, axes=given, series=[4, 1]) == given
    np.testing.assert_array_equal(lines(given[0], "median")[0], forecast[4].median)
    with pytest.raises(InvalidInputError, match="2 axes for 5 series"):
        plot_panel(forecast, axes=given)
    with pytest.raises(InvalidInputError, match="names has 1 entries; expected 5"):
        plot_panel(forecast, names=["a"])


# --- backtests --------------------------------------------------------------------------------


def test_windows_lie_where_they_were_forecast(pipeline: MoiraiMoEPipeline, ax: Axes) -> None:
    index = pd.date_range("2020-01-01", periods=96, freq="MS")
    y, cuts = pd.Series(walk(96), index=index), [60, 72, 84]
    forecast = pipeline.predict([y[:cut].to_numpy() for cut in cuts], HORIZON, random_state=0)
    assert plot_windows(forecast, y, cuts, ax=ax) is ax
    medians = [line for line in ax.lines if line.get_linewidth() == 1.8]
    for number, (line, cut) in enumerate(zip(medians, cuts, strict=True)):
        np.testing.assert_array_equal(line.get_ydata(), forecast[number].median)
        np.testing.assert_array_equal(line.get_xdata(), index[cut : cut + HORIZON].to_numpy())
    lower, upper = forecast[1].interval(0.8)
    band = ax.collections[1].get_paths()[0].vertices[:, 1]
    assert {band.min(), band.max()} == {lower.min(), upper.max()}
    np.testing.assert_array_equal(lines(ax, "truth")[0], y)


def test_windows_of_one_variate_and_the_time_before(pipeline: MoiraiMoEPipeline, ax: Axes) -> None:
    y, cuts = np.stack([walk(300), walk(300, seed=1)], 1), [276, 288]
    forecast = pipeline.predict([y[:cut] for cut in cuts], HORIZON, random_state=0)
    plot_windows(forecast, y, cuts, ax=ax, variate=1, max_history=20)
    np.testing.assert_array_equal(lines(ax, "truth")[0], y[256:, 1])
    np.testing.assert_array_equal(lines(ax, "median")[0], forecast.median[0, :, 1])
    lower, upper = forecast[0].interval(0.8)
    band = ax.collections[0].get_paths()[0].vertices[:, 1]
    assert {band.min(), band.max()} == {lower[:, 1].min(), upper[:, 1].max()}
    assert [line.get_xdata()[0] for line in ax.lines if line.get_linestyle() == ":"] == [275, 287]
    labels = [text.get_text() for text in ax.get_legend().texts]
    assert labels == ["80% interval", "median", "truth"]
    other = plot_windows(forecast, y, cuts, ax=Figure().subplots())
    np.testing.assert_array_equal(lines(other, "truth")[0], y[176:, 0])


def test_windows_must_fit_the_series(forecast: Forecast, ax: Axes) -> None:
    with pytest.raises(InvalidInputError, match="5 forecasts for 2 cuts"):
        plot_windows(forecast, walk(60), [10, 20], ax=ax)
    with pytest.raises(InvalidInputError, match="cut 61 is not within the 60 points"):
        plot_windows(forecast, walk(60), [10, 20, 30, 40, 61], ax=ax)


# --- calibration ------------------------------------------------------------------------------


def test_coverage_counts_values_inside(forecast: Forecast, ax: Axes) -> None:
    truth = np.stack([walk(HORIZON, seed) for seed in range(10, 15)])
    truth[0, :3] = np.nan
    assert plot_coverage(forecast, truth, ax=ax, coverages=[0.2, 0.9], label="ours") is ax
    known = ~np.isnan(truth)
    expected = []
    for coverage in (0.2, 0.9):
        lower, upper = forecast.interval(coverage)
        expected.append(((lower <= truth) & (truth <= upper))[known].mean())
    np.testing.assert_allclose(lines(ax, "ours")[0], expected)
    plot_coverage(forecast, truth, ax=ax, label="again")
    assert len(ax.lines) == 3  # one diagonal for both


def test_medians_lie_in_the_middle_of_the_histogram(forecast: Forecast, ax: Axes) -> None:
    truth = forecast.quantile([0.05, 0.95]).swapaxes(0, 1)[0]
    assert plot_pit(forecast, truth, ax=ax, bins=5) is ax
    np.testing.assert_allclose([bar.get_height() for bar in ax.patches], [5, 0, 0, 0, 0])
    np.testing.assert_allclose([bar.get_x() for bar in ax.patches], [0, 0.2, 0.4, 0.6, 0.8])


@pytest.mark.parametrize("plot", [plot_coverage, plot_pit])
def test_truth_must_fit_and_be_known(plot: object, forecast: Forecast, ax: Axes) -> None:
    with pytest.raises(InvalidInputError, match=r"shape \(12,\); expected \(5, 12\)"):
        plot(forecast, walk(12), ax=ax)
    with pytest.raises(InvalidInputError, match="only missing"):
        plot(forecast, np.full((5, 12), np.nan), ax=ax)


# --- routing ----------------------------------------------------------------------------------


def test_a_heat_map_shows_the_shares(report: RoutingReport, ax: Axes) -> None:
    assert plot_load(report, 1, "group", ax=ax) is ax
    table = report.load("group")
    shares = table.loc[table["layer"] == 1, "share"].to_numpy().reshape(2, 4)
    np.testing.assert_allclose(ax.images[0].get_array(), shares)
    assert [label.get_text() for label in ax.get_yticklabels()] == ["one", "two"]
    written = [int(text.get_text()) for text in ax.texts]
    np.testing.assert_allclose(written, 100 * shares.ravel(), atol=0.5)


def test_layers_share_their_colours(report: RoutingReport) -> None:
    axes = report.plot("group")
    assert len(axes) == 2  # both layers: the first is also the one in the middle
    limits = {ax.images[0].get_clim() for ax in axes}
    assert limits == {(0, report.load("group")["share"].max())}
    given = list(Figure().subplots(1, 1, squeeze=False).ravel())
    assert plot_routing(report, layers=[1], axes=given) == given


def test_the_first_the_middle_and_the_last_layer_are_drawn(report: RoutingReport) -> None:
    deep = RoutingReport(
        report.tokens, report.experts.repeat(3, 0), report.weights.repeat(3, 0), report.num_experts
    )
    titles = [ax.get_title(loc="left")[:12] for ax in plot_routing(deep)]
    assert titles == ["layer 1 of 6", "layer 3 of 6", "layer 6 of 6"]


def test_layers_must_exist(report: RoutingReport) -> None:
    with pytest.raises(InvalidInputError, match="layer must be from 0 to 1, got 2"):
        plot_load(report, 2)
    with pytest.raises(InvalidInputError, match="0 axes for 2 layers"):
        plot_routing(report, axes=[])
