"""Cycles: what repeats in series, how much it counts in forecasts, and a picture of one."""

# %%
# needs matplotlib
import numpy as np
import pandas as pd
from sktime.datasets import load_airline

from moirai_moe_forecaster import MoiraiMoEPipeline
from moirai_moe_forecaster.plotting import plot_seasons

# %% Three series: trips by the hour, with rush hours and quiet weekends, more in good weather;
# real airline passengers by month; and a walk, in which nothing repeats
rng = np.random.default_rng(1)
hours = pd.date_range("2024-01-01", periods=11 * 168, freq="h")
rush = np.exp(-((hours.hour - 8) ** 2) / 3) + 0.8 * np.exp(-((hours.hour - 17) ** 2) / 8)
busy = np.where(hours.dayofweek < 5, 20 * rush, 6.0)
weather = pd.Series(rng.normal(size=len(hours)), hours).ewm(halflife=24).mean()
trips = (20 + 30 * weather) + (1 + 0.5 * weather) * busy + rng.normal(size=len(hours))
series = {
    "trips": trips[:-168],
    "airline": load_airline(),
    "walk": pd.Series(rng.normal(size=400).cumsum()),
}

# %% Which periods were found in each, and how much each view counts
pipeline = MoiraiMoEPipeline.from_pretrained()
forecast = pipeline.predict([*series.values()], 168, random_state=0)
seasons = forecast.seasons
seasons["series"] = pd.Index(series).take(seasons["series"])
print(seasons.to_string(index=False, float_format="{:.2f}".format))

# %% What was copied, and what was predicted
plain = pipeline.predict([*series.values()], 168, random_state=0, season_length=None)
axes = plot_seasons(forecast, [*series.values()], plain=plain, truth=[trips[-168:]])
axes[0].figure.savefig("cycles.png", dpi=80)
