"""What commands print and write."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from moirai_moe_forecaster.errors import MissingExtraError

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure, SubFigure

TABLES = (".csv", ".parquet")
PICTURES = (".pdf", ".png", ".svg")
PAGES = (".html",)
FACT_WIDTH = 24
# what float32 holds
DIGITS = "%.7g"


def file_type(endings: Sequence[str]) -> Callable[[str], Path]:
    """Return a type for argparse: a file with one of some endings in a folder that exists."""

    def path(text: str) -> Path:
        file = Path(text)
        if file.suffix not in endings:
            raise argparse.ArgumentTypeError(
                f"the file's ending must be one of {', '.join(endings)}, got {text!r}"
            )
        if not file.parent.is_dir():
            raise argparse.ArgumentTypeError(f"the folder {str(file.parent)!r} does not exist")
        return file

    return path


def level_list(text: str) -> list[float]:
    """Read quantile levels such as ``0.1,0.5,0.9``."""
    try:
        return [float(part) for part in text.split(",")]
    except ValueError as error:
        raise argparse.ArgumentTypeError(
            f"levels must be numbers with commas between, such as 0.1,0.5,0.9; got {text!r}"
        ) from error


def write_whole(path: Path, write: Callable[[Path], object]) -> None:
    """Write a file whole or not at all: `write` gets another name, which is then changed."""
    temporary = path.with_name(f".{os.getpid()}-{path.name}")
    try:
        write(temporary)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_table(table: pd.DataFrame, path: Path) -> None:
    """Write a table as .csv or .parquet, by the ending."""

    def write(file: Path) -> None:
        if path.suffix == ".csv":
            table.to_csv(file, index=False, float_format=DIGITS)
            return
        try:
            table.to_parquet(file, index=False)
        except ImportError as error:
            raise MissingExtraError("pyarrow", "train", f"writing {path}") from error

    write_whole(path, write)


def write_picture(figure: Figure | SubFigure, path: Path) -> None:
    """Write a picture in the format of the ending."""
    write_whole(path, lambda file: figure.savefig(file, dpi=150))  # type: ignore[union-attr]


def print_facts(facts: Mapping[str, Any]) -> None:
    """Print one fact a line."""
    for name, value in facts.items():
        print(f"{name:<{FACT_WIDTH}}{value}")


def print_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Align the first column left and the others right."""
    table = [header, *rows]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for first, *others in table:
        numbers = (f"{cell:>{width}}" for cell, width in zip(others, widths[1:], strict=True))
        print(f"{first:<{widths[0]}}  {'  '.join(numbers)}")
