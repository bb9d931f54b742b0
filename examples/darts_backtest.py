"""In Darts: swap the model of a backtest by one line; then quantiles, paths, fine-tuning."""

# needs darts
# %% A backtest of Darts' own, as one finds it in many projects
import logging

import numpy as np
from darts import TimeSeries
from darts.metrics import mae, mql
from darts.models import LinearRegressionModel
from darts.utils.likelihood_models.torch import QuantileRegression
from sktime.datasets import load_airline

from moirai_moe_forecaster import MoiraiMoEModel

logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
quiet = {"enable_progress_bar": False, "accelerator": "cpu"}

series = TimeSeries.from_series(load_airline().to_timestamp()).astype(np.float32)
train, horizon = series[:-36], 12


def score(model) -> float:
    """Mean absolute error of yearly forecasts made at every month of the last three years."""
    model.fit(train)
    return model.backtest(
        series,
        start=-36,
        start_format="position",
        forecast_horizon=horizon,
        retrain=False,
        last_points_only=False,
        metric=mae,
    )


model = LinearRegressionModel(lags=36, output_chunk_length=horizon)
print(f"linear regression: {score(model):.1f}")

# %% The one line that changes. Nothing is trained, and nothing is downloaded
model = MoiraiMoEModel(84, horizon, pl_trainer_kwargs=quiet)
print(f"Moirai-MoE, zero-shot: {score(model):.1f}")

# %% Quantiles of any levels, exact, for as many steps as the output chunk has
likelihood = QuantileRegression([0.05, 0.1, 0.5, 0.9, 0.95])
model = MoiraiMoEModel(84, 36, likelihood=likelihood, pl_trainer_kwargs=quiet).fit(train)
quantiles = model.predict(36, predict_likelihood_parameters=True)
loss = mql(series, quantiles, q=likelihood.quantiles).mean()
print(f"mean quantile loss: {loss:.1f}")

# %% Samples are whole paths: what they say of sums and extremes holds
paths = model.predict(36, num_samples=500, random_state=0)
peaks = paths.all_values()[:, 0].max(0)
print(f"the highest month of three years: {np.quantile(peaks, [0.1, 0.9]).round()}, with 80 %")

# %% Fine-tuning by Darts' own means: here of adapters, a few per cent of the weights
tuned = MoiraiMoEModel(
    60, horizon, enable_finetuning={"lora": {}}, n_epochs=5, random_state=0, pl_trainer_kwargs=quiet
)
print(f"Moirai-MoE, fine-tuned: {score(tuned):.1f}")
