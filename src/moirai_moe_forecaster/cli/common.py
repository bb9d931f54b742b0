"""What commands share: the record that describes one, and options that several have."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from moirai_moe_forecaster.cli.data import Names
from moirai_moe_forecaster.cli.output import PICTURES, TABLES, file_type, level_list
from moirai_moe_forecaster.cli.seasons import season_length


@dataclass(frozen=True, kw_only=True)
class Command:
    """One command.

    Attributes
    ----------
    name, summary, epilog : str
        The summary is a sentence without its capital and full stop.
    run : callable
        Called with the parsed arguments.
    add_arguments : callable, optional
        Adds the command's own options to its parser.
    takes_model : bool, default=True
        Whether there is an option ``--model``.
    """

    name: str
    summary: str
    epilog: str
    run: Callable[[argparse.Namespace], None]
    add_arguments: Callable[[argparse.ArgumentParser], None] | None = None
    takes_model: bool = True


OPTIONS: Mapping[str, Mapping[str, Any]] = {
    "--covariates": {"nargs": "+", "action": Names, "default": [], "metavar": "COLUMN"},
    "--device": {
        "default": "auto",
        "help": "such as cpu or cuda (default: a GPU if there is one)",
    },
    "--horizon": {"type": int, "metavar": "H", "help": "steps ahead"},
    "--integer": {"action": "store_true", "help": "forecast whole numbers"},
    "--levels": {"type": level_list, "metavar": "Q,Q,..."},
    "--lower": {"type": float, "metavar": "X", "help": "no value is lower, such as 0"},
    "--minutes": {"type": float, "metavar": "M", "help": "stop after this time"},
    "--model": {
        "metavar": "PATH",
        "help": "directory or Hub name of a checkpoint (default: the bundled one)",
    },
    "--output": {"metavar": "FILE", "type": file_type(TABLES)},
    "--plot": {"metavar": "FILE", "type": file_type(PICTURES)},
    "--quiet": {"action": "store_true", "help": "no progress bar"},
    "--resume": {"action": "store_true"},
    "--season-length": {
        "type": season_length,
        "default": "auto",
        "metavar": "N,N,...",
        "help": "steps of the cycles that forecasts may carry on, such as 24 or 24,168; auto finds "
        "them from the values, none leaves them out (default: auto)",
    },
    "--upper": {"type": float, "metavar": "X", "help": "no value is higher"},
    "--seed": {"type": int, "metavar": "S", "help": "(default: 0)"},
}
LETTERS = {"--output": "-o"}


def add_option(parser: argparse.ArgumentParser, name: str, **changes: Any) -> None:
    """Add an option that several commands have.

    Parameters
    ----------
    parser : ArgumentParser
    name : str
        A key of `OPTIONS`.
    **changes
        Arguments of `ArgumentParser.add_argument` that are this command's own, such as ``help``.
    """
    flags = [LETTERS[name], name] if name in LETTERS else [name]
    parser.add_argument(*flags, **{**OPTIONS[name], **changes})
