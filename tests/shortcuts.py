"""What tests leave out that takes most of a command's time and is not what they look at; fixtures of `conftest.py` bring it back.

Pictures of a card are one pixel each, and tasks run in the process of the command, with the same results, where a user's run in workers.
"""

from __future__ import annotations

import base64
import os
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from proxyds.runtime.execution import Execution
from proxyds.runtime.local import InProcess, LocalWorkers
from proxyds.runtime.task import Engine

WORKERS, PICTURES = "PROXYDS_TESTS_WORKERS", "PROXYDS_TESTS_PICTURES"
"""The variables that bring back workers and pictures."""
PIXEL = base64.b64decode("iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGP4DwABAQEAG7buVgAAAABJRU5ErkJggg==")
_render, _choose_engine = Figure.savefig, Execution.choose_engine


def take_shortcuts() -> None:
    """Renders no figure and starts no worker from now on, unless a variable says so."""
    Figure.savefig = _save  # type: ignore[method-assign]
    Execution.choose_engine = _choose_nearer_engine  # type: ignore[method-assign]


def _save(self: Figure, place: Any, **how: Any) -> None:
    if PICTURES in os.environ:
        _render(self, place, **how)
    elif isinstance(place, str | Path):
        Path(place).write_bytes(PIXEL)
    else:
        place.write(PIXEL)


def _choose_nearer_engine(self: Execution) -> tuple[str, Engine]:
    device, engine = _choose_engine(self)
    return device, InProcess() if isinstance(engine, LocalWorkers) and WORKERS not in os.environ else engine
