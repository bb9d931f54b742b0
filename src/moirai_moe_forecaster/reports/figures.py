"""Interactive figures of a backtest and of routing, drawn by plotly."""

from __future__ import annotations

import html
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moirai_moe_forecaster.data.items import Item
from moirai_moe_forecaster.data.series import Array
from moirai_moe_forecaster.inference.forecast import Forecast
from moirai_moe_forecaster.plotting.points import isolated
from moirai_moe_forecaster.reports.routing import RoutingReport

MOST_LETTERS = 32
DOT = 4
MOST_HISTORY = 500
BANDS = ((0.8, "rgba(0, 114, 178, 0.2)"), (0.5, "rgba(0, 114, 178, 0.35)"))
FUTURE, PAST, NOMINAL = "#0072B2", "#222222", "#888888"
COVERAGES = np.arange(5, 100, 5) / 100
HEIGHT = 420


def plot_fans(
    items: Sequence[Item], cuts: NDArray[np.int64], forecasts: Sequence[Sequence[Forecast]]
) -> Any:
    """One figure in which a menu chooses the series and variate."""
    from plotly import graph_objects as go

    figure = go.Figure()
    owners: list[int] = []
    names = []
    for item, row, windows in zip(items, cuts, forecasts, strict=True):
        times = _times(item)
        for position, variate in enumerate(item.variates):
            parts = [item.name] if len(item.variates) == 1 else [item.name, variate]
            names.append(", ".join(_text(str(part)) for part in parts))
            traces = _traces(item.values[:, position], times, row, windows, position)
            figure.add_traces(traces)
            owners += [len(names) - 1] * len(traces)
    for trace, owner in zip(figure.data, owners, strict=True):
        trace.visible = owner == 0
    buttons = [
        {"label": name, "method": "restyle", "args": ["visible", [o == number for o in owners]]}
        for number, name in enumerate(names)
    ]
    figure.update_layout(
        updatemenus=[{"buttons": buttons, "x": 0, "xanchor": "left", "y": 1.15, "yanchor": "top"}],
        legend={"orientation": "h", "x": 1, "xanchor": "right", "y": 1.1},
    )
    return figure


def _traces(
    values: Array,
    times: NDArray[Any],
    cuts: NDArray[np.int64],
    windows: Sequence[Forecast],
    variate: int,
) -> list[Any]:
    from plotly import graph_objects as go

    first = max(int(cuts[0]) - MOST_HISTORY, 0)
    traces = []
    for number, (cut, forecast) in enumerate(zip(cuts, windows, strict=True)):
        ahead = times[cut : cut + forecast.horizon]
        common = {"x": np.concatenate((ahead, ahead[::-1])), "mode": "lines", "hoverinfo": "skip"}
        for coverage, color in BANDS:
            lower, upper = (edge[:, variate] for edge in forecast.interval(coverage))
            outline = np.concatenate((upper, lower[::-1]))
            traces.append(
                go.Scatter(
                    y=outline,
                    fill="toself",
                    fillcolor=color,
                    line={"width": 0},
                    name=f"{coverage:.0%} interval",
                    showlegend=number == 0,
                    **common,
                )
            )
        traces.append(
            go.Scatter(
                x=ahead,
                y=forecast.median[:, variate],
                mode="lines",
                line={"color": FUTURE, "width": 2},
                name="median",
                showlegend=number == 0,
            )
        )
    truth = go.Scatter(
        x=times[first:],
        y=values[first:],
        mode="lines+markers",
        line={"color": PAST, "width": 1.2},
        marker={"color": PAST, "size": DOT * isolated(values[first:])},
        name="truth",
    )
    return [*traces, truth]


