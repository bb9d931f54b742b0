"""What was found to repeat in series, and how much each view of them counts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import pandas as pd

from moirai_moe_forecaster.data.series import Array
from moirai_moe_forecaster.inference.seasonality.periods import Period

PLAIN, CYCLE, PROFILE = "plain", "cycle", "profile"
VIEW_KINDS = (PLAIN, CYCLE, PROFILE)
"""Ways to look at a series: `inference.views` describes them."""
CYCLES_NEEDED = (0, 2, 1)
"""How many periods must have been found for each."""

SeasonLength = Literal["auto"] | tuple[int, ...] | None


class Seasons(NamedTuple):
    """What was found in one series.

    Attributes
    ----------
    periods : list of list of Period
        Of each variate, the primary one first.
    weights : ndarray, (kind, variate)
        Of the views `VIEW_KINDS`; they sum to 1 over the kinds.
    """

    periods: list[list[Period]]
    weights: Array

    @property
    def possible(self) -> list[str]:
        """Views that make a difference for some variate."""
        most = max(map(len, self.periods))
        return [
            kind for kind, least in zip(VIEW_KINDS, CYCLES_NEEDED, strict=True) if most >= least
        ]

    @property
    def kinds(self) -> list[str]:
        """Views that count for any variate."""
        return [kind for kind, row in zip(VIEW_KINDS, self.weights, strict=True) if row.any()]

    @property
    def longest(self) -> int:
        """Steps of the longest primary period; 0 without any."""
        return max((found[0].length for found in self.periods if found), default=0)


def seasons_frame(found: Sequence[Seasons]) -> pd.DataFrame:
    """Table of what was found: `Forecast.seasons` describes it."""
    rows = [
        (series, variate, period.length, period.strength, *seasons.weights[:, variate])
        for series, seasons in enumerate(found)
        for variate, periods in enumerate(seasons.periods)
        for period in periods or [Period(0, 0.0)]
    ]
    table = pd.DataFrame(rows, columns=["series", "variate", "period", "strength", *VIEW_KINDS])
    lengths = table["period"].astype("Int64")
    return table.assign(period=lengths.mask(lengths == 0))
