"""Makes the golden files: what the reference (uni2ts 2.0.0) answers to small cases."""

# Run by hand with the python of an environment that has the reference: `python make_golden.py`.
# The checkpoint is not stored: official_checkpoint.py makes it again from `seed` and `d_model`.
#
# Inputs (missing is NaN): target (time,) or (time, variates), horizon, context_length,
#   future_covariates (time + horizon, k), past_covariates (time, k), given (see below).
# Distribution of the next patch: loc, scale (variates,) map the mixture back to raw units;
#   weights (variates, 16, 4); <component>_<parameter> (variates, 16), standardised;
#   probes, log_prob (7, variates, 16) and mean (variates, 16), in raw units.
# In a rollout, `given` (paths, patches, variates, 16) is what the reference "drew", in raw units;
#   patch2_*, patch3_* are the same arrays for the later patches, with an axis of paths in front of
#   `variates`.
# What the network was fed for the first patch: token_target, token_observed (tokens, 16);
#   token_sample_id, token_time_id, token_variate_id, token_prediction_mask (tokens,);
#   and its choice: token_experts (layers, tokens, 2), the one with more weight first.

from __future__ import annotations

import argparse
import math
import tempfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from official_checkpoint import PATCH_SIZE, write_official_checkpoint
from uni2ts.model.moirai_moe import MoiraiMoEForecast, MoiraiMoEModule

Arrays = dict[str, np.ndarray]

SEED = 42  # one for which no choice of experts is a near-tie in any case
COMPONENT_PARAMETERS = {
    "student_t": (0, ("df", "loc", "scale")),
    "normal": (1, ("loc", "scale")),
    "negative_binomial": (2, ("total_count", "logits")),
    "log_normal": (3, ("loc", "scale")),
}
# Standardised probe values; NaN stands for the location of the narrow Normal component. Zero itself
# is left out: it is the edge of two supports, where rounding alone decides.
PROBE_OFFSETS = (-2.5, -0.7, -0.05, 0.05, np.nan, 1.0, 4.0)
TOKEN_FIELDS = ("target", "observed", "sample_id", "time_id", "variate_id", "prediction_mask")


@dataclass(frozen=True)
class Case:
    """One forecast to ask for. Time comes first in every array, missing is NaN."""

    target: np.ndarray  # (time,) or (time, variates)
    horizon: int = PATCH_SIZE
    context_length: int | None = None  # default: the whole series
    future_covariates: np.ndarray | None = None  # (time + horizon, k)
    past_covariates: np.ndarray | None = None  # (time, k)
    given: np.ndarray | None = None  # (paths, patches, variates, 16), raw units
    d_model: int = 64

    @property
    def variates(self) -> int:
        return 1 if self.target.ndim == 1 else self.target.shape[1]

    @property
    def context(self) -> int:
        return self.context_length or len(self.target)

    def inputs(self) -> Arrays:
        arrays: Arrays = {
            "target": self.target,
            "horizon": np.array(self.horizon),
            "context_length": np.array(self.context),
        }
        for name in ("future_covariates", "past_covariates", "given"):
            if getattr(self, name) is not None:
                arrays[name] = getattr(self, name)
        return arrays

    @classmethod
    def from_arrays(cls, arrays: Arrays) -> Case:
        return cls(
            target=arrays["target"],
            horizon=int(arrays["horizon"]),
            context_length=int(arrays["context_length"]),
            future_covariates=arrays.get("future_covariates"),
            past_covariates=arrays.get("past_covariates"),
            given=arrays.get("given"),
        )


class GivenDraws:
    """Stands in for a predictive distribution: its draws at the tokens read are prescribed."""

    def __init__(self, distribution: torch.distributions.Distribution, read: list[int]) -> None:
        self.distribution = distribution
        self.read = read
        self.values: torch.Tensor | None = None  # (paths, variates, 16)

    def sample(self, sample_shape: torch.Size) -> torch.Tensor:
        draws = torch.zeros(*sample_shape, *self.distribution.batch_shape)
        if self.values is not None:
            draws.view(-1, *draws.shape[-2:])[:, self.read] = self.values
        return draws


