"""``moirai-moe routing`` prints and writes what `RoutingReport` counts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from moirai_moe_forecaster import cli
from moirai_moe_forecaster.inference.pipeline import MoiraiMoEPipeline

FREQUENCIES = {"a": "h", "b": "MS", "c": "h"}


@pytest.fixture
def table() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    parts = [
        pd.DataFrame(
            {
                "item_id": name,
                "timestamp": pd.date_range("2000-01-01", periods=90, freq=freq),
                "target": rng.normal(size=90).cumsum(),
                "region": "east" if name == "a" else "west",
            }
        )
        for name, freq in FREQUENCIES.items()
    ]
    return pd.concat(parts)


@pytest.fixture
def file(table: pd.DataFrame, tmp_path: Path) -> Path:
    path = tmp_path / "mixed.csv"
    table.to_csv(path, index=False)
    return path


@pytest.mark.parametrize(
    ("by", "labels"),
    [
        ("frequency", ["h", "MS", "h"]),
        ("id", ["a", "b", "c"]),
        ("region", ["east", "west", "west"]),
    ],
)
def test_loads_are_those_of_the_report(
    by: str,
    labels: list[str],
    file: Path,
    table: pd.DataFrame,
    model: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    output = tmp_path / "load.csv"
    command = ["routing", str(file), "--model", model, "--quiet", "--by", by, "-o", str(output)]
    assert cli.main(command) == 0
    series = [part.to_numpy() for _, part in table.groupby("item_id")["target"]]
    report = MoiraiMoEPipeline.from_pretrained(model).routing(series).with_labels(**{by: labels})
    pd.testing.assert_frame_equal(
        pd.read_csv(output), report.load(by), check_dtype=False, rtol=1e-5
    )
    printed = capsys.readouterr().out
    groups = len(set(labels))
    assert f"3 series in {groups} groups by {by}, 18 patches, each sent to 2 of 4" in printed
    used = report.entropy()["effective_experts"]
    agreement = report.agreement(by).groupby("layer")["agreement"].mean()
    for layer in range(2):
        (line,) = (x for x in printed.splitlines() if x.startswith(f"{layer + 1} "))
        assert line.split() == [str(layer + 1), f"{used[layer]:.1f}", f"{agreement[layer]:.2f}"]


def test_a_picture_of_the_layers(file: Path, model: str, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="matplotlib, of the extra plot, is not installed")
    picture = tmp_path / "routing.svg"
    assert cli.main(["routing", str(file), "--model", model, "--plot", str(picture)]) == 0
    assert "layer 2 of 2" in picture.read_text()


def test_one_group_needs_no_agreement(
    tmp_path: Path, model: str, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "one.csv"
    pd.DataFrame({"target": np.arange(40.0)}).to_csv(file, index=False)
    assert cli.main(["routing", str(file), "--model", model, "--quiet"]) == 0
    assert "agreement" not in capsys.readouterr().out


def test_ids_without_a_label_are_one_group(
    table: pd.DataFrame, model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "partly.csv"
    table.assign(region=table["region"].where(table["item_id"] == "a")).to_csv(file, index=False)
    assert cli.main(["routing", str(file), "--model", model, "--quiet", "--by", "region"]) == 0
    assert "3 series in 2 groups by region" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("by", "message"),
    [
        ("country", "has no column 'country'"),
        ("target", "column 'target' has several values for id 'a'"),
    ],
)
def test_errors_are_one_line(
    by: str, message: str, file: Path, model: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["routing", str(file), "--model", model, "--by", by]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line
