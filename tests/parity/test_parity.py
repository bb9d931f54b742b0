"""The same numbers as the reference implementation, from files that it wrote once.

`make_golden.py` made them with the reference; `official_checkpoint.py` makes the same weights here.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from official_checkpoint import weights_digest, write_official_checkpoint

from moirai_moe_forecaster import MoiraiMoEPipeline
from moirai_moe_forecaster.data.series import Series
from moirai_moe_forecaster.inference.prompt import causal_mean_fill, make_prompt
from moirai_moe_forecaster.inference.rollout import frozen_rollout, reestimated_rollout
from moirai_moe_forecaster.model.distribution.components import (
    LogNormal,
    NegativeBinomial,
    NormalFixed,
    StudentT,
)
from moirai_moe_forecaster.model.distribution.mixture import Affine, Mixture

GOLDEN = sorted((Path(__file__).parent / "golden").glob("*.npz"))
NAMES = {
    StudentT: ("student_t", ("df", "loc", "scale")),
    NormalFixed: ("normal", ("loc",)),
    NegativeBinomial: ("negative_binomial", ("total_count", "logits")),
    LogNormal: ("log_normal", ("loc", "scale")),
}


@pytest.fixture(scope="module")
def pipelines(tmp_path_factory: pytest.TempPathFactory) -> dict[int, MoiraiMoEPipeline]:
    loaded = {}
    for d_model in (64, 128):
        directory = tmp_path_factory.mktemp(f"official_{d_model}")
        with np.load(GOLDEN[0]) as golden:
            write_official_checkpoint(directory, seed=int(golden["seed"]), d_model=d_model)
        with pytest.warns(UserWarning, match="CC-BY-NC-4.0"):
            loaded[d_model] = MoiraiMoEPipeline.from_pretrained(directory, device="cpu")
    return loaded


@pytest.fixture(params=GOLDEN, ids=lambda path: path.stem)
def golden(request: pytest.FixtureRequest) -> Iterator[dict[str, np.ndarray]]:
    with np.load(request.param) as file:
        yield dict(file)


def series_of(golden: dict[str, np.ndarray]) -> Series:
    target = golden["target"].astype(np.float64).reshape(len(golden["target"]), -1).T
    past, future = (
        golden[name].T if name in golden else np.empty((0, 0))
        for name in ("past_covariates", "future_covariates")
    )
    return Series(target, past, future)


def close(actual: torch.Tensor, expected: np.ndarray) -> None:
    np.testing.assert_allclose(actual.double().numpy(), expected, rtol=1e-4, atol=1e-5)


def check_mixture(mixture: Mixture, golden: dict[str, np.ndarray], prefix: str = "") -> None:
    """Compare a mixture of points (variate, 16) or (path, variate, 16)."""
    weights = mixture.log_weights[:, 0].exp().movedim(0, -1)
    close(weights, golden[f"{prefix}weights"])
    for component in mixture.components:
        name, fields = NAMES[type(component)]
        for field in fields:
            close(getattr(component, field)[0], golden[f"{prefix}{name}_{field}"])


def raw_unit(mixture: Mixture, location: np.ndarray, scale: np.ndarray) -> Mixture:
    unit = (
        torch.from_numpy(part)[..., None].expand(1, *mixture.shape) for part in (location, scale)
    )
    double = mixture.map(lambda tensor: tensor.double())
    return double._replace(unit=Affine(*unit))


def test_next_patch(golden: dict[str, np.ndarray], pipelines: dict[int, MoiraiMoEPipeline]) -> None:
    pipeline = pipelines[int(golden["d_model"])]
    length = int(golden["context_length"])
    prompt = make_prompt([series_of(golden)], int(golden["horizon"]), pipeline.config, length)
    location, scale = (part[0, :, 0].numpy() for part in prompt.normaliser)
    np.testing.assert_allclose(location, golden["loc"], rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(scale, golden["scale"], rtol=1e-6)

    def no_draw(block: int, mixture: Mixture) -> torch.Tensor:
        return torch.zeros(mixture.shape)

    with torch.inference_mode():
        block = next(frozen_rollout(pipeline.network, prompt, 1, no_draw))
    mixture = block.mixture.map(lambda tensor: tensor[:, 0, 0, :, 0])
    check_mixture(mixture, golden)
    raw = raw_unit(mixture, golden["loc"], golden["scale"])
    log_prob = raw.log_prob(torch.from_numpy(golden["probes"]))
    np.testing.assert_allclose(log_prob.numpy(), golden["log_prob"], rtol=1e-4, atol=5e-4)
    close(raw.mean(), golden["mean"])


@pytest.mark.parametrize(
    "golden",
    [p for p in GOLDEN if p.stem.startswith("rollout")],
    ids=lambda p: p.stem,
    indirect=True,
)
def test_rollout_given_the_same_draws(
    golden: dict[str, np.ndarray], pipelines: dict[int, MoiraiMoEPipeline]
) -> None:
    """With the re-estimated normaliser, the same draws lead to the same next distributions."""
    pipeline = pipelines[int(golden["d_model"])]
    series, length = series_of(golden), int(golden["context_length"])
    horizon = int(golden["horizon"])
    first = make_prompt([series], horizon, pipeline.config, length).normaliser
    given = torch.from_numpy(golden["given"])  # (path, patch, variate, 16)

    def draw(block: int, mixture: Mixture) -> torch.Tensor:
        chosen = given[:, min(block, given.shape[1] - 1)]
        standard = (chosen - first.location) / first.scale
        return standard[None, :, :, None]

    with torch.inference_mode():
        blocks = list(reestimated_rollout(pipeline.network, [series], horizon, 3, draw, length))
    for number, block in enumerate(blocks[1:], start=2):
        prefix = f"patch{number}_"
        mixture = block.mixture.map(lambda tensor: tensor[:, 0, :, :, 0])
        check_mixture(mixture, golden, prefix)
        assert mixture.unit is not None
        scale = mixture.unit.scale[0, ..., 0].double() * first.scale[0, :, 0]
        location = mixture.unit.location[0, ..., 0].double() * first.scale[0, :, 0]
        close(scale, golden[f"{prefix}scale"])
        close(location + first.location[0, :, 0], golden[f"{prefix}loc"])


def test_quantiles_are_those_of_the_reference_mixture(
    golden: dict[str, np.ndarray], pipelines: dict[int, MoiraiMoEPipeline]
) -> None:
    """`predict` inverts the cdf of the very mixture that the reference states."""
    if np.isnan(golden["target"]).all(0).any():
        pytest.skip("a variate without any value is an error in predict")
    pipeline = pipelines[int(golden["d_model"])]
    horizon = min(int(golden["horizon"]), 16)
    options = {
        name: golden[name][: len(golden["target"]) + (horizon if "future" in name else 0)]
        for name in ("past_covariates", "future_covariates")
        if name in golden
    }
    if "future_covariates" in golden and horizon < int(golden["horizon"]):
        pytest.skip("a shorter horizon would change the covariates' own normaliser")
    length = int(golden["context_length"])
    forecast = pipeline.predict(
        golden["target"], horizon, context_length=length, random_state=0, **options
    )
    levels = np.array([0.1, 0.25, 0.5, 0.75, 0.9])
    quantiles = forecast.quantile(levels).reshape(len(levels), horizon, -1)
    weights = golden["weights"]
    reference = Mixture(
        torch.from_numpy(weights).movedim(-1, 0)[:, None].log(),
        tuple(
            kind(*(torch.from_numpy(golden[f"{name}_{field}"])[None] for field in fields))
            for kind, (name, fields) in NAMES.items()
        ),
    )
    standard = (quantiles - golden["loc"]) / golden["scale"]
    x = torch.from_numpy(standard).transpose(1, 2)
    nudge = 2e-2 + 1e-2 * x.abs()
    pad = torch.zeros(*x.shape[:2], weights.shape[1] - horizon, dtype=x.dtype)
    low, high = (
        reference.cdf(torch.cat((x + sign * nudge, pad), -1))[..., :horizon] for sign in (-1, 1)
    )
    wanted = torch.from_numpy(levels)[:, None, None]
    assert (low <= wanted + 5e-3).all()
    assert (high >= wanted - 5e-3).all()


def test_fill_of_missing_values() -> None:
    """The example that was read off the reference."""
    values = np.array([np.nan, np.nan, 2, 4, np.nan, np.nan, 9, np.nan])
    expected = [2, 2, 2, 4, 2.5, 2.8, 9, 27 / 7]
    np.testing.assert_allclose(causal_mean_fill(values), expected)


def test_official_layout_round_trip(
    tmp_path: Path, pipelines: dict[int, MoiraiMoEPipeline]
) -> None:
    """What is saved in official layout has the tensors that were loaded, to the bit."""
    from safetensors.numpy import load_file

    with np.load(GOLDEN[0]) as golden:
        seed = int(golden["seed"])
        digest = str(golden["weights_sha256"])
    original = tmp_path / "original"
    write_official_checkpoint(original, seed=seed, d_model=64)
    pipelines[64].save_pretrained(tmp_path / "saved", layout="official")
    before = load_file(original / "model.safetensors")
    after = load_file(tmp_path / "saved" / "model.safetensors")
    assert before.keys() == after.keys()
    for name, tensor in before.items():
        assert tensor.dtype == after[name].dtype
        np.testing.assert_allclose(after[name], tensor, rtol=1e-7, err_msg=name)
    assert digest == weights_digest(before)
