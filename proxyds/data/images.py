"""Images of strangers: opened by their bytes alone, in formats that run nothing, never larger than what can be meant; and seen as networks see them."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from PIL import Image, ImageOps, PngImagePlugin, TiffImagePlugin, UnidentifiedImageError

from proxyds.text import first_line

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF", "PPM", "JPEG2000")
"""As Pillow names them. Others are left out: EPS, for one, is a program that Pillow hands to Ghostscript."""

MAX_PIXELS = 64_000_000
"""The most that one image may have: 8,000 by 8,000."""

MAX_BITS = 8
"""The most that a channel may have of an image that networks are to see."""

ID_RULE, FORMER_ID_RULE = 2, 1
"""By which rule of `docs/format.md` sample ids are made: the former is that of proxies before format 2.0, whose ids and splits a source must give again."""

_BITS_OF_SAMPLES = 258
"""TIFF's tag of that."""
_JPEG2000_SIZE, _JPEG2000_DEPTH = b"\xff\x4f\xff\x51", 40
"""How a JPEG 2000 stream begins, and where in it the depth of the first channel stands, less 1."""

_SHALLOW_GREY = {"L;2": 85, "L;4": 17}
"""How Pillow calls grey of 2 and of 4 bits, and what a step of it is in 8 bits."""
_GREY_MODES, _PALETTE_MODES = ("1", "L", "LA", "La"), ("P", "PA")
"""Pillow's modes that know no colour, and those whose palette may hold some."""

DECODE_ERRORS = (Exception,)
"""What Pillow raises for a damaged image, or `open_image` for one that is too large: whatever a decoder stumbles over is the image's fault,
but for a `MemoryError`, which whoever decodes a source catches first.

No list of them is whole: a broken EXIF rational alone is a `struct.error`, a `ZeroDivisionError` or a `TypeError`.
"""


def describe_damage(error: Exception) -> str:
    """Says why an image cannot be used, by what opening, checking or decoding it raised."""
    if isinstance(error, UnidentifiedImageError):
        return "no image of a format that is read"
    is_plain = isinstance(error, ValueError | OSError | SyntaxError)
    return first_line(error) if is_plain else f"{type(error).__name__}: {first_line(error)}"


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
            _scale_transparency(image)
            yield image


def _scale_transparency(image: Image.Image) -> None:
    """Makes the grey that a PNG file calls transparent one of 8 bits, as pixels are: Pillow leaves it as the file has it."""
    transparent = image.info.get("transparency")
    if isinstance(image, PngImagePlugin.PngImageFile) and isinstance(transparent, int):
        image.info["transparency"] = transparent * _SHALLOW_GREY.get(str(image.tile[0][3]), 1)


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


def see_picture(image: Image.Image) -> Image.Image:
    """Returns what networks see of an image of any mode, before its mode and size are made those that a recipe asks for.

    The picture is upright by its EXIF, and on white where it is transparent. It is grey where the image's mode knows no colour, or where
    the image takes none from its palette: programs that make PNG files smaller turn the one into the other.

    Args:
        image: As `open_image` opens it.

    Returns:
        An image of the mode `L` or `RGB`.

    Raises:
        ValueError: The image has 16 bits or more a channel.
    """
    if image.mode in ("I;16", "I;16B", "I;16L", "I", "F"):
        raise ValueError(f"images of 16 bits or more a channel are not supported, this one is {image.mode}")
    picture = ImageOps.exif_transpose(image)
    mode = picture.mode
    if picture.has_transparency_data:
        picture = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture.convert("RGBA"))
    if mode in _PALETTE_MODES:
        picture = picture.convert("RGB")
    is_grey = mode in _GREY_MODES or (mode in _PALETTE_MODES and not _has_colour(picture))
    return convert_mode(picture, "L" if is_grey else "RGB")


def convert_mode(picture: Image.Image, mode: str) -> Image.Image:
    """Returns a picture in a mode; itself, not a copy of it as Pillow does, where it has that mode."""
    return picture if picture.mode == mode else picture.convert(mode)


def _has_colour(picture: Image.Image) -> bool:
    red, green, blue = (np.asarray(channel) for channel in picture.split())
    return not (np.array_equal(red, green) and np.array_equal(green, blue))
