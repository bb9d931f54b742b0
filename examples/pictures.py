"""Pictures: fans, panels, backtests and calibration."""

# %%
# needs matplotlib
from matplotlib import pyplot
from sktime.datasets import load_airline, load_uschange

from moirai_moe_forecaster import MoiraiMoEPipeline
from moirai_moe_forecaster.plotting import (
    plot_coverage,
    plot_forecast,
    plot_panel,
    plot_pit,
    plot_windows,
)

pipeline = MoiraiMoEPipeline.from_pretrained()
airline = load_airline()

# %% A fan, with some of the trajectories
forecast = pipeline.predict(airline[:-24], 24, random_state=0)
axes = plot_forecast(
    forecast,
    airline[:-24],
    truth=airline[-24:],
    coverages=(0.5, 0.8, 0.95),
    samples=5,
    title="Airline passengers, thousands a month",
)
axes.figure.savefig("fan.png", dpi=110)

# %% Small multiples of a panel
consumption, others = load_uschange()
economy = {"Consumption": consumption, **{name: others[name] for name in others}}
history = [values.to_numpy()[:-12] for values in economy.values()]
truth = [values.to_numpy()[-12:] for values in economy.values()]
panel = pipeline.predict(history, 12, random_state=0)
axes = plot_panel(panel, history, truth=truth, names=list(economy), max_history=40)
axes[0].figure.savefig("panel.png", dpi=110)

# %% A backtest: what was forecast from several cutoffs, over what came
cuts = [96, 108, 120, 132]
windows = pipeline.predict([airline[:cut] for cut in cuts], 12, random_state=0)
axes = plot_windows(windows, airline, cuts, title="Airline passengers, four backtest windows")
axes.figure.savefig("backtest.png", dpi=110)

# %% Calibration, on many windows of the five indicators
series = [values.to_numpy() for values in economy.values()]
cuts = range(80, 180, 5)
forecast = pipeline.predict([y[:cut] for y in series for cut in cuts], 4, random_state=0)
came = [y[cut : cut + 4] for y in series for cut in cuts]
figure, (left, right) = pyplot.subplots(1, 2, figsize=(10, 4), layout="constrained")
plot_coverage(forecast, came, ax=left)
plot_pit(forecast, came, ax=right)
figure.savefig("calibration.png", dpi=110)
