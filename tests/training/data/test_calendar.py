"""Steps of a frequency are numbered without gaps."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from moirai_moe_forecaster.errors import InvalidInputError
from moirai_moe_forecaster.training.data.calendar import calendar_steps, relate

FREQUENCIES = ["h", "15min", "D", "B", "W-MON", "2W", "14D", "MS", "2MS", "QS-OCT", "YS", "ME"]


@pytest.mark.parametrize("freq", FREQUENCIES)
def test_successive_times_of_a_frequency_have_successive_numbers(freq: str) -> None:
    times = pd.date_range("1968-02-05", periods=50, freq=freq).to_numpy()
    steps = calendar_steps(times, freq)
    assert (np.diff(steps) == 1).all()


def test_an_unknown_frequency_is_named() -> None:
    with pytest.raises(InvalidInputError, match="fortnightly"):
        calendar_steps(np.array(["2020-01-01"], dtype="datetime64[ns]"), "fortnightly")


def test_series_whose_calendar_is_not_known_are_related_by_length() -> None:
    start = np.array(["2020-01-01", "2020-01-02", "NaT", "2020-01-01"], dtype="datetime64[ns]")
    relation, clock = relate(["D", "D", "D", "nonsense"], start, np.array([5, 5, 5, 5]))
    assert relation[0] == relation[1]
    assert len(set(relation.tolist())) == 3
    assert clock[1] - clock[0] == 1
