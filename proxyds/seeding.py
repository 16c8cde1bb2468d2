"""Every random number comes from the recipe's seed through a named path, never from order or time."""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray

ID_HEX_DIGITS = 64
"""Length of a sample id before a repeat's suffix: a sha256 in hexadecimal."""


def derive_seed(seed: int, *path: str | int) -> int:
    """Derives an independent seed for one use.

    Args:
        seed: The parent seed, for example the recipe's.
        path: What the seed is for, for example `"probe", "depth=8", 0`.

    Returns:
        An integer in [0, 2**63), the same on every machine and for ever.
    """
    text = "\0".join([str(seed), *(str(part) for part in path)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def hash_ids(ids: NDArray[np.str_], seed: int) -> NDArray[np.uint64]:
    """Gives every sample a random key that depends on its id and the seed alone.

    An id's first 64 bits (of a sha256) are mixed with the seed by splitmix64 (Steele et al. 2014), and so is a
    repeat's number, so that any order, shard or machine gives a sample the same key.

    Args:
        ids: (N,) sample ids: 64 hexadecimal digits, then `-2`, `-3`, ... for repeats.
        seed: A seed of `derive_seed`.

    Returns:
        (N,) keys, uniform over the 64-bit integers.
    """
    if len(ids) == 0:
        return np.zeros(0, np.uint64)
    digits = np.ascontiguousarray(ids).view(np.uint32).reshape(len(ids), -1)
    keys = np.zeros(len(ids), np.uint64)
    for column in range(16):
        code = digits[:, column]
        nibble = np.where(code >= ord("a"), code - (ord("a") - 10), code - ord("0"))
        keys = (keys << np.uint64(4)) | nibble.astype(np.uint64)
    repeat = np.zeros(len(ids), np.uint64)
    for column in range(ID_HEX_DIGITS + 1, digits.shape[1]):
        code = digits[:, column]
        is_digit = (code >= ord("0")) & (code <= ord("9"))
        repeat = np.where(is_digit, repeat * np.uint64(10) + code.astype(np.uint64) - np.uint64(ord("0")), repeat)
    return _splitmix64(_splitmix64(keys ^ np.uint64(seed)) + repeat)


def uniform_keys(ids: NDArray[np.str_], seed: int) -> NDArray[np.float64]:
    """Returns `hash_ids` as (N,) float64 numbers in the open interval (0, 1)."""
    return ((hash_ids(ids, seed) >> np.uint64(11)).astype(np.float64) + 0.5) / float(2**53)


def _splitmix64(state: NDArray[np.uint64]) -> NDArray[np.uint64]:
    mixed = state + np.uint64(0x9E3779B97F4A7C15)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    finished: NDArray[np.uint64] = mixed ^ (mixed >> np.uint64(31))
    return finished
