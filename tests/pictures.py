"""Cards without their pictures' pixels: to render these takes longer than all else that most commands do."""

from __future__ import annotations

import base64
from contextlib import contextmanager
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

PIXEL = base64.b64decode("iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGP4DwABAQEAG7buVgAAAABJRU5ErkJggg==")
_render = Figure.savefig


def render_nothing() -> None:
    """Lets every figure be saved as a picture of one pixel; it is drawn up as ever."""
    Figure.savefig = _save_pixel  # type: ignore[method-assign]


@contextmanager
def rendering() -> Iterator[None]:
    """Lets figures be rendered, for tests that look at them."""
    Figure.savefig = _render  # type: ignore[method-assign]
    try:
        yield
    finally:
        render_nothing()


def _save_pixel(self: Figure, place: Any, **how: Any) -> None:  # noqa: ARG001 - matplotlib's
    if isinstance(place, str | Path):
        Path(place).write_bytes(PIXEL)
    else:
        place.write(PIXEL)
