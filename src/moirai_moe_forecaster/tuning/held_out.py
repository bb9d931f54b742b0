"""Which windows of a user's series are held out to validate on, and what is left to train on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from numbers import Real
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from moirai_moe_forecaster.config import ModelConfig
from moirai_moe_forecaster.data.series import Series, read_series
from moirai_moe_forecaster.errors import InvalidInputError

FEWEST_BEFORE = 4
FEWEST_OBSERVED = 3
TIMES = 3
ENOUGH_WINDOWS = 64
MOST_WINDOWS = 512
LARGEST_HELD_OUT = 0.2
EXPECTED = (
    "'time', a fraction such as 0.2, None, series like y, or a mapping of y and its covariates"
)


class HeldOut(NamedTuple):
    """A window to validate on: forecast `label` from everything before `cut`.

    Attributes
    ----------
    series : Series
        Up to the end of the label.
    cut : int
    """

    series: Series
    cut: int

    @property
    def label(self) -> NDArray[np.float64]:
        """What came: (target, horizon)."""
        return self.series.target[:, self.cut :]

    def can_be_scored(self, context_length: int) -> bool:
        """Whether each variate has a value in the context, and something of the label is known."""
        context = self.series.target[:, max(self.cut - context_length, 0) : self.cut]
        known = ~np.isnan(context).all(1)
        return bool(known.all() and not np.isnan(self.label).all())


class Split(NamedTuple):
    """A user's series divided by time.

    Attributes
    ----------
    training : list of Series
        Without what is held out, and without series that have nothing left to predict.
    validation : list of HeldOut
    """

    training: list[Series]
    validation: list[HeldOut]


def split_by_time(
    series: Sequence[Series], horizon: int, share: float | None, context_length: int
) -> Split:
    """Hold the last windows of every series out.

    Parameters
    ----------
    series : sequence of Series
        Known-future covariates end with the targets.
    horizon : int
        Points of a window.
    share : float or None
        Of each series, as many windows as fit into it, and at least one. None takes `TIMES` windows
        of each series, and of few series as many as make `ENOUGH_WINDOWS`, within a fifth of each:
        what is better at one time may be worse at the next.
    context_length : int
        Points before a window that its forecast is made from.

    Notes
    -----
    A series is held out from only if something to train on stays before its first window. At most
    `MOST_WINDOWS` windows are scored, taken evenly.
    """
    wanted = max(-(-ENOUGH_WINDOWS // len(series)), TIMES)
    training, windows = [], []
    for item in series:
        length = item.target.shape[1]
        fitting = int((LARGEST_HELD_OUT if share is None else share) * length / horizon)
        count = max(min(wanted, fitting) if share is None else fitting, 1)
        start = length - count * horizon
        if start < FEWEST_BEFORE or not _seen(item.target[:, :start]):
            training.append(item)
            continue
        training.append(first(item, start))
        windows += last_windows(item, horizon, count)
    return Split(_learnable(training), evenly(windows, context_length))


def last_windows(series: Series, horizon: int, count: int = 1) -> list[HeldOut]:
    """The last `count` windows of a series."""
    stops = [series.target.shape[1] - back * horizon for back in range(count - 1, -1, -1)]
    return [HeldOut(first(series, stop), stop - horizon) for stop in stops]


def evenly(windows: Sequence[HeldOut], context_length: int) -> list[HeldOut]:
    """At most `MOST_WINDOWS` of those windows that can be scored."""
    good = [window for window in windows if window.can_be_scored(context_length)]
    kept = np.linspace(0, len(good) - 1, min(len(good), MOST_WINDOWS))
    return [good[index] for index in kept.round().astype(int)]


def first(series: Series, length: int) -> Series:
    """The first points of a series and of its covariates."""
    return Series(*(part[:, :length] for part in series))


def can_be_learned(series: Series) -> bool:
    """Whether a target has enough observed points for one to follow another."""
    return bool((~np.isnan(series.target)).sum(1).max() >= FEWEST_OBSERVED)


def _learnable(series: Sequence[Series]) -> list[Series]:
    return [item for item in series if can_be_learned(item)]


def _seen(values: NDArray[np.float64]) -> bool:
    return bool((~np.isnan(values)).sum(1).min() >= FEWEST_OBSERVED)


def default_horizon(series: Sequence[Series], model: ModelConfig) -> int:
    """What one pass predicts, but not more than a fifth of the median length."""
    typical = float(np.median([item.target.shape[1] for item in series]))
    return max(min(model.output_patches * model.patch_size, int(typical / 5)), 1)


def split(series: Sequence[Series], horizon: int, validation: Any, context_length: int) -> Split:
    """Divide series as the argument `validation` of `fine_tune` says.

    Raises
    ------
    InvalidInputError
        If it says nothing known, or leaves nothing to validate on.
    """
    if validation is None:
        return Split(_learnable(series), [])
    if isinstance(validation, str):
        if validation != "time":
            raise InvalidInputError(f"validation must be {EXPECTED}, got {validation!r}")
        divided = split_by_time(series, horizon, None, context_length)
    elif isinstance(validation, Real):
        share = float(validation)
        if not 0 < share < 1:
            raise InvalidInputError(f"a fraction to validate on lies in (0, 1), got {validation!r}")
        divided = split_by_time(series, horizon, share, context_length)
    else:
        given = validation if isinstance(validation, Mapping) else {"y": validation}
        allowed = {"y", "past_covariates", "future_covariates"}
        if "y" not in given or given.keys() - allowed:
            raise InvalidInputError(f"validation must be {EXPECTED}; got the keys {list(given)}")
        others = read_series(horizon=0, **given).series
        kept = [item for item in others if item.target.shape[1] >= horizon + FEWEST_BEFORE]
        windows = [window for item in kept for window in last_windows(item, horizon, 1)]
        seen = [w for w in windows if _seen(w.series.target[:, : w.cut])]
        divided = Split(_learnable(series), evenly(seen, context_length))
    if not divided.validation:
        raise InvalidInputError(
            f"no series has {FEWEST_BEFORE} steps, with {FEWEST_OBSERVED} values of every variate "
            f"among them, before a held-out window of {horizon} in which something is observed: "
            "give longer series, a shorter horizon, or validation=None"
        )
    return divided
