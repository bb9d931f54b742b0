"""One marginal distribution as its values at fixed levels: a curve over the normal score.

If Z is standard normal, the variable is q(Z), where q is linear between the values at neighbouring
levels and the outermost lines go on beyond. All that is asked of a distribution has a closed form.
The values at `NODE_LEVELS` are the last axis of every argument called `nodes`.
"""

from __future__ import annotations

from statistics import NormalDist

import numpy as np
import torch
from numpy.typing import NDArray

Array = NDArray[np.float64]

_TAIL = (1e-4, 2e-4, 3e-4, 5e-4, 7e-4, 1e-3, 0.0015, 0.002, 0.0025, 0.0035, 0.005, 0.0065, 0.008)
_LOWER = sorted([*_TAIL, 0.015, 0.025])
NODE_LEVELS: Array = np.array(
    sorted([*_LOWER, *(k / 100 for k in range(1, 100)), *(1 - level for level in _LOWER)])
)
NODE_SCORES: Array = np.array([NormalDist().inv_cdf(level) for level in NODE_LEVELS])
_STEPS: Array = np.diff(NODE_SCORES)
# the pieces of the curve reach from start to stop, the outermost ones without end
_START: Array = np.array([-np.inf, *NODE_SCORES[1:-1]])
_STOP: Array = np.array([*NODE_SCORES[1:-1], np.inf])


def normal_cdf(scores: Array) -> Array:
    result: Array = torch.special.ndtr(torch.from_numpy(np.array(scores))).numpy()
    return result


def normal_score(levels: Array) -> Array:
    """Inverse of the normal cdf."""
    result: Array = torch.special.ndtri(torch.from_numpy(np.array(levels))).numpy()
    return result


def normal_density(scores: Array) -> Array:
    result: Array = np.exp(-0.5 * np.square(scores)) / np.sqrt(2 * np.pi)
    return result


def between_nodes(scores: Array) -> tuple[NDArray[np.intp], Array]:
    """Node to the left of each normal score, and how far on to the next one it lies."""
    left = (np.searchsorted(NODE_SCORES, scores, side="right") - 1).clip(0, len(_STEPS) - 1)
    return left, (scores - NODE_SCORES[left]) / _STEPS[left]


def value_at(nodes: Array, scores: Array) -> Array:
    """Values (...) at one normal score (...) of each marginal (..., node)."""
    left, share = between_nodes(scores)
    low = np.take_along_axis(nodes, left[..., None], -1)[..., 0]
    high = np.take_along_axis(nodes, left[..., None] + 1, -1)[..., 0]
    return _along(low, high, share)


def quantiles(nodes: Array, levels: Array) -> Array:
    """Values (..., level) at some levels (level,) of each marginal (..., node)."""
    left, share = between_nodes(normal_score(levels))
    return _along(nodes[..., left], nodes[..., left + 1], share)


def _along(low: Array, high: Array, share: Array) -> Array:
    rise = high - low
    # levels 0 and 1 are infinitely far, but for a curve that has become flat
    return low + np.where(rise > 0, share, 0.0) * rise


def score_at(nodes: Array, x: Array) -> Array:
    """Normal scores (...) of one value (...) of each marginal (..., node); NaN of NaN."""
    left, low, width = _piece(nodes, x)
    share = (x - low) / np.where(width > 0, width, 1.0)
    # only an outermost piece can be found without width: there is nothing beyond it
    jump = np.where(np.isnan(x - low), np.nan, np.where(x < low, -np.inf, np.inf))
    return NODE_SCORES[left] + np.where(width > 0, share, jump) * _STEPS[left]


def density(nodes: Array, x: Array) -> Array:
    """Density at one value (...) of each marginal (..., node): infinite at a jump."""
    left, low, width = _piece(nodes, x)
    at_jump = np.where(x == low, np.inf, 0.0)
    smooth = normal_density(score_at(nodes, x)) * _STEPS[left] / np.where(width > 0, width, 1.0)
    return np.where(width > 0, smooth, at_jump)


def mean(nodes: Array) -> Array:
    """Mean (...) of each marginal (..., node)."""
    result: Array = nodes @ _MEAN
    return result


