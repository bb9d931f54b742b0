"""Seasons by frequency."""

import pandas as pd
import pytest

from moirai_moe_forecaster.data.times import frequency_of, season_of
from moirai_moe_forecaster.errors import InvalidInputError


@pytest.mark.parametrize(
    ("freq", "season"),
    [
        ("h", 24),
        ("H", 24),
        ("15min", 96),
        ("15T", 96),
        ("5min", 288),
        ("30min", 48),
        ("7h", 1),
        ("2h", 12),
        ("D", 1),
        ("B", 5),
        ("W-SUN", 1),
        ("MS", 12),
        ("M", 12),
        ("2MS", 6),
        ("QS-OCT", 4),
        ("QE-DEC", 4),
        ("YE", 1),
        ("10s", 360),
    ],
)
def test_season_of(freq: str, season: int) -> None:
    assert season_of(freq) == season


def test_what_is_no_frequency_is_refused() -> None:
    for wrong in ("banana", "", "24"):
        with pytest.raises(InvalidInputError, match="is no frequency"):
            season_of(wrong)


def test_frequency_of_indexes() -> None:
    times = pd.date_range("2020", periods=9, freq="15min")
    assert season_of(str(frequency_of(times))) == 96
    assert season_of(str(frequency_of(pd.DatetimeIndex(times.to_numpy())))) == 96
    assert season_of(str(frequency_of(pd.period_range("2020", periods=3, freq="Q")))) == 4
    assert frequency_of(pd.RangeIndex(5)) is None
    with pytest.raises(InvalidInputError, match="give seasonality="):
        frequency_of(times[[0, 1, 3, 7]])
