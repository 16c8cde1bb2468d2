"""Damaged images of every format: each is read or counted as damaged, and nothing else happens."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from proxyds.data.decoding import decode_part, read_decoded
from proxyds.recipe.sections.source import Images
from proxyds.runtime.storage.store import Store

FORMATS = {
    "PNG": {},
    "JPEG": {"exif": b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x1a\0\x05\0\0\0\x01\0\0\0\x1a\0\0\0\0\0\0\0H\0\0\0\x01"},
    "WEBP": {"lossless": True},
    "GIF": {},
    "TIFF": {},
    "BMP": {},
}
N_OF_EACH = 40
N_SLOW = 20_000


def encode(name: str) -> bytes:
    """An image of 12x10 pixels that has something to damage: colours, EXIF where the format has it."""
    pixels = np.random.default_rng(3).integers(0, 256, (10, 12, 3), np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, name, **FORMATS[name])
    return stream.getvalue()


def damage(encoded: bytes, rng: np.random.Generator) -> bytes:
    """Changes some bytes, cuts the file off, or puts a piece of it elsewhere."""
    held = bytearray(encoded)
    kind = rng.integers(4)
    if kind == 0:
        return bytes(held[: rng.integers(len(held))])
    if kind == 1:
        start, at = rng.integers(len(held), size=2)
        held[at:at] = held[start : start + 20]
        return bytes(held)
    # headers decide most: half of the changes are among the first bytes
    span = len(held) if kind == 2 else min(len(held), 120)
    for at in rng.integers(span, size=rng.integers(1, 6)):
        held[at] = rng.integers(256)
    return bytes(held)


class Damaged:
    """A part of a split with damaged images."""

    first, content = 0, "damaged"

    def __init__(self, n: int, seed: int) -> None:
        self._n, self._seed = n, seed

    def rows(self) -> Iterator[tuple[bytes, Any, str]]:
        """See `Part`."""
        rng, whole = np.random.default_rng(self._seed), [encode(name) for name in FORMATS]
        for number in range(self._n):
            yield damage(whole[number % len(whole)], rng), number % 2, str(number)


def decode(n: int, seed: int, store: Store) -> tuple[int, int]:
    """Decodes damaged images; returns how many were read, and how many were not."""
    with store.writing("source", "damaged", "damaged") as folder:
        decode_part(
            folder=folder,
            report=lambda done, total, note: None,
            part=Damaged(n, seed),
            spec=Images(image_size=8),
            label_names=["a", "b"],
        )
    entry = store.find("source", "damaged")
    assert entry is not None
    found = read_decoded(entry)
    return sum(found.runs), len(found.bad_images)


@pytest.mark.parametrize("n", [N_OF_EACH * len(FORMATS), pytest.param(N_SLOW, marks=pytest.mark.slow)])
def test_whatever_is_damaged_is_read_or_left_out_and_counted(n: int, tmp_path: Path) -> None:
    n_read, n_left_out = decode(n, 1, Store(tmp_path))
    assert n_read + n_left_out == n
    assert min(n_read, n_left_out) > n // 10  # both happen
