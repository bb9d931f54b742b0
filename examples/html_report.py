"""A backtest as an HTML page, from Python; `moirai-moe backtest --html` does the same."""

# %%
# needs plotly
from pathlib import Path

import pandas as pd
from sktime.datasets import load_uschange

from moirai_moe_forecaster import MoiraiMoEPipeline
from moirai_moe_forecaster.evaluation import Backtest
from moirai_moe_forecaster.reports.html import backtest_page

consumption, others = load_uschange()
economy = pd.concat([consumption, others], axis=1)
economy.index = pd.period_range("1970Q1", periods=len(economy), freq="Q")
panel = economy.rename_axis("quarter").stack().swaplevel().sort_index()

# %%
pipeline = MoiraiMoEPipeline.from_pretrained()
backtest = Backtest.of(panel, horizon=4, windows=4)
forecast = backtest.forecast(pipeline)
result = backtest.score_forecast(forecast)
scores = result[["MASE", "WQL"]].mean().to_frame("Moirai-MoE").T
page = backtest_page(pipeline, panel, result, scores, "the US economy", forecast=forecast)
Path("report.html").write_text(page, encoding="utf-8")
print(f"report.html: {len(page) / 1e6:.1f} MB, to be read without a network")
