"""Pictures show the numbers of the forecast, at the right place."""

import sys
from itertools import pairwise

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib import pyplot
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.dates import date2num
from matplotlib.figure import Figure

from moirai_moe_forecaster.config import ModelConfig
from moirai_moe_forecaster.errors import InvalidInputError, MissingExtraError
from moirai_moe_forecaster.inference.forecast import Forecast
from moirai_moe_forecaster.inference.pipeline import MoiraiMoEPipeline
from moirai_moe_forecaster.model.network import MoiraiMoE
from moirai_moe_forecaster.plotting import plot_forecast

mpl.use("Agg")

HORIZON = 12


@pytest.fixture(scope="module")
def pipeline() -> MoiraiMoEPipeline:
    torch.manual_seed(0)
    config = ModelConfig(
        d_model=16, d_ff=16, num_layers=1, num_heads=2, num_experts=2, experts_per_token=1
    )
    return MoiraiMoEPipeline(MoiraiMoE(config))


@pytest.fixture
def ax() -> Axes:
    return Figure().subplots()


def walk(length: int, variates: int = 1, seed: int = 0) -> np.ndarray:
    steps = np.random.default_rng(seed).normal(size=(length, variates)).cumsum(0)
    return steps[:, 0] if variates == 1 else steps


def predict(pipeline: MoiraiMoEPipeline, y: object) -> Forecast:
    return pipeline.predict(y, HORIZON, random_state=0)


def line(ax: Axes, label: str) -> tuple[np.ndarray, np.ndarray]:
    (found,) = [line for line in ax.lines if line.get_label() == label]
    return found.get_xdata(orig=False), found.get_ydata()


