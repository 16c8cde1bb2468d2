"""What work under way tells whoever shows it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Progress:
    """One step of a task under way.

    Attributes:
        stage: The stage that the task belongs to.
        task: The task's name.
        done: Units done.
        total: Units in all.
        note: A figure worth seeing, such as the loss.
    """

    stage: str
    task: str
    done: float
    total: float
    note: str = ""


@dataclass(frozen=True)
class StageEnded:
    """The end of a stage.

    Attributes:
        stage: Its name.
        was_stored: Whether all its tasks had been done before.
        warning: What somebody should know before more is spent; empty where nothing.
    """

    stage: str
    was_stored: bool = False
    warning: str = ""


OnProgress = Callable[[Progress | StageEnded], None]
"""What is called as work goes on."""


def ignore_progress(event: Progress | StageEnded) -> None:
    """Shows nothing."""
