"""Predicted points that look at each other before they become distributions."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from moirai_moe_forecaster.config import ModelConfig
from moirai_moe_forecaster.model.distribution.mixture import raw_size
from moirai_moe_forecaster.model.reference import split_reference

KERNEL = 5


class OutputExchange(nn.Module):
    """Two convolutions along the points that one token predicts, added to their raw outputs.

    They also read the points' references, if there are any. The second one begins at 0.

    Parameters
    ----------
    config : ModelConfig
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        outputs, hidden = raw_size(config.mixture), config.exchange_channels
        inputs = outputs + 2 * config.reference_periods
        self.first = nn.Conv1d(inputs, hidden, KERNEL, padding=KERNEL // 2)
        self.second = nn.Conv1d(hidden, outputs, KERNEL, padding=KERNEL // 2)

    def forward(self, raw: Tensor, features: Tensor) -> Tensor:
        """Change raw outputs (..., output patch, raw_size, patch_size)."""
        # (token, channel, point)
        points = raw.transpose(-3, -2).flatten(-2).flatten(0, -3)
        inputs = points
        if self.config.reference_periods:
            values = split_reference(features, self.config).values
            inputs = torch.cat((points, values.flatten(0, -3).to(points.dtype)), 1)
        change = self.second(F.silu(self.first(inputs)))
        shape = (-1, raw.shape[-2], raw.shape[-3], raw.shape[-1])
        return raw + change.view(shape).transpose(1, 2).reshape(raw.shape).to(raw.dtype)
