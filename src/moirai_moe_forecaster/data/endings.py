"""Which files are tables, by their endings; without pandas, as a command line asks it at once."""

from __future__ import annotations

from pathlib import Path

TEXT_ENDINGS = (".csv", ".tsv", ".txt")
PARQUET_ENDINGS = (".parquet", ".pq")
COMPRESSIONS = (".gz", ".bz2", ".xz", ".zip")


def endings(path: Path) -> tuple[str, str]:
    """Ending of a table's file, and that of its compression or nothing, in small letters."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes and suffixes[-1] in COMPRESSIONS:
        return suffixes[-2] if len(suffixes) > 1 else "", suffixes[-1]
    return suffixes[-1] if suffixes else "", ""


def is_table(path: Path) -> bool:
    """Whether it is a file of a table by its ending, or a folder of files of parquet."""
    ending, compression = endings(path)
    if path.is_dir():
        return any(file.suffix.lower() in PARQUET_ENDINGS for file in path.rglob("*"))
    return ending in TEXT_ENDINGS or (ending in PARQUET_ENDINGS and not compression)
