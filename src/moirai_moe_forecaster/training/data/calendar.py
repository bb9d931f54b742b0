"""Calendars on which series of one frequency are aligned."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from moirai_moe_forecaster.errors import InvalidInputError

Integers = NDArray[np.int64]

MONTHS = {"MS": 1, "ME": 1, "BMS": 1, "BME": 1, "QS": 3, "QE": 3, "BQS": 3, "BQE": 3}
MONTHS |= {"YS": 12, "YE": 12, "BYS": 12, "BYE": 12}


def calendar_steps(times: NDArray[np.datetime64], freq: str) -> Integers:
    """Number times by the steps of a frequency, so that equal numbers are the same step.

    Raises
    ------
    InvalidInputError
        If `freq` is no frequency of pandas.
    """
    import pandas as pd

    try:
        offset = pd.tseries.frequencies.to_offset(freq)
        name = offset.base.freqstr.split("-")[0]
        fixed = {"D": pd.Timedelta(days=1), "W": pd.Timedelta(days=7)}
        if name in MONTHS:
            return times.astype("datetime64[M]").astype(np.int64) // (MONTHS[name] * offset.n)
        if name == "B":
            days = times.astype("datetime64[D]")
            return np.busday_count(np.datetime64("1970-01-01"), days) // offset.n
        step = fixed[name] if name in fixed else pd.Timedelta(f"1{name}")
    except (ValueError, AttributeError) as error:
        message = f"freq must be an alias of pandas such as 'h', got {freq!r}"
        raise InvalidInputError(message) from error
    return times.astype("datetime64[ns]").astype(np.int64) // (step.value * offset.n)


def relate(
    freqs: Sequence[str | None], start: NDArray[np.datetime64], lengths: Integers
) -> tuple[Integers, Integers]:
    """Tell which series belong together, as `Source` needs it.

    Parameters
    ----------
    freqs : sequence of str or None
        Aliases of pandas.
    start : ndarray of datetime64
        NaT where not known.
    lengths : ndarray of int64

    Returns
    -------
    relation, clock : ndarray of int64
        Series of one frequency share a number and a calendar; where the start or the frequency is
        not known, those of equal length do.
    """
    relation = np.zeros(len(lengths), dtype=np.int64)
    clock = np.zeros(len(lengths), dtype=np.int64)
    names = np.array([freq or "" for freq in freqs], dtype=object)
    classes: dict[tuple[str, int], int] = {}
    dated = ~np.isnat(start)
    for freq in set(names):
        among = (names == freq) & dated
        try:
            clock[among] = calendar_steps(start[among], freq)
        except InvalidInputError:
            dated &= ~among
    for index, freq in enumerate(names):
        key = (freq, 0 if dated[index] else int(lengths[index]))
        relation[index] = classes.setdefault(key, len(classes))
    return relation, clock
