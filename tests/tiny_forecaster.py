"""A forecaster of sktime with a small random network."""

from __future__ import annotations

from typing import Any

from moirai_moe_forecaster import MoiraiMoEForecaster

TINY: dict[str, Any] = {
    "d_model": 16,
    "d_ff": 16,
    "num_layers": 2,
    "num_heads": 2,
    "num_experts": 4,
    "experts_per_token": 2,
    "mixture": ["student_t", "normal_fixed"],
}


def forecaster(**changes: Any) -> MoiraiMoEForecaster:
    options: dict[str, Any] = {"config": TINY, "num_paths": 8, "random_state": 0}
    return MoiraiMoEForecaster(**(options | changes))
