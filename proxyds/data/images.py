"""Images of strangers: opened by their bytes alone, in formats that run nothing, and never larger than what can be meant."""

from __future__ import annotations

import io
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager

from PIL import Image

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF", "PPM", "JPEG2000")
"""As Pillow names them. Others are left out: EPS, for one, is a program that Pillow hands to Ghostscript."""

MAX_PIXELS = 64_000_000
"""The most that one image may have: 8,000 by 8,000."""

DECODE_ERRORS = (
    Image.DecompressionBombError,
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    IndexError,
    TypeError,
    OverflowError,
    MemoryError,
    zlib.error,
)
"""What Pillow raises for a damaged image, or `open_image` for one that is too large."""


@contextmanager
def open_image(encoded: bytes) -> Iterator[Image.Image]:
    """Opens an image file's bytes; pixels are decoded when they are asked for.

    Raises:
        UnidentifiedImageError: It is of none of `FORMATS`.
        ValueError: It has more than `MAX_PIXELS` pixels.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # the limit here is the lower one
        image = Image.open(io.BytesIO(encoded), formats=FORMATS)
    with image:
        if image.width * image.height > MAX_PIXELS:
            raise ValueError(
                f"it has {image.width:,} x {image.height:,} pixels, more than the {MAX_PIXELS:,} that are allowed"
            )
        yield image
