"""Parts of a split that a program holds: they refer to its own arrays and tables, and copy nothing before a worker is sent its share."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute
from numpy.typing import NDArray
from PIL import Image

from proxyds.data.parts import LoadedPart, Part, Row
from proxyds.data.survey.records import Label

PART = 8192
"""Images of one part, at most."""
ARRAY_BYTES, TABLE_BYTES = 32_000_000, 500_000_000
"""Bytes of their pixels, or of their files, at most, about: what is copied when a part is sent to a worker."""

IMAGES = pa.struct({"bytes": pa.large_binary(), "path": pa.string()})
"""How `datasets` keeps images that are not decoded."""


def encode_png(image: NDArray[np.uint8] | Image.Image) -> bytes:
    """Encodes an image, (H, W) or (H, W, C) where it is an array, as a PNG file: without loss, and the same bytes wherever it came from."""
    stream = io.BytesIO()
    (Image.fromarray(image) if isinstance(image, np.ndarray) else image).save(stream, "PNG")
    return stream.getvalue()


@dataclass(frozen=True)
class ArrayPart:
    """Images of arrays in memory, each of which becomes a PNG file when it is asked for.

    Attributes:
        images: uint8 (N, H, W) or (N, H, W, C); or N arrays (H, W) or (H, W, C). The program's own, never a copy.
        places: (n,) which of them these are.
        labels: (n,), as the source has them.
        first: Index of the first one in the split.
    """

    images: NDArray[np.uint8] | Sequence[NDArray[np.uint8]]
    places: range | NDArray[np.int64]
    labels: tuple[Label, ...]
    first: int

    def __reduce__(self) -> tuple[Any, ...]:
        """Sends a worker these images and no others."""
        taken: Any
        if not isinstance(self.images, np.ndarray):
            taken = [self.images[place] for place in self.places]
        elif isinstance(self.places, range):
            taken = self.images[self.places.start : self.places.stop]
        else:
            taken = self.images[self.places]
        return ArrayPart, (taken, range(len(self.labels)), self.labels, self.first)

    @cached_property
    def content(self) -> str:
        """The sha256 of all pixels and labels."""
        content = hashlib.sha256(f"pixels {self.labels!r}\n".encode())
        for index in range(len(self.labels)):
            image = self._image(index)
            content.update(f"{image.shape}\n".encode())
            content.update(image.data)
        return content.hexdigest()

    def encoded(self, index: int) -> bytes:
        """Encodes one image of the part."""
        return encode_png(self._image(index))

    def rows(self) -> Iterator[Row]:
        """See `Part`."""
        return ((self.encoded(index), label, "") for index, label in enumerate(self.labels))

    def _image(self, index: int) -> NDArray[np.uint8]:
        return np.ascontiguousarray(self.images[self.places[index]])


@dataclass(frozen=True)
class TablePart:
    """Rows of a `datasets.Dataset`, read from it as they are asked for; a worker is sent a `LoadedPart` of them.

    Attributes:
        table: The data set in the format `arrow`, images undecoded.
        image_column: Its column of images.
        label_column: Its column of labels.
        first: Index of the first row.
        n_rows: How many they are.
    """

    table: Any
    image_column: str
    label_column: str
    first: int
    n_rows: int

    def __reduce__(self) -> tuple[Any, ...]:
        """Sends a worker these rows and no others."""
        part = self._load(self.first, self.n_rows)
        return LoadedPart, (copy_rows(part.images), copy_rows(part.labels), part.first)

    @cached_property
    def content(self) -> str:
        """The sha256 of every image's and every label's."""
        return self._load(self.first, self.n_rows).content

    def encoded(self, index: int) -> bytes:
        """Reads one image of the part, as the data set holds it."""
        return self._load(self.first + index, 1).encoded(0)

    def rows(self) -> Iterator[Row]:
        """See `Part`."""
        return self._load(self.first, self.n_rows).rows()

    def _load(self, start: int, n: int) -> LoadedPart:
        rows = self.table[start : start + n]
        images = as_images(rows[self.image_column])
        return LoadedPart(images.combine_chunks(), rows[self.label_column].combine_chunks(), start)


HeldPart = LoadedPart | ArrayPart | TablePart
"""A part any image of which can be read by itself."""


def cut_arrays(
    images: NDArray[np.uint8] | Sequence[NDArray[np.uint8]],
    labels: Sequence[Label],
    places: NDArray[np.int64] | None = None,
) -> list[Part]:
    """Cuts arrays into parts that refer to them.

    Args:
        images: See `ArrayPart`.
        labels: Of all of them.
        places: (n,) which of the images are the split's, in its order; None for all.
    """
    n = len(labels) if places is None else len(places)
    n_bytes = images.nbytes if isinstance(images, np.ndarray) else sum(image.nbytes for image in images)
    n_rows = max(1, min(PART, ARRAY_BYTES * len(labels) // max(1, n_bytes)))
    parts: list[Part] = []
    for start in range(0, n, n_rows):
        stop = min(start + n_rows, n)
        those = range(start, stop) if places is None else places[start:stop]
        parts.append(ArrayPart(images, those, tuple(labels[place] for place in those), start))
    return parts


def cut_table(table: Any, image_column: str, label_column: str) -> list[Part]:
    """Cuts a `datasets.Dataset`, images undecoded, into parts that refer to it."""
    table = table.select_columns([image_column, label_column]).with_format("arrow")
    n_rows = max(1, min(PART, TABLE_BYTES * len(table) // max(1, table.data.nbytes)))
    starts = range(0, len(table), n_rows)
    return [TablePart(table, image_column, label_column, start, min(n_rows, len(table) - start)) for start in starts]


def copy_rows(rows: pa.Array) -> pa.Array:
    """Copies rows: Arrow would send a worker, with a slice, all that it is cut from."""
    return rows.take(pa.array(np.arange(len(rows))))


def as_images(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Takes plain bytes, or structs of bytes and perhaps more, for images as `datasets` keeps them."""
    if pa.types.is_struct(column.type) and {field.name for field in column.type} == {"bytes", "path"}:
        return column
    chunks = []
    for chunk in column.chunks:
        encoded = chunk if not pa.types.is_struct(chunk.type) else pa.compute.struct_field(chunk, "bytes")
        fields = [encoded.cast(pa.large_binary()), pa.nulls(len(chunk), pa.string())]
        chunks.append(pa.StructArray.from_arrays(fields, ["bytes", "path"], mask=pa.compute.is_null(encoded)))
    return pa.chunked_array(chunks, IMAGES)
