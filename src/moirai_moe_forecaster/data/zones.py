"""The time zone behind texts of times that only say their offsets from UTC."""

from __future__ import annotations

import zoneinfo
from datetime import timedelta, timezone
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

Whole = NDArray[np.int64]

# one of each set of rules for the change of clocks, the most frequent first
ZONES = (
    *("Europe/Berlin", "Europe/London", "Europe/Athens", "Europe/Lisbon"),
    *("America/New_York", "America/Chicago", "America/Denver", "America/Los_Angeles"),
    *("America/Halifax", "America/St_Johns", "America/Anchorage", "America/Sao_Paulo"),
    *("Australia/Sydney", "Australia/Adelaide", "Pacific/Auckland", "America/Santiago"),
    *("Asia/Jerusalem", "Africa/Cairo", "America/Asuncion", "America/Havana", "Asia/Beirut"),
    *("Europe/Moscow", "Europe/Istanbul", "Europe/Chisinau", "Australia/Lord_Howe"),
)


def common_zone(universal: Whole, minutes: Whole) -> Any:
    """Find the zone in which times have their offsets.

    Parameters
    ----------
    universal : ndarray of int64
        Microseconds of universal time.
    minutes : ndarray of int64
        Offset of each.

    Returns
    -------
    tzinfo or None
        A fixed offset, if all have the same one, else the first of `ZONES` that has them all.
    """
    if (minutes == minutes[0]).all():
        offset = int(minutes[0])
        return timezone(timedelta(minutes=offset)) if offset else timezone.utc
    times = pd.DatetimeIndex(universal.view("M8[us]")).tz_localize("UTC")
    for name in ZONES:
        try:
            zone = zoneinfo.ZoneInfo(name)
        except zoneinfo.ZoneInfoNotFoundError:
            continue
        local = times.tz_convert(zone).tz_localize(None).asi8
        if ((local - universal) // 60_000_000 == minutes).all():
            return zone
    return None
