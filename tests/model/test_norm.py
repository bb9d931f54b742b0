from __future__ import annotations

import torch
from torch.nn import functional as F

from moirai_moe_forecaster.model.attention import EPSILON, RMSNorm


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def norm_of(width: int) -> RMSNorm:
    module = RMSNorm(width)
    with torch.no_grad():
        module.weight.copy_(random(width, seed=1))
    return module


def test_values_and_gradients_are_those_of_torch() -> None:
    module, x = norm_of(12), random(3, 5, 12).requires_grad_()
    inputs = (x, module.weight)
    upstream = random(3, 5, 12, seed=2)
    got = module(x)
    expected = F.rms_norm(x, (12,), module.weight, EPSILON)
    torch.testing.assert_close(got, expected)
    for ours, theirs in zip(
        torch.autograd.grad(got, inputs, upstream),
        torch.autograd.grad(expected, inputs, upstream),
        strict=True,
    ):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)


def test_rows_of_zeros_stay_finite() -> None:
    module, x = norm_of(4), torch.zeros(2, 4, requires_grad=True)
    module(x).sum().backward()
    assert x.grad is not None
    assert x.grad.isfinite().all()


def test_half_precision_keeps_its_dtype_and_counts_in_float32() -> None:
    module, x = norm_of(16), (300 * random(4, 16)).bfloat16().requires_grad_()
    got = module(x)
    assert got.dtype == torch.bfloat16
    torch.testing.assert_close(got.float(), module(x.detach().float()), atol=0.05, rtol=0.01)
    got.sum().backward()
    assert x.grad is not None
    assert x.grad.dtype == torch.bfloat16
