"""The command ``moirai-moe info``."""

# like commands.py, this imports torch only when the command runs, so that --help answers
from __future__ import annotations

import argparse
import platform
from importlib import metadata
from typing import TYPE_CHECKING, Any

from moirai_moe_forecaster import __version__
from moirai_moe_forecaster.cli.common import Command
from moirai_moe_forecaster.cli.output import print_facts

if TYPE_CHECKING:
    from moirai_moe_forecaster.inference.pipeline import MoiraiMoEPipeline

LIBRARIES = ("torch", "sktime", "numpy", "pandas")
OPTIONAL = ("darts", "huggingface_hub", "matplotlib", "plotly", "pyarrow", "statsforecast")
EPILOG = """
    examples:
      moirai-moe info
      moirai-moe info --model ./my_checkpoint
"""


def run(arguments: argparse.Namespace) -> None:
    """Print versions, device and the checkpoint's facts."""
    import torch

    from moirai_moe_forecaster.inference.pipeline import MoiraiMoEPipeline

    versions = {name: metadata.version(name) for name in LIBRARIES}
    versions |= {name: _version(name) for name in OPTIONAL}
    print_facts({"moirai-moe-forecaster": __version__, "python": platform.python_version()})
    print_facts(versions | {"threads": torch.get_num_threads()})
    # what is above is worth having even if the checkpoint cannot be loaded
    pipeline = MoiraiMoEPipeline.from_pretrained(arguments.model)
    print_facts({"device": next(pipeline.network.parameters()).device})
    print()
    print_facts(checkpoint_facts(pipeline))
    print()
    print_facts(pipeline.config.to_dict())


def checkpoint_facts(pipeline: MoiraiMoEPipeline) -> dict[str, Any]:
    """Name, licence and sizes of a checkpoint."""
    total, active = pipeline.network.parameter_counts()
    facts: dict[str, Any] = {}
    if pipeline.info is not None:
        facts = {"checkpoint": pipeline.info.name, "licence": pipeline.info.licence}
    return facts | {
        "parameters": f"{total / 1e6:.1f} million, of which a token uses {active / 1e6:.1f} million"
    }


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "not installed"


COMMAND = Command(
    name="info",
    summary="show versions, device, and a checkpoint's licence and sizes",
    epilog=EPILOG,
    run=run,
)
