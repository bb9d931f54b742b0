"""Speed of forecasting, beside the reference implementation on the same random weights.

    python examples/benchmarks/inference.py [--reference PYTHON] [--rows 0 1 ...] [--threads 2]

`PYTHON` is the interpreter of an environment that has uni2ts 2.0.0. Both sides forecast the same
series with the same weights (the published size "small", 117 M parameters), each warm and alone:
first theirs, then ours. Quantiles are included on both sides.
"""

# %%
from __future__ import annotations

import argparse
import json
import resource
import subprocess
import tempfile
import time
from typing import Any, NamedTuple

import numpy as np
import torch

from moirai_moe_forecaster import ModelConfig, MoiraiMoE, MoiraiMoEPipeline
from moirai_moe_forecaster.checkpoint import save_checkpoint
from moirai_moe_forecaster.inference.options import DEFAULT_PATHS

LEVELS = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9]
PEAK_SIZE = 2048
# as accurate as the reference's 100 draws (docs/benchmarks.md, Paths)
EQUAL_PATHS = 8
DTYPES = ("float32", "bfloat16")

REFERENCE = """
import json, sys, time
import numpy as np, pandas as pd, torch
from uni2ts.model.moirai_moe import MoiraiMoEForecast, MoiraiMoEModule
directory, threads, batch, context, horizon, paths = sys.argv[1], *map(int, sys.argv[2:7])
torch.set_num_threads(threads)
module = MoiraiMoEModule.from_pretrained(directory, strict=True).eval()
model = MoiraiMoEForecast(module=module, prediction_length=horizon, context_length=context,
    patch_size=16, num_samples=paths, target_dim=1, feat_dynamic_real_dim=0,
    past_feat_dynamic_real_dim=0)
predictor = model.create_predictor(batch_size=batch, device="cpu")
rows = np.random.default_rng(0).normal(size=(batch, context)).cumsum(1)
entries = [{"start": pd.Period("2000-01-01", "h"), "target": row.astype("f4")} for row in rows]
def once():
    start = time.perf_counter()
    for forecast in predictor.predict(entries):
        np.quantile(forecast.samples, [k / 10 for k in range(1, 10)], axis=0)
    return time.perf_counter() - start
list(predictor.predict(entries[:1]))
print(json.dumps(once()))
"""


class Row(NamedTuple):
    """One line of the table."""

    context: int
    batch: int
    horizon: int
    paths: int | None
    normaliser: str = "frozen"
    dtype: str = "float32"


CASES = ((512, 1, 96), (512, 4, 96), (512, 32, 96), (2048, 1, 96), (512, 32, 16))
ROWS = (
    *(Row(*case, 100, "frozen", dtype) for dtype in DTYPES for case in CASES),
    *(Row(512, 1, 96, 100, "reestimated", dtype) for dtype in DTYPES),
    *(
        Row(*case, paths, "frozen", dtype)
        for paths in (None, EQUAL_PATHS)
        for dtype in DTYPES
        for case in CASES
    ),
)


# %%
def random_network() -> MoiraiMoE:
    """The published size, every centroid away from the others."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = MoiraiMoE(ModelConfig.official("small"))
        for name, tensor in network.state_dict().items():
            if name.endswith("centroids"):
                tensor.normal_()
    return network.eval()


def product_peak(dtype: str) -> float:
    """GFLOP/s of a large product."""
    a, best = torch.randn(PEAK_SIZE, PEAK_SIZE).to(getattr(torch, dtype)), np.inf
    for _ in range(5):
        start = time.perf_counter()
        a @ a
        best = min(best, time.perf_counter() - start)
    return 2 * PEAK_SIZE**3 / best / 1e9


def decoded_gflop(network: MoiraiMoE, row: Row) -> float:
    """Arithmetic of a shared-prefix rollout: two operations a weight and token, plus attention."""
    config = network.config
    active = network.parameter_counts()[1]
    context, steps = -(-row.context // 16), -(-row.horizon // 16) - 1
    paths = (row.paths or DEFAULT_PATHS) * steps
    attention = 4 * config.num_layers * config.d_model * (context**2 + paths * context)
    return row.batch * (2 * active * (context + paths) + attention) / 1e9


def ours(network: MoiraiMoE, row: Row) -> float:
    """Seconds of the best of three warm calls."""
    pipeline = MoiraiMoEPipeline(network.to(getattr(torch, row.dtype)))
    rows = np.random.default_rng(0).normal(size=(row.batch, row.context)).cumsum(1)
    options: dict[str, Any] = {
        "num_paths": row.paths,
        "context_length": row.context,
        "normaliser": row.normaliser,
    }
    best = np.inf
    for _ in range(3 if row.normaliser == "frozen" else 1):
        start = time.perf_counter()
        pipeline.predict(list(rows), row.horizon, random_state=0, **options).quantile(LEVELS)
        best = min(best, time.perf_counter() - start)
    network.float()
    return best


def theirs(python: str, directory: str, threads: int, row: Row) -> float:
    """Seconds of the reference in a process of its own."""
    numbers = [threads, row.batch, row.context, row.horizon, row.paths or 100]
    command = [python, "-c", REFERENCE, directory, *map(str, numbers)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(json.loads(done.stdout.strip().splitlines()[-1]))


def main() -> None:
    """Print one row per case."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--reference", metavar="PYTHON")
    parser.add_argument("--rows", type=int, nargs="+", default=list(range(len(ROWS))))
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    network, peaks = random_network(), {dtype: product_peak(dtype) for dtype in DTYPES}
    print(f"{arguments.threads} threads; GFLOP/s in a product of {PEAK_SIZE}: {peaks}\n")
    print("| context | batch | horizon | paths | normaliser | dtype | reference s | ours s | ratio "
          "| of the peak |\n|" + "---|" * 10)  # fmt: skip
    measured: dict[Row, float] = {}
    with tempfile.TemporaryDirectory() as directory:
        save_checkpoint(network, directory, layout="official")
        for row in (ROWS[index] for index in arguments.rows):
            cells = [row.context, row.batch, row.horizon, row.paths, row.normaliser, row.dtype]
            seconds = ours(network, row)
            known = arguments.reference is not None
            case = row._replace(paths=100, normaliser="", dtype="")
            if known and case not in measured:
                measured[case] = theirs(arguments.reference, directory, arguments.threads, row)
            other = measured.get(case, 0.0)
            share = decoded_gflop(network, row) / seconds / peaks[row.dtype]
            cells += [f"{other:.2f}", f"{seconds:.2f}", f"{other / seconds:.1f}"] if known else [
                "", f"{seconds:.2f}", ""]  # fmt: skip
            cells.append(f"{share:.0%}" if row.normaliser == "frozen" else "")
            print("| " + " | ".join(map(str, cells)) + " |", flush=True)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"\npeak memory of this process: {memory:.1f} GB")


if __name__ == "__main__":
    main()
