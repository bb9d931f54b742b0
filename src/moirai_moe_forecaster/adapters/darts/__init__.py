"""Moirai-MoE as a foundation model of Darts."""

from moirai_moe_forecaster.adapters.darts.model import MoiraiMoEModel, _Weights

# pickles of earlier versions name the weights here
__all__ = ["MoiraiMoEModel", "_Weights"]
