"""The command ``moirai-moe pretrain``."""

# like commands.py, this imports torch only when the command runs, so that --help answers at once
from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from moirai_moe_forecaster.cli.common import Command, add_option
from moirai_moe_forecaster.config import ModelConfig, TrainConfig
from moirai_moe_forecaster.errors import ConfigError

PRESETS = ("tiny", "small", "base")
OWN_OPTIONS = ("steps", "seed")
EPILOG = """
    The folder of data holds .parquet files, one per source, with one row per series and a
    column y, a list of numbers (NaN is missing). The output folder receives the state of the
    run, metrics.jsonl with a line per logged step and, at the end, a checkpoint for --model.
    --set changes any field of TrainConfig; --resume keeps the settings of the run.

    examples:
      moirai-moe pretrain --data corpus --steps 20000 --output run
      moirai-moe pretrain --data corpus --steps 30000 --output run --resume
      moirai-moe pretrain --data corpus --steps 20000 --output run --initial bundled
      moirai-moe pretrain --data corpus --steps 20000 --output run --device cuda \\
          --set precision=bfloat16 --set batch_rows=512 --set ema_decay=0.999
      torchrun --nproc-per-node 8 -m moirai_moe_forecaster pretrain --preset base --shard \\
          --data corpus --steps 100000 --output run --set batch_rows=1024
      moirai-moe demo --model run
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    parser.add_argument(
        "--preset", choices=PRESETS, default="tiny", help="the network's size (default: tiny)"
    )
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="folder of series")
    parser.add_argument(
        "--corpus",
        type=Path,
        metavar="FILE",
        help="JSON object with 'weights' (factors by source) and 'exclude' (ids by source)",
    )
    parser.add_argument(
        "--steps", type=int, required=True, metavar="N", help="optimiser steps in all"
    )
    parser.add_argument(
        "--output", type=Path, required=True, metavar="DIR", help="folder of the run"
    )
    add_option(parser, "--seed")
    parser.add_argument(
        "--initial",
        metavar="MODEL",
        help="start from a checkpoint's weights instead of random ones, in its architecture and "
        "whatever the preset: 'bundled', a directory or a Hub name",
    )
    add_settings(parser)
    add_option(parser, "--resume", help="go on from the last state in the output folder")
    add_option(parser, "--minutes", help="stop after this time, with the state saved")
    add_option(parser, "--device")
    parser.add_argument(
        "--shard",
        action="store_true",
        help="share the weights out to the processes that torchrun started (FSDP2)",
    )
    add_option(parser, "--quiet", help="no progress bar, no log")


def add_settings(parser: argparse.ArgumentParser) -> None:
    """Add the option that changes fields of `TrainConfig`."""
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        dest="settings",
        metavar="NAME=VALUE",
        help="a field of TrainConfig, such as learning_rate=5e-4; may be repeated",
    )


def run(arguments: argparse.Namespace) -> None:
    """Train, and leave a checkpoint."""
    if arguments.initial is not None and arguments.resume:
        raise ConfigError("--initial starts a run and --resume goes on with one: give one of them")
    saved = _saved_settings(arguments.output) if arguments.resume else {}
    training = training_config(arguments.settings, arguments.steps, arguments.seed, saved)
    weights, exclude = corpus_options(arguments.corpus)
    import logging

    from moirai_moe_forecaster.checkpoint.store import save_checkpoint
    from moirai_moe_forecaster.training.data.corpus import read_corpus
    from moirai_moe_forecaster.training.distributed import is_first_process
    from moirai_moe_forecaster.training.pretrain import pretrain

    logging.basicConfig(format="%(message)s")
    silent = arguments.quiet or not is_first_process()
    logging.getLogger("moirai_moe_forecaster").setLevel("WARNING" if silent else "INFO")
    model, initial = _start(arguments)
    network = pretrain(
        model,
        training,
        read_corpus(arguments.data, weights, exclude),
        arguments.output,
        initial=initial,
        resume=arguments.resume,
        device=arguments.device,
        progress=not arguments.quiet,
        minutes=arguments.minutes,
        shard=arguments.shard,
    )
    if is_first_process():
        save_checkpoint(network, arguments.output)
        print(f"checkpoint: {arguments.output.resolve()}")


def _start(arguments: argparse.Namespace) -> tuple[ModelConfig, Mapping[str, Any] | None]:
    """Architecture and, of a checkpoint, weights that a run starts or goes on with."""
    from moirai_moe_forecaster.checkpoint.store import load_checkpoint
    from moirai_moe_forecaster.training.state import saved_model

    if arguments.resume:
        return saved_model(arguments.output), None
    if arguments.initial is None:
        return ModelConfig.preset(arguments.preset), None
    name = None if arguments.initial == "bundled" else arguments.initial
    network = load_checkpoint(name).network
    return network.config, network.state_dict()


def _saved_settings(output: Path) -> Mapping[str, Any]:
    from moirai_moe_forecaster.training.state import saved_settings

    return saved_settings(output)


def training_config(
    settings: Sequence[str], steps: int, seed: int | None, saved: Mapping[str, Any]
) -> TrainConfig:
    """Build a configuration from texts such as ``learning_rate=5e-4``.

    Parameters
    ----------
    settings : sequence of str
    steps : int
    seed : int or None
        None is the saved one, or 0.
    saved : mapping
        Settings of the run that is resumed, which hold where nothing else is said.

    Raises
    ------
    ConfigError
        If a text is none such, names no field or one that has an option of its own, or the value
        does not suit the field.
    """
    values: dict[str, Any] = {**saved, "steps": steps}
    if seed is not None:
        values["seed"] = seed
    for setting in settings:
        name, separator, text = setting.partition("=")
        if not separator:
            raise ConfigError(f"--set takes NAME=VALUE, got {setting!r}")
        if name in OWN_OPTIONS:
            raise ConfigError(f"--set {setting}: use --{name} instead")
        values[name] = _value(text)
    return TrainConfig.from_dict(values)


def corpus_options(
    file: Path | None,
) -> tuple[Mapping[str, float], Mapping[str, Sequence[str]]]:
    """Read the weights of sources and the series to leave out."""
    if file is None:
        return {}, {}
    try:
        options = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ConfigError(f"{file} is not valid JSON: {error}") from error
    if not isinstance(options, dict) or options.keys() - {"weights", "exclude"}:
        raise ConfigError(f"{file} must be a JSON object with the keys 'weights' and 'exclude'")
    weights, exclude = options.get("weights", {}), options.get("exclude", {})
    if not isinstance(weights, dict) or not isinstance(exclude, dict):
        raise ConfigError(f"'weights' and 'exclude' of {file} must be JSON objects by source")
    if wrong := [name for name, ids in exclude.items() if not isinstance(ids, list)]:
        raise ConfigError(f"'exclude' of {file} must have a list of ids for {wrong[0]!r}")
    return weights, exclude


def _value(text: str) -> Any:
    """Read a number, a pair or a boolean as JSON has it, and anything else as a word."""
    try:
        return json.loads(text)
    except ValueError:
        return text


COMMAND = Command(
    name="pretrain",
    summary="train a network from random weights on a folder of series",
    epilog=EPILOG,
    add_arguments=add_arguments,
    run=run,
    takes_model=False,
)