def plot_calibration(
    items: Sequence[Item], cuts: NDArray[np.int64], forecasts: Sequence[Sequence[Forecast]]
) -> Any:
    """One figure of two: coverage of intervals, and levels of values in their forecasts."""
    from plotly import graph_objects as go
    from plotly.subplots import make_subplots

    levels = np.concatenate(
        [
            forecast.cdf(item.values[cut : cut + forecast.horizon]).ravel()
            for item, row, windows in zip(items, cuts, forecasts, strict=True)
            for cut, forecast in zip(row, windows, strict=True)
        ]
    )
    levels = levels[~np.isnan(levels)]
    inside = [float((np.abs(2 * levels - 1) <= coverage).mean()) for coverage in COVERAGES]
    density, edges = np.histogram(levels, np.linspace(0, 1, 11), density=True)
    figure = make_subplots(cols=2, subplot_titles=["Coverage of intervals", "Levels of values"])
    diagonal = {"color": NOMINAL, "dash": "dash", "width": 1}
    figure.add_scatter(x=[0, 1], y=[0, 1], mode="lines", line=diagonal, row=1, col=1)
    marks = go.Scatter(x=COVERAGES, y=inside, mode="lines+markers", marker={"color": FUTURE})
    figure.add_trace(marks, row=1, col=1)
    bars = go.Bar(x=(edges[1:] + edges[:-1]) / 2, y=density, marker={"color": FUTURE})
    figure.add_trace(bars, row=1, col=2)
    figure.add_hline(y=1, line=diagonal, row=1, col=2)
    figure.update_xaxes(title_text="asked for", row=1, col=1)
    figure.update_yaxes(title_text="inside", row=1, col=1)
    figure.update_xaxes(title_text="level", row=1, col=2)
    figure.update_yaxes(title_text="density", row=1, col=2)
    return figure.update_layout(showlegend=False)


def plot_loads(report: RoutingReport, names: Sequence[str]) -> Any:
    """Shares of the experts by series, one heat map a layer; the report has the labels `name`."""
    from plotly import graph_objects as go
    from plotly.subplots import make_subplots

    table = report.load("name")
    layers = range(report.num_layers)
    figure = make_subplots(
        cols=report.num_layers,
        shared_yaxes=True,
        subplot_titles=[f"layer {layer + 1}" for layer in layers],
    )
    order = list(dict.fromkeys(names))
    rows = [html.escape(name, quote=False) for name in order]
    for layer in layers:
        own = table[table["layer"] == layer]
        shares = own["share"].to_numpy().reshape(len(order), -1)
        heat = go.Heatmap(
            z=shares,
            y=rows,
            coloraxis="coloraxis",
            hovertemplate="%{y}, expert %{x}: %{z:.0%}<extra></extra>",
        )
        figure.add_trace(heat, row=1, col=layer + 1)
        figure.update_xaxes(title_text="expert", row=1, col=layer + 1)
    figure.update_yaxes(
        autorange="reversed",
        type="category",
        tickvals=rows,
        ticktext=[_text(name) for name in order],
    )
    figure.update_layout(
        coloraxis={"colorscale": "Blues", "cmin": 0, "colorbar": {"tickformat": ".0%"}}
    )
    return figure.update_layout(height=160 + 24 * max(len(order), 6))


def as_html(figure: Any) -> str:
    """The figure without the library, which the page holds once."""
    height = figure.layout.height or HEIGHT
    figure.update_layout(template="plotly_white", height=height, margin={"l": 50, "r": 20, "b": 50})
    config = {"displaylogo": False, "responsive": True}
    return str(figure.to_html(full_html=False, include_plotlyjs=False, config=config))


def shortened(name: str) -> str:
    """A name, with its middle left out where it is long."""
    half = MOST_LETTERS // 2
    return name if len(name) <= MOST_LETTERS else f"{name[:half]}…{name[-half:]}"


def _text(name: str) -> str:
    """A name that plotly draws as it stands, no markup, short enough to leave room for more."""
    return html.escape(shortened(name), quote=False)


def _times(item: Item) -> NDArray[Any]:
    """What stands on the axis: times as they are, periods by their starts."""
    index: Any = item.index
    index = index.to_timestamp() if hasattr(index, "to_timestamp") else index
    return np.asarray(index.tz_localize(None) if getattr(index, "tz", None) else index)
