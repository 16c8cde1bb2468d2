"""Images of strangers: opened by their bytes alone, in formats that run nothing, and never larger than what can be meant."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from PIL import Image, TiffImagePlugin

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF", "PPM", "JPEG2000")
"""As Pillow names them. Others are left out: EPS, for one, is a program that Pillow hands to Ghostscript."""

MAX_PIXELS = 64_000_000
"""The most that one image may have: 8,000 by 8,000."""

MAX_BITS = 8
"""The most that a channel may have of an image that networks are to see."""

_BITS_OF_SAMPLES = 258
"""TIFF's tag of that."""
_JPEG2000_SIZE, _JPEG2000_DEPTH = b"\xff\x4f\xff\x51", 40
"""How a JPEG 2000 stream begins, and where in it the depth of the first channel stands, less 1."""

DECODE_ERRORS = (Exception,)
"""What Pillow raises for a damaged image, or `open_image` for one that is too large: whatever a decoder stumbles over is the image's fault.

No list of them is whole: a broken EXIF rational alone is a `struct.error`, a `ZeroDivisionError` or a `TypeError`.
"""


@contextmanager
def open_image(encoded: bytes) -> Iterator[Image.Image]:
    """Opens an image file's bytes; pixels are decoded when they are asked for.

    Raises:
        UnidentifiedImageError: It is of none of `FORMATS`.
        ValueError: It has more than `MAX_PIXELS` pixels.
    """
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore"
        )  # of bombs, for which the limit here is the lower one, and of damage that does no harm
        with Image.open(io.BytesIO(encoded), formats=FORMATS) as image:
            if image.width * image.height > MAX_PIXELS:
                raise ValueError(
                    f"it has {image.width:,} x {image.height:,} pixels, more than the {MAX_PIXELS:,} that are allowed"
                )
            yield image


def check_depth(image: Image.Image, encoded: bytes) -> None:
    """Refuses images of more than 8 bits a channel, grey and colour alike: of colour, Pillow would drop the others without a word.

    Args:
        image: An image as `open_image` opens it, whose pixels are not decoded yet.
        encoded: Its file.

    Raises:
        ValueError: It has more.
    """
    if (n_bits := _find_depth(image, encoded)) > MAX_BITS:
        raise ValueError(
            f"it has {n_bits} bits a channel, and networks see {MAX_BITS}; convert it, which decides what becomes of the others"
        )


def _find_depth(image: Image.Image, encoded: bytes) -> int:
    """Finds the bits of a channel of an image whose pixels are not decoded yet: 8, or more than that."""
    if image.mode in ("I", "F"):
        is_short = image.format == "PPM" and image.mode == "I"  # whose greatest value has two bytes at most
        return 16 if is_short else 32
    if image.mode.startswith("I;16"):
        return 16
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        return int(max(MAX_BITS, *image.tag_v2.get(_BITS_OF_SAMPLES, (1,))))
    if image.format == "JPEG2000":
        start = encoded.find(_JPEG2000_SIZE)
        return max(MAX_BITS, (encoded[start + _JPEG2000_DEPTH] & 0x7F) + 1) if start >= 0 else MAX_BITS
    how = [tile[3] for tile in getattr(image, "tile", [])]
    is_wide = any(";16" in each if isinstance(each, str) else _is_wide_raw(each) for each in how)
    return 16 if is_wide else MAX_BITS


def _is_wide_raw(how: object) -> bool:
    """Says whether what a decoder is told of a tile is of 16 bits: a layout such as `RGB;16B`, or the greatest value of a channel."""
    parts = how if isinstance(how, tuple) else ()
    return any(";16" in part if isinstance(part, str) else isinstance(part, int) and part > 255 for part in parts[:2])
