"""A backtest as one HTML page that needs no network: scores, forecasts, cycles, routing."""

from __future__ import annotations

import html
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from moirai_moe_forecaster import __version__
from moirai_moe_forecaster.data.series import Item, match_items, read_items
from moirai_moe_forecaster.errors import MissingExtraError
from moirai_moe_forecaster.evaluation.forecasters import Variant, predict_windows
from moirai_moe_forecaster.evaluation.window import BacktestWindow
from moirai_moe_forecaster.inference.forecast import Forecast
from moirai_moe_forecaster.inference.pipeline import MoiraiMoEPipeline
from moirai_moe_forecaster.plotting.points import isolated

MOST_SERIES = 24
MOST_LETTERS = 32
DOT = 4
MOST_HISTORY = 500
BANDS = ((0.8, "rgba(0, 114, 178, 0.2)"), (0.5, "rgba(0, 114, 178, 0.35)"))
FUTURE, PAST, NOMINAL = "#0072B2", "#222222", "#888888"
COVERAGES = np.arange(5, 100, 5) / 100
HEIGHT = 420
PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>{title}</title>
<style>
body {{ font: 16px/1.5 system-ui, sans-serif; color: #222; max-width: 70rem; margin: 2rem auto;
  padding: 0 1rem; }}
table {{ border-collapse: collapse; }}
th, td {{ padding: 0.25rem 0.9rem; text-align: right; border-bottom: 1px solid #ddd; }}
th:first-child, td:first-child {{ text-align: left; }}
p {{ max-width: 50rem; }}
</style>
<script>{script}</script>
</head>
<body>
{body}
</body>
</html>
"""


def backtest_page(
    pipeline: MoiraiMoEPipeline | Variant,
    y: Any,
    result: pd.DataFrame,
    scores: pd.DataFrame,
    name: str,
    *,
    X: Any = None,
    forecast: Forecast | None = None,
) -> str:
    """Write a page about a pipeline's backtest.

    Parameters
    ----------
    pipeline : MoiraiMoEPipeline or Variant
    y, X : Series, DataFrame or list
        What was given to `backtest`.
    result : DataFrame
        What `backtest` returned.
    scores : DataFrame
        Pooled scores, one row per model.
    name : str
        What the data are called.
    forecast : Forecast, optional
        Of all windows, as `Backtest.forecast` makes it for the scores; without it, those that are
        drawn are forecast again.

    Returns
    -------
    str
        HTML that loads nothing. Forecasts, calibration, cycles and routing are those of the first
        24 series.

    Raises
    ------
    MissingExtraError
        If plotly is not installed.
    """
    try:
        from plotly.offline import get_plotlyjs
    except ImportError as error:
        raise MissingExtraError("plotly", "report", "the HTML report") from error
    model = pipeline.pipeline if isinstance(pipeline, Variant) else pipeline
    items = read_items(y).items
    covariates = None if X is None else match_items(X, items)
    shown = items[:MOST_SERIES]
    # rows are ordered by series, then window; those of further variates repeat the windows
    windows = result[["series", "window", "n_train"]].drop_duplicates()
    count = int(windows["window"].max()) + 1
    cuts = windows["n_train"].to_numpy().reshape(len(items), count)[: len(shown)]
    horizon = int(len(shown[0].values) - cuts[0, -1])
    if forecast is None:
        drawn = [
            BacktestWindow(
                item=item, cut=cut, covariates=None if covariates is None else covariates[index]
            )
            for index, item in enumerate(shown)
            for cut in cuts[index].tolist()
        ]
        forecast = predict_windows(pipeline, drawn, horizon)
    forecasts = [
        [forecast[index * count + number] for number in range(count)] for index in range(len(shown))
    ]
    report = model.routing([item.values for item in shown])
    names = [str(item.name) for item in shown]
    parts = [
        f"<h1>Backtest of {html.escape(name)}</h1>",
        _facts(model, len(items), len(windows), horizon, items, shown),
        "<h2>Scores</h2>",
        "<p>Pooled over all windows of all series; lower is better, except coverage, which should "
        "be as nominal. Relative scores are divided by those of seasonal naive.</p>",
        scores.to_html(float_format=lambda x: f"{x:.4g}", border=0),
        "<h2>Forecasts</h2>",
        "<p>Median, 50 % and 80 % intervals of every window, and what came. Choose a series; drag "
        "to zoom, double-click to return.</p>",
        _html(_fans(shown, cuts, forecasts)),
        "<h2>Calibration</h2>",
        "<p>Left: how many values fall into central intervals, against how many should. Right: the "
        "levels at which values fall in their forecasts; flat is calibrated.</p>",
        _html(_calibration(shown, cuts, forecasts)),
        "<h2>Cycles</h2>",
        "<p>What repeats in each series before its last window: periods in steps, from 0 to 1 how "
        "much of the series repeats with them, and how much the forecast without cycles (plain) "
        "and those with cycles count, by what they would have been worth at the end of the "
        "context.</p>",
        _cycles(shown, forecasts),
        "<h2>Routing of experts</h2>",
        f"<p>Shares of the {report.num_experts} experts in the choices of each series' patches, by "
        "layer.</p>",
        _html(_loads(report.with_labels(name=names), names)),
    ]
    title = html.escape(f"Backtest of {name}")
    return PAGE.format(title=title, script=get_plotlyjs(), body="\n".join(parts))


def _facts(
    pipeline: MoiraiMoEPipeline,
    series: int,
    windows: int,
    horizon: int,
    items: Sequence[Item],
    shown: Sequence[Item],
) -> str:
    info = pipeline.info
    model = "a network of yours" if info is None else f"{info.name} ({info.licence})"
    part = "" if len(items) == len(shown) else f" Pictures show the first {len(shown)} series."
    return (
        f"<p>{series} series, {windows} windows, {horizon} steps ahead. Model: "
        f"{html.escape(model)}, moirai-moe-forecaster {__version__}.{part}</p>"
    )


def _fans(
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
    values: NDArray[np.float64],
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


def _calibration(
    items: Sequence[Item], cuts: NDArray[np.int64], forecasts: Sequence[Sequence[Forecast]]
) -> Any:
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


def _cycles(items: Sequence[Item], forecasts: Sequence[Sequence[Forecast]]) -> str:
    """Table of the last window of each series: `Forecast.seasons`, with names."""
    parts = []
    for item, windows in zip(items, forecasts, strict=True):
        seasons = windows[-1].seasons
        names = [_short(str(item.variates[variate])) for variate in seasons["variate"]]
        parts.append(seasons.assign(series=_short(str(item.name)), variate=names))
    table = pd.concat(parts)
    if all(len(item.variates) == 1 for item in items):
        table = table.drop(columns="variate")
    table["period"] = table["period"].astype("string").fillna("none")
    markup: str = table.to_html(index=False, border=0, float_format="{:.2f}".format)
    return markup


def _loads(report: Any, names: Sequence[str]) -> Any:
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


def _html(figure: Any) -> str:
    """The figure without the library, which the page holds once."""
    height = figure.layout.height or HEIGHT
    figure.update_layout(template="plotly_white", height=height, margin={"l": 50, "r": 20, "b": 50})
    config = {"displaylogo": False, "responsive": True}
    return str(figure.to_html(full_html=False, include_plotlyjs=False, config=config))


def _text(name: str) -> str:
    """A name that plotly draws as it stands, no markup, short enough to leave room for more."""
    return html.escape(_short(name), quote=False)


def _short(name: str) -> str:
    half = MOST_LETTERS // 2
    return name if len(name) <= MOST_LETTERS else f"{name[:half]}…{name[-half:]}"


def _times(item: Item) -> NDArray[Any]:
    """What stands on the axis: times as they are, periods by their starts."""
    index: Any = item.index
    index = index.to_timestamp() if hasattr(index, "to_timestamp") else index
    return np.asarray(index.tz_localize(None) if getattr(index, "tz", None) else index)
