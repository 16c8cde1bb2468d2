"""What Python programs pass: paths and places, or an error of ours that says what they must be."""

from __future__ import annotations

import os
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


def as_path(value: str | os.PathLike[str], name: str) -> Path:
    """Returns a folder or file as a path; see `as_place`."""
    return Path(as_place(value, name))
