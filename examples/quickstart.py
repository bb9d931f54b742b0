"""Quickstart: zero-shot forecasts with the bundled checkpoint, offline, in a few seconds."""

# %% As a forecaster of sktime: nothing is trained, fit remembers the series
from sktime.datasets import load_airline, load_PBS_dataset, load_uschange

from moirai_moe_forecaster import MoiraiMoEForecaster, MoiraiMoEPipeline

y = load_airline()
y_train, y_test = y[:-36], y[-36:]
fh = range(1, 37)

forecaster = MoiraiMoEForecaster(random_state=0)
forecaster.fit(y_train)
print(forecaster.predict(fh).head())
print(forecaster.predict_interval(fh, coverage=0.8).head())

# %% The native interface: series of any length and frequency in one call
pipeline = MoiraiMoEPipeline.from_pretrained()
consumption, _ = load_uschange()
series = {"airline": y_train, "prescriptions": load_PBS_dataset(), "consumption": consumption}
forecast = pipeline.predict(list(series.values()), horizon=36, random_state=0)

quantiles = forecast.quantile([0.1, 0.5, 0.9])
print("(series, level, step):", quantiles.shape)
for name, values in zip(series, quantiles, strict=True):
    print(
        f"{name}: the next median is {values[1, 0]:.1f}, between {values[0, 0]:.1f} and "
        f"{values[2, 0]:.1f} with 80 %"
    )

# %% Other levels, mean, samples and probabilities come from the same forecast, at any time later
airline = forecast[0]
print(f"99.5 % quantile of the last month: {airline.quantile(0.995)[-1]:.0f}")
print(f"chance of more than 500,000 passengers in it: {1 - airline.cdf(500.0)[-1]:.0%}")
print("trajectories (sample, step):", airline.samples.shape)

# %% A picture (needs matplotlib: pip install "moirai-moe-forecaster[plot]")
axes = airline.plot(y_train, truth=y_test, title="Airline passengers, thousands a month")
axes.figure.savefig("quickstart.png", dpi=150)
