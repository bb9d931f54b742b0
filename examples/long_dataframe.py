"""Long DataFrames: one row per series and time, any column names, gaps, covariates."""

# %% A table as it comes: shuffled rows, quarters in text, a quarter missing
# needs sktime
import pandas as pd
from sktime.datasets import load_uschange

from moirai_moe_forecaster import MoiraiMoEPipeline, backtest
from moirai_moe_forecaster.data.panel import read_panel

consumption, others = load_uschange()
economy = pd.concat([consumption, others], axis=1)
economy.index = pd.period_range("1970Q1", periods=len(economy), freq="Q").to_timestamp()
wide = economy.rename_axis("quarter").reset_index()
long = wide.melt("quarter", var_name="indicator", value_name="change")
long["quarter"] = long["quarter"].dt.strftime("%Y-%m-%d")
long = long.drop(17).sample(frac=1, random_state=0)
print(long.head())

# %% One call; what is missing, and that these are quarters, is found out for each indicator
pipeline = MoiraiMoEPipeline.from_pretrained()
names = {"id_column": "indicator", "timestamp_column": "quarter"}
forecast = pipeline.predict_df(
    long, 4, target_columns="change", quantile_levels=[0.1, 0.9], random_state=0, **names
)
print(forecast)

# %% Columns as covariates, one of them known ahead: its values to come stand in a second table
wide["country"] = "US"
past, ahead = wide[:-4], wide[-4:]
forecast = pipeline.predict_df(
    past,
    4,
    id_column="country",
    timestamp_column="quarter",
    target_columns="Consumption",
    past_covariates=["Savings", "Production"],
    future_df=ahead[["country", "quarter", "Income"]],
    random_state=0,
)
print(forecast[["quarter", "median", "0.1", "0.9"]])

# %% Several targets are forecast together
forecast = pipeline.predict_df(
    past,
    4,
    id_column="country",
    timestamp_column="quarter",
    target_columns=["Consumption", "Income"],
    quantile_levels=[0.5],
    random_state=0,
)
print(forecast)

# %% The same table as a panel, for backtest, predict or sktime
panel = read_panel(long, target_columns="change", **names)
scores = backtest(pipeline, panel, horizon=4, windows=3)
print(scores.groupby("series", sort=False)[["MASE", "WQL"]].mean())
