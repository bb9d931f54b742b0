"""Simulators of the standard models of time-series analysis, finance and chaos theory.

Each takes (count, length, generator) and draws its parameters anew for each of the series.

A state of a chaotic map feeds back on itself without being linear, which has no shortcut through
time: those are the only generators with a loop over steps, a few operations on all series at once.
"""

import math

import torch

from moirai_moe_forecaster.training.synthetic.primitives import (
    autoregression,
    bounded,
    chance,
    choose,
    clock,
    hold,
    log_uniform,
    normal,
    previous,
    recursion,
    standardise,
    student,
    uniform,
)
from moirai_moe_forecaster.training.synthetic.structural import cycle, draw_periods, phase_of


def gaussian_process(count: int, length: int, generator: torch.Generator) -> torch.Tensor:
    """Gaussian processes with random sums and products of kernels.

    KernelSynth of Chronos (Ansari et al., arXiv 2403.07815), drawn with random Fourier features
    (Rahimi and Recht, 2007) in place of a Cholesky factor. Features of a product kernel add their
    phases: radial basis and rational quadratic kernels are linear in time, a periodic kernel is a
    radial basis on the circle, a linear kernel scales the sample, white noise is added. The periods
    of a series belong to one sampling frequency.

    Returns
    -------
    Tensor
        (count, length).
    """
    terms, features = 3, 40
    time = torch.arange(length, device=generator.device).float()
    natural = draw_periods(count, generator)
    natural = torch.where(natural > 0, natural, natural.amax(1, keepdim=True))
    total = torch.zeros(count, length, device=generator.device)
    for term in range(terms):
        smooth = chance(generator, count, 1, of=0.5)
        periodic = chance(generator, count, 1, of=0.6)
        linear = chance(generator, count, 1, of=0.15)
        present = (smooth | periodic | linear) & chance(generator, count, 1, of=0.7**term)

        scale = log_uniform(generator, count, 1, low=8, high=2 * max(length, 16))
        # A Gamma mixture of frequencies makes a radial basis kernel a rational quadratic one.
        shape = choose(generator, count, 1, among=[1, 2, 4])
        squares = normal(generator, count, features, 4).square()
        degrees = torch.arange(4, device=generator.device) < shape[:, :, None]
        spread = ((squares * degrees).sum(-1) / shape).sqrt()
        spread = torch.where(chance(generator, count, 1, of=0.5), spread, 1.0)
        slope = normal(generator, count, features) * spread * smooth / scale

        angle = 2 * math.pi * time / natural[:, term, None]
        roughness = log_uniform(generator, count, 1, low=0.3, high=3)
        across, along = (normal(generator, count, features) * roughness * periodic for _ in "xy")

        weights = torch.stack([slope, across, along], dim=2)
        basis = torch.stack([time.expand_as(angle), angle.cos(), angle.sin()], dim=1)
        phase = torch.baddbmm(2 * math.pi * uniform(generator, count, features, 1), weights, basis)
        sample = phase.cos_().sum(1) * math.sqrt(2 / features)
        line = (time / length - uniform(generator, count, 1)) * 2
        total += present * sample * torch.where(linear, line, 1.0)
    noise = log_uniform(generator, count, 1, low=0.01, high=1)
    return total + noise * normal(generator, count, length)


def exponential_smoothing(count: int, length: int, generator: torch.Generator) -> torch.Tensor:
    """ETS models in innovations form (Hyndman et al., 2008), multiplicative ones in logarithms.

    Level, damped slope and seasonal states are all driven by the same error, so each is one linear
    recursion.

    Returns
    -------
    Tensor
        (count, length).
    """
    error = normal(generator, count, length)
    heavy = chance(generator, count, 1, of=0.15)
    error = torch.where(heavy, student(generator, torch.full_like(error, 4), count, length), error)
    alpha = uniform(generator, count, 1).square()
    beta = alpha * uniform(generator, count, 1, high=0.3) * chance(generator, count, 1, of=0.5)
    gamma = (1 - alpha) * uniform(generator, count, 1, high=0.5).square()
    damping = uniform(generator, count, 1, low=0.8, high=1)
    damping = torch.where(chance(generator, count, 1, of=0.3), 1.0, damping)
    one = torch.ones_like(alpha)

    start = torch.zeros_like(error)
    start[:, :1] = normal(generator, count, 1) * (beta > 0) * uniform(generator, count, 1)
    slope = recursion(damping, beta * error + start)
    level = recursion(one, alpha * error + damping * previous(slope))

    periods = [4, 4, 7, 12, 12, 12, 24, 24, 48, 52, 96, 144, 168, 336]
    period = choose(generator, count, 1, among=periods).long()
    first_cycle = torch.arange(length, device=generator.device) < period
    strength = log_uniform(generator, count, 1, low=0.5, high=10)
    in_season = chance(generator, count, 1, of=0.75)
    strength, gamma = strength * in_season, gamma * in_season
    pattern = cycle(phase_of(clock(count, length, generator), period), generator) * strength
    season = recursion(one, torch.where(first_cycle, pattern, gamma * error), period)

    # The states already hold their share of the error that the observation shows in full.
    total = level + season + (1 - alpha - gamma) * error
    depth = log_uniform(generator, count, 1, low=0.1, high=0.8)
    product = torch.exp(depth * bounded(standardise(total)))
    return torch.where(chance(generator, count, 1, of=0.4), product, total)


