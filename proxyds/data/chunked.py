"""Values of all samples, in memory or on disk: what goes over them goes tile by tile, and over a tile the same either way.

An array is held; a `Column` is read, or computed from others, anew for each pass. Sums run over tiles of a fixed size in their order, so
that both give the same bits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from proxyds.runtime.storage.atomic import temporary_folder

CHUNK = 65_536
"""Values that are worked on at once."""
BUCKET = 4 * CHUNK
"""Rows that `in_key_order` sorts at once, about."""
MAX_BUCKETS = 256
"""Files that it has open; of more than 67 million rows buckets are larger."""


class Column:
    """(N,) values that are not held.

    Args:
        n: N.
        chunks: Begins a pass: yields `TILE` values after the other, the last ones fewer.
    """

    def __init__(self, n: int, chunks: Callable[[], Iterator[NDArray[Any]]]) -> None:
        self.n, self.chunks = n, chunks

    def __len__(self) -> int:
        return self.n


Values = NDArray[Any] | Column


def chunks_of(values: Values) -> Iterator[NDArray[Any]]:
    """Goes over values, `TILE` at a time."""
    if isinstance(values, Column):
        return values.chunks()
    return (values[start : start + CHUNK] for start in range(0, len(values), CHUNK))


def map_chunks(function: Callable[..., NDArray[Any]], *columns: Values) -> Values:
    """Values that follow from others of the same samples one by one: an array where all are arrays, else a column."""
    if not any(isinstance(column, Column) for column in columns):
        return function(*columns)
    return Column(len(columns[0]), lambda: (function(*tiles) for tiles in zip(*map(chunks_of, columns), strict=True)))


def total(values: Values) -> Any:
    """Their sum: tile by tile, and the tiles' sums in order."""
    return sum(tile.sum() for tile in chunks_of(values))


def sum_by(groups: Values, values: Values, n_groups: int) -> NDArray[np.float64]:
    """Sums the values of each group 0..n_groups - 1; (n_groups,) float64."""
    sums = np.zeros(n_groups)
    for group, tile in zip(chunks_of(groups), chunks_of(values), strict=True):
        sums += np.bincount(group, weights=tile, minlength=n_groups)
    return sums


def count(groups: Values, n_groups: int = 0) -> NDArray[np.int64]:
    """How many values are 0, 1, ...: numpy's `bincount`, of `n_groups` numbers at least."""
    counts = np.zeros(n_groups, np.int64)
    for tile in chunks_of(groups):
        more = np.bincount(tile, minlength=len(counts))
        more[: len(counts)] += counts
        counts = more
    return counts


def materialize(values: Values) -> NDArray[Any]:
    """All of them in memory: for what is small, such as flags, a byte each."""
    if not isinstance(values, Column):
        return values
    tiles = list(values.chunks())
    return np.concatenate(tiles) if tiles else np.zeros(0)


def cut_chunks(pieces: Iterable[NDArray[Any]], size: int = CHUNK) -> Iterator[NDArray[Any]]:
    """Cuts pieces of any length, laid end to end, into such of one length; the last is shorter."""
    waiting: list[NDArray[Any]] = []
    n_waiting = 0
    for piece in pieces:
        waiting.append(piece)
        n_waiting += len(piece)
        while n_waiting >= size:
            together = np.concatenate(waiting) if len(waiting) > 1 else waiting[0]
            yield together[:size]
            waiting, n_waiting = [together[size:]], n_waiting - size
    if n_waiting:
        yield np.concatenate(waiting)


def find_nth_smallest(values: Values, n: int) -> float:
    """The n-th smallest of positive values (n from 1); of a column by radix selection, in four passes and half a megabyte.

    Positive floats are in the order of their bits read as whole numbers: each pass counts the next 16 of them.
    """
    if not isinstance(values, Column):
        return float(np.partition(values, n - 1)[n - 1])
    found = np.uint64(0)
    for shift in (48, 32, 16, 0):
        counts = np.zeros(2**16, np.int64)
        for tile in values.chunks():
            bits = np.ascontiguousarray(tile, np.float64).view(np.uint64)
            if shift < 48:
                bits = bits[(bits >> np.uint64(shift + 16)) == found]
            counts += np.bincount(((bits >> np.uint64(shift)) & np.uint64(0xFFFF)).astype(np.int64), minlength=2**16)
        upto = np.cumsum(counts)
        digit = int(np.searchsorted(upto, n))
        n -= int(upto[digit - 1]) if digit else 0
        found = (found << np.uint64(16)) | np.uint64(digit)
    return float(np.array(found).view(np.float64))


_SPILLED = np.dtype([("key", np.float64), ("place", np.int64), ("value", np.float64)])


def in_key_order(keys: Values, values: Values) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float64]]]:
    """Goes over the positive values in the order of their keys.

    Of columns, rows are put into files by the first bits of their keys, and each file is sorted by itself: 24 bytes of disk a
    row, among the temporary files, and the memory of one file.

    Args:
        keys: (N,) float64, uniform in (0, 1), hardly ever equal; of equal ones the first place comes first.
        values: (N,) float64; of those above zero it goes.

    Yields:
        Places in 0..N - 1 and values, some at a time.
    """
    if not (isinstance(keys, Column) or isinstance(values, Column)):
        places = np.flatnonzero(values > 0)
        places = places[_sort_distinct(keys[places])]
        yield places, values[places]
        return
    n_buckets = min(-(-len(keys) // BUCKET), MAX_BUCKETS)
    with temporary_folder() as folder, ExitStack() as opened:
        files: list[BinaryIO] = [opened.enter_context((folder / str(i)).open("w+b")) for i in range(n_buckets)]
        for start, (key, value) in enumerate(zip(chunks_of(keys), chunks_of(values), strict=True)):
            kept = np.flatnonzero(value > 0)
            rows = np.empty(len(kept), _SPILLED)
            rows["key"], rows["place"], rows["value"] = key[kept], kept + start * CHUNK, value[kept]
            buckets = (rows["key"] * n_buckets).astype(np.int64)
            order = np.argsort(buckets, kind="stable")
            ends = np.cumsum(np.bincount(buckets, minlength=n_buckets))
            for file, some in zip(files, np.split(rows[order], ends[:-1]), strict=True):
                file.write(some.tobytes())
        for file in files:
            file.seek(0)
            rows = np.fromfile(file, _SPILLED)
            rows = rows[_sort_distinct(rows["key"])]
            yield rows["place"], rows["value"]


def _sort_distinct(keys: NDArray[np.float64]) -> NDArray[np.int64]:
    """The order of keys that are hardly ever equal: the fast sort puts equal ones in any order, the stable one never does."""
    order = np.argsort(keys)
    in_order = keys[order]
    return np.argsort(keys, kind="stable") if (in_order[1:] == in_order[:-1]).any() else order
