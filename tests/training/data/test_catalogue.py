"""How often each series of a corpus is drawn."""

from __future__ import annotations

import numpy as np
import pytest

from moirai_moe_forecaster.errors import InvalidInputError
from moirai_moe_forecaster.training.data.catalogue import catalogue, source_shares
from moirai_moe_forecaster.training.data.corpus import Source


def source(weight: float, lengths: list[int]) -> Source:
    offsets = np.append(0, np.cumsum(lengths))
    return Source("zeros", np.zeros(offsets[-1], np.float32), offsets, weight)


def test_sources_are_drawn_by_capped_weights_and_their_series_by_roots_of_lengths() -> None:
    weights = [*range(1, 13), 500.0, 0.0]
    table = catalogue([source(weight, [100, 10, 400]) for weight in weights], min_points=20)
    chances = np.diff(table.chance, prepend=0)
    shares = np.bincount(table.array, chances, minlength=len(weights))
    np.testing.assert_allclose(shares, source_shares(weights))
    assert shares[12] == pytest.approx(0.1)
    assert set(table.length.tolist()) == {100, 400}
    np.testing.assert_allclose(chances[table.length == 400], 2 * chances[table.length == 100])


def test_a_corpus_without_a_usable_series_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="min_points = 20"):
        catalogue([source(1.0, [19]), source(0.0, [100])], min_points=20)
