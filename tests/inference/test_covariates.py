"""Covariates act where they explain a series, and only there."""

from __future__ import annotations

from importlib.resources import files

import numpy as np
import pytest

from moirai_moe_forecaster import MoiraiMoEPipeline
from moirai_moe_forecaster.data.series import Series
from moirai_moe_forecaster.inference.batching import Load
from moirai_moe_forecaster.inference.covariates import split_residuals
from moirai_moe_forecaster.inference.regression import explained, make_terms
from tiny_network import tiny_network

N, H = 300, 24
BUNDLED = files("moirai_moe_forecaster") / "weights" / "model.safetensors"


def noise(size: int | tuple[int, ...], seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=size)


def series_of(y: np.ndarray, x: np.ndarray) -> Series:
    return Series(np.atleast_2d(y), np.zeros((0, np.shape(y)[-1])), np.atleast_2d(x))


class TestRegression:
    def test_finds_a_coefficient(self) -> None:
        x = noise(N + H)
        y = 3 * x[:N] + 50 + noise(N, 1) / 10
        effect = explained(series_of(y, x), N)[0]
        np.testing.assert_allclose(effect - effect.mean(), 3 * (x - x.mean()), atol=0.2)

    def test_under_a_trend_and_a_season(self) -> None:
        steps = np.arange(N)
        x = noise(N + H)
        y = steps / 3 + 5 * np.sin(steps / 4) + 2 * x[:N]
        effect = explained(series_of(y, x), N)[0]
        assert np.corrcoef(effect[N:], x[N:])[0, 1] > 0.999
        assert np.std(effect[N:]) == pytest.approx(2 * np.std(x[N:]), rel=0.05)

    @pytest.mark.parametrize("shift", [-3, -1, 2])
    def test_finds_a_shift(self, shift: int) -> None:
        x = noise(N + H)
        y = 3 * np.roll(x, shift)[:N] + noise(N, 1) / 10
        effect = explained(series_of(y, x), N)[0]
        assert np.corrcoef(effect[N : N + H - 3], np.roll(x, shift)[N : N + H - 3])[0, 1] > 0.99

    def test_finds_a_bend(self) -> None:
        x = noise(N + H)
        effect = explained(series_of(np.abs(x[:N]) + noise(N, 1) / 10, x), N)[0]
        assert np.corrcoef(effect[N:], np.abs(x[N:]))[0, 1] > 0.85

    @pytest.mark.parametrize("walk", [False, True])
    def test_unrelated_series_explain_nothing(self, walk: bool) -> None:
        """Two random walks look related to least squares, not here."""
        found = 0
        for seed in range(40):
            y, x = noise(N, seed), noise(N + H, 1000 + seed)
            if walk:
                y, x = y.cumsum(), x.cumsum()
            found += explained(series_of(y, x), N).any()
        assert found <= 3

    @pytest.mark.parametrize("columns", ["constant", "twins", "binary", "missing", "sparse"])
    def test_awkward_columns(self, columns: str) -> None:
        x = noise(N + H)
        y = 3 * x[:N] + noise(N, 1) / 10
        rare = (noise(N + H, 2) > 1.5) * 1.0
        X = {
            "constant": np.stack((x, np.full(N + H, 7.0), np.zeros(N + H))),
            "twins": np.stack((x, x, 2 * x + 1, 1e-9 * x + 1e6)),
            "binary": np.stack((x, rare)),
            "missing": np.stack((x, np.full(N + H, np.nan))),
            "sparse": np.stack((x, np.where(noise(N + H, 3) > 0, x, np.nan))),
        }[columns]
        y = y + 5 * rare[:N] if columns == "binary" else y
        effect = explained(series_of(y, X), N)[0]
        truth = 3 * x + 5 * rare if columns == "binary" else 3 * x
        assert np.isfinite(effect).all()
        assert np.corrcoef(effect[N:], truth[N:])[0, 1] > 0.98

    def test_missing_values_are_not_numbers(self) -> None:
        x = noise(N + H)
        y = 3 * x[:N] + noise(N, 1) / 10
        y[[5, 90, 91, 200]] = np.nan
        gaps = np.where(noise(N + H, 5) > 1.3, np.nan, x)
        effect = explained(series_of(y, gaps), N)[0]
        seen = np.flatnonzero(~np.isnan(gaps[N:])) + N
        assert np.corrcoef(effect[seen], x[seen])[0, 1] > 0.98

    @pytest.mark.parametrize("points", [1, 2, 5, 11, 13, 20])
    def test_short_contexts(self, points: int) -> None:
        x = noise((2, points + H))
        effect = explained(series_of(3 * x[0, :points], x), points)
        assert effect.shape == (1, points + H)
        assert np.isfinite(effect).all()
        assert points >= 12 or not effect.any()

    def test_is_equivariant_to_units(self) -> None:
        x, y = noise(N + H), noise(N, 1) + noise(N + H)[:N]
        plain = explained(series_of(y, x), N)
        np.testing.assert_allclose(
            explained(series_of(1e6 * y + 5, x / 1000 - 3), N), 1e6 * plain, rtol=1e-6, atol=1e-3
        )

    @pytest.mark.parametrize("unit", [1e-200, 1e200])
    def test_extreme_units(self, unit: float) -> None:
        x = noise(N + H)
        y = 3 * x[:N] + noise(N, 1) / 10
        plain = explained(series_of(y, x), N)
        np.testing.assert_allclose(explained(series_of(y * unit, x * unit), N), plain * unit)

    def test_learns_from_the_last_points_alone(self) -> None:
        x = noise(N + H)
        y = np.concatenate((-9 * x[:100], 3 * x[100:N])) + noise(N, 1) / 10
        effect = explained(series_of(y, x), 200)[0]
        assert not effect[:100].any()
        assert np.std(effect[N:]) == pytest.approx(3 * np.std(x[N:]), rel=0.1)

    @pytest.mark.filterwarnings("error")
    def test_what_begins_after_the_context_has_no_effect(self) -> None:
        x = np.where(np.arange(N + H) > N, 2.0, 0.0)
        assert not explained(series_of(noise(N), x), N).any()

    def test_terms_are_standardised(self) -> None:
        terms = make_terms(100 + 5 * noise((2, N + H)), N)
        np.testing.assert_allclose(terms[:, :N].mean(1), 0, atol=1e-9)
        np.testing.assert_allclose(terms[:, :N].std(1), 1)


