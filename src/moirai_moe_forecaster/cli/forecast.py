"""The command ``moirai-moe forecast``."""

# like commands.py, this imports torch and pandas only when the command runs, so that --help answers
from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING, Any

from moirai_moe_forecaster.cli.common import Command, add_option
from moirai_moe_forecaster.cli.data import (
    ABOUT_DATA,
    add_data,
    read_data,
    read_freq,
    read_future,
    table_path,
)
from moirai_moe_forecaster.cli.output import (
    DIGITS,
    write_picture,
    write_table,
)
from moirai_moe_forecaster.cli.seasons import describe_cycles
from moirai_moe_forecaster.errors import InvalidInputError

if TYPE_CHECKING:
    from matplotlib.figure import Figure, SubFigure

    from moirai_moe_forecaster.inference.dataframe import FrameForecast

LEVELS = [0.1, 0.5, 0.9]
MOST_PICTURES = 12
EPILOG = f"""{ABOUT_DATA}
    Covariates drive the target. Those whose values to come stand in the file of --future, with
    the same ids and times to come, are known ahead; the others are known up to now.

    Without --output, the forecast is printed as a .csv file. Beside it, on stderr, stands what was
    found to repeat, and how much the forecasts that carry it on count.

    examples:
      moirai-moe forecast data.csv --horizon 24
      moirai-moe forecast sales.csv --horizon 14 --id store --timestamp date --target sold \\
          --levels 0.05,0.5,0.95 --plot sales.png -o forecast.csv
      moirai-moe forecast sales.csv --horizon 14 --id store --timestamp date --target sold \\
          --covariates price holiday --future plan.csv -o forecast.parquet
      moirai-moe forecast load.csv --horizon 48 --season-length 24,168
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    add_data(parser)
    add_option(parser, "--horizon", required=True)
    add_option(parser, "--covariates", help="columns of covariates")
    parser.add_argument(
        "--future",
        type=table_path,
        metavar="FILE",
        help="values to come of covariates, written as the data",
    )
    add_option(parser, "--levels", default=LEVELS, help="quantile levels (default: 0.1,0.5,0.9)")
    parser.add_argument(
        "--context-length",
        type=int,
        metavar="N",
        help="use only so many of the last steps (default: all the model can)",
    )
    add_option(parser, "--season-length")
    for name in ("--lower", "--upper", "--integer"):
        add_option(parser, name)
    add_option(parser, "--seed", default=0, help="of the paths drawn (default: 0)")
    add_option(
        parser, "--plot", help=f"picture of the first {MOST_PICTURES} series, .pdf, .png or .svg"
    )
    add_option(parser, "--output", help="forecast, .csv or .parquet")
    add_option(parser, "--quiet", help="no progress bar, and nothing about cycles")


def run(arguments: argparse.Namespace) -> None:
    """Forecast, and write or print the table."""
    data = read_data(arguments, arguments.covariates)
    future = None if arguments.future is None else read_future(arguments, data)
    from moirai_moe_forecaster.data.arguments import read_season_length
    from moirai_moe_forecaster.data.panel import Columns
    from moirai_moe_forecaster.inference.dataframe import forecast_frame, result_levels
    from moirai_moe_forecaster.inference.options import seasons_looked_for
    from moirai_moe_forecaster.inference.pipeline import MoiraiMoEPipeline

    known = [name for name in arguments.covariates if future is not None and name in future]
    if future is not None and not known:
        raise InvalidInputError(
            f"{arguments.future} holds none of the covariates {arguments.covariates}; name those "
            "that it holds with --covariates"
        )
    past = [name for name in arguments.covariates if name not in known]
    columns = Columns(data.id, data.timestamp, [*data.targets], past, known)
    levels = result_levels(arguments.levels, columns)
    pipeline = MoiraiMoEPipeline.from_pretrained(arguments.model)
    result = forecast_frame(
        pipeline,
        data.table,
        future,
        columns,
        arguments.horizon,
        read_freq(arguments.freq),
        arguments.context_length,
        random_state=arguments.seed,
        progress=not arguments.quiet,
        season_length=arguments.season_length,
        bounds=(arguments.lower, arguments.upper),
        integer=arguments.integer,
        dayfirst=arguments.dayfirst,
        on_error=arguments.on_error,
    )
    if (
        result.forecast is not None
        and not arguments.quiet
        and seasons_looked_for(pipeline.config, read_season_length(arguments.season_length))
    ):
        print(describe_cycles(result.forecast.seasons), file=sys.stderr)
    table = result.table(levels)
    if arguments.output is None:
        table.to_csv(sys.stdout, index=False, float_format=DIGITS)
    else:
        write_table(table, arguments.output)
        print(
            f"{result.count} series, {arguments.horizon} steps ahead: {arguments.output.resolve()}"
        )
    if arguments.plot is not None:
        write_picture(plot_first(result), arguments.plot)
        print(f"picture: {arguments.plot.resolve()}", file=sys.stderr)


def plot_first(result: FrameForecast) -> Figure | SubFigure:
    """Draw the first series with their targets, each on axes of its own."""
    import numpy as np

    from moirai_moe_forecaster.plotting import plot_forecast
    from moirai_moe_forecaster.plotting.style import new_grid, shared_legend

    forecast, frame, columns = result.forecast, result.frame, result.columns
    if forecast is None or frame is None:
        raise InvalidInputError("there is no series to draw")
    grids = frame.grids.as_datetimes()
    targets = len(columns.targets)
    chosen = [(s, v) for s in range(len(forecast)) for v in range(targets)][:MOST_PICTURES]
    across = 1 if len(chosen) == 1 else min(3, len(chosen))
    rows = -(-len(chosen) // across)
    size = (9.0, 4.0) if len(chosen) == 1 else (4.4 * across, 2.7 * rows)
    axes = new_grid(rows, across, size)
    for spare in axes[len(chosen) :]:
        spare.set_visible(False)
    for number, (series, variate) in enumerate(chosen):
        steps = np.arange(frame.grids.lengths[series] + forecast.horizon)
        names: list[Any] = [] if columns.id is None else [frame.rows.ids[series]]
        names += [columns.targets[variate]] if targets > 1 or not names else []
        plot_forecast(
            forecast,
            [values[:, :targets] for values in frame.series],
            ax=axes[number],
            series=series,
            variate=variate,
            index=grids.times(np.full_like(steps, series), steps),
            title=", ".join(map(str, names)),
            legend=len(chosen) == 1,
        )
    if len(chosen) > 1:
        shared_legend(axes)
    return axes[0].figure


COMMAND = Command(
    name="forecast",
    summary="forecast the series of a file: quantiles as a table, and a picture",
    epilog=EPILOG,
    add_arguments=add_arguments,
    run=run,
)
