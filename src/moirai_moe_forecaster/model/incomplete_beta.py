"""The regularised incomplete beta function, which torch lacks, for the cdf of two components."""

from __future__ import annotations

import torch
from torch import Tensor

MAX_ITERATIONS = 400
CHECK_EVERY = 8


def incomplete_beta(a: Tensor, b: Tensor, x: Tensor) -> Tensor:
    """Return I_x(a, b), elementwise.

    The continued fraction of DLMF 8.17.22, evaluated by Lentz's method where it converges fast,
    and the symmetry I_x(a, b) = 1 - I_{1-x}(b, a) elsewhere.

    Parameters
    ----------
    a, b : Tensor
        Positive.
    x : Tensor
        In [0, 1].

    Returns
    -------
    Tensor
        The broadcast shape; accurate to a few float32 roundings times the size of `a` and `b`.
    """
    a, b, x = torch.broadcast_tensors(a, b, x)
    swap = x > (a + 1) / (a + b + 2)
    p, q = torch.where(swap, b, a), torch.where(swap, a, b)
    y = torch.where(swap, 1 - x, x)
    tiny = torch.finfo(x.dtype).tiny
    front = (
        p * y.clamp_min(tiny).log()
        + q * (1 - y).clamp_min(tiny).log()
        + torch.lgamma(p + q)
        - torch.lgamma(p)
        - torch.lgamma(q)
    ).exp() / p
    part = torch.where(y > 0, front * _continued_fraction(p, q, y), 0.0)
    return torch.where(swap, 1 - part, part).clamp(0, 1)


def _continued_fraction(p: Tensor, q: Tensor, y: Tensor) -> Tensor:
    tiny = torch.finfo(y.dtype).tiny * 1e6
    tolerance = 4 * torch.finfo(y.dtype).eps
    numerator = torch.ones_like(y)
    denominator = 1 / _away_from_zero(1 - (p + q) * y / (p + 1), tiny)
    value = denominator.clone()
    for m in range(1, MAX_ITERATIONS + 1):
        even = m * (q - m) * y / ((p + 2 * m - 1) * (p + 2 * m))
        odd = -(p + m) * (p + q + m) * y / ((p + 2 * m) * (p + 2 * m + 1))
        for term in (even, odd):
            denominator = 1 / _away_from_zero(1 + term * denominator, tiny)
            numerator = _away_from_zero(1 + term / numerator, tiny)
            change = numerator * denominator
            value = value * change
        if m % CHECK_EVERY == 0 and bool(((change - 1).abs() <= tolerance).all()):
            break
    return value


def _away_from_zero(x: Tensor, tiny: float) -> Tensor:
    return torch.where(x.abs() < tiny, tiny, x)
