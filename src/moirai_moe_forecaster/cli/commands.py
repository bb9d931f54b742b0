"""The command ``moirai-moe`` and its subcommands."""

# argparse, because it costs no dependency and no start-up time; whatever imports torch or sktime is
# imported by the subcommand that needs it, so that --help answers at once
from __future__ import annotations

import argparse
import contextlib
import logging
import os
import sys
import textwrap
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import TextIO

from moirai_moe_forecaster import __version__
from moirai_moe_forecaster.cli import backtest, demo, finetune, forecast, info, pretrain, routing
from moirai_moe_forecaster.cli.common import add_option
from moirai_moe_forecaster.errors import MoiraiMoEError

# in the order of --help
COMMANDS = (
    demo.COMMAND,
    info.COMMAND,
    forecast.COMMAND,
    backtest.COMMAND,
    routing.COMMAND,
    finetune.COMMAND,
    pretrain.COMMAND,
)
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
        with _messages(getattr(arguments, "verbose", None)):
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


@contextlib.contextmanager
def _messages(verbose: bool | None) -> Iterator[None]:
    """Print what is logged, and warned of, as a line of stderr each; None leaves both alone."""
    if verbose is None:
        yield
        return
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(message)s"))
    log = logging.getLogger("moirai_moe_forecaster")
    level = log.level
    log.addHandler(handler)
    log.setLevel(logging.INFO if verbose else logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("default", UserWarning)
            warnings.showwarning = _show_warning
            yield
    finally:
        log.removeHandler(handler)
        log.setLevel(level)


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    # those of libraries about themselves are not for whoever forecasts a file
    if category is UserWarning:
        print(f"moirai-moe: warning: {' '.join(str(message).split())}", file=sys.stderr)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="moirai-moe",
        description="Zero-shot probabilistic forecasts with Moirai-MoE.",
        epilog="start with:  moirai-moe demo",
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    parsers = parser.add_subparsers(metavar="COMMAND", required=True)
    for command in COMMANDS:
        own = parsers.add_parser(
            command.name,
            help=command.summary,
            description=command.summary[0].upper() + command.summary[1:] + ".",
            epilog=textwrap.dedent(command.epilog).strip(),
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        own.add_argument("--debug", action="store_true", help="show the traceback of an error")
        own.set_defaults(run=command.run)
        if command.add_arguments is not None:
            command.add_arguments(own)
        if command.takes_model:
            add_option(own, "--model")
    return parser
