"""What was found to repeat in series, and how much each view of them counts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
import pandas as pd

from moirai_moe_forecaster.inference.periods import Period
from moirai_moe_forecaster.inference.series import Array

PLAIN, CYCLE, PROFILE = "plain", "cycle", "profile"
KINDS = (PLAIN, CYCLE, PROFILE)
"""Ways to look at a series: `inference.views` describes them."""

SeasonLength = Literal["auto"] | tuple[int, ...] | None


class Seasons(NamedTuple):
    """What was found in one series.

    Attributes
    ----------
    periods : list of list of Period
        Of each variate, the primary one first.
    weights : ndarray, (kind, variate)
        Of the views `KINDS`; they sum to 1 over the kinds.
    """

    periods: list[list[Period]]
    weights: Array

    @property
    def kinds(self) -> list[str]:
        """Views that count for any variate."""
        return [kind for kind, row in zip(KINDS, self.weights, strict=True) if row.any()]

    @property
    def lengths(self) -> list[list[int]]:
        """Steps of the periods of each variate."""
        return [[period.length for period in found] for found in self.periods]


def plain_alone(variates: int) -> Array:
    """Weights (kind, variate) of the plain view alone."""
    weights = np.zeros((len(KINDS), variates))
    weights[KINDS.index(PLAIN)] = 1.0
    return weights


def seasons_frame(found: Sequence[Seasons]) -> pd.DataFrame:
    """Table of what was found: `Forecast.seasons` describes it."""
    rows = [
        (series, variate, period.length, period.strength, *seasons.weights[:, variate])
        for series, seasons in enumerate(found)
        for variate, periods in enumerate(seasons.periods)
        for period in periods or [Period(0, 0.0)]
    ]
    table = pd.DataFrame(rows, columns=["series", "variate", "period", "strength", *KINDS])
    lengths = table["period"].astype("Int64")
    return table.assign(period=lengths.mask(lengths == 0))
