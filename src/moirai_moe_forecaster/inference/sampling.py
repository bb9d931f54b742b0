"""Random numbers that depend on a series and a counter alone, not on what else is computed."""

from __future__ import annotations

import hashlib

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from moirai_moe_forecaster.errors import InvalidInputError

RandomState = int | np.integer | np.random.Generator | np.random.RandomState | None

# SplitMix64 (Steele, Lea and Flood 2014), its constants as signed 64-bit integers
GOLDEN = 0x9E3779B97F4A7C15 - 2**64
FIRST = 0xBF58476D1CE4E5B9 - 2**64
SECOND = 0x94D049BB133111EB - 2**64
BITS = 23


def draw_seed(random_state: RandomState) -> int:
    """Turn what a user passes as `random_state` into a seed; None draws a fresh one."""
    if isinstance(random_state, int | np.integer) and not isinstance(random_state, bool):
        return int(random_state)
    if isinstance(random_state, np.random.Generator | np.random.RandomState):
        return int.from_bytes(random_state.bytes(7), "little")
    if random_state is not None:
        raise InvalidInputError(
            "random_state must be an integer, a numpy Generator or RandomState, or None; "
            f"got {random_state!r}"
        )
    return int(np.random.SeedSequence().generate_state(1, np.uint64)[0] >> np.uint64(1))


def series_seed(seed: int, values: NDArray[np.float64]) -> int:
    """Mix a seed with a hash of a series' values: a signed 64-bit integer."""
    digest = hashlib.blake2b(values.tobytes(), digest_size=8, salt=b"moirai-moe")
    digest.update(str(seed).encode())
    return int.from_bytes(digest.digest(), "little", signed=True)


def split(seeds: Tensor, count: int) -> Tensor:
    """Give every stream `count` independent child streams: (...) -> (..., count)."""
    return _integers(seeds, 0, count)


def uniforms(seeds: Tensor, first: int, count: int) -> Tensor:
    """Numbers of a series' own stream, uniform on the open interval (0, 1).

    Parameters
    ----------
    seeds : Tensor of int64, (...)
        One stream each.
    first, count : int
        Which stretch of the streams.

    Returns
    -------
    Tensor of float32, (..., count)
    """
    return (_shift(_integers(seeds, first, count), 64 - BITS).float() + 0.5) / 2**BITS


def stratified(seeds: Tensor, paths: int, first: int, count: int) -> Tensor:
    """Numbers for the paths of a series, each uniform on (0, 1) and together evenly spread.

    Of every number, one path has its value in each of `paths` equal parts of (0, 1): Latin
    hypercube sampling (McKay, Beckman and Conover 1979, Technometrics 21), whose averages over
    paths vary much less than those of independent numbers.

    Parameters
    ----------
    seeds : Tensor of int64, (...)
        One stream each.
    paths, first, count : int
        Which stretch of the paths' own streams.

    Returns
    -------
    Tensor of float32, (..., path, count)
    """
    integers = _integers(split(seeds, paths), first, count)
    order = integers.argsort(-2)
    places = torch.arange(paths, device=seeds.device)[:, None].expand_as(order)
    rank = torch.empty_like(order).scatter_(-2, order, places)
    # the lowest bits have nothing to do with the order, which the highest decide
    within = ((integers & (2**BITS - 1)).float() + 0.5) / 2**BITS
    return ((rank + within) / paths).clamp(2.0 ** -(BITS + 1), 1 - 2.0 ** -(BITS + 1))


def _integers(seeds: Tensor, first: int, count: int) -> Tensor:
    counter = torch.arange(first + 1, first + count + 1, device=seeds.device)
    x = seeds[..., None] + counter * GOLDEN
    x = (x ^ _shift(x, 30)) * FIRST
    x = (x ^ _shift(x, 27)) * SECOND
    return x ^ _shift(x, 31)


def _shift(x: Tensor, bits: int) -> Tensor:
    """Shift right without the sign, which torch's own shift would copy."""
    return (x >> bits) & (2 ** (64 - bits) - 1)
