"""The command ``moirai-moe demo``."""

# like commands.py, this imports torch and pandas only when the command runs, so that --help answers
from __future__ import annotations

import argparse
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from moirai_moe_forecaster.cli.common import Command
from moirai_moe_forecaster.cli.info import checkpoint_facts
from moirai_moe_forecaster.cli.output import (
    PICTURES,
    file_type,
    print_facts,
    print_table,
    write_picture,
)
from moirai_moe_forecaster.cli.seasons import describe_cycles
from moirai_moe_forecaster.errors import MissingExtraError

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

    from moirai_moe_forecaster.inference.forecast import Forecast
    from moirai_moe_forecaster.inference.pipeline import MoiraiMoEPipeline

PICTURE = "moirai_moe_demo.png"
COVERAGE = 0.8
AIRLINE_HORIZON = 36
AIRLINE_SEASON = 12
US_CHANGE_HORIZON = 12
US_CHANGE_DRAWN = 36
EPILOG = """
    examples:
      moirai-moe demo
      moirai-moe demo --output forecast.pdf
      moirai-moe demo --model ./my_checkpoint
"""


@dataclass(frozen=True, kw_only=True)
class Example:
    """What was forecast, what really came, and the forecast."""

    history: Any
    truth: Any
    forecast: Forecast


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    parser.add_argument(
        "--output",
        type=file_type(PICTURES),
        metavar="FILE",
        help=f"the picture, {', '.join(PICTURES)} by its ending (default: {PICTURE})",
    )


def run(arguments: argparse.Namespace) -> None:
    """Forecast both sets, print tables and write the picture."""
    from moirai_moe_forecaster.inference.pipeline import MoiraiMoEPipeline

    passengers, economy = airline(), us_change()
    started = time.perf_counter()
    pipeline = MoiraiMoEPipeline.from_pretrained(arguments.model)
    loaded = time.perf_counter()
    examples = (
        forecast_end(pipeline, passengers, AIRLINE_HORIZON),
        forecast_end(pipeline, economy, US_CHANGE_HORIZON),
    )
    done = time.perf_counter()
    print_facts(checkpoint_facts(pipeline))
    print(f"\nloaded in {loaded - started:.2f} s, both forecasts took {done - loaded:.2f} s")
    for example, show in zip(examples, (_print_airline, _print_us_change), strict=True):
        show(example)
        if pipeline.config.find_seasons:
            print(f"\n{describe_cycles(example.forecast.seasons)}")
    try:
        picture = arguments.output or Path(PICTURE)
        write_picture(plot_examples(*examples), picture)
        print(f"\npicture: {picture.resolve()}")
    except MissingExtraError as error:
        # the tables are what most people came for; a picture that was asked for is another matter
        if arguments.output:
            raise
        print(f"\nno picture: {error}")


def airline() -> pd.Series[float]:
    """Monthly airline passengers in thousands."""
    from sktime.datasets import load_airline

    passengers: pd.Series[float] = load_airline()
    return passengers


def us_change() -> pd.DataFrame:
    """Quarterly changes of five indicators of the US economy, in per cent."""
    import pandas as pd
    from sktime.datasets import load_uschange

    consumption, others = load_uschange()
    table: pd.DataFrame = pd.concat([consumption, others], axis=1)
    # sktime leaves the dates out; the first quarter is that of the data's source
    table.index = pd.period_range("1970Q1", periods=len(table), freq="Q")
    return table


def forecast_end(pipeline: MoiraiMoEPipeline, data: Any, horizon: int) -> Example:
    """Hold the end of a series, or of every column of a panel, out and forecast it."""
    history, truth = data.iloc[:-horizon], data.iloc[-horizon:]
    y = history if history.ndim == 1 else [history[name] for name in history]
    forecast = pipeline.predict(y, horizon, random_state=0)
    return Example(history=history, truth=truth, forecast=forecast)


