"""Small series and panels for tests of the sktime forecaster."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd


def months(points: int, start: str = "2000-01") -> pd.PeriodIndex:
    return pd.period_range(start, periods=points, freq="M")


def wave(index: pd.Index, phase: float = 0.0, name: str | None = "y") -> pd.Series:
    steps = np.arange(len(index))
    return pd.Series(10 + np.sin(steps / 3 + phase) + steps / 20, index=index, name=name)


def columns(index: pd.Index) -> pd.DataFrame:
    """Noise, the same one at the same position."""
    values = np.random.default_rng(3).normal(size=(len(index), 2))
    return pd.DataFrame(values, index=index, columns=["a", "b"])


def panel(parts: dict[Any, pd.DataFrame | pd.Series]) -> pd.DataFrame:
    names = ["instance", "time"]
    return pd.concat({key: pd.DataFrame(part) for key, part in parts.items()}, names=names)
