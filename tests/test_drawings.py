"""The examples that draw write legible pictures of what they are given."""

import json
import runpy
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("matplotlib")

EXAMPLES = Path(__file__).parents[1] / "examples"
PNG = b"\x89PNG"


def example(name: str) -> dict[str, Any]:
    return runpy.run_path(str(EXAMPLES / name))


def run_example(name: str, *arguments: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", [name, *map(str, arguments)])
    runpy.run_path(str(EXAMPLES / name), run_name="__main__")


def write_run(folder: Path, lines: list[dict[str, Any]]) -> Path:
    folder.mkdir()
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    run = {"training": {"batch_rows": 4, "row_tokens": 50_000}}
    (folder / "run.json").write_text(json.dumps(run))
    return folder


def logged(step: int, **more: object) -> dict[str, Any]:
    return {"step": step, "loss": 2 / step, "gradient_norm": 0.5, "learning_rate": 1e-3} | more


def test_the_gallery_has_every_generator_and_is_small(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "new folder" / "generators.png"
    run_example("draw_generators.py", "--output", file, monkeypatch=monkeypatch)
    assert file.read_bytes().startswith(PNG)
    assert file.stat().st_size < 250_000


def test_the_guide_lists_every_generator_with_its_weight() -> None:
    guide = (EXAMPLES.parent / "docs" / "training.md").read_text()
    generators = example("draw_generators.py")["GENERATORS"]
    for name, (_, weight) in generators.items():
        assert f"| `{name}` | {weight} |" in guide
    assert "(images/generators.png)" in guide


def test_every_panel_of_the_gallery_shows_its_series() -> None:
    drawing = example("draw_generators.py")
    panels = drawing["gallery"]().get_axes()
    titles = [ax.get_title(loc="left") for ax in panels]
    expected = [name.replace("_", " ") for name in drawing["GENERATORS"]]
    assert titles[: len(expected)] == expected
    assert all(len(ax.lines) == 3 for ax in panels)
    values = np.array([np.ptp(line.get_ydata()) for ax in panels for line in ax.lines])
    assert values.max() <= 1
    assert (values > 0.5).mean() > 0.9, "flat lines"


def test_runs_are_drawn_with_and_without_expert_load(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load = [[0.5, 1.5], [0.8, 1.2]]
    old = write_run(tmp_path / "old", [logged(step) for step in range(1, 5)])
    new = write_run(
        tmp_path / "new",
        [logged(step, expert_load=load, validation_loss=1.0) for step in range(1, 5)],
    )
    for folders in ((old,), (old, new)):
        file = tmp_path / f"{len(folders)}.png"
        run_example("draw_training.py", *folders, "--output", file, monkeypatch=monkeypatch)
        assert file.read_bytes().startswith(PNG)


def test_the_load_panel_has_the_extremes_of_every_layer(tmp_path: Path) -> None:
    drawing = example("draw_training.py")
    load = [[0.5, 1.5], [0.8, 1.2]]
    run = write_run(tmp_path / "run", [logged(step, expert_load=load) for step in (1, 2, 3)])
    panel = drawing["picture"]([drawing["read_run"](run)]).get_axes()[-1]
    heights = sorted(float(np.mean(line.get_ydata())) for line in panel.lines)
    assert heights == pytest.approx([0.5, 0.8, 1, 1.2, 1.5])


def test_curves_count_tokens_and_leave_out_what_was_repeated_or_is_not_finite(
    tmp_path: Path,
) -> None:
    drawing = example("draw_training.py")
    lines = [
        logged(1),
        logged(2, loss=9.0),
        logged(3, loss=None),
        logged(2, loss=1.25),  # the run was resumed before step 2
        logged(4, validation_loss=0.5),
    ]
    run = drawing["read_run"](write_run(tmp_path / "run", lines))
    tokens, loss = drawing["curve"](run, "loss")
    assert tokens.tolist() == pytest.approx([0.2, 0.4, 0.8])
    assert loss.tolist() == pytest.approx([2, 1.25, 0.5])
    tokens, loss = drawing["curve"](run, "validation_loss")
    assert (tokens.tolist(), loss.tolist()) == (pytest.approx([0.8]), [0.5])


def test_smoothing_is_a_centred_mean() -> None:
    smoothed = example("draw_training.py")["smoothed"]
    line = np.arange(300.0)
    assert smoothed(line)[100:200] == pytest.approx(line[100:200])
    noisy = np.where(line % 2 == 0, 1.0, -1.0)
    assert np.abs(smoothed(noisy)).max() < 0.3
    assert smoothed(np.array([4.0])) == pytest.approx(4)