class TestTakingOut:
    LOAD = Load(
        config=tiny_network().config, context_length=512, horizon=H, paths=1, reestimated=False
    )

    def test_variates_have_effects_of_their_own(self) -> None:
        x = noise(N + H)
        y = np.stack((5 * x[:N], noise(N, 2))) + noise((2, N), 1) / 10
        rests, effects = split_residuals(tiny_network(), [series_of(y, x)], self.LOAD)
        assert np.corrcoef(effects[0][0], x[N:])[0, 1] > 0.99
        assert not effects[0][1].any()
        assert rests[0].future.shape[0] == 0
        assert np.std(rests[0].target[0]) < 0.3 * np.std(y[0])
        np.testing.assert_array_equal(rests[0].target[1], y[1])

    def test_an_effect_that_ended_is_left_out(self) -> None:
        """On the whole context it explains much, on the second half it does harm."""
        x = noise(N + H)
        y = np.where(np.arange(N) < N // 2, 6 * x[:N], 0) + noise(N, 1)
        series = series_of(y, x)
        assert explained(series, N).any()
        rests, effects = split_residuals(tiny_network(), [series], self.LOAD)
        assert not effects[0].any()
        np.testing.assert_array_equal(rests[0].target[0], y)

    def test_does_not_depend_on_the_batch(self) -> None:
        many = [
            series_of(2 * noise(n + H, n)[:n] + noise(n, 1), noise(n + H, n)) for n in (40, 90, 300)
        ]
        together = split_residuals(tiny_network(), many, self.LOAD, batch_size=2)[1]
        for series, effect in zip(many, together, strict=True):
            alone = split_residuals(tiny_network(), [series], self.LOAD)[1][0]
            np.testing.assert_allclose(effect, alone, rtol=1e-9)


class TestPipeline:
    def test_effect_moves_every_quantile(self) -> None:
        pipeline = MoiraiMoEPipeline(tiny_network())
        x = noise(N + H)
        y = 5 * x[:N] + noise(N, 1) / 10
        forecast = pipeline.predict(y, H, future_covariates=x[:, None], random_state=0)
        higher = x.copy()
        higher[N + 8] += 1
        moved = pipeline.predict(y, H, future_covariates=higher[:, None], random_state=0)
        for before, after in (
            (forecast.quantile([0.1, 0.9])[:, 8], moved.quantile([0.1, 0.9])[:, 8]),
            (forecast.mean[8], moved.mean[8]),
            (forecast.samples[:, 8], moved.samples[:, 8]),
        ):
            np.testing.assert_allclose(after - before, 5, atol=0.3)
        levels = moved.cdf(forecast.quantile(0.5))
        assert levels[8] < 0.5
        np.testing.assert_allclose(np.delete(levels, range(5, 12)), 0.5, atol=1e-3)

    def test_useless_covariates_change_nothing(self) -> None:
        pipeline = MoiraiMoEPipeline(tiny_network())
        y = noise(N)
        np.testing.assert_array_equal(
            pipeline.predict(y, H, future_covariates=noise((N + H, 2), 5), random_state=0).median,
            pipeline.predict(y, H, random_state=0).median,
        )

    def test_official_checkpoints_read_tokens_unless_asked(self) -> None:
        pipeline = MoiraiMoEPipeline(tiny_network(shift_known_future=False))
        x = noise((N + H, 1))
        y = 5 * x[:N, 0] + noise(N, 1) / 10
        default, tokens, regression = (
            pipeline.predict(y, H, future_covariates=x, random_state=0, **use).median
            for use in ({}, {"covariate_use": "tokens"}, {"covariate_use": "regression"})
        )
        np.testing.assert_array_equal(default, tokens)
        assert np.corrcoef(regression, x[N:, 0])[0, 1] > 0.95
        assert abs(np.corrcoef(tokens, x[N:, 0])[0, 1]) < 0.95

    def test_unknown_use_is_refused(self) -> None:
        with pytest.raises(ValueError, match="covariate_use must be 'regression', 'tokens' or"):
            MoiraiMoEPipeline(tiny_network()).predict(noise(50), 3, covariate_use="all")  # type: ignore[arg-type]


@pytest.mark.skipif(not BUNDLED.is_file(), reason="the bundled checkpoint is not in this tree")
def test_the_bundled_network_gains_by_half_and_loses_nothing() -> None:
    pipeline = MoiraiMoEPipeline.from_pretrained()
    x = noise((8, N + H))
    y = 2 * x + noise((8, N + H), 1) / 2 + np.sin(np.arange(N + H) / 5)
    context, truth = list(y[:, :N]), y[:, N:]

    def error(covariates: np.ndarray | None) -> float:
        known = None if covariates is None else [row[:, None] for row in covariates]
        forecast = pipeline.predict(context, H, future_covariates=known, random_state=0)
        return float(np.abs(forecast.median - truth).mean())

    without = error(None)
    assert error(x) < 0.5 * without
    for useless in (noise((8, N + H), 7), noise((8, N + H), 8).cumsum(1)):
        assert error(useless) < 1.02 * without
