"""Deterministic chaos: series that are exactly predictable one step ahead and not at all later.

Each takes (count, length, generator) and draws its parameters anew for each of the series. A state
that feeds back on itself without being linear has no shortcut through time, so these are the only
generators with a loop over steps; its body is kept to a few operations on all series at once.
"""

import torch

from moirai_moe_forecaster.training.synthetic.primitives import chance, log_uniform, normal, uniform


def logistic_map(count: int, length: int, generator: torch.Generator) -> torch.Tensor:
    """Logistic map, periodic or chaotic (May, 1976), some observed through noise."""
    growth_rate = uniform(generator, count, low=3.3, high=4)
    state = uniform(generator, count, low=0.1, high=0.9)
    states = []
    for _ in range(length):
        state = growth_rate * torch.addcmul(state, state, state, value=-1)
        states.append(state)
    series = torch.stack(states, dim=1)
    share = uniform(generator, count, 1, high=0.1) * chance(generator, count, 1, of=0.8)
    return series + share * normal(generator, count, length)


def lorenz(count: int, length: int, generator: torch.Generator) -> torch.Tensor:
    """One coordinate of the Lorenz system (1963), sampled finely or coarsely.

    Two-step Adams and Bashforth needs one evaluation of the velocity per step. That is linear in
    ``(x, y, z, x y, x z)``, hence one product with a matrix of each series.

    Returns
    -------
    Tensor
        (count, length).
    """
    constant = torch.tensor(
        [[-10.0, 10, 0, 0, 0], [0, -1, 0, 0, -1], [0, 0, -8 / 3, 1, 0]], device=generator.device
    )
    law = constant.repeat(count, 1, 1)
    law[:, 1, 0] = uniform(generator, count, low=26, high=35)
    law = law * log_uniform(generator, count, 1, 1, low=0.008, high=0.025)

    def move(state: torch.Tensor) -> torch.Tensor:
        return law @ torch.cat([state, state[:, :1] * state[:, 1:]], dim=1)

    # about where the orbits are, so that none has to find its way there first
    x, y, z = normal(generator, 3, count, 1)
    state = torch.stack([8 * x, 8 * x + 2 * y, 25 + 7 * z], dim=1)
    before = move(state)
    states = []
    for _ in range(length):
        now = move(state)
        state = state + torch.lerp(before, now, 1.5)
        before = now
        states.append(state)
    axis = torch.randint(3, (count, 1, 1), generator=generator, device=generator.device)
    return torch.cat(states, dim=2).gather(1, axis.expand(count, 1, length))[:, 0]


def mackey_glass(count: int, length: int, generator: torch.Generator) -> torch.Tensor:
    """Delayed feedback of Mackey and Glass (1977): irregular oscillations.

    As many steps as the shortest delay are known from the past at once: the feedback enters
    linearly, so that a block of steps is one product with the powers of the decay.

    Returns
    -------
    Tensor
        (count, length).
    """
    block, longest, warm_up, kept = 10, 30, 150, 0.9
    device = generator.device
    delay = torch.randint(block, longest, (count,), generator=generator, device=device)
    power = uniform(generator, count, low=8, high=11)
    blocks = -(-(warm_up + length - longest) // block)
    history = uniform(generator, longest + blocks * block, count, low=0.4, high=1.3)
    step = torch.arange(block, device=device)[:, None]
    echo = torch.tril(kept ** (step - step.T).clamp_min(0).float())
    fading = kept ** (step + 1).float()
    source, rows = step - delay, torch.arange(count, device=device)
    for start in range(longest, len(history), block):
        past = history[source + start, rows]
        feedback = 0.2 * past / (1 + past**power)
        history[start : start + block] = fading * history[start - 1] + echo @ feedback
    return history[warm_up : warm_up + length].T.contiguous()