def band(ax: Axes, label: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Positions, lower and upper edge of a drawn interval."""
    (found,) = [area for area in ax.collections if area.get_label() == label]
    x, y = found.get_paths()[0].vertices.T
    positions = np.unique(x)
    edges = [(y[x == at].min(), y[x == at].max()) for at in positions]
    lower, upper = np.array(edges).T
    return positions, lower, upper


def test_the_drawn_numbers_are_those_of_the_forecast(pipeline: MoiraiMoEPipeline, ax: Axes) -> None:
    y, truth = walk(50), walk(HORIZON, seed=1)
    forecast = predict(pipeline, y)
    assert plot_forecast(forecast, y, ax=ax, truth=truth, coverages=(0.5, 0.9, 0.975)) is ax
    ahead = np.arange(50, 50 + HORIZON)
    np.testing.assert_array_equal(line(ax, "history"), (np.arange(50), y))
    np.testing.assert_array_equal(line(ax, "truth"), (ahead, truth))
    np.testing.assert_array_equal(line(ax, "median"), (ahead, forecast.median))
    for coverage, label in ((0.5, "50%"), (0.9, "90%"), (0.975, "97.5%")):
        drawn = band(ax, f"{label} interval")
        np.testing.assert_allclose(drawn, (ahead, *forecast.interval(coverage)), rtol=1e-12)


def test_narrower_intervals_are_drawn_later_and_darker(
    pipeline: MoiraiMoEPipeline, ax: Axes
) -> None:
    plot_forecast(predict(pipeline, walk(50)), ax=ax, coverages=(0.5, 0.95, 0.8))
    assert [area.get_label() for area in ax.collections] == [
        "95% interval",
        "80% interval",
        "50% interval",
    ]
    colours = [area.get_facecolor()[0] for area in ax.collections]
    assert all(colour[3] == 1 for colour in colours)
    assert all(sum(inner[:3]) < sum(outer[:3]) for outer, inner in pairwise(colours))


def test_lines_differ_in_lightness_or_dashes(pipeline: MoiraiMoEPipeline, ax: Axes) -> None:
    y = walk(50)
    plot_forecast(predict(pipeline, y), y, ax=ax, truth=y[:3])
    looks = {
        (drawn.get_linestyle(), round(float(np.dot(to_rgb(drawn.get_color()), (0.3, 0.6, 0.1))), 1))
        for drawn in ax.lines
    }
    assert len(looks) == 3


def test_a_value_between_missing_ones_is_a_dot(pipeline: MoiraiMoEPipeline, ax: Axes) -> None:
    y = walk(50)
    y[1:6:2] = np.nan
    long = pipeline.predict(y, 70, random_state=0)
    truth = np.where(np.arange(70) == 3, 1.0, np.nan)
    plot_forecast(long, y, ax=ax, truth=truth)
    for name, lonely in (("history", [0, 2, 4]), ("truth", [3])):
        (drawn,) = [drawn for drawn in ax.lines if drawn.get_label() == name]
        assert drawn.get_marker() not in ("None", None)
        assert list(np.flatnonzero(drawn.get_markevery())) == lonely


def test_forecast_plot_passes_everything_on(pipeline: MoiraiMoEPipeline, ax: Axes) -> None:
    y = walk(50)
    forecast = predict(pipeline, y)
    assert forecast.plot(y, ax=ax, title="Walk", legend=False) is ax
    np.testing.assert_array_equal(line(ax, "history")[1], y)
    assert ax.get_title(loc="left") == "Walk"
    assert ax.get_legend() is None


def test_without_history_steps_are_counted_from_zero(pipeline: MoiraiMoEPipeline, ax: Axes) -> None:
    plot_forecast(predict(pipeline, walk(50)), ax=ax)
    np.testing.assert_array_equal(line(ax, "median")[0], np.arange(HORIZON))
    assert [drawn.get_label() for drawn in ax.lines] == ["median"]


@pytest.mark.parametrize("kind", ["list", "long frame"])
def test_series_and_variate_of_a_batch_are_chosen(
    pipeline: MoiraiMoEPipeline, ax: Axes, kind: str
) -> None:
    data = [walk(40, 2), walk(30, 2, seed=1)]
    tables = {name: pd.DataFrame(part) for name, part in zip("ba", data, strict=True)}
    history = data if kind == "list" else pd.concat(tables)
    truth = [part[:3] for part in data]
    forecast = predict(pipeline, history)
    plot_forecast(forecast, history, ax=ax, truth=truth, series=1, variate=1)
    np.testing.assert_array_equal(line(ax, "history"), (np.arange(30), data[1][:, 1]))
    np.testing.assert_array_equal(line(ax, "truth")[1], data[1][:3, 1])
    np.testing.assert_array_equal(line(ax, "median")[1], forecast.median[1, :, 1])


def test_variate_of_one_series_is_chosen(pipeline: MoiraiMoEPipeline, ax: Axes) -> None:
    y = walk(40, 2)
    forecast = predict(pipeline, y)
    plot_forecast(forecast, y, ax=ax, variate=1)
    np.testing.assert_array_equal(line(ax, "history")[1], y[:, 1])
    np.testing.assert_array_equal(line(ax, "median")[1], forecast.median[:, 1])


@pytest.mark.parametrize(
    ("index", "expected"),
    [
        (pd.period_range("2000-01", periods=50, freq="M"), "2004-03-01"),
        (pd.date_range("2000-01-01", periods=50, freq="MS"), "2004-03-01"),
        (pd.DatetimeIndex(list(pd.date_range("2000-01-01", periods=50, freq="MS"))), "2004-03-01"),
        (pd.date_range("2000-01-01", periods=50, freq="h", tz="UTC"), "2000-01-03T02"),
    ],
)
def test_times_go_on_at_their_frequency(
    pipeline: MoiraiMoEPipeline, ax: Axes, index: pd.Index, expected: str
) -> None:
    y = pd.Series(walk(50), index=index)
    plot_forecast(predict(pipeline, y), y, ax=ax)
    x = line(ax, "median")[0]
    assert len(x) == HORIZON
    assert x[0] == date2num(np.datetime64(expected))


def test_numbered_history_goes_on_at_its_step(pipeline: MoiraiMoEPipeline, ax: Axes) -> None:
    y = pd.Series(walk(50), index=np.arange(100, 200, 2))
    plot_forecast(predict(pipeline, y), y, ax=ax)
    np.testing.assert_array_equal(line(ax, "history")[0], np.arange(100, 200, 2))
    np.testing.assert_array_equal(line(ax, "median")[0], np.arange(200, 224, 2))


def test_index_gives_the_times_of_history_and_horizon(
    pipeline: MoiraiMoEPipeline, ax: Axes
) -> None:
    y = walk(50)
    times = pd.date_range("2000-01-01", periods=50 + HORIZON, freq="D")
    plot_forecast(predict(pipeline, y), y, ax=ax, index=times)
    assert line(ax, "history")[0][0] == date2num(times[0])
    assert line(ax, "median")[0][-1] == date2num(times[-1])


def test_irregular_times_need_an_index(pipeline: MoiraiMoEPipeline, ax: Axes) -> None:
    days = pd.to_datetime(["2000-01-01", "2000-01-02", "2000-01-05", "2000-01-11"])
    y = pd.Series(walk(4), index=days)
    with pytest.raises(InvalidInputError, match=r"no regular frequency.*`index`"):
        plot_forecast(predict(pipeline, y), y, ax=ax)


def test_a_long_history_is_cut_so_that_the_forecast_can_be_seen(
    pipeline: MoiraiMoEPipeline, ax: Axes
) -> None:
    y = walk(1000)
    forecast = predict(pipeline, y)
    plot_forecast(forecast, y, ax=ax)
    np.testing.assert_array_equal(line(ax, "history"), (np.arange(900, 1000), y[900:]))
    other = plot_forecast(forecast, y, ax=Figure().subplots(), max_history=5)
    np.testing.assert_array_equal(line(other, "history"), (np.arange(995, 1000), y[995:]))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"truth": np.zeros(HORIZON + 1)}, "truth has 13 points, the horizon 12"),
        ({"series": 1}, "series must be from 0 to 0, got 1"),
        ({"variate": 1}, "variate must be from 0 to 0, got 1"),
        ({"index": np.arange(7)}, "index has 7 entries; expected 50 .* and 12"),
        ({"history": np.zeros((2, 50, 1))}, "history has 3 dimensions"),
        ({"coverages": (1.0,)}, "strictly between 0 and 1"),
    ],
)
def test_what_does_not_fit_is_refused(
    pipeline: MoiraiMoEPipeline, ax: Axes, options: dict[str, object], message: str
) -> None:
    y = walk(50)
    with pytest.raises(InvalidInputError, match=message):
        plot_forecast(predict(pipeline, y), **{"history": y, "ax": ax, **options})


def test_pyplot_is_touched_only_to_make_a_figure(pipeline: MoiraiMoEPipeline, ax: Axes) -> None:
    pyplot.close("all")
    forecast, settings = predict(pipeline, walk(50)), dict(mpl.rcParams)
    plot_forecast(forecast, ax=ax)
    assert pyplot.get_fignums() == []
    made = plot_forecast(forecast)
    assert pyplot.gcf() is made.figure
    assert dict(mpl.rcParams) == settings
    pyplot.close("all")


def test_missing_matplotlib_names_the_command(
    pipeline: MoiraiMoEPipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    forecast = predict(pipeline, walk(50))
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'moirai-moe-forecaster\[plot\]'"):
        plot_forecast(forecast)
