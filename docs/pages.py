"""Hook of mkdocs: pages that are files of the repository, and links that hold in both places."""

import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Put the file in place of a line ``{{ FILE }}``, and make links to files links to pages."""
    whole = re.sub(
        r"^\{\{ (.+) \}\}$",
        lambda match: (ROOT / match[1]).read_text(encoding="utf-8"),
        markdown,
        flags=re.MULTILINE,
    )
    whole = whole.replace("(../src/moirai_moe_forecaster/weights/README.md", "(model_card.md")
    return re.sub(r"\((?:\.\./)*docs/(\w+\.md)", r"(\1", whole)
