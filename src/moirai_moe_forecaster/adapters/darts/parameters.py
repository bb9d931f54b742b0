"""What the parameters of the Darts model may be, and how its saved objects hold them."""

from __future__ import annotations

from darts.logging import get_logger, raise_log

from moirai_moe_forecaster.config import ModelConfig
from moirai_moe_forecaster.inference.options import (
    Bounds,
    context_points,
    read_support,
    seasons_looked_for,
)
from moirai_moe_forecaster.inference.seasons import SeasonLength
from moirai_moe_forecaster.inference.view_weights import LONGEST_HISTORY

logger = get_logger(__name__)


def check_context_length(config: ModelConfig, length: int, season_length: SeasonLength) -> None:
    """Check that the network, or the search for cycles, can use an `input_chunk_length`.

    Raises
    ------
    ValueError
        If it is longer than both.
    """
    longest, seasons = context_points(config), seasons_looked_for(config, season_length)
    if seasons is None and length > longest:
        raise_log(
            ValueError(
                f"`input_chunk_length` {length} cannot be greater than model's context_length "
                f"{longest} unless `season_length` says which cycles to learn from it."
            )
        )
    if length > LONGEST_HISTORY:
        raise_log(
            ValueError(
                f"`input_chunk_length` {length} cannot be greater than {LONGEST_HISTORY}, the "
                "most that cycles are learnt from."
            )
        )
    if isinstance(seasons, tuple) and 2 * seasons[-1] > length:
        logger.warning(
            f"`season_length` {seasons[-1]} has no effect: an `input_chunk_length` of {length} "
            f"does not hold two such cycles. Make it at least {2 * seasons[-1]}."
        )


def plain_bounds(bounds: Bounds | None, integer: bool) -> tuple[float | None, ...] | None:
    """Check bounds, and return them in types that safe loading knows.

    Raises
    ------
    InvalidInputError
        If they are none.
    """
    read_support(bounds, integer)
    return bounds and tuple(None if end is None else float(end) for end in bounds)
