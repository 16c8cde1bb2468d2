"""What tests leave out that takes most of a command's time and is not what they look at; fixtures of `conftest.py` bring it back.

Pictures of a card are one pixel each, and tasks run in the process of the command, with the same results, where a user's run in workers.
"""

from __future__ import annotations

import base64
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from proxyds.runtime.execution import Execution
from proxyds.runtime.local import InProcess, LocalWorkers
from proxyds.runtime.task import Engine

WORKERS = "PROXYDS_TESTS_WORKERS"
"""The variable that lets tasks run in workers."""
PIXEL = base64.b64decode("iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGP4DwABAQEAG7buVgAAAABJRU5ErkJggg==")
_render, _choose_engine = Figure.savefig, Execution.choose_engine


def take_shortcuts() -> None:
    """Renders no figure and starts no worker from now on."""
    Figure.savefig = _save_pixel  # type: ignore[method-assign]
    Execution.choose_engine = _stay_in_process  # type: ignore[method-assign]


@contextmanager
def rendering() -> Iterator[None]:
    """Lets figures be rendered."""
    Figure.savefig = _render  # type: ignore[method-assign]
    try:
        yield
    finally:
        Figure.savefig = _save_pixel  # type: ignore[method-assign]


def _save_pixel(self: Figure, place: Any, **how: Any) -> None:
    if isinstance(place, str | Path):
        Path(place).write_bytes(PIXEL)
    else:
        place.write(PIXEL)


def _stay_in_process(self: Execution) -> tuple[str, Engine]:
    device, engine = _choose_engine(self)
    return device, InProcess() if isinstance(engine, LocalWorkers) and WORKERS not in os.environ else engine
