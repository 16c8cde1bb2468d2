"""Decoded images on disk: `.npy` files of which only what is indexed is read, and not mapped, so that a process stays small."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

MAX_OPEN = 128
"""Files that are kept open: a process may often have no more than a thousand."""


class FileAt(Protocol):
    """A file that can be brought to this machine."""

    @property
    def path(self) -> Path:
        """Where it lies here; it is fetched first where it is not."""


class Pixels:
    """Images of several files, as one array that is read where it is indexed.

    Args:
        files: `.npy` files of uint8 (n, C, H, W), C, H and W the same in all.
        starts: Number of the first image of each file, the files laid end to end.
        rows: (N,) int64, which of the images, in the order wanted.
    """

    def __init__(self, files: Sequence[FileAt], starts: Sequence[int], rows: NDArray[np.int64]) -> None:
        self.files, self.rows = tuple(files), rows
        self.starts = np.asarray(starts, np.int64)
        self._offsets: dict[int, int] = {}  # where a file's images begin
        self._opened: dict[int, int] = {}  # descriptors, the one that was used last at the end
        self._image_shape: tuple[int, ...] | None = None

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def shape(self) -> tuple[int, ...]:
        """(N, C, H, W)."""
        if self._image_shape is None:
            self._open(int(self._file_of(self.rows[:1])[0]) if len(self.rows) else 0)
        assert self._image_shape is not None
        return (len(self.rows), *self._image_shape)

    def __getitem__(self, wanted: slice | NDArray[np.int64]) -> NDArray[np.uint8]:
        """Reads some images, (n, C, H, W) uint8."""
        rows = self.rows[wanted]
        images = np.empty((len(rows), *self.shape[1:]), np.uint8)
        if not len(rows):
            return images
        n_bytes, file_of = images[0].nbytes, self._file_of(rows)
        breaks = np.flatnonzero((np.diff(rows) != 1) | (np.diff(file_of) != 0)) + 1
        for first, after in zip([0, *breaks], [*breaks, len(rows)], strict=True):  # neighbours at a stroke
            descriptor, offset = self._open(int(file_of[first]))
            start = offset + int(rows[first] - self.starts[file_of[first]]) * n_bytes
            _read_into(images[first:after], descriptor, start)
        return images

    def _file_of(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        files: NDArray[np.int64] = np.searchsorted(self.starts, rows, side="right") - 1
        return files

    def _open(self, number: int) -> tuple[int, int]:
        if number not in self._offsets:
            mapped = np.lib.format.open_memmap(self.files[number].path, mode="r")  # reads the header alone
            self._image_shape, self._offsets[number] = mapped.shape[1:], mapped.offset
        descriptor = self._opened.pop(number, None)
        if descriptor is None:
            if len(self._opened) >= MAX_OPEN:
                os.close(self._opened.pop(next(iter(self._opened))))
            descriptor = os.open(self.files[number].path, os.O_RDONLY)
        self._opened[number] = descriptor
        return descriptor, self._offsets[number]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_opened": {}}

    def __del__(self) -> None:
        for descriptor in self._opened.values():
            os.close(descriptor)


ImageArray = NDArray[np.uint8] | Pixels
"""(N, C, H, W) uint8, in memory or on disk."""


def _read_into(images: NDArray[np.uint8], descriptor: int, start: int) -> None:
    view, n_read = images.data.cast("B"), 0
    while n_read < len(view):
        n = os.preadv(descriptor, [view[n_read:]], start + n_read)
        if n == 0:
            raise EOFError("a file of decoded images is shorter than when it was written")
        n_read += n
