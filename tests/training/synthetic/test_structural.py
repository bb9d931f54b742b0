"""Seasonal patterns have the right periods and repeat exactly where they should."""

import pytest
import torch

from moirai_moe_forecaster.training.synthetic import structural
from moirai_moe_forecaster.training.synthetic.primitives import clock


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def autocorrelation(series: torch.Tensor, lag: int) -> torch.Tensor:
    centred = series - series.mean(1, keepdim=True)
    product = (centred[:, lag:] * centred[:, :-lag]).mean(1)
    return product / centred.square().mean(1).clamp_min(1e-9)


def test_every_calendar_is_drawn_and_the_ruling_period_is_there() -> None:
    periods = structural.draw_periods(4000, seeded())
    assert (periods.amax(1) > 0).all()
    for period in (4, 7, 12, 24, 48, 52, 96, 144, 168, 288, 365.25):
        assert (periods == period).any(), f"no series has period {period}"
    multiple = ((periods > 0).sum(1) > 1).float().mean()
    assert 0.2 < multiple < 0.7


@pytest.mark.parametrize(
    "short_and_long", [(24, 168), (48, 336), (96, 672), (144, 1008), (288, 2016), (7, 365.25)]
)
def test_long_periods_come_with_their_short_ones(short_and_long: tuple[float, float]) -> None:
    periods = structural.draw_periods(8000, seeded())
    short, long = ((periods == period).any(1) for period in short_and_long)
    assert (short & long).float().mean() > 0.02
    assert (short & long).sum() > 0.5 * long.sum()


def test_two_seasons_at_once_are_both_seen() -> None:
    season = structural.seasonality(600, 2048, seeded(4), strict=1.0)
    week = autocorrelation(season, 168)
    day = autocorrelation(season, 24)
    hourly = (day > 0.3) & (week > 0.99) & (day < 0.95)
    assert hourly.float().mean() > 0.07, "no daily rhythm within a weekly one"


@pytest.mark.parametrize("period", [7.0, 24.0, 168.0])
@pytest.mark.parametrize("shape", [shape for shape, _ in structural.SHAPES])
def test_shapes_repeat_to_the_last_bit(shape: structural.Shape, period: float) -> None:
    generator = seeded(1)
    time = clock(30, 400, generator)
    phase = structural.phase_of(time, torch.full((30, 1), period))
    series = shape(phase, generator)
    assert torch.equal(series[:, int(period) :], series[:, : -int(period)])
    assert (series.std(1) > 0).float().mean() > 0.8


def test_shapes_range_from_smooth_to_sharp() -> None:
    generator = seeded(2)
    phase = torch.arange(1000).expand(300, -1) / 1000
    series = structural.cycle(phase, generator)
    largest_step = series.diff(dim=1).abs().amax(1)
    assert largest_step.quantile(0.2) < 0.05
    assert largest_step.quantile(0.9) > 1
    assert series.amax(1).max() > 4, "no spikes"


def test_strict_seasonality_repeats_and_the_rest_evolves() -> None:
    lags = (4, 7, 12, 24, 48, 52, 60, 96, 144, 168, 288, 336, 365, 672)

    def share_of_repeating(strict: float) -> torch.Tensor:
        series = structural.seasonality(200, 4096, seeded(3), strict=strict)
        best = torch.stack([autocorrelation(series, lag) for lag in lags]).amax(0)
        return (best > 0.99).float().mean()

    assert share_of_repeating(1.0) > 0.5
    assert share_of_repeating(0.0) < 0.35
