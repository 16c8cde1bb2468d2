"""What a person sees on standard error while work goes on."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from proxyds.progress import OnProgress, Progress, StageEnded
from proxyds.text import duration

LOG_EVERY_SECONDS = 30.0


@contextmanager
def show_progress(*, quiet: bool) -> Iterator[OnProgress]:
    """Shows work under way on standard error: bars with the time left on a terminal, else a line now and then; `quiet` leaves warnings."""
    if quiet:
        yield _show_warning
    elif sys.stderr.isatty():
        bars = _Bars()
        with bars.display:
            yield bars.show
    else:
        yield _Lines().show


class _Bars:
    """A bar for each task under way; finished stages stay as one line."""

    def __init__(self) -> None:
        from rich import console, progress

        self.display = progress.Progress(
            progress.SpinnerColumn(),
            progress.TextColumn("{task.description}", markup=False),
            progress.BarColumn(bar_width=24),
            progress.TextColumn("{task.percentage:3.0f} %"),
            progress.TextColumn("left"),
            progress.TimeRemainingColumn(compact=True),
            progress.TextColumn("{task.fields[note]}", markup=False),
            console=console.Console(stderr=True, highlight=False),
            transient=True,
        )
        self._bars: dict[str, progress.TaskID] = {}
        self._stage_started = time.monotonic()

    def show(self, event: Progress | StageEnded) -> None:
        if isinstance(event, StageEnded):
            for bar in self._bars.values():
                self.display.remove_task(bar)
            self._bars.clear()
            self.display.console.print(_stage_line(event, time.monotonic() - self._stage_started), markup=False)
            self._stage_started = time.monotonic()
            return
        if event.task not in self._bars:
            self._bars[event.task] = self.display.add_task(event.task, total=event.total, note="")
        self.display.update(self._bars[event.task], completed=event.done, total=event.total, note=event.note)


class _Lines:
    """For logs: a line when a stage ends, and every half minute how far each task is and the time left."""

    def __init__(self) -> None:
        self._stage_started = time.monotonic()
        self._started: dict[str, float] = {}
        self._printed: dict[str, float] = {}

    def show(self, event: Progress | StageEnded) -> None:
        now = time.monotonic()
        if isinstance(event, StageEnded):
            print(_stage_line(event, now - self._stage_started), file=sys.stderr, flush=True)
            self._stage_started = now
            return
        last = self._printed.setdefault(event.task, now)
        started = self._started.setdefault(event.task, now)
        if event.done <= 0:
            self._started[event.task] = now  # a task may first wait for others, which says nothing of the time left
        if event.done < event.total and now - last > LOG_EVERY_SECONDS and (event.done > 0 or event.note):
            self._printed[event.task] = now
            parts = [event.note] if event.note else []
            if event.done > 0:
                left = (now - started) / event.done * (event.total - event.done)
                parts.insert(0, f"{event.done / event.total:.0%}, about {duration(left)} left")
            print(f"  {event.task}: {', '.join(parts)}", file=sys.stderr, flush=True)


def _show_warning(event: Progress | StageEnded) -> None:
    if isinstance(event, StageEnded) and event.warning:
        print(_warning_line(event), file=sys.stderr, flush=True)


def _stage_line(ended: StageEnded, seconds: float) -> str:
    line = f"{ended.stage:<12}{duration(seconds):>12}" + ("   found done" if ended.was_stored else "")
    return f"{line}\n{_warning_line(ended)}" if ended.warning else line


def _warning_line(ended: StageEnded) -> str:
    return f"warning: {ended.stage}: {ended.warning}"
