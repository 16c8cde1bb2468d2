"""Values of all samples, in memory or on disk: work goes over them chunk by chunk, and does the same to a chunk either way.

An array is in memory; a `Column` is read, or computed from others, anew for each pass. Sums run over chunks of a fixed size in their order,
so that both give the same bits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, BinaryIO, TypeVar

import numpy as np
from numpy.typing import NDArray

from proxyds.runtime.storage.atomic import temporary_folder

CHUNK = 65_536
"""Values of a chunk, but for the last one."""
BUCKET = 4 * CHUNK
"""Rows that `in_key_order` sorts at once, about."""
MAX_BUCKETS = 256
"""Files that `in_key_order` has open, at most: buckets of more than 67 million rows are larger."""


@dataclass(frozen=True)
class Column:
    """(N,) values that are not in memory.

    Attributes:
        n: N.
        chunks: Begins a pass; yields `CHUNK` values at a time, at the end fewer.
    """

    n: int
    chunks: Callable[[], Iterator[NDArray[Any]]]

    def __len__(self) -> int:
        return self.n


Values = NDArray[Any] | Column


def chunks_of(values: Values) -> Iterator[NDArray[Any]]:
    """Goes over values, `CHUNK` at a time."""
    if isinstance(values, Column):
        return values.chunks()
    return (values[start : start + CHUNK] for start in range(0, len(values), CHUNK))


def map_chunks(function: Callable[..., NDArray[Any]], *columns: Values) -> Values:
    """Computes values from others of the same samples, one by one; returns an array where all are arrays, else a column."""
    if not any(isinstance(column, Column) for column in columns):
        return function(*columns)
    return Column(len(columns[0]), lambda: (function(*chunks) for chunks in zip(*map(chunks_of, columns), strict=True)))


def total(values: Values) -> Any:
    """Sums values chunk by chunk, and the chunks' sums in order."""
    return sum(chunk.sum() for chunk in chunks_of(values))


def sum_by(groups: Values, values: Values, n_groups: int) -> NDArray[np.float64]:
    """Sums the values of each group 0..n_groups - 1; (n_groups,) float64."""
    sums = np.zeros(n_groups)
    for group, chunk in zip(chunks_of(groups), chunks_of(values), strict=True):
        sums += np.bincount(group, weights=chunk, minlength=n_groups)
    return sums


def count(groups: Values, n_groups: int = 0) -> NDArray[np.int64]:
    """Counts how many values are 0, 1, ...: numpy's `bincount`, of `n_groups` numbers at least."""
    counts = np.zeros(n_groups, np.int64)
    for chunk in chunks_of(groups):
        more = np.bincount(chunk, minlength=len(counts))
        more[: len(counts)] += counts
        counts = more
    return counts


def materialize(values: Values) -> NDArray[Any]:
    """Reads all values into memory, (N,): such as flags, ids, labels or weights."""
    if not isinstance(values, Column):
        return values
    chunks = list(values.chunks())
    return np.concatenate(chunks) if chunks else np.zeros(0)


_Piece = TypeVar("_Piece")


def cut_chunks(
    pieces: Iterable[_Piece], size: int = CHUNK, join: Callable[[list[Any]], Any] = np.concatenate
) -> Iterator[_Piece]:
    """Cuts pieces of any length, laid end to end, into chunks of one length; the last is shorter.

    Args:
        pieces: Arrays, or whatever else has a length and slices.
        size: Of a chunk.
        join: Puts a list of pieces together.
    """
    waiting: list[Any] = []
    n_waiting = 0
    piece: Any
    for piece in pieces:
        waiting.append(piece)
        n_waiting += len(piece)
        while n_waiting >= size:
            together = join(waiting) if len(waiting) > 1 else waiting[0]
            yield together[:size]
            waiting, n_waiting = [together[size:]], n_waiting - size
    if n_waiting:
        yield join(waiting)


def find_nth_smallest(values: Values, n: int) -> float:
    """Finds the n-th smallest of positive values (n from 1); of a column by radix selection, in four passes and half a megabyte.

    Positive floats are in the order of their bits read as whole numbers: each pass counts the next 16 bits.
    """
    if not isinstance(values, Column):
        return float(np.partition(values, n - 1)[n - 1])
    prefix = np.uint64(0)  # the first bits of the value, as far as passes have found them
    for shift in (48, 32, 16, 0):
        counts = np.zeros(2**16, np.int64)
        for chunk in values.chunks():
            bits = np.ascontiguousarray(chunk, np.float64).view(np.uint64)
            if shift < 48:
                bits = bits[(bits >> np.uint64(shift + 16)) == prefix]
            counts += np.bincount(((bits >> np.uint64(shift)) & np.uint64(0xFFFF)).astype(np.int64), minlength=2**16)
        upto = np.cumsum(counts)
        digit = int(np.searchsorted(upto, n))
        n -= int(upto[digit - 1]) if digit else 0
        prefix = (prefix << np.uint64(16)) | np.uint64(digit)
    return float(np.array(prefix).view(np.float64))


_SPILLED = np.dtype([("key", np.float64), ("index", np.int64), ("value", np.float64)])


def in_key_order(keys: Values, values: Values) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float64]]]:
    """Goes over the positive values in the order of their keys.

    Rows of columns are put into temporary files by the first bits of their keys, and each file is sorted by itself: 24 bytes of disk
    a row, and the memory of one file.

    Args:
        keys: (N,) float64, uniform in (0, 1), hardly ever equal; of equal ones the first index comes first.
        values: (N,) float64; those above zero count.

    Yields:
        Indices in 0..N - 1 and values, some at a time.
    """
    if not (isinstance(keys, Column) or isinstance(values, Column)):
        indices = np.flatnonzero(values > 0)
        indices = indices[_sort_distinct(keys[indices])]
        yield indices, values[indices]
        return
    n_buckets = min(-(-len(keys) // BUCKET), MAX_BUCKETS)
    with temporary_folder() as folder, ExitStack() as opened:
        files: list[BinaryIO] = [opened.enter_context((folder / str(i)).open("w+b")) for i in range(n_buckets)]
        for number, (key, value) in enumerate(zip(chunks_of(keys), chunks_of(values), strict=True)):
            positive = np.flatnonzero(value > 0)
            rows = np.empty(len(positive), _SPILLED)
            rows["key"], rows["index"], rows["value"] = key[positive], positive + number * CHUNK, value[positive]
            buckets = (rows["key"] * n_buckets).astype(np.int64)
            order = np.argsort(buckets, kind="stable")
            ends = np.cumsum(np.bincount(buckets, minlength=n_buckets))
            for file, some in zip(files, np.split(rows[order], ends[:-1]), strict=True):
                file.write(some.tobytes())
        for file in files:
            file.seek(0)
            rows = np.fromfile(file, _SPILLED)
            rows = rows[_sort_distinct(rows["key"])]
            yield rows["index"], rows["value"]


def _sort_distinct(keys: NDArray[np.float64]) -> NDArray[np.int64]:
    """Returns the indices that sort keys which are hardly ever equal: the fast sort does not keep equal keys in order."""
    order = np.argsort(keys)
    in_order = keys[order]
    return np.argsort(keys, kind="stable") if (in_order[1:] == in_order[:-1]).any() else order
