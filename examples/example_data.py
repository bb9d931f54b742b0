"""Write the real data sets that come with sktime as .csv files, to try the command line on."""

# %%
import pandas as pd
from sktime.datasets import load_airline, load_lynx, load_PBS_dataset, load_uschange

# %% One series: airline passengers by month, thousands
airline = load_airline().to_timestamp()
airline.rename("passengers").rename_axis("month").to_csv("airline.csv")

# %% A panel: quarterly changes of five indicators of the US economy, per cent, one row each
consumption, others = load_uschange()
economy = pd.concat([consumption, others], axis=1)
economy.index = pd.period_range("1970Q1", periods=len(economy), freq="Q").to_timestamp()
economy = economy.rename_axis("quarter").melt(
    var_name="indicator", value_name="change", ignore_index=False
)
economy.to_csv("us_change.csv")

# %% Series of different frequencies in one file: months, quarters and years
lynx = load_lynx()
lynx.index = pd.PeriodIndex(lynx.index, freq="Y").to_timestamp()
series = {
    "airline": airline,
    "prescriptions": load_PBS_dataset().to_timestamp(),
    "consumption": economy.loc[economy["indicator"] == "Consumption", "change"],
    "income": economy.loc[economy["indicator"] == "Income", "change"],
    "lynx": lynx,
}
mixed = pd.concat(series, names=["item_id", "timestamp"]).rename("target")
mixed.to_csv("mixed.csv")
