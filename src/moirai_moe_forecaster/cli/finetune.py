"""The command ``moirai-moe finetune``."""

# like commands.py, this imports torch and pandas only when the command runs, so that --help answers
from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from moirai_moe_forecaster.cli.common import Command, add_option
from moirai_moe_forecaster.cli.data import ABOUT_DATA, Names, add_data, read_data, read_freq
from moirai_moe_forecaster.errors import ConfigError

MODES = ("lora", "full", "head", "router")
WHOLE, ADAPTERS = "model", "adapters"
EPILOG = f"""{ABOUT_DATA}
    The last windows of the series are held out and forecast on the way; the weights
    that forecast them best are written, the ones before training if none were better. Ctrl-C ends
    the training and writes the best so far; a second one ends it at once. The output folder is for
    --model, and also holds the state that --resume goes on from.

    examples:
      moirai-moe finetune data.csv --horizon 24 --output tuned
      moirai-moe finetune sales.parquet --horizon 28 --id store --timestamp date --target sales \\
          --mode full --minutes 10 --output tuned
      moirai-moe finetune data.csv --horizon 24 --write adapters --output tuned
      moirai-moe backtest data.csv --horizon 24 --model tuned
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    add_data(parser)
    add_option(
        parser,
        "--horizon",
        help="steps ahead that will be forecast (default: what one pass predicts, but not more "
        "than a fifth of the median length)",
    )
    parser.add_argument(
        "--output", type=Path, required=True, metavar="DIR", help="folder of the result"
    )
    parser.add_argument(
        "--write",
        choices=(WHOLE, ADAPTERS),
        default=WHOLE,
        help="the whole model, or only what was added to it (default: model)",
    )
    _add_training(parser)


def _add_training(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--mode", choices=MODES, default="lora", help="what is trained (default: lora)"
    )
    parser.add_argument(
        "--validation",
        type=_validation,
        default="time",
        metavar="time|none|SHARE",
        help="what is held out: the last windows, nothing, or the last share of every series "
        "(default: time)",
    )
    parser.add_argument(
        "--steps", type=int, default=400, metavar="N", help="optimiser steps (default: 400)"
    )
    parser.add_argument(
        "--learning-rate", type=float, metavar="R", help="highest rate (default: the better of two)"
    )
    parser.add_argument(
        "--patience",
        type=int,
        default=3,
        metavar="N",
        help="evaluations without improvement to end after (default: 3)",
    )
    parser.add_argument("--batch-size", type=int, metavar="N", help="windows per step")
    parser.add_argument(
        "--freeze",
        nargs="+",
        action=Names,
        default=[],
        metavar="PATTERN",
        help="parameters that stay as they are, such as 'embedding.*'",
    )
    parser.add_argument("--rank", type=int, metavar="R", help="of LoRA (default: 8)")
    parser.add_argument(
        "--targets",
        nargs="+",
        action=Names,
        metavar="NAME",
        help="of LoRA: attention, experts, input, head",
    )
    parser.add_argument("--bfloat16", action="store_true", help="matrix products in bfloat16")
    add_option(parser, "--minutes")
    add_option(parser, "--seed", default=0)
    add_option(parser, "--device")
    add_option(parser, "--resume", help="go on from the state in the output folder")
    add_option(parser, "--quiet")


def run(arguments: argparse.Namespace) -> None:
    """Fine-tune, print what it brought, and write the result."""
    if arguments.mode == "full" and arguments.write == ADAPTERS:
        raise ConfigError("mode 'full' changes all weights and has no adapters: leave --write out")
    _check_output(arguments)
    data = read_data(arguments)
    from moirai_moe_forecaster.data.panel import read_panel
    from moirai_moe_forecaster.inference.pipeline import MoiraiMoEPipeline

    columns = data.targets[0] if len(data.targets) == 1 else data.targets
    freq = read_freq(arguments.freq)
    y = read_panel(data.table, **data.names, target_columns=columns, freq=freq)
    pipeline = MoiraiMoEPipeline.from_pretrained(arguments.model, device=arguments.device)
    tuned = pipeline.fine_tune(
        y,
        horizon=arguments.horizon,
        mode=arguments.mode,
        validation=arguments.validation,
        max_steps=arguments.steps,
        learning_rate=arguments.learning_rate,
        patience=arguments.patience,
        batch_size=arguments.batch_size,
        freeze=arguments.freeze,
        lora=_lora(arguments),
        precision="bfloat16" if arguments.bfloat16 else "float32",
        minutes=arguments.minutes,
        output=arguments.output,
        resume=arguments.resume,
        progress=not arguments.quiet,
        random_state=arguments.seed,
        on_error=arguments.on_error,
    )
    print(tuned.tuning)
    if arguments.write == ADAPTERS:
        tuned.save_adapters(arguments.output)
    else:
        tuned.save_pretrained(arguments.output)
    print(f"\n{arguments.write}: {arguments.output.resolve()}")


def _check_output(arguments: argparse.Namespace) -> None:
    """Refuse a folder whose checkpoint the result would replace or hide behind."""
    from moirai_moe_forecaster.checkpoint import CONFIG_FILE
    from moirai_moe_forecaster.checkpoint.adapters import adapters_folder
    from moirai_moe_forecaster.tuning.run_state import holds_run

    output = arguments.output.expanduser()
    if arguments.write == ADAPTERS:
        adapters_folder(output)
    elif (output / CONFIG_FILE).exists() and not holds_run(output):
        raise ConfigError(f"{output} holds a checkpoint: choose another folder for --output")


def _lora(arguments: argparse.Namespace) -> dict[str, Any] | None:
    given = {name: getattr(arguments, name) for name in ("rank", "targets")}
    return {name: value for name, value in given.items() if value is not None} or None


def _validation(text: str) -> str | float | None:
    if text in ("time", "none"):
        return None if text == "none" else text
    try:
        share = float(text)
    except ValueError:
        share = 0.0
    if not 0 < share < 1:
        raise argparse.ArgumentTypeError(f"must be time, none or a share such as 0.2, got {text!r}")
    return share


COMMAND = Command(
    name="finetune",
    summary="train a checkpoint on your own series, and keep it if its forecasts get better",
    epilog=EPILOG,
    add_arguments=add_arguments,
    run=run,
)