def variance(nodes: Array) -> Array:
    """Variance (...) of each marginal (..., node)."""
    centred = nodes - mean(nodes)[..., None]
    low, rise = centred[..., :-1], np.diff(centred)
    squares: Array = np.square(low) @ _MASS + 2 * (low * rise) @ _FIRST + np.square(rise) @ _SECOND
    return squares


def self_energy(nodes: Array) -> Array:
    """Mean distance (...) of two independent draws from each marginal (..., node)."""
    result: Array = np.diff(nodes) @ _SPREAD
    return result


def energy(nodes: Array, x: Array) -> Array:
    """Mean distance (...) of a draw from each marginal (..., node) to one value (...)."""
    left, _, _ = _piece(nodes, x)
    slopes = np.diff(nodes) / _STEPS
    whole = slopes[..., :-1] * np.diff(_integral(_START))
    below = np.concatenate((np.zeros_like(whole[..., :1]), whole.cumsum(-1)), -1)
    slope = np.take_along_axis(slopes, left[..., None], -1)[..., 0]
    with np.errstate(invalid="ignore"):
        part = slope * (_integral(score_at(nodes, x)) - _integral(_START)[left])
    area = np.take_along_axis(below, left[..., None], -1)[..., 0] + np.where(slope > 0, part, 0.0)
    distance = mean(nodes) - x
    # no less than Jensen's bound, which jumps attain
    return np.maximum(distance + 2 * area, np.abs(distance))


def density_norm(nodes: Array, power: float) -> Array:
    """Integral of the density to a power of each marginal (..., node)."""
    factor = (2 * np.pi) ** ((1 - power) / 2) / np.sqrt(power)
    mass = np.diff(normal_cdf(np.append(_START, np.inf) * np.sqrt(power))) * factor
    with np.errstate(divide="ignore"):
        result: Array = (np.diff(nodes) / _STEPS) ** (1 - power) @ mass
    return result


def _piece(nodes: Array, x: Array) -> tuple[NDArray[np.intp], Array, Array]:
    """Piece of the curve that holds each value: its number, lower end and width."""
    left = ((nodes <= x[..., None]).sum(-1) - 1).clip(0, len(_STEPS) - 1)
    low = np.take_along_axis(nodes, left[..., None], -1)[..., 0]
    return left, low, np.take_along_axis(nodes, left[..., None] + 1, -1)[..., 0] - low


def _integral(scores: Array) -> Array:
    """Integral of the normal cdf from minus infinity."""
    finite = np.where(np.isneginf(scores), 0.0, scores)
    return np.where(np.isneginf(scores), 0.0, finite * normal_cdf(scores) + normal_density(scores))


def _moments() -> tuple[Array, Array, Array]:
    """Integrals over each piece of 1, s and s**2, where s runs from 0 to 1 between its nodes."""
    tail_start = np.where(np.isinf(_START), 0.0, _START) * normal_density(_START)
    tail_stop = np.where(np.isinf(_STOP), 0.0, _STOP) * normal_density(_STOP)
    mass = normal_cdf(_STOP) - normal_cdf(_START)
    first = normal_density(_START) - normal_density(_STOP)
    second = mass + tail_start - tail_stop
    left = NODE_SCORES[:-1]
    return (
        mass,
        (first - left * mass) / _STEPS,
        (second - 2 * left * first + left**2 * mass) / _STEPS**2,
    )


def _spread() -> Array:
    """Twice the integral of cdf times (1 - cdf) over each piece, for a curve that rises by 1."""

    def antiderivative(z: Array) -> Array:
        level, height = normal_cdf(z), normal_density(z)
        finite = np.where(np.isinf(z), 0.0, z)
        return (
            finite * level * (1 - level)
            + height * (1 - 2 * level)
            + normal_cdf(np.sqrt(2) * z) / np.sqrt(np.pi)
        )

    return 2 * (antiderivative(_STOP) - antiderivative(_START)) / _STEPS


_MASS, _FIRST, _SECOND = _moments()
_MEAN: Array = np.append(_MASS - _FIRST, 0.0) + np.append(0.0, _FIRST)
_SPREAD = _spread()