@dataclass
class Recorder:
    """Listens to the reference network, and prescribes what it draws."""

    case: Case
    steps: list[tuple[Arrays, GivenDraws]] = field(default_factory=list)
    experts: list[np.ndarray] = field(default_factory=list)
    gap: float = np.inf  # smallest distance between the last expert chosen and the next one

    def tokens_read(self) -> list[int]:
        """Which tokens the next patch of each variate is read at."""
        past, future = -(-self.case.context // PATCH_SIZE), -(-self.case.horizon // PATCH_SIZE)
        variates = range(self.case.variates)
        if not self.steps:
            return [variate * past + past - 1 for variate in variates]
        first = self.case.variates * past + len(self.steps) - 1
        return [first + variate * future for variate in variates]

    def on_network(self, _: torch.nn.Module, inputs: tuple, output: object) -> GivenDraws:
        tokens = {
            name: value.numpy().copy() for name, value in zip(TOKEN_FIELDS, inputs, strict=False)
        }
        draws = GivenDraws(output, self.tokens_read())
        given, step = self.case.given, len(self.steps)
        if given is not None and step < given.shape[1]:
            draws.values = torch.from_numpy(given[:, step]).float()
        self.steps.append((tokens, draws))
        return draws

    def on_experts(self, _: torch.nn.Module, inputs: tuple, named_inputs: dict) -> None:
        tokens = inputs[0].flatten(0, -3)
        centroids = named_inputs["centroid"].type_as(tokens)
        best = torch.cdist(tokens, centroids.expand(len(tokens), -1, -1)).topk(3)
        self.gap = min(self.gap, float((best.values[..., 1] - best.values[..., 2]).min()))
        if not self.steps:
            self.experts.append(best.indices[0, :, :2].numpy())


def load_reference(directory: Path | str) -> MoiraiMoEModule:
    torch.set_num_threads(1)
    return MoiraiMoEModule.from_pretrained(str(directory), strict=True).eval()


def forecast(module: MoiraiMoEModule, case: Case) -> Recorder:
    """Run the reference's own predictor over one case, and return what it did inside."""
    entry: dict[str, object] = {"start": pd.Period("2000-01-01", "D"), "target": case.target.T}
    widths = {}
    for name, values in (
        ("feat_dynamic_real", case.future_covariates),
        ("past_feat_dynamic_real", case.past_covariates),
    ):
        widths[name + "_dim"] = 0 if values is None else values.shape[1]
        if values is not None:
            entry[name] = values.T
    model = MoiraiMoEForecast(
        module=module,
        prediction_length=case.horizon,
        context_length=case.context,
        target_dim=case.variates,
        patch_size=PATCH_SIZE,
        num_samples=1 if case.given is None else len(case.given),
        **widths,
    )
    recorder = Recorder(case)
    handles = [module.register_forward_hook(recorder.on_network)]
    for layer in module.encoder.layers:
        hook = recorder.on_experts
        handles.append(layer.ffn.register_forward_pre_hook(hook, with_kwargs=True))
    try:
        with np.errstate(invalid="ignore"):  # its filling divides zero by zero at the first point
            (answer,) = model.create_predictor(batch_size=1, device="cpu").predict([entry])
    finally:
        for handle in handles:
            handle.remove()
    if case.given is not None:
        paths, patches = case.given.shape[:2]
        written = case.given.transpose(0, 1, 3, 2).reshape(paths, patches * PATCH_SIZE, -1)
        drawn = answer.samples.reshape(paths, case.horizon, -1)[:, : patches * PATCH_SIZE]
        if not np.array_equal(drawn, written.astype(np.float32)):
            raise RuntimeError("the reference did not write the given values into its forecast")
    return recorder


def mixture_arrays(draws: GivenDraws) -> Arrays:
    """The distribution at the tokens read; a leading paths axis where there are several paths."""
    affine = draws.distribution
    mixture = affine.base_dist
    axis = len(affine.batch_shape) - 2  # (paths, batch of 1, tokens, 16), paths only in a rollout

    def pick(values: torch.Tensor) -> np.ndarray:
        return values.index_select(axis, torch.tensor(draws.read)).squeeze(axis - 1).numpy()

    arrays = {
        "loc": pick(affine.loc)[..., 0],
        "scale": pick(affine.scale)[..., 0],
        "weights": pick(mixture.weights.probs),
        "mean": pick(affine.mean),
    }
    for component, (index, names) in COMPONENT_PARAMETERS.items():
        for name in names:
            arrays[f"{component}_{name}"] = pick(getattr(mixture.components[index], name))

    narrow = mixture.components[1].loc
    probes, log_probs = [], []
    for offset in PROBE_OFFSETS:
        standard = narrow
        if not np.isnan(offset):  # keep off the flanks of the narrow peak: rounding is large there
            beside = narrow + math.copysign(0.05, offset)
            standard = torch.where((narrow - offset).abs() < 0.02, beside, offset)
        probe = affine.loc + affine.scale * standard
        probes.append(pick(probe))
        log_probs.append(pick(affine.log_prob(probe)))
    arrays["probes"] = np.stack(probes)
    arrays["log_prob"] = np.stack(log_probs)
    return arrays


def outputs(module: MoiraiMoEModule, case: Case) -> tuple[Arrays, float]:
    """All arrays of a golden file but the inputs, and the smallest gap between two experts."""
    recorder = forecast(module, case)
    arrays: Arrays = {}
    for number, (tokens, draws) in enumerate(recorder.steps, start=1):
        prefix = "" if number == 1 else f"patch{number}_"
        arrays |= {prefix + name: values for name, values in mixture_arrays(draws).items()}
        if number == 1:
            arrays |= {"token_" + name: values[0] for name, values in tokens.items()}
    arrays["token_experts"] = np.stack(recorder.experts).astype(np.uint8)
    return arrays, recorder.gap


def series(
    rng: np.random.Generator, length: int, *, level: float = 5.0, spread: float = 2.0
) -> np.ndarray:
    """A season, a slope and noise."""
    time = np.arange(length)
    season = np.sin(2 * np.pi * time / rng.integers(6, 30) + rng.uniform(0, 6))
    return level + spread * (season + rng.normal(0, 0.4, length) + rng.uniform(-1, 1) * time / 60)


def panel(rng: np.random.Generator, length: int, variates: int) -> np.ndarray:
    """Variates of quite different levels and spreads."""
    columns = [
        series(rng, length, level=rng.uniform(-20, 20), spread=10.0 ** rng.uniform(-1, 1.5))
        for _ in range(variates)
    ]
    return np.stack(columns, axis=1)


def without(values: np.ndarray, *holes: object) -> np.ndarray:
    """A copy with NaN at each index expression."""
    values = values.copy()
    for hole in holes:
        values[hole] = np.nan
    return values


def rollout(rng: np.random.Generator, target: np.ndarray, horizon: int, **more: object) -> Case:
    """A case with three given paths for every patch but the last."""
    patches = -(-horizon // PATCH_SIZE) - 1
    columns = target.reshape(len(target), -1)
    level, spread = np.nanmean(columns, axis=0), np.nanstd(columns, axis=0)
    steps = rng.normal(0, 1, (3, patches, columns.shape[1], PATCH_SIZE))
    given = level[:, None] + spread[:, None] * (0.7 * steps + np.arange(-1, 2)[:, None, None, None])
    return Case(target, horizon=horizon, given=given, **more)


CASES: dict[str, Callable[[np.random.Generator], Case]] = {
    **{f"uni_{n}": lambda rng, n=n: Case(series(rng, n)) for n in (9, 37, 96, 500, 512)},
    "tri_70": lambda rng: Case(panel(rng, 70, 3)),
    # Patches of a series of 100 start at -12 (padding), 4, 20, 36, 52, 68, 84; of 70 at -10, 6, ...
    "uni_missing_inside": lambda rng: Case(
        without(series(rng, 100), [17, 62, 63, 90], slice(36, 52))
    ),
    "uni_missing_start": lambda rng: Case(without(series(rng, 100), slice(0, 45))),
    "uni_missing_end": lambda rng: Case(without(series(rng, 100), slice(79, 100))),
    "tri_missing_inside": lambda rng: Case(
        without(
            panel(rng, 70, 3), ([12, 25, 60], 0), (slice(38, 54), 1), slice(22, 38), (slice(30), 2)
        )
    ),
    "tri_missing_start": lambda rng: Case(
        without(panel(rng, 70, 3), slice(0, 22), (slice(22, 40), 1))
    ),
    "tri_missing_end": lambda rng: Case(
        without(panel(rng, 70, 3), slice(67, 70), (slice(50, 70), 2))
    ),
    "tri_last_patch_missing": lambda rng: Case(without(panel(rng, 70, 3), slice(53, 70))),
    "tri_none_or_one_observed": lambda rng: Case(
        without(panel(rng, 70, 3), (slice(None), 0), (slice(0, 40), 1), (slice(41, 70), 1))
    ),
    "uni_large": lambda rng: Case(series(rng, 96, level=1e5, spread=1500.0)),
    "uni_negative": lambda rng: Case(series(rng, 96, level=-40.0, spread=4.0)),
    "uni_counts": lambda rng: Case(rng.poisson(np.exp(series(rng, 96, level=0.0, spread=0.7)))),
    "uni_constant": lambda rng: Case(np.full(48, 3.25)),
    "uni_truncated": lambda rng: Case(
        without(series(rng, 300), slice(0, 5), [100, 130], slice(170, 177), [222, 223, 290]),
        context_length=128,
    ),
    "uni_padded": lambda rng: Case(series(rng, 40), context_length=100),
    "future_covariates": lambda rng: Case(series(rng, 96), future_covariates=panel(rng, 112, 2)),
    "past_covariates": lambda rng: Case(series(rng, 96), past_covariates=panel(rng, 96, 2)),
    "both_covariates": lambda rng: Case(
        series(rng, 70),
        future_covariates=panel(rng, 86, 2),
        past_covariates=panel(rng, 70, 1),
    ),
    "missing_covariates": lambda rng: Case(
        without(series(rng, 70), slice(20, 24)),
        horizon=10,
        future_covariates=without(
            panel(rng, 80, 2), (slice(3, 9), 0), (slice(36, 56), 1), [72, 79]
        ),
        past_covariates=without(panel(rng, 70, 2), (slice(None), 0), ([0, 30, 69], 1)),
    ),
    "two_heads_uni": lambda rng: Case(without(series(rng, 96), [50]), d_model=128),
    "two_heads_tri_both_covariates": lambda rng: Case(
        without(panel(rng, 70, 3), ([44, 45], 1)),
        future_covariates=panel(rng, 86, 1),
        past_covariates=panel(rng, 70, 2),
        d_model=128,
    ),
    "rollout_uni": lambda rng: rollout(rng, series(rng, 96), 48),
    "rollout_uni_missing": lambda rng: rollout(
        rng, without(series(rng, 96), slice(0, 20), [61], slice(90, 96)), 48
    ),
    "rollout_tri": lambda rng: rollout(rng, panel(rng, 70, 3), 48),
    "rollout_tri_missing": lambda rng: rollout(
        rng, without(panel(rng, 70, 3), slice(0, 12), ([40, 41], 0), (slice(54, 70), 1)), 48
    ),
    "rollout_covariates": lambda rng: rollout(
        rng,
        series(rng, 70),
        40,
        future_covariates=panel(rng, 110, 1),
        past_covariates=panel(rng, 70, 1),
        d_model=128,
    ),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    default = Path(__file__).parent / "golden"
    parser.add_argument("directory", nargs="?", type=Path, default=default)
    directory = parser.parse_args().directory
    directory.mkdir(parents=True, exist_ok=True)

    modules, digests = {}, {}
    with tempfile.TemporaryDirectory() as scratch:
        for d_model in (64, 128):
            checkpoint = Path(scratch) / str(d_model)
            digests[d_model] = write_official_checkpoint(checkpoint, seed=SEED, d_model=d_model)
            modules[d_model] = load_reference(checkpoint)

    for name, make in CASES.items():
        case = make(np.random.default_rng(zlib.crc32(name.encode())))
        arrays, gap = outputs(modules[case.d_model], case)
        identity = {
            "seed": np.array(SEED),
            "d_model": np.array(case.d_model),
            "weights_sha256": np.array(digests[case.d_model]),
        }
        np.savez_compressed(directory / f"{name}.npz", **identity, **case.inputs(), **arrays)
        print(f"{name:32} tokens {len(arrays['token_time_id']):3}  expert gap {gap:.1e}")


if __name__ == "__main__":
    main()
