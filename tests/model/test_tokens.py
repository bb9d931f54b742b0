from __future__ import annotations

import pytest
import torch

from moirai_moe_forecaster.model.tokens import (
    TokenBatch,
    next_patches,
    patches,
    time_index,
)


def test_patches_keep_the_order_of_points() -> None:
    points = torch.arange(24.0).view(2, 12)
    cut = patches(points, 4)
    assert cut.shape == (2, 3, 4)
    assert torch.equal(cut.flatten(1), points)


@pytest.mark.parametrize(
    ("observed", "expected"),
    [
        ([1, 1, 1], [0, 1, 2]),
        ([0, 0, 1, 1], [0, 0, 0, 1]),
        ([1, 0, 1, 0], [0, 1, 2, 3]),
        ([0, 1, 0, 0, 1], [0, 0, 1, 2, 3]),
        ([0, 0, 0], [0, 0, 0]),
    ],
)
def test_time_index(observed: list[int], expected: list[int]) -> None:
    seen = torch.tensor([observed, observed], dtype=torch.bool)
    assert time_index(seen, "observed").tolist() == [expected] * 2
    assert time_index(seen, "position").tolist() == [list(range(len(observed)))] * 2


def packed() -> TokenBatch:
    """Sample 1: variates 0 and 1 of three patches; sample 2: one variate of two; padding."""
    sample_id = torch.tensor([[1, 1, 1, 1, 1, 1, 2, 2, 0]])
    variate_id = torch.tensor([[0, 0, 0, 1, 1, 1, 0, 0, 0]])
    time_id = torch.tensor([[0, 1, 2, 0, 1, 2, 0, 1, 0]])
    values = torch.arange(18.0).view(1, 9, 2)
    observed = torch.ones(1, 9, 2, dtype=torch.bool)
    observed[0, 2, 1] = False
    known = torch.zeros(1, 9, dtype=torch.bool)
    return TokenBatch(values, observed, time_id, variate_id, sample_id, known)


def test_next_patches_are_those_of_the_same_variate_and_sample() -> None:
    tokens = packed()
    values, observed = next_patches(tokens, 2)
    assert values.shape == observed.shape == (1, 9, 2, 2)
    followers = [[1, 2], [2, None], [None, None], [4, 5], [5, None], [None, None], [7, None]]
    followers += [[None, None], [None, None]]
    for token, following in enumerate(followers):
        for step, follower in enumerate(following):
            if follower is None:
                assert not observed[0, token, step].any()
            else:
                assert torch.equal(values[0, token, step], tokens.values[0, follower])
                assert torch.equal(observed[0, token, step], tokens.observed[0, follower])


def test_no_patch_follows_beyond_the_end_of_the_sequence() -> None:
    one = TokenBatch(*(part[:, :1] for part in packed()))
    _, observed = next_patches(one, 3)
    assert observed.shape == (1, 1, 3, 2)
    assert not observed.any()


def test_tokens_move_together() -> None:
    moved = packed().to("meta")
    assert all(part.device.type == "meta" for part in moved)
