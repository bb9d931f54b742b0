"""What changes the projection's outputs before they become distributions.

Gates draw predicted locations towards what repeats, and predicted points look at each other.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from moirai_moe_forecaster.config import ModelConfig
from moirai_moe_forecaster.model.distribution.components import KINDS
from moirai_moe_forecaster.model.distribution.mixture import raw_size
from moirai_moe_forecaster.model.reference import points_ahead, split_reference

LARGEST = 8.0
TYPICAL_LOGARITHM = 4.0
KERNEL = 5


class GatedReference(nn.Module):
    """Embeds a token's references, and draws the predicted locations towards them.

    A location moves by ``gate * (reference - location)``; the gates, one per output patch,
    component and channel, begin at 0.

    Parameters
    ----------
    config : ModelConfig
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        channels = 2 * config.reference_periods
        inputs = channels * (points_ahead(config) + config.output_patches + 1)
        self.embed = nn.Linear(inputs, config.d_model, bias=False)
        self.locations = _location_rows(config)
        self.gate = nn.Linear(
            config.d_model, config.output_patches * len(self.locations) * channels
        )

    def embedding(self, features: Tensor) -> Tensor:
        """Embed the features (..., feature) of tokens: (..., d_model)."""
        values, known, facts = split_reference(features, self.config)
        # neighbouring points are alike: as many inputs that all learn at once learn too fast
        size = math.sqrt(values.shape[-1])
        inputs = (
            (values.clamp(-LARGEST, LARGEST) / size).flatten(-2),
            known.unflatten(-1, (self.config.output_patches, -1)).float().mean(-1).flatten(-2),
            facts / TYPICAL_LOGARITHM,
        )
        embedded: Tensor = self.embed(torch.cat(inputs, -1).to(self.embed.weight.dtype))
        return embedded

    def forward(self, raw: Tensor, hidden: Tensor, features: Tensor) -> Tensor:
        """Move the locations among raw outputs (..., output patch, raw_size, patch_size)."""
        values, known, _ = split_reference(features, self.config)
        patches = self.config.output_patches
        # (..., output patch, channel, point)
        values, known = (
            part.unflatten(-1, (patches, -1)).transpose(-3, -2).to(raw.dtype)
            for part in (values, known)
        )
        # (..., output patch, component, channel)
        gate = self.gate(hidden).to(raw.dtype)
        gate = gate.unflatten(-1, (patches, len(self.locations), -1))
        rows = torch.tensor(self.locations, device=raw.device)
        location = raw.index_select(-2, rows)
        moved = location + gate @ values - (gate @ known) * location
        return raw.index_copy(-2, rows, moved)


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


def _location_rows(config: ModelConfig) -> list[int]:
    """Which raw outputs are locations of Student's t, the component that references suit."""
    rows, row = [], len(config.mixture)
    for name in config.mixture:
        if name == "student_t":
            rows.append(row + 1)
        row += KINDS[name].size
    return rows
