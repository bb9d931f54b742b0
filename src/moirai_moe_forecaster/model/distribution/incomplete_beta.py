"""The regularised incomplete beta function, which torch lacks, for the cdf of counts."""

from __future__ import annotations

import torch
from torch import Tensor

MAX_ITERATIONS = 400
CHECK_EVERY = 8
NEGLIGIBLE = 1e-12


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
    part = torch.zeros_like(front)
    matters = (y > 0) & (front > NEGLIGIBLE)
    part[matters] = front[matters] * _continued_fraction(p[matters], q[matters], y[matters])
    return torch.where(swap, 1 - part, part).clamp(0, 1)


def _continued_fraction(p: Tensor, q: Tensor, y: Tensor) -> Tensor:
    """Lentz's method on flat tensors; elements leave the loop when they have converged."""
    tiny = torch.finfo(y.dtype).tiny * 1e6
    tolerance = 4 * torch.finfo(y.dtype).eps
    result = torch.empty_like((p + q) * y)
    left = torch.arange(len(y), device=y.device)
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
        if m % CHECK_EVERY == 0 or m == MAX_ITERATIONS:
            result[left] = value
            going = (change - 1).abs() > tolerance
            if not bool(going.any()):
                break
            left, p, q, y = left[going], p[going], q[going], y[going]
            numerator, denominator, value = numerator[going], denominator[going], value[going]
    return result


def _away_from_zero(x: Tensor, tiny: float) -> Tensor:
    return torch.where(x.abs() < tiny, tiny, x)
