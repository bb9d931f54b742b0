"""What ``--season-length`` may be, and what commands say about cycles."""

# like commands.py, this imports nothing heavy, so that --help answers at once
from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import pandas as pd

MOST_LENGTHS = 3


def season_length(text: str) -> Literal["auto"] | list[int] | None:
    """Read "auto", "none", or steps such as ``24,168``."""
    word = text.strip().lower()
    if word == "auto":
        return "auto"
    if word == "none":
        return None
    try:
        lengths = [int(part) for part in text.split(",")]
    except ValueError:
        lengths = []
    if not lengths or min(lengths) < 1:
        raise argparse.ArgumentTypeError(
            "the season length must be auto, none, or steps with commas between, such as 24 or "
            f"24,168; got {text!r}"
        )
    return lengths


def describe_cycles(seasons: pd.DataFrame) -> str:
    """Say in a line what repeats, and how much the views with cycles count.

    Parameters
    ----------
    seasons : DataFrame
        `Forecast.seasons`.
    """
    found = seasons.dropna(subset="period")
    if found.empty:
        return "cycles: none found"
    # weights stand beside each period of a variate
    variates, cyclic = (table.drop_duplicates(["series", "variate"]) for table in (seasons, found))
    share = f"views with cycles count {1 - cyclic['plain'].mean():.0%}"
    if len(variates) == 1:
        periods = [
            f"{length} steps (strength {strength:.2f})"
            for length, strength in zip(found["period"], found["strength"], strict=True)
        ]
        return f"cycles: {', '.join(periods)}; {share}"
    counts = found["period"].value_counts()
    common = [f"{length} steps ({count})" for length, count in counts.head(MOST_LENGTHS).items()]
    common += ["..."] * (len(counts) > MOST_LENGTHS)
    unit = "variates" if seasons["variate"].any() else "series"
    return (
        f"cycles in {len(cyclic)} of {len(variates)} {unit}: {', '.join(common)}; "
        f"there, {share} on average"
    )
