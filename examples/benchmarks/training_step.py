"""Time one training step, its share inside matrix products, and the making of its data.

    python examples/benchmarks/training_step.py [--preset tiny] [--threads 2] [--rows 16]
    torchrun --nproc-per-node 2 examples/benchmarks/training_step.py --threads 1

Processes that torchrun started share the rows of a step, and the first one reports. Windows are
synthetic, so that no corpus is needed. The profile is of the same steps, taken after the timing, as
profiling costs time; there is none of several processes.
"""

# %%
from __future__ import annotations

import argparse
import itertools
import statistics
import time
from collections.abc import Callable

import torch
from torch.profiler import ProfilerActivity, profile

from moirai_moe_forecaster import ModelConfig, TrainConfig
from moirai_moe_forecaster.training.data.batches import BatchMaker
from moirai_moe_forecaster.training.distributed import joined_processes
from moirai_moe_forecaster.training.monitoring import peak_flops, training_flops
from moirai_moe_forecaster.training.objective import MicroBatch, micro_batch
from moirai_moe_forecaster.training.state import new_state
from moirai_moe_forecaster.training.step import train_step

PRODUCTS = {"aten::mm", "aten::bmm", "aten::addmm", "aten::baddbmm", "aten::_grouped_mm"}
SHOWN = 12


# %%
def measure(model: ModelConfig, training: TrainConfig, device: str, steps: int) -> None:
    """Print speed, utilisation and where the time goes."""
    with joined_processes(device) as processes:
        maker = BatchMaker([], model, training, processes.device)
        part = processes.rank, processes.world_size
        maker.batch(0, *part)
        started = time.perf_counter()
        made = [maker.batch(step, *part) for step in range(8)]
        making = (time.perf_counter() - started) / len(made)
        batches = [micro_batch(b, model.output_patches).to(processes.device) for b in made]
        state = new_state(model, training, processes, {})
        supply = itertools.cycle(batches)

        def step() -> MicroBatch:
            batch = next(supply)
            train_step(state, [batch], training, 1e-4, processes)
            if processes.device.type == "cuda":
                torch.cuda.synchronize()
            return batch

        for _ in range(5):
            step()
        peak = peak_flops(processes.device, training.precision)
        seconds, work, own = [], [], []
        for _ in range(steps):
            started, spent = time.perf_counter(), time.process_time()
            batch = step()
            seconds.append(time.perf_counter() - started)
            own.append(time.process_time() - spent)
            rows, tokens = batch.tokens.sample_id.shape
            work.append(training_flops(model, rows, tokens, len(batch.targets.positions)))
        if processes.rank > 0:
            return
        taken = statistics.median(seconds)
        tokens_per_step = training.batch_rows * training.row_tokens
        print(f"step              {1e3 * taken:.1f} ms")
        # less than the time of a step where others use the machine too
        print(f"processor time    {1e3 * statistics.median(own):.1f} ms")
        print(f"tokens/s          {tokens_per_step / taken:,.0f}")
        print(f"peak, measured    {peak / 1e9:,.0f} GFLOP/s")
        print(f"of the peak       {statistics.mean(work) / taken / peak:.0%}")
        print(f"making a batch    {1e3 * making:.1f} ms, {making / taken:.1%} of a step")
        if processes.world_size == 1:
            profile_steps(step, processes.device.type)


def profile_steps(step: Callable[[], object], kind: str) -> None:
    """Print the share of the time inside matrix products, and the costliest operations."""
    activities = [ProfilerActivity.CUDA if kind == "cuda" else ProfilerActivity.CPU]
    with profile(activities=activities) as trace:
        for _ in range(8):
            step()
    own = "self_device_time_total" if kind == "cuda" else "self_cpu_time_total"
    times = {event.key: getattr(event, own) for event in trace.key_averages()}
    total = sum(times.values())
    products = sum(t for name, t in times.items() if name in PRODUCTS or "gemm" in name.lower())
    print(f"inside products   {products / total:.0%}\n")
    for name, spent in sorted(times.items(), key=lambda item: -item[1])[:SHOWN]:
        print(f"  {spent / total:6.1%}  {name[:60]}")


def main() -> None:
    """Read the options and measure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--preset", default="tiny", choices=("tiny", "small", "base"))
    parser.add_argument("--precision", default="float32", choices=("float32", "bfloat16"))
    parser.add_argument("--rows", type=int, default=16)
    parser.add_argument("--row-tokens", type=int, default=128)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--periods", type=int, default=0, help="whose references tokens read")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--steps", type=int, default=20)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    training = TrainConfig(
        steps=1,
        batch_rows=arguments.rows,
        row_tokens=arguments.row_tokens,
        precision=arguments.precision,
        synthetic_share=0.9,
        coupled_share=0.1,
    )
    model = ModelConfig.preset(arguments.preset, reference_periods=arguments.periods)
    measure(model, training, arguments.device, arguments.steps)


if __name__ == "__main__":
    main()
