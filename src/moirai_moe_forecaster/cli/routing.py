"""The command ``moirai-moe routing``."""

# like commands.py, this imports torch and pandas only when the command runs, so that --help answers
from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from moirai_moe_forecaster.cli.common import Command, add_option
from moirai_moe_forecaster.cli.data import ABOUT_DATA, Data, add_data, read_data, read_freq
from moirai_moe_forecaster.cli.output import (
    print_table,
    write_picture,
    write_table,
)
from moirai_moe_forecaster.errors import InvalidInputError

if TYPE_CHECKING:
    import pandas as pd

    from moirai_moe_forecaster.data.panel import LongFrame
    from moirai_moe_forecaster.reports.routing import RoutingReport

FREQUENCY, ID = "frequency", "id"
EPILOG = f"""{ABOUT_DATA}
    Every feed-forward layer of the model is a set of experts, of which each patch of a series is
    sent to a few. The table shows, by layer, how many experts are in use (as many equally loaded
    ones would have the same entropy) and, where there are groups, how alike these choose: the part
    of their choices that two groups have in common, the mean over all pairs. Groups of few
    patches agree less by chance.

    examples:
      moirai-moe routing data.csv
      moirai-moe routing sales.csv --id store --timestamp date --target sold --by region \\
          --plot routing.png -o load.csv
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    add_data(parser)
    parser.add_argument(
        "--by",
        default=FREQUENCY,
        metavar="GROUP",
        help=f"{FREQUENCY!r}, {ID!r}, or a column that is the same in all rows of an id "
        f"(default: {FREQUENCY})",
    )
    add_option(
        parser,
        "--plot",
        help="heat maps of the first, the middle and the last layer, .pdf, .png or .svg",
    )
    add_option(parser, "--output", help="shares of experts by group and layer, .csv or .parquet")
    add_option(parser, "--quiet")


def run(arguments: argparse.Namespace) -> None:
    """Print the summary by layer, and write loads and pictures."""
    own = arguments.by not in (FREQUENCY, ID)
    data = read_data(arguments, [arguments.by] if own else [])
    from moirai_moe_forecaster.data.panel import Columns, read_frame, read_good
    from moirai_moe_forecaster.inference.pipeline import MoiraiMoEPipeline

    columns = Columns(data.id, data.timestamp, [*data.targets], [], [])

    def read(table: pd.DataFrame) -> LongFrame:
        freq = read_freq(arguments.freq)
        return read_frame(table, columns, freq, dayfirst=arguments.dayfirst)

    frame, skipped = read_good(data.table, data.id, arguments.on_error, read)
    if frame is None:
        raise InvalidInputError(f"no id is left of {skipped}")
    frame.log(skipped)
    labels = _labels(arguments.by, data, frame)
    pipeline = MoiraiMoEPipeline.from_pretrained(arguments.model)
    report = pipeline.routing(frame.series, progress=not arguments.quiet)
    report = report.with_labels(**{arguments.by: labels})
    _print_layers(report, arguments.by)
    if arguments.output is not None:
        write_table(report.load(arguments.by), arguments.output)
        print(f"\nloads: {arguments.output.resolve()}")
    if arguments.plot is not None:
        write_picture(report.plot(arguments.by)[0].figure, arguments.plot)
        print(f"picture: {arguments.plot.resolve()}", file=sys.stderr)


def _labels(by: str, data: Data, frame: LongFrame) -> list[object]:
    """Group of every series."""
    ids = frame.rows.ids
    if by == FREQUENCY:
        return [*frame.grids.frequencies]
    if by == ID:
        return [str(key) for key in ids]
    if data.id is None:
        raise InvalidInputError(f"--by {by} needs several series; name their column with --id")
    groups = data.table.groupby(data.id, sort=False)[by]
    if (several := groups.nunique(dropna=False) > 1).any():
        raise InvalidInputError(
            f"column {by!r} has several values for id {several.idxmax()!r}; --by needs one for each"
        )
    return [*groups.first().reindex(ids)]


def _print_layers(report: RoutingReport, by: str) -> None:
    groups = report.tokens[by].nunique(dropna=False)
    tokens, experts = len(report.tokens), report.num_experts
    per_token = report.experts.shape[-1]
    print(
        f"{report.tokens['series'].nunique()} series in {groups} groups by {by}, {tokens} patches, "
        f"each sent to {per_token} of {experts} experts in every layer\n"
    )
    used = report.entropy()["effective_experts"]
    header = ["layer", "experts in use"]
    rows = [[str(layer + 1), f"{value:.1f}"] for layer, value in enumerate(used)]
    if groups > 1:
        agreement = report.agreement(by).groupby("layer")["agreement"].mean()
        header.append("agreement of groups")
        rows = [[*row, f"{agreement[layer]:.2f}"] for layer, row in enumerate(rows)]
    print_table(header, rows)


COMMAND = Command(
    name="routing",
    summary="show which experts the series of a file are sent to",
    epilog=EPILOG,
    add_arguments=add_arguments,
    run=run,
)
