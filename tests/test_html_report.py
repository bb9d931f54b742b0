"""The page of a backtest loads nothing, and a browser without a network shows all of it."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from moirai_moe_forecaster import cli
from moirai_moe_forecaster.inference.pipeline import MoiraiMoEPipeline
from tiny_network import tiny_network

pytest.importorskip("plotly", reason="plotly, of the extra report, is not installed")

BROWSER = next(
    (path for name in ("chromium", "chromium-headless-shell") if (path := shutil.which(name))), None
)


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report on two series of two variates, one with a name that is markup."""
    folder = tmp_path_factory.mktemp("report")
    MoiraiMoEPipeline(tiny_network()).save_pretrained(folder / "model")
    rng = np.random.default_rng(0)
    parts = [
        pd.DataFrame(
            {
                "item_id": name,
                "timestamp": pd.date_range("2020-01-01", periods=60, tz="Europe/Berlin"),
                "in": rng.normal(size=60).cumsum(),
                "out": rng.normal(size=60).cumsum(),
                "price": rng.normal(size=60),
            }
        )
        for name in ("north", "<b>south</b>")
    ]
    data, file = folder / "<data>.csv", folder / "report.html"
    pd.concat(parts).to_csv(data, index=False)
    command = ["backtest", str(data), "--horizon", "6", "--windows", "2", "--quiet", "--no-peers"]
    command += ["--target", "in", "out", "--covariates", "price"]
    assert cli.main([*command, "--model", str(folder / "model"), "--html", str(file)]) == 0
    return file


def without_scripts(text: str) -> str:
    return re.sub(r"<script.*?</script>", "", text, flags=re.DOTALL)


def test_the_page_loads_nothing(page: Path) -> None:
    text = page.read_text()
    assert not re.search(r"<(script|img|iframe)[^>]*\bsrc=|<link\b", without_scripts(text))
    assert not re.search(r"<script[^>]*\bsrc=", text)
    assert text.count("</html>") == 1


def test_the_page_holds_scores_and_no_foreign_markup(page: Path) -> None:
    text = without_scripts(page.read_text())
    for part in ("Backtest of &lt;data&gt;.csv", "Moirai-MoE", "seasonal naive", "MASE", "WQL"):
        assert part in text
    assert "2 series, 4 windows, 6 steps ahead" in text
    assert "<b>" not in text


@pytest.mark.skipif(BROWSER is None, reason="no chromium to open the page in")
def test_a_browser_without_a_network_draws_all_pictures(page: Path, tmp_path: Path) -> None:
    # a proxy that refuses everything stands for the network
    options = ["--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path}"]
    options += ["--proxy-server=127.0.0.1:9", "--virtual-time-budget=10000", "--dump-dom"]
    done = subprocess.run(
        [BROWSER, *options, page.as_uri()], capture_output=True, text=True, timeout=120, check=True
    )
    drawn = without_scripts(done.stdout)
    assert drawn.count('class="plotly-graph-div') == drawn.count("js-plotly-plot") == 3
    for part in ("80% interval", "median", "Coverage of intervals", "layer 2", "north, in"):
        assert part in drawn, f"{part!r} was not drawn"
