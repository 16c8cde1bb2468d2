"""What a person sees on standard error while work goes on."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from proxyds.progress import OnProgress, StageEnded, ignore_progress
from proxyds.progress import Progress as Step
from proxyds.text import duration

LOG_EVERY_SECONDS = 30.0


@contextmanager
def show_progress(*, quiet: bool) -> Iterator[OnProgress]:
    """Shows work under way on standard error: bars with the time left on a terminal, else a line now and then."""
    if quiet:
        yield ignore_progress
    elif sys.stderr.isatty():
        with _Bars() as bars:
            yield bars.show
    else:
        yield _Lines().show


class _Bars:
    """A bar for each task under way; finished stages stay as one line."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeRemainingColumn

        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=24),
            TextColumn("{task.percentage:3.0f} %"),
            TextColumn("left"),
            TimeRemainingColumn(compact=True),
            TextColumn("{task.fields[note]}", markup=False),
            console=Console(stderr=True, highlight=False),
            transient=True,
        )
        self._bars: dict[str, TaskID] = {}
        self._stage_started = time.monotonic()

    def __enter__(self) -> _Bars:
        self._progress.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._progress.stop()

    def show(self, step: Step | StageEnded) -> None:
        if isinstance(step, StageEnded):
            for bar in self._bars.values():
                self._progress.remove_task(bar)
            self._bars.clear()
            self._progress.console.print(_stage_line(step, time.monotonic() - self._stage_started), markup=False)
            self._stage_started = time.monotonic()
            return
        if step.task not in self._bars:
            self._bars[step.task] = self._progress.add_task(step.task, total=step.total, note="")
        self._progress.update(self._bars[step.task], completed=step.done, total=step.total, note=step.note)


class _Lines:
    """For logs: a line when a stage ends, and every half minute how far each task is and the time left."""

    def __init__(self) -> None:
        self._stage_started = time.monotonic()
        self._started: dict[str, float] = {}
        self._printed: dict[str, float] = {}

    def show(self, step: Step | StageEnded) -> None:
        now = time.monotonic()
        if isinstance(step, StageEnded):
            print(_stage_line(step, now - self._stage_started), file=sys.stderr, flush=True)
            self._stage_started = now
            return
        last = self._printed.setdefault(step.task, now)
        started = self._started.setdefault(step.task, now)
        if step.done <= 0:
            self._started[step.task] = now  # the time left is told from when it begins, it may have waited for others
        if step.done < step.total and now - last > LOG_EVERY_SECONDS and (step.done > 0 or step.note):
            self._printed[step.task] = now
            told = [step.note] if step.note else []
            if step.done > 0:
                left = (now - started) / step.done * (step.total - step.done)
                told.insert(0, f"{step.done / step.total:.0%}, about {duration(left)} left")
            print(f"  {step.task}: {', '.join(told)}", file=sys.stderr, flush=True)


def _stage_line(ended: StageEnded, seconds: float) -> str:
    return f"{ended.stage:<12}{duration(seconds):>12}" + ("   found done" if ended.was_stored else "")