def seasonal_arima(count: int, length: int, generator: torch.Generator) -> torch.Tensor:
    """SARIMA models: each factor of the autoregressive polynomial is one linear recursion.

    Returns
    -------
    Tensor
        (count, length).
    """
    warm_up = 64
    shocks = normal(generator, count, warm_up + length)
    periods = [4, 4, 7, 12, 12, 12, 24, 24, 48, 52, 96, 168, 336]
    period = choose(generator, count, 1, among=periods).long()
    # A strong first cycle stands for the long past of a nearly integrated seasonal factor.
    early = torch.arange(warm_up + length, device=generator.device) < period
    in_season = chance(generator, count, 1, of=0.7)
    shocks = torch.where(early & in_season, 4 * shocks, shocks)
    moving = uniform(generator, count, 1, low=-0.8, high=0.8)
    shocks = shocks + moving * previous(shocks)

    modulus = uniform(generator, count, 1, high=0.97)
    frequency = uniform(generator, count, 1, high=math.pi)
    root = torch.polar(modulus, frequency)
    root = torch.where(chance(generator, count, 1, of=0.5), root, modulus.to(root.dtype))
    series = recursion(root, shocks.to(root.dtype)).real
    seasonal_root = 1 - log_uniform(generator, count, 1, low=0.003, high=0.8)
    seasonal_root = torch.where(chance(generator, count, 1, of=0.3), 1.0, seasonal_root)
    series = recursion(seasonal_root * in_season, series, period)[:, warm_up:]
    return torch.where(chance(generator, count, 1, of=0.4), series.cumsum(1), series)


def random_walk(count: int, length: int, generator: torch.Generator) -> torch.Tensor:
    """Random walks with light or heavy tails, some geometric: prices, stocks, exchange rates."""
    freedom = log_uniform(generator, count, 1, low=2.2, high=30)
    drift = 0.05 * normal(generator, count, 1)
    walk = torch.cumsum(student(generator, freedom, count, length) + drift, dim=1)
    depth = log_uniform(generator, count, 1, low=0.01, high=0.8)
    geometric = torch.exp(depth * standardise(walk))
    return torch.where(chance(generator, count, 1, of=0.5), geometric, walk)


def mean_reverting(count: int, length: int, generator: torch.Generator) -> torch.Tensor:
    """AR(1) from white noise to nearly a walk, with light or heavy tails and measurement noise."""
    memory = log_uniform(generator, count, 1, low=0.3, high=300)
    freedom = log_uniform(generator, count, 1, low=3, high=50)
    series = autoregression(memory, student(generator, freedom, count, length))
    share = uniform(generator, count, 1) * chance(generator, count, 1, of=0.4)
    return series + share * normal(generator, count, length)


def regimes(count: int, length: int, generator: torch.Generator) -> torch.Tensor:
    """Level shifts and switches of variance and memory between spells of random length."""
    segment = log_uniform(generator, count, 1, low=10, high=max(length, 16))
    level = hold(segment, normal(generator, count, length), generator)
    deviation = hold(segment, normal(generator, count, length), generator).exp()
    memory = hold(2 * segment, log_uniform(generator, count, length, low=0.3, high=100), generator)
    shocks = deviation * normal(generator, count, length)
    wander = recursion(torch.exp(-1 / memory), shocks)
    shift = log_uniform(generator, count, 1, low=0.3, high=10)
    return shift * level * deviation.mean(1, keepdim=True) + wander


def volatility_clusters(count: int, length: int, generator: torch.Generator) -> torch.Tensor:
    """GARCH(1, 1) returns (Bollerslev, 1986), half of them summed to prices.

    The variance is a linear recursion with the random coefficient
    ``alpha * shock[t - 1] ** 2 + beta``.

    Returns
    -------
    Tensor
        (count, length).
    """
    shocks = normal(generator, count, length)
    alpha = uniform(generator, count, 1, low=0.05, high=0.3)
    persistence = 1 - log_uniform(generator, count, 1, low=0.005, high=0.3)
    beta = (persistence - alpha).clamp_min(0.1)
    coefficient = alpha * previous(shocks).square() + beta
    source = (1 - persistence).expand(shocks.shape).clone()
    source[:, 0] = 1  # the stationary variance
    returns = recursion(coefficient, source).sqrt() * shocks
    depth = log_uniform(generator, count, 1, low=0.02, high=0.8)
    prices = torch.exp(depth * standardise(returns.cumsum(1)))
    return torch.where(chance(generator, count, 1, of=0.5), prices, returns)


def oscillator(count: int, length: int, generator: torch.Generator) -> torch.Tensor:
    """Damped oscillators driven by steady noise or by rare kicks: business cycles, ringing.

    A rotation in the complex plane, the stochastic cycle of Harvey (1989).

    Returns
    -------
    Tensor
        (count, length).
    """
    period = log_uniform(generator, count, 1, low=4, high=300)
    memory = period * log_uniform(generator, count, 1, low=0.5, high=20)
    root = torch.polar(torch.exp(-1 / memory), 2 * math.pi / period)
    rarity = torch.where(chance(generator, count, 1, of=0.5), 1 / memory, 1.0).clamp_max(1)
    kicks = normal(generator, count, length) * chance(generator, count, length, of=rarity)
    kicks[:, 0] += 3
    series = standardise(recursion(root, kicks.to(root.dtype)).real)
    share = log_uniform(generator, count, 1, low=0.005, high=0.5)
    return series + share * normal(generator, count, length)


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
