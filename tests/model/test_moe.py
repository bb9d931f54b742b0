from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from moirai_moe_forecaster.model import moe as experts_module
from moirai_moe_forecaster.model.moe import Experts, Routing

D_MODEL, D_FF, EXPERTS = 8, 5, 4


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def experts() -> Experts:
    module = Experts(D_MODEL, D_FF, EXPERTS).requires_grad_(False)
    module.weight_in.copy_(random(EXPERTS, 2 * D_FF, D_MODEL))
    module.weight_out.copy_(random(EXPERTS, D_MODEL, D_FF, seed=1))
    return module


def routing_of(tokens: int, per_token: int, seed: int = 2) -> Routing:
    scores = random(tokens, EXPERTS, seed=seed)
    top, chosen = scores.topk(per_token, -1)
    return Routing(chosen, top.softmax(-1), scores)


def naive(module: Experts, x: torch.Tensor, routing: Routing) -> torch.Tensor:
    """One token and one expert at a time."""
    out = torch.zeros_like(x)
    for token in range(len(x)):
        for expert, weight in zip(routing.experts[token], routing.weights[token], strict=True):
            gate = module.weight_in[expert, :D_FF] @ x[token]
            linear = module.weight_in[expert, D_FF:] @ x[token]
            out[token] += weight * (module.weight_out[expert] @ (F.silu(gate) * linear))
    return out


@pytest.mark.parametrize("per_token", [1, 2, 4])
@pytest.mark.parametrize("tokens", [1, 7, 60])
def test_experts_are_a_loop_over_tokens(tokens: int, per_token: int) -> None:
    module, x, routing = experts(), random(tokens, D_MODEL, seed=3), routing_of(tokens, per_token)
    torch.testing.assert_close(module(x, routing), naive(module, x, routing), atol=1e-5, rtol=1e-4)


def test_experts_that_no_token_uses_are_skipped() -> None:
    module, x = experts(), random(10, D_MODEL)
    module.weight_in[0] = module.weight_out[2] = torch.nan
    routing = Routing(torch.tensor([[1, 3]] * 10), torch.full((10, 2), 0.5), torch.zeros(10, 4))
    torch.testing.assert_close(module(x, routing), naive(module, x, routing), atol=1e-5, rtol=1e-4)


def test_no_tokens_give_nothing() -> None:
    routing = Routing(torch.empty(0, 2, dtype=torch.int64), torch.empty(0, 2), torch.empty(0, 4))
    assert experts()(torch.empty(0, D_MODEL), routing).shape == (0, D_MODEL)


def test_a_token_does_not_depend_on_the_others() -> None:
    module, x, routing = experts(), random(60, D_MODEL), routing_of(60, 2)
    whole = module(x, routing)
    half = module(x[::2], Routing(*(part[::2] for part in routing)))
    torch.testing.assert_close(half, whole[::2])


def test_gradients_are_those_of_the_loop() -> None:
    module, x, routing = experts().requires_grad_(True), random(12, D_MODEL), routing_of(12, 2)
    weights = routing.weights.clone().requires_grad_(True)
    gradients = []
    for function in (lambda *a: module(*a), lambda *a: naive(module, *a)):
        out = function(x, routing._replace(weights=weights))
        inputs = (module.weight_in, module.weight_out, weights)
        gradients.append(torch.autograd.grad(out.square().sum(), inputs))
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)


def test_the_type_of_the_weights_is_kept() -> None:
    module = experts().to(torch.bfloat16)
    assert module(random(5, D_MODEL).bfloat16(), routing_of(5, 2)).dtype == torch.bfloat16


@pytest.mark.skipif(not hasattr(F, "grouped_mm"), reason="grouped products came with torch 2.10")
def test_grouped_products_are_the_loop_over_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    torch_state = torch.random.get_rng_state()
    module = Experts(16, 8, EXPERTS)
    assert torch.equal(torch_state, torch.random.get_rng_state())
    with torch.no_grad():
        module.weight_in.copy_(random(*module.weight_in.shape))
        module.weight_out.copy_(random(*module.weight_out.shape, seed=1))
    x, routing = random(50, 16, seed=3).requires_grad_(), routing_of(50, 2)

    def gradients() -> list[torch.Tensor]:
        module.zero_grad()
        inputs = (x, module.weight_in, module.weight_out)
        output = module(x, routing)
        return [output, *torch.autograd.grad(output.square().sum(), inputs)]

    looped = gradients()
    monkeypatch.setattr(module, "_on_cpu", module._on_gpu)
    for got, expected in zip(gradients(), looped, strict=True):
        torch.testing.assert_close(got, expected, atol=1e-4, rtol=1e-4)
    with torch.autocast("cpu", torch.bfloat16):
        rounded = gradients()
    assert rounded[0].dtype == torch.bfloat16
    torch.testing.assert_close(rounded[0].float(), looped[0], atol=0.3, rtol=0.1)


def test_gradients_are_those_of_the_loop_over_tokens() -> None:
    module = experts().requires_grad_()
    x, routing = random(9, D_MODEL, seed=3).requires_grad_(), routing_of(9, 2)
    routing = routing._replace(weights=routing.weights.clone().requires_grad_())
    inputs = (x, routing.weights, module.weight_in, module.weight_out)
    upstream = random(9, D_MODEL, seed=4)
    got, expected = (
        torch.autograd.grad(output, inputs, upstream)
        for output in (module(x, routing), naive(module, x, routing))
    )
    for ours, theirs in zip(got, expected, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)


def test_filling_up_in_bfloat16_changes_no_result(monkeypatch: pytest.MonkeyPatch) -> None:
    module, x, routing = experts().requires_grad_(True), random(150, D_MODEL), routing_of(150, 2)
    results = []
    for block in (experts_module.BLOCK, 1):
        monkeypatch.setattr(experts_module, "BLOCK", block)
        module.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            y = module(x, routing)
        y.float().square().mean().backward()
        gradients = [w.grad.clone() for w in module.parameters() if w.grad is not None]
        results.append((y.detach(), *gradients))
    for filled, plain in zip(*results, strict=True):
        torch.testing.assert_close(filled, plain, rtol=0.02, atol=0.02)
