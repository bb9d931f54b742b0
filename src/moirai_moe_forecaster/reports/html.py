"""A backtest as one HTML page that needs no network: scores, forecasts, cycles, routing."""

from __future__ import annotations

import html
from collections.abc import Sequence
from typing import Any

import pandas as pd

from moirai_moe_forecaster import __version__
from moirai_moe_forecaster.data.items import Item, match_items, read_block, read_items
from moirai_moe_forecaster.errors import MissingExtraError
from moirai_moe_forecaster.evaluation.forecasters import Variant, predict_windows
from moirai_moe_forecaster.evaluation.window import BacktestWindow
from moirai_moe_forecaster.inference.forecast import Forecast
from moirai_moe_forecaster.inference.pipeline import MoiraiMoEPipeline
from moirai_moe_forecaster.reports.figures import (
    as_html,
    plot_calibration,
    plot_fans,
    plot_loads,
    shortened,
)

MOST_SERIES = 24
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
BODY = """<h1>{title}</h1>
{facts}
<h2>Scores</h2>
<p>Pooled over all windows of all series; lower is better, except coverage, which should be as
nominal. Relative scores are divided by those of seasonal naive.</p>
{scores}
<h2>Forecasts</h2>
<p>Median, 50 % and 80 % intervals of every window, and what came. Choose a series; drag to zoom,
double-click to return.</p>
{fans}
<h2>Calibration</h2>
<p>Left: how many values fall into central intervals, against how many should. Right: the levels at
which values fall in their forecasts; flat is calibrated.</p>
{calibration}
<h2>Cycles</h2>
<p>What repeats in each series before its last window: periods in steps, from 0 to 1 how much of the
series repeats with them, and how much the forecast without cycles (plain) and those with cycles
count, by what they would have been worth at the end of the context.</p>
{cycles}
<h2>Routing of experts</h2>
<p>Shares of the {experts} experts in the choices of each series' patches, by layer.</p>
{loads}
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
    items, covariates = _scored(y, X, result)
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
    title = html.escape(f"Backtest of {name}")
    body = BODY.format(
        title=title,
        facts=_facts(model, len(items), len(shown), len(windows), horizon),
        scores=scores.to_html(float_format=lambda x: f"{x:.4g}", border=0),
        fans=as_html(plot_fans(shown, cuts, forecasts)),
        calibration=as_html(plot_calibration(shown, cuts, forecasts)),
        cycles=_cycles(shown, forecasts),
        experts=report.num_experts,
        loads=as_html(plot_loads(report.with_labels(name=names), names)),
    )
    return PAGE.format(title=title, script=get_plotlyjs(), body=body)


def _scored(y: Any, X: Any, result: pd.DataFrame) -> tuple[list[Item], list[Item] | None]:
    """Series, and their covariates, of which there are scores: the others were skipped."""
    data = read_items(y, skipped={})
    names = {*result["series"]}
    scored = [place for place, item in enumerate(data.items) if item.name in names]
    items = [data.items[place] for place in scored]
    if X is None:
        return items, None
    blocks = match_items(X, data, skip=True)
    return items, [read_block(blocks[place]) for place in scored]


def _facts(pipeline: MoiraiMoEPipeline, series: int, shown: int, windows: int, horizon: int) -> str:
    info = pipeline.info
    model = "a network of yours" if info is None else f"{info.name} ({info.licence})"
    part = "" if series == shown else f" Pictures show the first {shown} series."
    return (
        f"<p>{series} series, {windows} windows, {horizon} steps ahead. Model: "
        f"{html.escape(model)}, moirai-moe-forecaster {__version__}.{part}</p>"
    )


def _cycles(items: Sequence[Item], forecasts: Sequence[Sequence[Forecast]]) -> str:
    """Table of the last window of each series: `Forecast.seasons`, with names."""
    parts = []
    for item, windows in zip(items, forecasts, strict=True):
        seasons = windows[-1].seasons
        names = [shortened(str(item.variates[variate])) for variate in seasons["variate"]]
        parts.append(seasons.assign(series=shortened(str(item.name)), variate=names))
    table = pd.concat(parts)
    if all(len(item.variates) == 1 for item in items):
        table = table.drop(columns="variate")
    table["period"] = table["period"].astype("string").fillna("none")
    markup: str = table.to_html(index=False, border=0, float_format="{:.2f}".format)
    return markup
