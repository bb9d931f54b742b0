"""The 39 evaluation protocols of the Moirai-MoE paper (arXiv 2410.10469, section 4).

29 Monash sets, whose training parts the official checkpoints were trained on: one window at the end
of each series, mean absolute error relative to seasonal naive, aggregated by the geometric mean. 10
zero-shot sets: non-overlapping rolling windows, CRPS (as the mean weighted quantile loss over the
levels 0.1, ..., 0.9) and MASE.

Sources of the figures. Sets, horizons, numbers of windows and the scores by set are those of the
Moirai paper (arXiv 2402.02592, tables 18, 20 and 21), with whose protocols this paper goes on, and
of the preparation of the sets in uni2ts (``data/builder/lotsa_v1/gluonts.py``,
``eval_util/_pf_dataset.py``). ETT1 and ETT2 are daily, as the authors say in uni2ts issue 186,
where one score is quoted too. For those two, M_DENSE and BizITObs the rule of GIFT-Eval
(``gift_eval/data.py``) is assumed. The aggregates of Moirai-MoE itself (figure 3 and the averages
of table 2) are from two public summaries of the paper, which agree where both tell; its scores by
set were not at hand, and are left out.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from benchmark_sets.readers import SeriesFile, read_series_file
from benchmark_sets.tasks import Task, rolling_task
from moirai_moe_forecaster.data.times import season_of
from moirai_moe_forecaster.errors import InvalidInputError

Kind = Literal["monash", "zero-shot"]


class Protocol(NamedTuple):
    """How one set is evaluated.

    Attributes
    ----------
    name : str
        As the paper has it.
    kind : {"monash", "zero-shot"}
    files : tuple of str
        Names of its file or folder, less the endings of `file_key`.
    freq : str or None
        Alias of pandas; None is that of the file.
    horizon : int or None
        None is that of the file, or by the rule of GIFT-Eval.
    windows : int or None
        Rolling windows; None is by the rule of GIFT-Eval.
    published : mapping
        By model, what is known: MAE of a Monash set, (CRPS, MASE) of a zero-shot set.
    """

    name: str
    kind: Kind
    files: tuple[str, ...]
    freq: str | None
    horizon: int | None
    windows: int | None
    published: Mapping[str, float | tuple[float, float]]


# aggregates over the 29 sets (MAE) and the 10 (CRPS, MASE), relative to seasonal naive
PUBLISHED_AGGREGATES: Mapping[str, Mapping[str, float]] = {
    "Moirai-MoE-Small": {"MAE": 0.65, "CRPS": 0.497, "MASE": 0.670},
    "Moirai-MoE-Base": {"MAE": 0.63, "CRPS": 0.478, "MASE": 0.651},
}
_MONASH_MODELS = ("Moirai-Small", "Moirai-Base", "Moirai-Large", "naive")
_ZERO_SHOT_MODELS = ("Moirai-Small", "Moirai-Base", "Moirai-Large", "seasonal-naive")
# name, file, frequency, horizon, and MAE of the four: rows of table 20 of arXiv 2402.02592
_MONASH: tuple[tuple[str, str, str, int | None, tuple[float, ...]], ...] = (
    ("M1 Monthly", "m1_monthly", "MS", 18, (2082.26, 2068.63, 1983.18, 2707.75)),
    ("M3 Monthly", "m3_monthly", "MS", None, (713.41, 658.17, 664.03, 837.14)),
    ("M3 Other", "m3_other", "QS", None, (263.54, 198.62, 202.41, 278.43)),
    ("M4 Monthly", "m4_monthly", "MS", 18, (597.6, 592.09, 584.36, 671.27)),
    ("M4 Weekly", "m4_weekly", "W", 13, (339.76, 328.08, 301.52, 347.99)),
    ("M4 Daily", "m4_daily", "D", 14, (189.1, 192.66, 189.78, 180.83)),
    ("M4 Hourly", "m4_hourly", "h", 48, (268.04, 209.87, 197.79, 1218.06)),
    ("Tourism Quarterly", "tourism_quarterly", "QS", 8, (18352.44, 17196.86, 15820.02, 15845.10)),
    ("Tourism Monthly", "tourism_monthly", "MS", None, (3569.85, 2862.06, 2688.55, 5636.83)),
    ("CIF 2016", "cif_2016", "MS", None, (655888.58, 539222.03, 695156.92, 578596.53)),
    (
        "Aus. Elec. Demand",
        "australian_electricity_demand",
        "30min",
        336,
        (266.57, 201.39, 177.68, 659.6),
    ),
    ("Bitcoin", "bitcoin", "D", 30, (1.76e18, 1.62e18, 1.87e18, 7.78e17)),
    ("Pedestrian Counts", "pedestrian_counts", "h", 24, (54.88, 54.08, 41.66, 170.88)),
    ("Vehicle Trips", "vehicle_trips", "D", 30, (24.46, 23.17, 21.85, 31.42)),
    ("KDD cup", "kdd_cup_2018", "h", 168, (39.81, 38.66, 39.09, 42.13)),
    ("Weather", "weather", "D", 30, (1.96, 1.8, 1.75, 2.36)),
    ("NN5 Daily", "nn5_daily", "D", 56, (5.37, 4.26, 3.77, 8.26)),
    ("NN5 Weekly", "nn5_weekly", "W", 8, (15.07, 16.42, 15.3, 16.71)),
    ("Carparts", "car_parts", "MS", 12, (0.53, 0.47, 0.49, 0.65)),
    ("FRED-MD", "fred_md", "MS", 12, (2568.48, 2679.29, 2792.55, 2825.67)),
    ("Traffic Hourly", "traffic_hourly", "h", 168, (0.02, 0.02, 0.01, 0.03)),
    ("Traffic Weekly", "traffic_weekly", "W", 8, (1.17, 1.14, 1.13, 1.19)),
    ("Rideshare", "rideshare", "h", 168, (1.35, 1.39, 1.29, 6.29)),
    ("Hospital", "hospital", "MS", 12, (23.0, 19.4, 19.44, 24.07)),
    ("COVID Deaths", "covid_deaths", "D", 30, (124.32, 126.11, 117.11, 353.71)),
    ("Temperature Rain", "temperature_rain", "D", 30, (5.3, 5.08, 5.27, 9.39)),
    ("Sunspot", "sunspot", "D", 30, (0.11, 0.08, 0.13, 3.93)),
    ("Saugeen River Flow", "saugeenday", "D", 30, (24.07, 24.4, 24.76, 21.5)),
    ("US Births", "us_births", "D", 30, (872.51, 624.3, 476.5, 1152.67)),
)
# name, files, frequency, horizon, windows, and (CRPS, MASE) of the four: table 21 there
_ZERO_SHOT: tuple[
    tuple[
        str,
        tuple[str, ...],
        str | None,
        int | None,
        int | None,
        tuple[tuple[float, float] | None, ...],
    ],
    ...,
] = (
    (
        "Electricity",
        ("electricity",),
        "h",
        24,
        7,
        ((0.072, 0.981), (0.055, 0.792), (0.050, 0.751), (0.070, 0.881)),
    ),
    (
        "Solar",
        ("solar_energy", "solar"),
        "h",
        24,
        7,
        ((0.471, 1.465), (0.419, 1.292), (0.406, 1.237), (0.512, 1.203)),
    ),
    (
        "Turkey Power",
        ("turkey_power",),
        "h",
        24,
        7,
        ((0.048, 0.948), (0.040, 0.888), (0.036, 0.870), (0.085, 0.906)),
    ),
    ("ETT1", ("ett1", "ett1_d"), "D", 30, None, ((0.275, 1.701), None, None, None)),
    ("ETT2", ("ett2", "ett2_d"), "D", 30, None, (None, None, None, None)),
    (
        "Istanbul Traffic",
        ("istanbul_traffic",),
        "h",
        24,
        7,
        ((0.173, 0.990), (0.116, 0.644), (0.112, 0.631), (0.257, 1.137)),
    ),
    ("M_DENSE", ("m_dense", "m_dense_d"), None, None, None, (None, None, None, None)),
    (
        "Walmart",
        ("walmart",),
        "W",
        8,
        4,
        ((0.103, 1.048), (0.093, 0.964), (0.098, 1.007), (0.151, 1.236)),
    ),
    (
        "Jena Weather",
        ("jena_weather",),
        "10min",
        144,
        7,
        ((0.049, 0.521), (0.041, 0.487), (0.051, 0.515), (0.068, 0.782)),
    ),
    (
        "BizITObs",
        ("bizitobs", "bizitobs_l2c", "bizitobs_application", "bizitobs_service"),
        None,
        None,
        None,
        (None, None, None, None),
    ),
)
PROTOCOLS: tuple[Protocol, ...] = (
    *(
        Protocol(
            name, "monash", (file,), freq, horizon, 1, dict(zip(_MONASH_MODELS, mae, strict=True))
        )
        for name, file, freq, horizon, mae in _MONASH
    ),
    *(
        Protocol(
            name,
            "zero-shot",
            files,
            freq,
            horizon,
            windows,
            {
                model: pair
                for model, pair in zip(_ZERO_SHOT_MODELS, pairs, strict=True)
                if pair is not None
            },
        )
        for name, files, freq, horizon, windows, pairs in _ZERO_SHOT
    ),
)
# the rule of GIFT-Eval: horizon by unit; a tenth of the shortest series, in at most 20 windows
_RULE_HORIZONS = {"M": 12, "W": 8, "D": 30, "h": 48, "min": 48, "s": 60}
_RULE_SHARE = 0.1
_RULE_MOST_WINDOWS = 20
_UNITS = {"MS": "M", "ME": "M", "H": "h", "T": "min", "S": "s"}


def file_key(path: Path) -> str:
    """Name of a file as the protocols have it.

    Without its ending, ``monash_``, ``_dataset`` and what is said about missing values.
    """
    name = path.stem if path.is_file() else path.name
    name = re.sub(r"[-\s]", "_", name.lower()).removeprefix("monash_")
    return re.sub(r"(_dataset|_with(out)?_missing(_values)?)+$", "", name)


def find_protocols(folder: str | Path) -> Iterator[tuple[Protocol, Path]]:
    """Pair the protocols with the files, or folders of arrow files, below a folder."""
    found: dict[str, Path] = {}
    for path in sorted(Path(folder).rglob("*")):
        if path.suffix in (".tsf", ".parquet"):
            found.setdefault(file_key(path), path)
        elif path.suffix == ".arrow":
            # `datasets` keeps a set's parts in a folder, GIFT-Eval one per frequency below it
            parent = path.parent
            set_of_parts = path if parent == Path(folder) else parent
            found.setdefault(file_key(set_of_parts), set_of_parts)
            found.setdefault(f"{file_key(parent.parent)}_{parent.name.lower()}", parent)
    for protocol in PROTOCOLS:
        file = next((found[name] for name in protocol.files if name in found), None)
        if file is not None:
            yield protocol, file


def read_protocol(protocol: Protocol, path: str | Path) -> Task:
    """Read a set and cut it as the protocol says.

    Raises
    ------
    InvalidInputError
        If the file cannot be read, or neither it nor the protocol knows frequency and horizon.
    """
    data = read_series_file(path)
    freq = protocol.freq or data.freq
    if not freq:
        raise InvalidInputError(f"{path} does not tell its frequency, which {protocol.name} needs")
    if protocol.kind == "monash":
        task = _last_windows(protocol, data, season_of(freq))
    else:
        horizon = protocol.horizon or _rule_horizon(freq)
        shortest = min(len(values) for values in data.series)
        fitting = max(math.ceil(_RULE_SHARE * shortest / horizon), 1)
        windows = protocol.windows or min(fitting, _RULE_MOST_WINDOWS)
        task = rolling_task(protocol.name, data.series, season_of(freq), horizon, windows)
    return task._replace(freq=freq)


def _last_windows(protocol: Protocol, data: SeriesFile, seasonality: int) -> Task:
    """One window of every series that is longer than its horizon; short labels end with NaN."""
    horizons = data.horizons
    if protocol.horizon is not None:
        horizons = [protocol.horizon] * len(data.series)
    if horizons is None:
        raise InvalidInputError(
            f"the file of {protocol.name} does not tell its horizon; use the .tsf file"
        )
    usable = [
        (values, horizon)
        for values, horizon in zip(data.series, horizons, strict=True)
        if len(values) > horizon and not np.isnan(values[:-horizon]).all()
    ]
    if not usable:
        raise InvalidInputError(f"no series of {protocol.name} is longer than its horizon")
    longest = max(horizon for _, horizon in usable)
    labels = np.full((len(usable), longest), np.nan)
    for row, (values, horizon) in zip(labels, usable, strict=True):
        row[:horizon] = values[-horizon:]
    contexts = [values[:-horizon] for values, horizon in usable]
    return Task(protocol.name, seasonality, contexts, labels)


def _rule_horizon(freq: str) -> int:
    unit = re.sub(r"^\d+|-.*$", "", freq)
    return _RULE_HORIZONS[_UNITS.get(unit, unit)]
