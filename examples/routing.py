"""Routing: which experts the patches of series are sent to, by frequency."""

# %% Series of three frequencies
# needs matplotlib
from sktime.datasets import load_airline, load_lynx, load_PBS_dataset, load_uschange

from moirai_moe_forecaster import MoiraiMoEPipeline

consumption, others = load_uschange()
series = [load_airline(), load_PBS_dataset(), consumption, others["Income"], load_lynx()]
frequencies = ["months", "months", "quarters", "quarters", "years"]

# %% The choices of every patch in every layer, then sums of them
report = MoiraiMoEPipeline.from_pretrained().routing(series)
report = report.with_labels(frequency=frequencies)
print(report)
print(report.choices().head())
print(report.entropy())

# %% How alike two frequencies choose: 1 is the same allocation, 0 has no expert in common
print(report.agreement(by="frequency").round(2))

# %% The figure of the paper
axes = report.plot("frequency")
axes[0].figure.savefig("routing.png", dpi=110)
