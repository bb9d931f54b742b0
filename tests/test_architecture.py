"""The list of files in docs/architecture.md is that of the package."""

import runpy
from pathlib import Path

DOCS = Path(__file__).parents[1] / "docs"


def test_the_page_lists_the_files_as_they_are() -> None:
    """If it fails: python docs/draw_architecture.py."""
    script = runpy.run_path(str(DOCS / "draw_architecture.py"))
    listed = script["TREE"].search((DOCS / "architecture.md").read_text(encoding="utf-8"))
    assert listed is not None
    assert listed[0] == script["tree"]()
    for picture in ("forecast_path.svg", "training_batch.svg"):
        assert (DOCS / "images" / picture).stat().st_size > 1000
