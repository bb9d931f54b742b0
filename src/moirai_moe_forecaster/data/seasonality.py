"""The season that a frequency has by convention."""

from __future__ import annotations

import re

import pandas as pd

from moirai_moe_forecaster.errors import InvalidInputError

# steps per season, by alias of pandas, old and new; the season is an hour of seconds, a day of
# minutes or hours, five business days, a year of months or quarters, and one step of the others:
# the convention of GluonTS, which the Chronos benchmark and the Moirai papers score by
_SEASONS = {
    **dict.fromkeys(("s", "S"), 3600),
    **dict.fromkeys(("min", "T"), 1440),
    **dict.fromkeys(("h", "H"), 24),
    "B": 5,
    **dict.fromkeys(("M", "ME", "MS", "BM", "BME", "BMS"), 12),
    **dict.fromkeys(("Q", "QE", "QS", "BQ", "BQE", "BQS"), 4),
    **dict.fromkeys(("ns", "us", "ms", "D", "C", "W", "SM", "SME", "SMS"), 1),
    **dict.fromkeys(("Y", "YE", "YS", "A", "AS", "BY", "BYE", "BYS", "BA", "BAS"), 1),
}


def season_of(freq: str) -> int:
    """Season of a frequency in steps, such as 24 of "h", 96 of "15min", 12 of "MS", 1 of "D".

    Parameters
    ----------
    freq : str
        Alias of pandas. A multiple of a unit divides its season if it can, and has none otherwise.

    Raises
    ------
    InvalidInputError
        If it is no such alias.
    """
    match = re.fullmatch(r"(\d*)([A-Za-z]+)(-.+)?", freq)
    if match is None or match[2] not in _SEASONS:
        raise InvalidInputError(
            f"{freq!r} is no frequency; expected an alias of pandas such as 'h', '15min' or 'MS'"
        )
    season, step = _SEASONS[match[2]], int(match[1] or 1)
    return season // step if step and season % step == 0 else 1


def frequency_of(index: pd.Index) -> str | None:
    """Alias of the frequency of an index of times; None of other indexes.

    Raises
    ------
    InvalidInputError
        If the times are irregular or fewer than three.
    """
    if isinstance(index, pd.PeriodIndex):
        return str(index.freqstr)
    if not isinstance(index, pd.DatetimeIndex):
        return None
    freq = index.freqstr or (pd.infer_freq(index) if len(index) >= 3 else None)
    if freq is None:
        raise InvalidInputError(
            f"the {len(index)} times from {index[0]} to {index[-1]} have no regular frequency; "
            "give seasonality= (1 for none), or an index with a frequency"
        )
    return str(freq)
