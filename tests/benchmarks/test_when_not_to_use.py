"""The page of where something else is better is made from small data, peers and network."""

from __future__ import annotations

import json
import runpy
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from benchmark_sets.tasks import Task
from moirai_moe_forecaster.inference.pipeline import MoiraiMoEPipeline
from tiny_network import tiny_network

SCRIPTS = Path(__file__).parents[2] / "examples" / "benchmarks"


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.syspath_prepend(str(SCRIPTS))
    return runpy.run_path(str(SCRIPTS / "when_not_to_use.py"))


class Rough:
    """In place of a peer: the last value, give or take."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __call__(self, contexts: Any, horizon: int, season: int, levels: Any) -> np.ndarray:
        last = np.array([context[-1] for context in contexts])[:, None, None]
        return np.tile(last + np.array(levels)[:, None] - 0.5, (1, 1, horizon))


def series(length: int, seed: int) -> np.ndarray:
    hours = np.arange(length)
    return 9 + np.sin(hours * np.pi / 12) + np.random.default_rng(seed).normal(size=length) / 9


def test_contexts_are_cut_to_a_few_seasons_or_to_many(script: dict[str, Any]) -> None:
    short, long = script["LENGTHS"]
    assert short.points(24) == (48, 72)
    assert long.points(24) == (168, 1024)
    assert short.points(1) == (8, 12)
    contexts = [series(length, length) for length in (40, 100, 2000)]
    contexts[1][-30:] = np.nan
    task = Task("some", 24, contexts, np.ones((3, 6)), "h")
    (cut,) = script["cut"]([task], short)
    assert [len(context) for context in cut.contexts] == [72, 72]
    (cut,) = script["cut"]([task], long)
    assert [len(context) for context in cut.contexts] == [1024]
    many = task._replace(contexts=[contexts[2]] * 200, labels=np.ones((200, 6)))
    (cut,) = script["cut"]([many], short)
    assert len(cut.contexts) <= script["WINDOWS_PER_GROUP"]
    constant = task._replace(contexts=[np.ones(100)], labels=np.ones((1, 6)))
    assert script["cut"]([constant], short) == []


def test_the_page_is_made(
    script: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for folder in ("corpus", "validation", "weights"):
        (tmp_path / folder).mkdir()
    # every twentieth series, from the tenth on, has its last fifth held out
    table = {"unique_id": [str(k) for k in range(40)], "freq": "h", "start": None}
    table["y"] = [series(600, k) for k in range(40)]
    for folder in ("corpus", "validation"):
        pd.DataFrame(table).to_parquet(tmp_path / folder / "waves.parquet")
    facts = {"source": "waves", "freq": "h", "seasonality": 24, "windows": 1, "step": 48}
    facts |= {"unique_ids": ["0", "1"]}
    terms = [{"term": "short", "horizon": 48}, {"term": "medium", "horizon": 96}]
    (tmp_path / "validation" / "tasks.json").write_text(json.dumps([facts | t for t in terms]))
    (tmp_path / "corpus.json").write_text("{}")
    (tmp_path / "weights" / "model.safetensors").write_bytes(b"weights")
    page = tmp_path / "page.md"
    page.write_text("Before.\n" + "\nold\n".join(script["MARKS"]) + "\nAfter.\n")
    tiny = SimpleNamespace(from_pretrained=lambda: MoiraiMoEPipeline(tiny_network()))
    replaced = {"Peer": Rough, "MoiraiMoEPipeline": tiny, "files": lambda _: tmp_path}
    for name, value in (replaced | {"CORPUS": tmp_path / "corpus.json"}).items():
        monkeypatch.setitem(script["main"].__globals__, name, value)
    arguments = [str(tmp_path / "corpus"), str(tmp_path / "validation"), "--page", str(page)]
    monkeypatch.setattr(sys, "argv", ["when_not_to_use.py", *arguments])
    script["main"]()
    printed = capsys.readouterr().out
    assert "| hourly | 2 to 3 seasons | 2 | 4 |" in printed
    assert "| hourly, 96 steps ahead | 7 seasons or more | 1 | 2 |" in printed
    # a random network is worse than seasonal naive on waves
    assert "| hourly | 7 seasons or more | seasonal-naive | 0." in printed
    assert "- hourly, context of 7 seasons or more: seasonal-naive (MASE and WQL)" in printed
    text = page.read_text()
    assert text.startswith("Before.\n<!-- numbers begin -->\nMeasured on ")
    assert text.endswith("<!-- numbers end -->\nAfter.\n")
    assert printed.strip() in text
    assert "old" not in text
