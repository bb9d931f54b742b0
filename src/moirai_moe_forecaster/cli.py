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

from moirai_moe_forecaster import (
    __version__,
    cli_backtest,
    cli_demo,
    cli_finetune,
    cli_forecast,
    cli_info,
    cli_pretrain,
    cli_routing,
)
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
        cli_demo.run,
        "forecast two example data sets, print tables and draw a picture; needs no network",
        cli_demo.EPILOG,
    )
    cli_demo.add_arguments(parser)
    _add_model(parser)


def _add_info(commands: Any) -> None:
    parser = _add_command(
        commands,
        "info",
        cli_info.run,
        "show versions, device, and a checkpoint's licence and sizes",
        cli_info.EPILOG,
    )
    _add_model(parser)


def _add_forecast(commands: Any) -> None:
    parser = _add_command(
        commands,
        "forecast",
        cli_forecast.run,
        "forecast the series of a file: quantiles as a table, and a picture",
        cli_forecast.EPILOG,
    )
    cli_forecast.add_arguments(parser)
    _add_model(parser)


def _add_routing(commands: Any) -> None:
    parser = _add_command(
        commands,
        "routing",
        cli_routing.run,
        "show which experts the series of a file are sent to",
        cli_routing.EPILOG,
    )
    cli_routing.add_arguments(parser)
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


if __name__ == "__main__":
    sys.exit(main())
