from __future__ import annotations

import numpy as np
import pytest
import torch

from moirai_moe_forecaster.model.attention import rotate, rotation


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("head_dim", [4, 8, 64])
def test_pairs_turn_as_complex_numbers(head_dim: int) -> None:
    time_id = torch.tensor([0, 1, 5, 511])
    x = random(4, head_dim)
    got = rotate(x, rotation(time_id, head_dim)).numpy()
    quarter, width = head_dim // 4, head_dim // 2
    pairs = x[:, :quarter].numpy() + 1j * x[:, quarter:width].numpy()
    frequency = 10_000.0 ** (-2 * np.arange(quarter) / width)
    turned = pairs * np.exp(1j * time_id.numpy()[:, None] * frequency)
    expected = np.concatenate([turned.real, turned.imag, x[:, width:].numpy()], 1)
    np.testing.assert_allclose(got, expected, atol=1e-4)


def test_only_differences_in_time_matter() -> None:
    query, key = random(6, 16), random(6, 16, seed=1)
    first, second = torch.tensor([0, 3, 7, 9, 1, 4]), torch.tensor([2, 3, 1, 0, 8, 4])

    def products(shift: int) -> torch.Tensor:
        turned = (
            rotate(query, rotation(first + shift, 16)),
            rotate(key, rotation(second + shift, 16)),
        )
        return (turned[0] * turned[1]).sum(-1)

    torch.testing.assert_close(products(0), products(-4), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(products(0), products(200), atol=1e-3, rtol=1e-3)
    moved = rotate(query, rotation(first + 1, 16)), rotate(key, rotation(second, 16))
    assert (products(0) - (moved[0] * moved[1]).sum(-1)).abs().min() > 1e-3


def test_lengths_stay_and_the_second_half_is_not_rotated() -> None:
    x = random(3, 10, 32)
    turned = rotate(x, rotation(torch.arange(10).expand(3, 10), 32))
    torch.testing.assert_close(turned.norm(dim=-1), x.norm(dim=-1))
    assert torch.equal(turned[..., 16:], x[..., 16:])
    assert not torch.allclose(turned[:, 1:, :16], x[:, 1:, :16])


def test_the_type_of_the_input_is_kept() -> None:
    angles = rotation(torch.arange(300), 8)
    assert rotate(random(300, 8).bfloat16(), angles).dtype == torch.bfloat16
    assert angles.cos.dtype == torch.float32


def test_the_gradient_is_that_of_the_formula() -> None:
    angles = rotation(torch.arange(7).expand(2, 7), 16)
    x = random(2, 7, 16).requires_grad_()
    first, second, kept = x.split([4, 4, 8], -1)
    formula = torch.cat(
        (
            first * angles.cos - second * angles.sin,
            second * angles.cos + first * angles.sin,
            kept,
        ),
        -1,
    )
    upstream = random(2, 7, 16, seed=1)
    got, expected = (torch.autograd.grad(y, x, upstream)[0] for y in (rotate(x, angles), formula))
    torch.testing.assert_close(got, expected)
