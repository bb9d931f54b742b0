from __future__ import annotations

import pytest
import torch

from moirai_moe_forecaster.inference.dependence import Shares, dependent, growth
from moirai_moe_forecaster.model.network import MoiraiMoE
from moirai_moe_forecaster.model.tokens import TokenBatch
from moirai_moe_forecaster.training.fitted_dependence import fitted_dependence
from moirai_moe_forecaster.training.objective import MicroBatch, Targets
from tiny_network import OFFICIAL_CONVENTIONS, tiny_network


def observed_as_predicted(
    network: MoiraiMoE, share: float, rise: float, decay: float
) -> MicroBatch:
    """Windows whose points follow the network's own distributions with the given dependence."""
    generator = torch.Generator().manual_seed(0)
    rows, tokens = 40, 20
    ids = torch.arange(tokens).expand(rows, -1)
    batch = TokenBatch(
        torch.randn(rows, tokens, 16, generator=generator),
        torch.ones(rows, tokens, 16, dtype=torch.bool),
        ids,
        torch.zeros_like(ids),
        torch.ones_like(ids),
        torch.zeros_like(ids, dtype=torch.bool),
    )
    mixture = network.head(network.encode(batch).hidden.flatten(0, 1))
    levels = torch.rand(rows * tokens, 64, generator=generator).clamp(1e-6, 1 - 1e-6)
    shares = share + rise * growth(mixture)
    values = mixture.icdf_at(dependent(levels, Shares(shares), decay).unflatten(1, (4, 16)))
    weights = (torch.rand(values.shape, generator=generator) > 0.002).float()
    return MicroBatch(batch, Targets(torch.arange(rows * tokens), values, weights))


@pytest.mark.parametrize(
    ("share", "rise", "decay"), [(0.7, 0.0, 0.9), (0.9, 0.0, 0.6), (0.1, 0.8, 0.98)]
)
def test_sums_vary_as_what_was_observed(share: float, rise: float, decay: float) -> None:
    network = tiny_network(output_patches=4)
    config = fitted_dependence(network, [observed_as_predicted(network, share, rise, decay)])
    lag = torch.arange(1, 32)
    for grown in (0.02, 0.15):
        got, expected = (
            ((32 - lag) * (at + slope * grown) * fall**lag).sum()
            for at, slope, fall in (
                (config.dependence_share, config.dependence_growth, config.dependence_decay),
                (share, rise, decay),
            )
        )
        assert float((1 + got / 16) / (1 + expected / 16)) == pytest.approx(1, abs=0.2)
    assert network.config.dependence_share == 0


def test_without_held_out_windows_or_with_counts_nothing_changes() -> None:
    network = tiny_network()
    assert fitted_dependence(network, []) == network.config
    counts = tiny_network(**OFFICIAL_CONVENTIONS)
    assert fitted_dependence(counts, [object()]) == counts.config  # type: ignore[list-item]
