"""A series and a panel that several tests of the sktime forecaster share."""

from __future__ import annotations

import pandas as pd
import pytest

from sktime_tables import months, panel, wave


@pytest.fixture
def y() -> pd.Series:
    return wave(months(60))


@pytest.fixture
def three() -> pd.DataFrame:
    """Unequal lengths and different ends."""
    return panel({"b": wave(months(40)), "a": wave(months(55), 1.0), "c": wave(months(30), 2.0)})
