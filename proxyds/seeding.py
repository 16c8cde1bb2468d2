"""Every random number comes from the recipe's seed through a named path, never from order or time."""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray

ID_HEX_DIGITS = 64
"""Length of a sample id before a repeat's suffix: a sha256 in hexadecimal."""


def derive_seed(seed: int, *path: str | int, number: int = 0) -> int:
    """Derives an independent seed for one use.

    Args:
        seed: The parent seed, for example the recipe's.
        path: What the seed is for, for example `"probe", "depth=8", 0`.
        number: Which of several uses alike, from 0; the first has the seed of a single one.

    Returns:
        An integer in [0, 2**63), the same on every machine and for ever.
    """
    text = "\0".join(map(str, (seed, *path, *([number] if number else []))))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


PARSED_ID = np.dtype([("bits", np.uint64), ("repeat", np.uint64)])
"""A sample id as numbers: the first 64 bits of its sha256, and a repeat's number or 0."""
ParsedIds = NDArray[np.void]
"""(N,) of `PARSED_ID`, from `parse_ids`."""

_TILE = 32_768
"""Ids that are worked on at once: what a step leaves behind is still in the processor's cache when the next one reads it."""
_ROUNDS = ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB))


def parse_ids(ids: NDArray[np.str_]) -> ParsedIds:
    """Reads what random keys depend on from sample ids: slower than hashing them, and needed once for a data set.

    Args:
        ids: (N,) sample ids: 64 hexadecimal digits, then `-2`, `-3`, ... for repeats.
    """
    parsed = np.zeros(len(ids), PARSED_ID)
    if len(ids) == 0:
        return parsed
    codes = np.ascontiguousarray(ids).view(np.uint32).reshape(len(ids), -1)
    digits = codes[:, :16].astype(np.uint8).tobytes().decode("ascii")
    parsed["bits"] = np.frombuffer(bytes.fromhex(digits), ">u8")
    for column in range(ID_HEX_DIGITS + 1, codes.shape[1]):
        code = codes[:, column]
        is_digit = (code >= ord("0")) & (code <= ord("9"))
        longer = parsed["repeat"] * np.uint64(10) + code.astype(np.uint64) - np.uint64(ord("0"))
        parsed["repeat"] = np.where(is_digit, longer, parsed["repeat"])
    return parsed


def hash_ids(ids: ParsedIds, seed: int) -> NDArray[np.uint64]:
    """Gives every sample a random key that depends on its id and the seed alone.

    An id's first 64 bits (of a sha256) are mixed with the seed by splitmix64 (Steele et al. 2014), and so is a
    repeat's number, so that any order, shard or machine gives a sample the same key.

    Args:
        ids: (N,) of `parse_ids`.
        seed: A seed of `derive_seed`.

    Returns:
        (N,) keys, uniform over the 64-bit integers.
    """
    keys: NDArray[np.uint64] = ids["bits"] ^ np.uint64(seed)
    shifted = np.empty(min(_TILE, len(ids)), np.uint64)
    for start in range(0, len(ids), _TILE):
        tile = keys[start : start + _TILE]
        _splitmix64(tile, shifted[: len(tile)])
        tile += ids["repeat"][start : start + _TILE]
        _splitmix64(tile, shifted[: len(tile)])
    return keys


def uniform_keys(ids: ParsedIds, seed: int) -> NDArray[np.float64]:
    """Returns `hash_ids` as (N,) float64 numbers in the open interval (0, 1)."""
    keys = hash_ids(ids, seed)
    keys >>= np.uint64(11)
    uniform = keys.astype(np.float64)
    uniform += 0.5
    uniform /= 2.0**53
    return uniform


def _splitmix64(state: NDArray[np.uint64], shifted: NDArray[np.uint64]) -> None:
    """Makes one step of splitmix64 on every number of `state`, in place; `shifted`, of the same length, is overwritten."""
    state += np.uint64(0x9E3779B97F4A7C15)
    for shift, factor in _ROUNDS:
        np.right_shift(state, np.uint64(shift), out=shifted)
        state ^= shifted
        state *= np.uint64(factor)
    np.right_shift(state, np.uint64(31), out=shifted)
    state ^= shifted
