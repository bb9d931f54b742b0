"""The command ``moirai-moe backtest``."""

# like commands.py, this imports torch and pandas only when the command runs, so that --help answers
from __future__ import annotations

import argparse
import importlib.util
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from moirai_moe_forecaster.cli.common import Command, add_option
from moirai_moe_forecaster.cli.data import ABOUT_DATA, Names, add_data, read_data, read_freq
from moirai_moe_forecaster.cli.output import (
    PAGES,
    file_type,
    write_table,
    write_whole,
)

if TYPE_CHECKING:
    import pandas as pd

    from moirai_moe_forecaster.evaluation.backtest import Backtest
    from moirai_moe_forecaster.inference.forecast import Forecast

MODEL, NAIVE = "Moirai-MoE", "seasonal naive"
DEFAULT_PEER = "AutoETS"
EPILOG = f"""{ABOUT_DATA}
    Each window is forecast from all that came before it. Scores are pooled over all windows of all
    series; the output has them one by one. The page of --html holds the scores, the forecasts,
    their calibration and the routing of experts, and needs no network to be read.

    examples:
      moirai-moe backtest data.csv --horizon 24
      moirai-moe backtest sales.parquet --horizon 28 --windows 4 --seasonality 7 \\
          --id store --timestamp date --target sales --html report.html -o scores.csv
      moirai-moe backtest data.csv --horizon 24 --metrics MASE WQL CRPS coverage --no-peers
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    add_data(parser)
    add_option(parser, "--horizon", required=True)
    parser.add_argument(
        "--windows", type=int, default=1, metavar="N", help="windows per series (default: 1)"
    )
    parser.add_argument(
        "--step", type=int, metavar="N", help="steps between windows (default: the horizon)"
    )
    add_option(parser, "--covariates", help="columns of covariates known ahead")
    parser.add_argument(
        "--metrics",
        nargs="+",
        action=Names,
        default=["MASE", "WQL"],
        metavar="NAME",
        help="MASE, RMSSE, MAE, RMSE, WQL, CRPS, coverage (default: MASE WQL)",
    )
    add_option(parser, "--levels", help="quantile levels of WQL (default: 0.1 to 0.9)")
    parser.add_argument(
        "--seasonality",
        type=int,
        metavar="M",
        help="season in steps of seasonal naive and of MASE (default: the frequency's)",
    )
    add_option(parser, "--season-length")
    for name in ("--lower", "--upper", "--integer"):
        add_option(parser, name)
    parser.add_argument(
        "--peers",
        nargs="*",
        action=Names,
        metavar="NAME",
        help=f"models of statsforecast to compare with (default: {DEFAULT_PEER}, if it is "
        "installed)",
    )
    parser.add_argument("--no-peers", action="store_true", help="compare with seasonal naive only")
    parser.add_argument(
        "--html", type=file_type(PAGES), metavar="FILE", help="interactive report, a .html file"
    )
    add_option(parser, "--output", help="scores by window, .csv or .parquet")
    add_option(parser, "--quiet")


def run(arguments: argparse.Namespace) -> None:
    """Backtest, print the pooled scores, and write those of every window."""
    y, covariates = _read(arguments)
    from moirai_moe_forecaster.evaluation.backtest import Backtest
    from moirai_moe_forecaster.evaluation.forecasters import Variant, naive_quantiles
    from moirai_moe_forecaster.evaluation.metrics import LEVELS
    from moirai_moe_forecaster.evaluation.peers import Peer
    from moirai_moe_forecaster.inference.pipeline import MoiraiMoEPipeline

    backtest = Backtest.of(
        y,
        horizon=arguments.horizon,
        windows=arguments.windows,
        step=arguments.step,
        X=covariates,
        metrics=arguments.metrics,
        quantile_levels=arguments.levels or LEVELS,
        seasonality=arguments.seasonality,
        on_error=arguments.on_error,
    )
    peers = {name: Peer(name) for name in _peers(arguments)}
    # what is wrong with data or arguments has shown before a model is loaded
    pipeline = MoiraiMoEPipeline.from_pretrained(arguments.model)
    options = {
        "season_length": arguments.season_length,
        "bounds": (arguments.lower, arguments.upper),
        "integer": arguments.integer,
    }
    model = Variant(pipeline, options)
    forecasters = {NAIVE: naive_quantiles, MODEL: model, **peers}
    results, seconds, forecast = _score(backtest, forecasters, quiet=arguments.quiet)
    scores = _pooled(results, seconds)
    first = results[NAIVE]
    print(f"{first['series'].nunique()} series, {len(first)} windows\n")
    print(scores.to_string(float_format=lambda x: f"{x:.4g}"))
    if arguments.output is not None:
        write_table(_by_window(results), arguments.output)
        print(f"\nscores by window: {arguments.output.resolve()}")
    if arguments.html is not None:
        from moirai_moe_forecaster.reports.html import backtest_page

        if backtest.skipped:
            kept = first["series"].unique()
            y = y[y.index.get_level_values(0).isin(kept)]
        page = backtest_page(
            model, y, results[MODEL], scores, arguments.data.name, X=covariates, forecast=forecast
        )
        write_whole(arguments.html, lambda file: file.write_text(page, encoding="utf-8"))
        print(f"\nreport: {arguments.html.resolve()}")


def _read(arguments: argparse.Namespace) -> tuple[Any, Any]:
    """Series and covariates, categories among them as numbers, each as `backtest` takes it."""
    data = read_data(arguments, arguments.covariates)
    import pandas as pd

    from moirai_moe_forecaster.data.categories import encoded, find_categories
    from moirai_moe_forecaster.data.panel import read_panel

    def panel(table: pd.DataFrame, columns: str | list[str]) -> Any:
        freq = read_freq(arguments.freq)
        return read_panel(table, **data.names, target_columns=columns, freq=freq)

    y = panel(data.table, data.targets[0] if len(data.targets) == 1 else data.targets)
    if not arguments.covariates:
        return y, None
    given = data.table[arguments.covariates]
    known = encoded(given, find_categories(given))
    table = pd.concat([data.table.drop(columns=given.columns), known], axis=1)
    return y, panel(table, [*known.columns])


def _score(
    backtest: Backtest, forecasters: Mapping[str, Any], *, quiet: bool
) -> tuple[dict[str, pd.DataFrame], dict[str, float], Forecast]:
    """Scores and seconds of every forecaster, and what the model forecast."""
    from tqdm.auto import tqdm

    results, seconds, forecasts = {}, {}, {}
    for name, forecaster in tqdm(forecasters.items(), disable=quiet, unit="model"):
        started = time.perf_counter()
        if name == MODEL:
            forecasts[name] = backtest.forecast(forecaster)
            results[name] = backtest.score_forecast(forecasts[name])
        else:
            results[name] = backtest.score(forecaster)
        seconds[name] = time.perf_counter() - started
    return results, seconds, forecasts[MODEL]


def _by_window(results: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """One table of all models, the name of each in the first column."""
    import pandas as pd

    parts = [result.assign(model=name) for name, result in results.items()]
    table = pd.concat(parts, ignore_index=True)
    table = table[["model", *(name for name in table if name != "model")]]
    return table.astype({"series": str})


def _peers(arguments: argparse.Namespace) -> list[str]:
    """Names of the models to compare with; the default one only where it is installed."""
    if arguments.no_peers:
        return []
    if arguments.peers is None:
        return [DEFAULT_PEER] if importlib.util.find_spec("statsforecast") else []
    return arguments.peers or [DEFAULT_PEER]


def _pooled(results: dict[str, pd.DataFrame], seconds: dict[str, float]) -> pd.DataFrame:
    """Scores of every model over all windows, and the errors relative to seasonal naive."""
    import pandas as pd

    from moirai_moe_forecaster.evaluation.comparison import ERRORS, frame_terms
    from moirai_moe_forecaster.evaluation.metrics import relative

    first = results[NAIVE]
    metrics = list(first.columns[list(first.columns).index("abs_test") + 1 :])
    pooled = {
        name: {metric: frame_terms(result, metric).pooled() for metric in metrics}
        for name, result in results.items()
    }
    rows = [
        scores
        | {f"relative {m}": relative(scores[m], pooled[NAIVE][m]) for m in metrics if m in ERRORS}
        | {"seconds": seconds[name]}
        for name, scores in pooled.items()
    ]
    return pd.DataFrame(rows, index=list(results))


COMMAND = Command(
    name="backtest",
    summary="score forecasts of the last windows of your series against seasonal naive",
    epilog=EPILOG,
    add_arguments=add_arguments,
    run=run,
)
