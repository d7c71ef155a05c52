"""Counter-based random numbers: one stream per task, so a task does not depend on other tasks.

The generator is SplitMix64 (Steele, Lea and Flood, OOPSLA 2014): draw n of a stream is `mix(key + (n + 1) *
GAMMA)` in 64-bit arithmetic. A stream's key comes from (seed, purpose, index, attempt), so tasks are the same
on every platform, at any batch size and for any number of workers.
"""

from __future__ import annotations

import numpy as np
from numba import njit, uint64

from karel_env.limits import GAMMA

_M1 = np.uint64(0xBF58476D1CE4E5B9)
_M2 = np.uint64(0x94D049BB133111EB)
PURPOSES = ("test", "train", "probe", "blind", "shots", "audit")
"""Purposes of streams; streams of different purposes share no key."""


@njit(uint64(uint64), cache=True, nogil=True, inline="always")
def mix(z):  # type: ignore[no-untyped-def]
    """The mixing function of SplitMix64."""
    z = (z ^ (z >> uint64(30))) * _M1
    z = (z ^ (z >> uint64(27))) * _M2
    return z ^ (z >> uint64(31))


@njit(cache=True, nogil=True)
def stream_key(seed, purpose, index, attempt):  # type: ignore[no-untyped-def]
    """Key of one stream, uint64."""
    key = mix(uint64(seed) + GAMMA)
    key = mix(key ^ (uint64(purpose) + uint64(1)) * GAMMA)
    key = mix(key ^ (uint64(index) + uint64(1)) * GAMMA)
    return mix(key ^ (uint64(attempt) + uint64(1)) * GAMMA)


@njit(cache=True, nogil=True, inline="always")
def draw(key, counter):  # type: ignore[no-untyped-def]
    """uint64, draw number `counter` of the stream `key`."""
    return mix(uint64(key) + (uint64(counter) + uint64(1)) * GAMMA)


@njit(cache=True, nogil=True, inline="always")
def below(bits, bound):  # type: ignore[no-untyped-def]
    """An integer in [0, bound) from the upper 32 of 64 random bits (bias under bound / 2**32)."""
    return (bits >> uint64(32)) * uint64(bound) >> uint64(32)


@njit(cache=True, nogil=True)
def bernoulli_mask(key, counter, probability16):  # type: ignore[no-untyped-def]
    """uint64 with each bit 1 with probability `probability16 / 65536`, and the next free counter.

    From the lowest set binary digit of the probability upwards, the bits are combined with fresh ones: by `or` for a
    digit 1, by `and` for a 0, which halves the distance of the probability to 1 or to 0.
    """
    mask = uint64(0)
    if probability16 >= 65536:
        return ~mask, counter
    started = False
    for digit in range(16):
        bit = (probability16 >> digit) & 1
        started = started or bit == 1
        if started:
            bits = draw(key, counter)
            counter += 1
            mask = (mask | bits) if bit else (mask & bits)
    return mask, counter
