"""PNG files by hand: of any depth, kind and transparency, which Pillow does not write."""

from __future__ import annotations

import struct
import zlib
from typing import Any

from numpy.typing import NDArray

GREY, COLOUR, PALETTE, GREY_AND_ALPHA, COLOUR_AND_ALPHA = 0, 2, 3, 4, 6
"""Kinds of PNG files."""


def write_png(
    values: NDArray[Any], kind: int, depth: int = 8, palette: bytes = b"", transparency: bytes = b""
) -> bytes:
    """Writes a PNG file of values, (H, W) or (H, W, C), of `depth` bits each; for a palette they are indices."""
    height, width = values.shape[:2]
    lines = b"".join(b"\0" + _pack(line.ravel().tolist(), depth) for line in values)
    chunks = [
        (b"IHDR", struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, 0)),
        (b"PLTE", palette),
        (b"tRNS", transparency),
        (b"IDAT", zlib.compress(lines)),
    ]
    held = [_chunk(name, content) for name, content in chunks if content]
    return b"".join([b"\x89PNG\r\n\x1a\n", *held, _chunk(b"IEND", b"")])


def _pack(values: list[int], depth: int) -> bytes:
    bits = "".join(f"{value:0{depth}b}" for value in values)
    n_bytes = -(-len(bits) // 8)
    return int(bits.ljust(8 * n_bytes, "0"), 2).to_bytes(n_bytes, "big")


def _chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))
