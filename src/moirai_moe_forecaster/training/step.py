"""One optimiser step, over the micro-batches of all processes, and validation."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from moirai_moe_forecaster.config import Precision, TrainConfig
from moirai_moe_forecaster.training.distributed import Processes, part, sum_over_processes, whole
from moirai_moe_forecaster.training.objective import MicroBatch
from moirai_moe_forecaster.training.state import State

MOST_SKIPPED_STEPS = 5


@dataclass(frozen=True, kw_only=True)
class StepResult:
    """What a step saw, over all micro-batches and processes, on the device: no one waits for it.

    Attributes
    ----------
    loss, balance, gradient_norm, weight : Tensor, ()
        Mean negative log-likelihood, balance loss, norm before clipping, and the weight of the
        points that the loss is a mean over.
    counts : Tensor of int64, (layer, expert)
        Tokens sent to each expert.
    """

    loss: Tensor
    balance: Tensor
    gradient_norm: Tensor
    weight: Tensor
    counts: Tensor


def learning_rate(training: TrainConfig, step: int) -> float:
    """Warm up linearly, stay, and fall linearly to 0 over the last `decay_share` of the steps."""
    decay_steps = max(round(training.decay_share * training.steps), 1)
    warm = (step + 1) / training.warmup_steps
    left = (training.steps - step) / decay_steps
    return training.learning_rate * min(1.0, warm, left)


def train_step(
    state: State,
    batches: Sequence[MicroBatch],
    training: TrainConfig,
    rate: float,
    processes: Processes,
) -> StepResult:
    """Take one optimiser step, or none if the loss or the gradient is not finite.

    The weight of all points is known before the first pass, so that the losses of micro-batches
    and processes are parts of one mean, however the rows are dealt out.
    """
    state.optimiser.zero_grad(set_to_none=True)
    own_weight = torch.stack([batch.targets.weights.sum() for batch in batches]).sum()
    weight = sum_over_processes(own_weight)
    terms, counts = [], []
    for index, batch in enumerate(batches):
        with _gradients_exchanged(state.objective, last=index == len(batches) - 1):
            with autocast(processes.device, training.precision):
                loss = state.objective(batch, weight)
            balance = loss.balance / len(batches)
            total = loss.likelihood + training.balance_weight * balance
            # DDP and FSDP average gradients, but the step's loss is the sum of the processes'
            (total * processes.world_size).backward()
        terms.append(torch.stack((loss.likelihood, balance)).detach())
        counts.append(loss.counts)
    likelihood, balance = sum_over_processes(torch.stack(terms).sum(0)).unbind()
    # a step without a point to score has no loss: it is skipped like one that is not finite
    likelihood = torch.where(weight > 0, likelihood, torch.nan)
    norm = _clip(state.network, training.clip_norm)
    finite = torch.isfinite(likelihood + balance + norm)
    for group in state.optimiser.param_groups:
        group["lr"] = rate
    # the fused update reads this itself, as for a gradient scaler: no wait for the device
    state.optimiser.found_inf = (~finite).float()  # type: ignore[attr-defined]
    state.optimiser.step()
    _advance(state, finite, training.ema_decay)
    return StepResult(
        loss=likelihood,
        balance=balance,
        gradient_norm=norm,
        weight=weight,
        counts=torch.stack(counts).sum(0),
    )


@torch.no_grad()
def validate(
    state: State, batches: Sequence[MicroBatch], precision: Precision, processes: Processes
) -> float:
    """Mean negative log-likelihood over the scored points, by the averaged weights if any; NaN if
    there are none.

    Every process computes all of it, as sharded weights want every process in every pass.
    """
    total = torch.stack([batch.targets.weights.sum() for batch in batches]).sum()
    state.network.eval()
    with state.averaged(), autocast(processes.device, precision):
        losses = [state.objective(batch, total).likelihood for batch in batches]
    state.network.train()
    return float(torch.stack(losses).sum()) if total > 0 else math.nan


def autocast(device: torch.device, precision: Precision) -> torch.autocast:
    """Run matrix products in bfloat16 within the context, if that is the precision."""
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16")


def _gradients_exchanged(objective: nn.Module, last: bool) -> AbstractContextManager[None]:
    """DDP sums gradients once, after the last micro-batch; FSDP2 each time, to hold parts only."""
    if isinstance(objective, DistributedDataParallel) and not last:
        return objective.no_sync()
    return nullcontext()


def _clip(network: nn.Module, largest: float) -> Tensor:
    """Scale gradients down to a norm of at most `largest` and return the norm that they had."""
    parameters = list(network.parameters())
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    norm = whole(get_total_norm(gradients))
    clip_grads_with_norm_(parameters, largest, norm)
    return norm


@torch.no_grad()
def _advance(state: State, finite: Tensor, decay: float) -> None:
    skipped, in_a_row = state.skipped.unbind()
    state.skipped = torch.stack((skipped + ~finite, (in_a_row + 1) * ~finite))
    state.step += 1
    if state.average is not None and decay > 0:
        # Adam's correction of the start (arXiv 1412.6980, section 3): no weight on random weights
        weight = (1 - decay) / (1 - decay**state.step)
        trained = [part(parameter) for parameter in state.trained.values()]
        torch._foreach_lerp_(state.average, trained, weight)
