"""The command ``moirai-moe`` and its subcommands."""

# argparse, because it costs no dependency and no start-up time; whatever imports torch or sktime is
# imported by the subcommand that needs it, so that --help answers at once
from __future__ import annotations

import argparse
import os
import sys
import textwrap
from collections.abc import Callable, Sequence
from typing import Any

from moirai_moe_forecaster import __version__
from moirai_moe_forecaster.cli import backtest, demo, finetune, forecast, info, pretrain, routing
from moirai_moe_forecaster.errors import MoiraiMoEError

INTERRUPTED = 130


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
    _add_forecast(commands)
    _add_backtest(commands)
    _add_routing(commands)
    _add_finetune(commands)
    _add_pretrain(commands)
    return parser


def _add_demo(commands: Any) -> None:
    parser = _add_command(
        commands,
        "demo",
        demo.run,
        "forecast two example data sets, print tables and draw a picture; needs no network",
        demo.EPILOG,
    )
    demo.add_arguments(parser)
    _add_model(parser)


def _add_info(commands: Any) -> None:
    parser = _add_command(
        commands,
        "info",
        info.run,
        "show versions, device, and a checkpoint's licence and sizes",
        info.EPILOG,
    )
    _add_model(parser)


def _add_forecast(commands: Any) -> None:
    parser = _add_command(
        commands,
        "forecast",
        forecast.run,
        "forecast the series of a file: quantiles as a table, and a picture",
        forecast.EPILOG,
    )
    forecast.add_arguments(parser)
    _add_model(parser)


def _add_routing(commands: Any) -> None:
    parser = _add_command(
        commands,
        "routing",
        routing.run,
        "show which experts the series of a file are sent to",
        routing.EPILOG,
    )
    routing.add_arguments(parser)
    _add_model(parser)


def _add_backtest(commands: Any) -> None:
    parser = _add_command(
        commands,
        "backtest",
        backtest.run,
        "score forecasts of the last windows of your series against seasonal naive",
        backtest.EPILOG,
    )
    backtest.add_arguments(parser)
    _add_model(parser)


def _add_finetune(commands: Any) -> None:
    parser = _add_command(
        commands,
        "finetune",
        finetune.run,
        "train a checkpoint on your own series, and keep it if its forecasts get better",
        finetune.EPILOG,
    )
    finetune.add_arguments(parser)
    _add_model(parser)


def _add_pretrain(commands: Any) -> None:
    parser = _add_command(
        commands,
        "pretrain",
        pretrain.run,
        "train a network from random weights on a folder of series",
        pretrain.EPILOG,
    )
    pretrain.add_arguments(parser)


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
