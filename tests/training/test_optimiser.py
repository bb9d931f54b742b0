from __future__ import annotations

from pathlib import Path

import pytest
import torch

from moirai_moe_forecaster import ModelConfig, TrainConfig, pretrain
from moirai_moe_forecaster.model.network import MoiraiMoE
from moirai_moe_forecaster.training.optimiser import Muon, new_optimiser, orthogonal

SMALL = ModelConfig.preset("tiny", d_model=24, d_ff=16, num_layers=2, num_heads=3, num_experts=2)
TRAINING = TrainConfig(
    steps=4,
    optimiser="muon",
    batch_rows=8,
    row_tokens=16,
    max_points=128,
    synthetic_share=1.0,
    coupled_share=0.0,
    synthetic_pool=8,
    warmup_steps=1,
)


@pytest.mark.parametrize("shape", [(24, 24), (3, 48, 24), (3, 24, 48)])
def test_singular_values_come_near_to_one(shape: tuple[int, ...]) -> None:
    matrices = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    values = torch.linalg.svdvals(orthogonal(matrices).float())
    assert values.max() < 1.3
    assert values.median() > 0.6


def test_matrices_of_a_stack_do_not_touch_each_other() -> None:
    matrices = torch.randn(3, 8, 16, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(
        orthogonal(matrices)[1], orthogonal(matrices[1]), atol=0.02, rtol=0.02
    )


def test_only_matrices_inside_the_blocks_are_orthogonal() -> None:
    network = MoiraiMoE(SMALL)
    optimiser = new_optimiser(network, TRAINING)
    named = {parameter: name for name, parameter in network.named_parameters()}
    chosen = {
        named[p].split(".", 2)[2]
        for group in optimiser.param_groups
        if group.get("orthogonal")
        for p in group["params"]
    }
    assert chosen == {
        "attention.qkv.weight",
        "attention.out.weight",
        "experts.weight_in",
        "experts.weight_out",
    }
    assert sum(len(group["params"]) for group in optimiser.param_groups) == len(named)


def test_a_step_that_is_not_finite_changes_nothing() -> None:
    weight = torch.nn.Parameter(torch.randn(4, 4))
    before = weight.detach().clone()
    optimiser = Muon([{"params": [weight], "orthogonal": True}], lr=0.1, fused=True)
    weight.grad = torch.full((4, 4), torch.nan)
    optimiser.found_inf = torch.ones(())  # type: ignore[attr-defined]
    optimiser.step()
    assert torch.equal(weight, before)
    assert not optimiser.state[weight]["momentum"].any()


def test_a_resumed_run_goes_on_as_an_unbroken_one(tmp_path: Path) -> None:
    half = TrainConfig.from_dict({**TRAINING.to_dict(), "steps": 2, "decay_share": 0.0})
    rest = TrainConfig.from_dict({**TRAINING.to_dict(), "decay_share": 0.0})
    unbroken = pretrain(SMALL, rest, [], tmp_path / "unbroken", progress=False)
    pretrain(SMALL, half, [], tmp_path / "run", progress=False)
    resumed = pretrain(SMALL, rest, [], tmp_path / "run", resume=True, progress=False)
    for one, other in zip(resumed.parameters(), unbroken.parameters(), strict=True):
        assert torch.equal(one, other)