def _print_airline(example: Example) -> None:
    history, truth, forecast = example.history, example.truth, example.forecast
    print(
        f"\nAirline passengers in thousands: {len(truth)} months ahead, "
        f"from {len(history)} months before\n"
    )
    lower, upper = forecast.interval(COVERAGE)
    rows = [
        [str(month), *(f"{value:.0f}" for value in values)]
        for month, *values in zip(truth.index, forecast.median, lower, upper, truth, strict=True)
    ]
    print_table(["month", "median", *_interval_names(), "truth"], rows)
    inside = int(((lower <= truth) & (truth <= upper)).sum())
    print(f"\n{inside} of {len(truth)} months lie within their {COVERAGE:.0%} interval\n")
    _print_scores(example)


def _print_scores(example: Example) -> None:
    from moirai_moe_forecaster.evaluation.forecasters import naive_quantiles
    from moirai_moe_forecaster.evaluation.metrics import LEVELS, mase, weighted_quantile_loss

    history, truth, forecast = example.history, example.truth, example.forecast
    contexts, labels = [history.to_numpy()], truth.to_numpy()[None]
    rows = []
    for name, quantiles in (
        ("Moirai-MoE", forecast.quantile(LEVELS)[None]),
        ("seasonal naive", naive_quantiles(contexts, len(truth), AIRLINE_SEASON, LEVELS)),
    ):
        median = quantiles[:, LEVELS.index(0.5)]
        error = mase(labels, median, contexts, AIRLINE_SEASON)
        rows.append([name, f"{error:.3f}", f"{weighted_quantile_loss(labels, quantiles):.3f}"])
    print_table(["lower is better", "MASE", "WQL"], rows)


def _print_us_change(example: Example) -> None:
    history, truth, forecast = example.history, example.truth, example.forecast
    print(
        f"\nUS economy, quarterly changes in %: a panel of {truth.shape[1]} series, "
        f"{len(truth)} quarters ahead, from {len(history)} quarters before\n"
    )
    lower, upper = (edge.T for edge in forecast.interval(COVERAGE))
    first = zip(forecast.median[:, 0], lower[0], upper[0], truth.iloc[0], strict=True)
    inside = ((lower <= truth) & (truth <= upper)).sum()
    rows = [
        [name, *(f"{value:.2f}" for value in values), f"{inside[name]} of {len(truth)}"]
        for name, values in zip(truth.columns, first, strict=True)
    ]
    names = ["median", *_interval_names(), "truth", "quarters inside"]
    print_table([f"in {truth.index[0]}", *names], rows)


def plot_examples(airline: Example, us_change: Example) -> Figure:
    """Draw the airline data above one small plot per indicator."""
    from moirai_moe_forecaster.plotting import plot_forecast

    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtraError("matplotlib", "plot", "drawing the picture") from error
    names = list(us_change.truth.columns)
    figure = Figure(figsize=(13, 8), layout="constrained")
    axes = figure.subplot_mosaic([["airline"] * len(names), names], height_ratios=(1.7, 1))
    plot_forecast(
        airline.forecast,
        airline.history,
        truth=airline.truth,
        ax=axes["airline"],
        title="Airline passengers, thousands a month",
    )
    for series, name in enumerate(names):
        plot_forecast(
            us_change.forecast[series],
            us_change.history[name],
            truth=us_change.truth[name],
            max_history=US_CHANGE_DRAWN,
            ax=axes[name],
            title=name,
            legend=False,
        )
    axes[names[0]].set_ylabel("US economy, quarterly change in %")
    return figure


def _interval_names() -> list[str]:
    return [f"{(1 - COVERAGE) / 2:.0%}", f"{(1 + COVERAGE) / 2:.0%}"]


COMMAND = Command(
    name="demo",
    summary="forecast two example data sets, print tables and draw a picture; needs no network",
    epilog=EPILOG,
    add_arguments=add_arguments,
    run=run,
)
