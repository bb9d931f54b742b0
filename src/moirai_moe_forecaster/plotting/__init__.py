"""Pictures: forecasts, panels, backtests, cycles, calibration and the routing of experts.

Each function draws on axes that it is given or makes, and returns them.
"""

from __future__ import annotations

from moirai_moe_forecaster.plotting.calibration import plot_coverage, plot_pit
from moirai_moe_forecaster.plotting.forecast import plot_forecast
from moirai_moe_forecaster.plotting.panel import plot_panel
from moirai_moe_forecaster.plotting.routing import plot_load, plot_routing
from moirai_moe_forecaster.plotting.seasons import plot_seasons
from moirai_moe_forecaster.plotting.windows import plot_windows

__all__ = [
    "plot_coverage",
    "plot_forecast",
    "plot_load",
    "plot_panel",
    "plot_pit",
    "plot_routing",
    "plot_seasons",
    "plot_windows",
]
