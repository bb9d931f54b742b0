"""The picture of cycles shows what the forecast found, and what it made of it."""

from __future__ import annotations

from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot
from matplotlib.axes import Axes
from matplotlib.dates import date2num
from matplotlib.figure import Figure

from moirai_moe_forecaster.errors import InvalidInputError
from moirai_moe_forecaster.inference import engine
from moirai_moe_forecaster.inference.forecast import Forecast
from moirai_moe_forecaster.inference.pipeline import MoiraiMoEPipeline
from moirai_moe_forecaster.inference.seasonality.cycles import find_cycles
from moirai_moe_forecaster.inference.seasonality.periods import Period
from moirai_moe_forecaster.inference.seasons import PLAIN, VIEW_KINDS
from moirai_moe_forecaster.inference.views import CLEAR
from moirai_moe_forecaster.plotting import plot_seasons
from tiny_network import tiny_network

mpl.use("Agg")

HORIZON, LENGTH, POINTS = 20, 12, 400


def cyclic(seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    cycle = np.tile(rng.normal(size=LENGTH), POINTS // LENGTH + 1)[:POINTS]
    return 5 + cycle + 0.3 * rng.normal(size=POINTS)


@pytest.fixture(scope="module")
def pipeline() -> MoiraiMoEPipeline:
    return MoiraiMoEPipeline(tiny_network(find_seasons=True))


@pytest.fixture
def axes() -> list[Axes]:
    return list(Figure().subplots(3))


def predict(pipeline: MoiraiMoEPipeline, y: Any, **options: Any) -> Forecast:
    return pipeline.predict(y, HORIZON, random_state=0, **options)


@pytest.fixture
def evenly_weighed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tiny network's own weights are all or nothing."""
    weigh(monkeypatch, 0.25)


def weigh(monkeypatch: pytest.MonkeyPatch, plain: float) -> None:
    """Let the plain view count so much, and the others alike."""
    find = engine.detect_seasons

    def found(*arguments: Any, **options: Any) -> Any:
        weights = np.full(len(VIEW_KINDS), (1 - plain) / (len(VIEW_KINDS) - 1))
        weights[VIEW_KINDS.index(PLAIN)] = plain
        return [
            seasons._replace(weights=np.tile(weights[:, None], len(seasons.periods)))
            if any(seasons.periods)
            else seasons
            for seasons in find(*arguments, **options)
        ]

    monkeypatch.setattr(engine, "detect_seasons", found)


def lines(ax: Axes) -> dict[str, np.ndarray]:
    return {str(line.get_label()): line.get_ydata() for line in ax.lines}


@pytest.mark.usefixtures("evenly_weighed")
def test_the_cycles_are_those_that_were_carried_on(
    pipeline: MoiraiMoEPipeline, axes: list[Axes]
) -> None:
    y, truth = cyclic(), cyclic(1)[:HORIZON]
    forecast = predict(pipeline, y, season_length=[LENGTH, 3 * LENGTH])
    assert plot_seasons(forecast, y, truth=truth, axes=axes) == axes
    top, middle, bottom = axes
    cycles = find_cycles(y, [LENGTH, 3 * LENGTH], 3 * LENGTH)
    copied = cycles.level + cycles.all
    ahead, shown = slice(POINTS, POINTS + HORIZON), slice(POINTS - 6 * LENGTH, POINTS)
    np.testing.assert_allclose(lines(top)["cycles on the last level"], copied[ahead])
    np.testing.assert_array_equal(lines(top)["history"], y[shown])
    np.testing.assert_array_equal(lines(top)["truth"], truth)
    assert top.get_title(loc="left") == "Forecast: 25% plain, 75% with cycles"

    assert middle.get_title(loc="left") == "Copied: cycles of 12 and 36 steps"
    *past, coming = (line.get_ydata() for line in middle.lines)
    np.testing.assert_allclose(coming, copied[POINTS:])
    np.testing.assert_array_equal(past, y[-4 * 36 :].reshape(4, 36))

    rest = lines(bottom)
    np.testing.assert_allclose(rest["history"], (y - copied[:POINTS])[shown])
    np.testing.assert_allclose(rest["median"], forecast.median - copied[ahead])
    np.testing.assert_allclose(rest["truth"], truth - copied[ahead])
    lower, upper = (edge - copied[ahead] for edge in forecast.interval(0.8))
    band = bottom.collections[0].get_paths()[0].vertices[:, 1]
    assert {band.min(), band.max()} == {lower.min(), upper.max()}


def test_the_forecast_with_cycles_alone_follows_from_the_others(
    pipeline: MoiraiMoEPipeline, axes: list[Axes], monkeypatch: pytest.MonkeyPatch
) -> None:
    y = cyclic()
    plain = predict(pipeline, y, season_length=None)
    weigh(monkeypatch, 0.0)
    cyclic_alone = predict(pipeline, y)
    weigh(monkeypatch, 0.4)
    plot_seasons(predict(pipeline, y), y, plain=plain, axes=axes)
    drawn = lines(axes[0])
    np.testing.assert_array_equal(drawn["plain"], plain.median)
    lower, upper = cyclic_alone.interval(0.8)
    assert (np.abs(drawn["with cycles"] - cyclic_alone.median) < 1e-4 * (upper - lower)).all()


def test_a_weak_cycle_is_drawn_as_weak_as_it_was_carried_on(
    pipeline: MoiraiMoEPipeline, axes: list[Axes]
) -> None:
    y = cyclic()
    forecast = predict(pipeline, y, season_length=[LENGTH, 3 * LENGTH])
    found = forecast._seasons[0]
    periods = [found.periods[0][0], Period(3 * LENGTH, CLEAR / 4)]
    forecast._seasons = [found._replace(periods=[periods])]
    plot_seasons(forecast, y, axes=axes)
    cycles = find_cycles(y, [LENGTH, 3 * LENGTH], HORIZON, [1, 0.25])
    drawn = lines(axes[0])["cycles on the last level"]
    np.testing.assert_allclose(drawn, (cycles.level + cycles.all)[POINTS:])


def test_one_view_alone_is_drawn_once(
    pipeline: MoiraiMoEPipeline, axes: list[Axes], monkeypatch: pytest.MonkeyPatch
) -> None:
    y = cyclic()
    weigh(monkeypatch, 0.0)
    plot_seasons(predict(pipeline, y), y, plain=predict(pipeline, y), axes=axes)
    assert "with cycles" not in lines(axes[0])


def test_series_and_variate_of_a_batch_are_chosen(
    pipeline: MoiraiMoEPipeline, axes: list[Axes]
) -> None:
    rng = np.random.default_rng(3)
    days = pd.date_range("2024-01-01", periods=POINTS)
    walk = rng.normal(size=POINTS).cumsum()
    history = [
        pd.DataFrame({"one": walk, "two": walk}, days),
        pd.DataFrame({"one": walk, "two": cyclic()}, days),
    ]
    forecast = predict(pipeline, history)
    plot_seasons(forecast, history, series=1, variate=1, axes=axes, max_history=30)
    np.testing.assert_array_equal(lines(axes[0])["history"], cyclic()[-30:])
    np.testing.assert_array_equal(lines(axes[0])["median"], forecast.median[1, :, 1])
    for ax in (axes[0], axes[2]):
        assert ax.lines[-1].get_xdata(orig=False)[-1] == date2num(days[-1]) + HORIZON
    with pytest.raises(InvalidInputError, match="nothing was found to repeat in variate 0 of seri"):
        plot_seasons(forecast, history, series=1, axes=axes)


def test_a_history_longer_than_what_cycles_are_learnt_from(
    pipeline: MoiraiMoEPipeline, axes: list[Axes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("moirai_moe_forecaster.plotting.seasons.LONGEST_HISTORY", 240)
    y = cyclic()
    plot_seasons(predict(pipeline, y), y, axes=axes, max_history=300)
    cycles = find_cycles(y[-240:], [LENGTH], HORIZON)
    rest = lines(axes[2])["history"]
    assert np.isnan(rest[:60]).all()
    np.testing.assert_allclose(rest[60:], y[-240:] - (cycles.level + cycles.all)[:240])


def test_what_does_not_fit_is_refused(pipeline: MoiraiMoEPipeline, axes: list[Axes]) -> None:
    y = cyclic()
    forecast = predict(pipeline, y)
    with pytest.raises(InvalidInputError, match="history has 20 points, fewer than two periods"):
        plot_seasons(forecast, y[-20:], axes=axes)
    with pytest.raises(InvalidInputError, match="got 2 axes; expected 3"):
        plot_seasons(forecast, y, axes=axes[:2])
    with pytest.raises(InvalidInputError, match="plain has 5 steps; expected 20"):
        plot_seasons(forecast, y, plain=pipeline.predict(y, 5), axes=axes)
    with pytest.raises(InvalidInputError, match="nothing was found"):
        plot_seasons(predict(pipeline, y, season_length=None), y, axes=axes)


def test_a_new_figure_holds_three_pictures(pipeline: MoiraiMoEPipeline) -> None:
    made = plot_seasons(predict(pipeline, cyclic()), cyclic())
    assert len(made) == 3
    assert pyplot.gcf() is made[0].figure
    pyplot.close("all")
