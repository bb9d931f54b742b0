"""Moirai-MoE as a foundation model of Darts."""

from moirai_moe_forecaster.adapters.darts.model import MoiraiMoEModel
from moirai_moe_forecaster.adapters.darts.module import ModuleWeights

__all__ = ["MoiraiMoEModel"]

# the name in pickles of earlier versions
_Weights = ModuleWeights
