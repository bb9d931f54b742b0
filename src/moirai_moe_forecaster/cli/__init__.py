"""The command line ``moirai-moe``."""

from moirai_moe_forecaster.cli.commands import main

__all__ = ["main"]
