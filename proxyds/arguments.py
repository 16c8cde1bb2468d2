"""What Python programs pass: paths, places, shapes and counts, or an error of ours that says what they must be."""

from __future__ import annotations

import os
from collections.abc import Sequence
from numbers import Integral
from pathlib import Path

from proxyds.errors import ArgumentError
from proxyds.text import describe_type


def as_place(value: str | os.PathLike[str], name: str) -> str:
    """Returns a folder, file or address as text; raises `ArgumentError` for anything but texts and paths.

    Args:
        value: What was passed.
        name: Of the argument.
    """
    text = os.fspath(value) if isinstance(value, str | os.PathLike) else None
    if not isinstance(text, str):
        raise ArgumentError(f"{name}: must be a text or a pathlib.Path, got {describe_type(value)}")
    if not text or "\0" in text:
        raise ArgumentError(f"{name}: must name a place, got {text!r}")
    return text


def as_shape(value: Sequence[int], name: str) -> tuple[int, int, int]:
    """Returns channels, height and width of an image; raises `ArgumentError` for anything but three whole numbers above 0."""
    numbers = tuple(value) if isinstance(value, Sequence) and not isinstance(value, str | bytes) else ()
    if len(numbers) != 3 or not all(_is_whole(number) and number > 0 for number in numbers):
        raise ArgumentError(
            f"{name}: must be (channels, height, width) of images, whole numbers above 0, got {value!r:.80}"
        )
    channels, height, width = map(int, numbers)
    return channels, height, width


def as_count(value: int, name: str, least: int = 1) -> int:
    """Returns a whole number; raises `ArgumentError` for anything else, or less than the least."""
    if not _is_whole(value) or value < least:
        raise ArgumentError(f"{name}: must be a whole number, {least} or more, got {value!r:.80}")
    return int(value)


def _is_whole(value: object) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool)


def as_path(value: str | os.PathLike[str], name: str) -> Path:
    """Returns a folder or file as a path; see `as_place`."""
    return Path(as_place(value, name))
