"""What work under way tells whoever shows it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Progress:
    """One step of work under way, for whoever shows it.

    Attributes:
        stage: Which stage.
        task: Which task of it.
        done: Units done.
        total: Units in all.
        note: A figure worth seeing, such as the loss.
    """

    stage: str
    task: str
    done: float
    total: float
    note: str = ""


OnProgress = Callable[[Progress], None]


def ignore_progress(progress: Progress) -> None:
    """Shows nothing."""
