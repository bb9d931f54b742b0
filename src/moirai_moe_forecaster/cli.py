"""The command ``moirai-moe``: forecasts to look at, facts about the installation, training."""

# argparse, because it costs no dependency and no start-up time; whatever imports torch or sktime is
# imported by the subcommand that needs it, so that --help answers at once
from __future__ import annotations

import argparse
import os
import platform
import sys
import textwrap
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from moirai_moe_forecaster import __version__, cli_backtest, cli_finetune, cli_pretrain
from moirai_moe_forecaster.errors import MissingExtraError, MoiraiMoEError

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

    from moirai_moe_forecaster.inference.forecast import Forecast
    from moirai_moe_forecaster.inference.pipeline import MoiraiMoEPipeline

INTERRUPTED = 130
PICTURE = "moirai_moe_demo.png"
PICTURE_FORMATS = (".pdf", ".png", ".svg")
COVERAGE = 0.8
AIRLINE_HORIZON = 36
AIRLINE_SEASON = 12
US_CHANGE_HORIZON = 12
US_CHANGE_DRAWN = 36
FACT_WIDTH = 24
LIBRARIES = ("torch", "sktime", "numpy", "pandas")


class Example(NamedTuple):
    """What was forecast, what really came, and the forecast."""

    history: Any
    truth: Any
    forecast: Forecast


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code.

    Parameters
    ----------
    argv : sequence of str, optional
        Arguments without the name of the program; by default those of the process.
    """
    arguments = _parser().parse_args(argv)
    run: Callable[[argparse.Namespace], None] = arguments.run
    try:
        run(arguments)
        sys.stdout.flush()
    except BrokenPipeError:
        # whoever read along has seen enough, as `head` does; Python would complain again at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (MoiraiMoEError, OSError) as error:
        if arguments.debug:
            raise
        print(f"moirai-moe: error: {' '.join(str(error).split())}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("moirai-moe: interrupted", file=sys.stderr)
        return INTERRUPTED
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="moirai-moe",
        description="Zero-shot probabilistic forecasts with Moirai-MoE.",
        epilog="start with:  moirai-moe demo",
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    _add_demo(commands)
    _add_info(commands)
    _add_backtest(commands)
    _add_finetune(commands)
    _add_pretrain(commands)
    return parser


def _add_demo(commands: Any) -> None:
    parser = _add_command(
        commands,
        "demo",
        _demo,
        "forecast two example data sets, print tables and draw a picture; needs no network",
        """
        examples:
          moirai-moe demo
          moirai-moe demo --output forecast.pdf
          moirai-moe demo --model ./my_checkpoint
        """,
    )
    _add_model(parser)
    parser.add_argument(
        "--output",
        type=_picture_path,
        metavar="FILE",
        help=f"the picture, {', '.join(PICTURE_FORMATS)} by its ending (default: {PICTURE})",
    )


def _add_info(commands: Any) -> None:
    parser = _add_command(
        commands,
        "info",
        _info,
        "show versions, device, and a checkpoint's licence and sizes",
        """
        examples:
          moirai-moe info
          moirai-moe info --model ./my_checkpoint
        """,
    )
    _add_model(parser)


def _add_backtest(commands: Any) -> None:
    parser = _add_command(
        commands,
        "backtest",
        cli_backtest.run,
        "score forecasts of the last windows of your series against seasonal naive",
        cli_backtest.EPILOG,
    )
    cli_backtest.add_arguments(parser)
    _add_model(parser)


def _add_finetune(commands: Any) -> None:
    parser = _add_command(
        commands,
        "finetune",
        cli_finetune.run,
        "train a checkpoint on your own series, and keep it if its forecasts get better",
        cli_finetune.EPILOG,
    )
    cli_finetune.add_arguments(parser)
    _add_model(parser)


def _add_pretrain(commands: Any) -> None:
    parser = _add_command(
        commands,
        "pretrain",
        cli_pretrain.run,
        "train a network from random weights on a folder of series",
        cli_pretrain.EPILOG,
    )
    cli_pretrain.add_arguments(parser)


def _add_command(
    commands: Any,
    name: str,
    run: Callable[[argparse.Namespace], None],
    summary: str,
    epilog: str,
) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(
        name,
        help=summary,
        description=summary[0].upper() + summary[1:] + ".",
        epilog=textwrap.dedent(epilog).strip(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    parser.set_defaults(run=run)
    return parser


def _add_model(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--model",
        metavar="PATH",
        help="directory or Hub name of a checkpoint (default: the bundled one)",
    )


def _picture_path(text: str) -> Path:
    path = Path(text)
    if path.suffix not in PICTURE_FORMATS:
        raise argparse.ArgumentTypeError(
            f"the file's ending must be one of {', '.join(PICTURE_FORMATS)}, got {text!r}"
        )
    if not path.parent.is_dir():
        raise argparse.ArgumentTypeError(f"the folder {str(path.parent)!r} does not exist")
    return path


# --- demo -------------------------------------------------------------------------------------


def _demo(arguments: argparse.Namespace) -> None:
    from moirai_moe_forecaster.inference.pipeline import MoiraiMoEPipeline

    airline, us_change = _airline(), _us_change()
    started = time.perf_counter()
    pipeline = MoiraiMoEPipeline.from_pretrained(arguments.model)
    loaded = time.perf_counter()
    examples = (
        _example(pipeline, airline, AIRLINE_HORIZON),
        _example(pipeline, us_change, US_CHANGE_HORIZON),
    )
    done = time.perf_counter()
    _print_facts(_checkpoint_facts(pipeline))
    print(f"\nloaded in {loaded - started:.2f} s, both forecasts took {done - loaded:.2f} s")
    _print_airline(examples[0])
    _print_us_change(examples[1])
    try:
        _save(_draw(*examples), arguments.output or Path(PICTURE))
    except MissingExtraError as error:
        # the tables are what most people came for; a picture that was asked for is another matter
        if arguments.output:
            raise
        print(f"\nno picture: {error}")


def _airline() -> pd.Series[float]:
    from sktime.datasets import load_airline

    airline: pd.Series[float] = load_airline()
    return airline


def _us_change() -> pd.DataFrame:
    """Quarterly changes of five indicators of the US economy, in per cent."""
    import pandas as pd
    from sktime.datasets import load_uschange

    consumption, others = load_uschange()
    table: pd.DataFrame = pd.concat([consumption, others], axis=1)
    # sktime leaves the dates out; the first quarter is that of the data's source
    table.index = pd.period_range("1970Q1", periods=len(table), freq="Q")
    return table


def _example(pipeline: MoiraiMoEPipeline, data: Any, horizon: int) -> Example:
    """Hold the end of a series, or of every column of a panel, out and forecast it."""
    history, truth = data.iloc[:-horizon], data.iloc[-horizon:]
    y = history if history.ndim == 1 else [history[name] for name in history]
    return Example(history, truth, pipeline.predict(y, horizon, random_state=0))


def _print_airline(example: Example) -> None:
    history, truth, forecast = example
    print(
        f"\nAirline passengers in thousands: {len(truth)} months ahead, "
        f"from {len(history)} months before\n"
    )
    lower, upper = forecast.interval(COVERAGE)
    rows = [
        [str(month), *(f"{value:.0f}" for value in values)]
        for month, *values in zip(truth.index, forecast.median, lower, upper, truth, strict=True)
    ]
    _print_table(["month", "median", *_interval_names(), "truth"], rows)
    inside = int(((lower <= truth) & (truth <= upper)).sum())
    print(f"\n{inside} of {len(truth)} months lie within their {COVERAGE:.0%} interval\n")
    _print_scores(example)


def _print_scores(example: Example) -> None:
    from moirai_moe_forecaster.evaluation import (
        LEVELS,
        Task,
        mase,
        score_naive,
        weighted_quantile_loss,
    )

    history, truth, forecast = example
    contexts, labels = [history.to_numpy()], truth.to_numpy()[None]
    naive = score_naive(Task("airline", AIRLINE_SEASON, contexts, labels))
    point, quantiles = forecast.median[None], forecast.quantile(LEVELS)[None]
    ours = mase(labels, point, contexts, AIRLINE_SEASON), weighted_quantile_loss(labels, quantiles)
    rows = [
        [name, *(f"{score:.3f}" for score in scores)]
        for name, scores in (("Moirai-MoE", ours), ("seasonal naive", naive))
    ]
    _print_table(["lower is better", "MASE", "WQL"], rows)


def _print_us_change(example: Example) -> None:
    history, truth, forecast = example
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
    _print_table([f"in {truth.index[0]}", *names], rows)


def _draw(airline: Example, us_change: Example) -> Figure:
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


def _save(figure: Figure, path: Path) -> None:
    """Write the picture whole or not at all."""
    temporary = path.with_name(f".{os.getpid()}-{path.name}")
    try:
        figure.savefig(temporary, dpi=150)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    print(f"\npicture: {path.resolve()}")


# --- info -------------------------------------------------------------------------------------


def _info(arguments: argparse.Namespace) -> None:
    import torch

    from moirai_moe_forecaster.inference.pipeline import MoiraiMoEPipeline

    versions = {name: metadata.version(name) for name in LIBRARIES}
    _print_facts({"moirai-moe-forecaster": __version__, "python": platform.python_version()})
    _print_facts(versions | {"threads": torch.get_num_threads()})
    # what is above is worth having even if the checkpoint cannot be loaded
    pipeline = MoiraiMoEPipeline.from_pretrained(arguments.model)
    _print_facts({"device": next(pipeline.network.parameters()).device})
    print()
    _print_facts(_checkpoint_facts(pipeline))
    print()
    _print_facts(pipeline.config.to_dict())


def _checkpoint_facts(pipeline: MoiraiMoEPipeline) -> dict[str, Any]:
    total, active = pipeline.network.parameter_counts()
    facts: dict[str, Any] = {}
    if pipeline.info is not None:
        facts = {"checkpoint": pipeline.info.name, "licence": pipeline.info.licence}
    return facts | {
        "parameters": f"{total / 1e6:.1f} million, of which a token uses {active / 1e6:.1f} million"
    }


# --- output -----------------------------------------------------------------------------------


def _interval_names() -> list[str]:
    return [f"{(1 - COVERAGE) / 2:.0%}", f"{(1 + COVERAGE) / 2:.0%}"]


def _print_facts(facts: Mapping[str, Any]) -> None:
    for name, value in facts.items():
        print(f"{name:<{FACT_WIDTH}}{value}")


def _print_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Align the first column left and the others right."""
    table = [header, *rows]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for first, *others in table:
        numbers = (f"{cell:>{width}}" for cell, width in zip(others, widths[1:], strict=True))
        print(f"{first:<{widths[0]}}  {'  '.join(numbers)}")


if __name__ == "__main__":
    sys.exit(main())
