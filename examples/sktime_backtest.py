"""A backtest written for NaiveForecaster takes MoiraiMoEForecaster with no other line changed."""

# %% The backtest: monthly passengers, the last four years in windows of one year
from sktime.datasets import load_airline, load_macroeconomic
from sktime.forecasting.model_evaluation import evaluate
from sktime.forecasting.naive import NaiveForecaster
from sktime.performance_metrics.forecasting import MeanAbsoluteScaledError
from sktime.performance_metrics.forecasting.probabilistic import CRPS, IntervalWidth
from sktime.split import ExpandingWindowSplitter

from moirai_moe_forecaster import MoiraiMoEForecaster

y = load_airline()
cv = ExpandingWindowSplitter(fh=range(1, 13), initial_window=96, step_length=12)
metrics = [MeanAbsoluteScaledError(sp=12), CRPS(), IntervalWidth(coverage=0.8)]

for forecaster in (NaiveForecaster(sp=12), MoiraiMoEForecaster(random_state=0)):
    scores = evaluate(forecaster, cv, y, scoring=metrics, strategy="update")
    means = scores.filter(like="test_").mean().round(2).to_dict()
    print(type(forecaster).__name__, means)

# %% The same with covariates that are known ahead: national product from its parts
data = load_macroeconomic()
y, X = data["realgdp"], data[["realcons", "realinv", "realgovt"]]
cv = ExpandingWindowSplitter(fh=range(1, 9), initial_window=160, step_length=8)
metric = MeanAbsoluteScaledError(sp=4)
for name, known in (("without covariates", None), ("with covariates", X)):
    scores = evaluate(MoiraiMoEForecaster(random_state=0), cv, y, X=known, scoring=metric)
    print(name, round(scores["test_MeanAbsoluteScaledError"].mean(), 2))

# %% Forecasts of the past, one step ahead each, and what they missed
forecaster = MoiraiMoEForecaster(random_state=0).fit(load_airline())
residuals = forecaster.predict_residuals(load_airline())
print(
    "largest surprise:", residuals.abs().idxmax(), residuals.loc[residuals.abs().idxmax()].round()
)

# %% A distribution per month, and trajectories of whole years
distribution = forecaster.predict_proba(fh=range(1, 13))
years = distribution.sample(1000).groupby(level=0).sum()
print("80 % interval of next year's total:", years.quantile([0.1, 0.9]).round().to_numpy().ravel())
