"""How a call forecasts, and what that comes to for a network of certain conventions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from moirai_moe_forecaster.config import ModelConfig
from moirai_moe_forecaster.data.arguments import (
    check_count,
    check_count_or_none,
    read_season_length,
)
from moirai_moe_forecaster.errors import InvalidInputError
from moirai_moe_forecaster.inference.batching import Load
from moirai_moe_forecaster.inference.sampling import RandomState, draw_seed
from moirai_moe_forecaster.inference.seasons import SeasonLength
from moirai_moe_forecaster.inference.support import EVERYTHING, Support
from moirai_moe_forecaster.inference.view_weights import LONGEST_HISTORY

DEFAULT_PATHS = 32
Normalisation = Literal["frozen", "reestimated"]
CovariateUse = Literal["regression", "tokens"]
Bounds = tuple[float | None, float | None]


@dataclass(frozen=True, kw_only=True)
class ForecastOptions:
    """What is asked of every series of a call: `MoiraiMoEPipeline.predict` describes all of it.

    `seed` stands for its `random_state`, and `season_length` is "auto", None or lengths; nothing is
    checked here (`read_options`).
    """

    horizon: int
    context_length: int | None = None
    num_paths: int | None = None
    num_samples: int = 100
    batch_size: int | None = None
    memory_budget: int | None = None
    normaliser: Normalisation = "frozen"
    covariate_use: CovariateUse | None = None
    season_length: SeasonLength = "auto"
    seed: int = 0
    support: Support = EVERYTHING

    @property
    def limits(self) -> dict[str, int | None]:
        """What bounds a pass, as for `in_passes`."""
        return {"memory_budget": self.memory_budget, "batch_size": self.batch_size}

    def load(self, config: ModelConfig) -> Load:
        """Return what the network has to do."""
        length = context_points(config, self.context_length)
        paths = DEFAULT_PATHS if self.num_paths is None else self.num_paths
        load = Load(
            config=config,
            context_length=length,
            horizon=self.horizon,
            paths=paths,
            reestimated=self.normaliser == "reestimated",
        )
        if self.num_paths is None and self.normaliser == "frozen":
            return _without_paths(load)
        return load


def read_options(
    horizon: int,
    *,
    context_length: int | None = None,
    num_paths: int | None = None,
    num_samples: int = 100,
    batch_size: int | None = None,
    memory_budget: int | None = None,
    normaliser: Normalisation = "frozen",
    covariate_use: CovariateUse | None = None,
    season_length: Literal["auto"] | int | Sequence[int] | None = "auto",
    random_state: RandomState = None,
    bounds: Bounds | None = None,
    integer: bool = False,
) -> ForecastOptions:
    """Check the arguments of `MoiraiMoEPipeline.predict` that are no data.

    Raises
    ------
    InvalidInputError
        If one is none of what it may be.
    """
    counts = {"context_length": context_length, "num_paths": num_paths, "batch_size": batch_size}
    some = {name: check_count_or_none(name, value) for name, value in counts.items()}
    if normaliser not in ("frozen", "reestimated"):
        raise InvalidInputError(f"normaliser must be 'frozen' or 'reestimated', got {normaliser!r}")
    if covariate_use not in (None, "regression", "tokens"):
        raise InvalidInputError(
            f"covariate_use must be 'regression', 'tokens' or None, got {covariate_use!r}"
        )
    return ForecastOptions(
        horizon=check_count("horizon", horizon),
        num_samples=check_count("num_samples", num_samples),
        **some,
        memory_budget=memory_budget,
        normaliser=normaliser,
        covariate_use=covariate_use,
        season_length=read_season_length(season_length),
        seed=draw_seed(random_state),
        support=read_support(bounds, integer),
    )


def read_support(bounds: Bounds | None, integer: bool) -> Support:
    """Check what may be said of possible values.

    Raises
    ------
    InvalidInputError
        If bounds are not two numbers or None, or leave no value between them.
    """
    if not isinstance(integer, bool | np.bool_):
        raise InvalidInputError(f"integer must be True or False, got {integer!r}")
    if bounds is None:
        return Support(integer=bool(integer))
    message = (
        "bounds must be a pair (lower, upper) of numbers, None where there is none, such as "
        f"(0, None); got {bounds!r}"
    )
    if not isinstance(bounds, tuple | list) or len(bounds) != 2:
        raise InvalidInputError(message)
    try:
        lower, upper = (
            end if given is None else float(given)
            for given, end in zip(bounds, (-np.inf, np.inf), strict=True)
        )
    except (TypeError, ValueError) as error:
        raise InvalidInputError(message) from error
    if np.isnan(lower) or np.isnan(upper):
        raise InvalidInputError(message)
    if integer:
        lower, upper = float(np.ceil(lower)), float(np.floor(upper))
    if lower > upper or lower == np.inf or upper == -np.inf:
        whole = "whole number" if integer else "number"
        raise InvalidInputError(f"no {whole} lies within the bounds {bounds!r}")
    return Support(lower=lower, upper=upper, integer=bool(integer))


def context_points(config: ModelConfig, context_length: int | None = None) -> int:
    """Return how many last points a network reads if so many are asked for; None is the most."""
    most = config.max_seq_len * config.patch_size
    return most if context_length is None else min(context_length, most)


def regresses(config: ModelConfig, covariate_use: CovariateUse | None = None) -> bool:
    """Tell whether known-future covariates act through a regression, not as tokens."""
    return config.shift_known_future if covariate_use is None else covariate_use == "regression"


def seasons_looked_for(config: ModelConfig, season_length: SeasonLength) -> SeasonLength:
    """Return where cycles come from: "auto" is up to the checkpoint."""
    return None if season_length == "auto" and not config.find_seasons else season_length


def history_points(
    config: ModelConfig, context_length: int | None, season_length: SeasonLength
) -> int:
    """Return how many last points a forecast depends on: the context, or more for cycles."""
    if context_length is not None or seasons_looked_for(config, season_length) is None:
        return context_points(config, context_length)
    return LONGEST_HISTORY


def _without_paths(load: Load) -> Load:
    """Let missing values take the place of paths, where the checkpoint was made for it.

    Together with the context they are at most as long as what the network was trained on.
    """
    config = load.config
    direct = replace(load, paths=0)
    beyond, most = direct.hidden * config.patch_size, context_points(config)
    if config.beyond_pass != "hidden" or beyond > most // 2:
        return load
    return replace(direct, context_length=min(load.context_length, most - beyond))
