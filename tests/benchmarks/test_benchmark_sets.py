"""The seasonal naive scores that were published with the Chronos benchmark are reproduced.

The environment variable MOIRAI_MOE_EVAL names a folder of sets, beside which a folder ``published``
holds the tables.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from benchmark_sets.tables import read_published
from benchmark_sets.tasks import read_task, score_naive

FOLDER = os.environ.get("MOIRAI_MOE_EVAL", "")
FILES = sorted(Path(FOLDER).glob("*.parquet")) if FOLDER else []

pytestmark = pytest.mark.skipif(
    not FILES, reason="the environment variable MOIRAI_MOE_EVAL names no folder of benchmark sets"
)


@pytest.mark.parametrize("file", FILES or [Path("none")], ids=lambda file: file.stem)
def test_seasonal_naive_is_the_published_one(file: Path) -> None:
    table = read_published(Path(FOLDER).parent / "published")
    rows = table[(table["model"] == "seasonal-naive") & (table["set"] == file.stem)]
    assert len(rows), f"{file.stem} is not in the published tables"
    scores = score_naive(read_task(file))
    assert scores.mase == pytest.approx(rows["MASE"].iloc[0], rel=5e-4)
    assert scores.wql == pytest.approx(rows["WQL"].iloc[0], rel=5e-4)
