"""What a person sees of work under way: bars on a terminal and in a notebook, lines in a log."""

from __future__ import annotations

import io
import os
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from proxyds.errors import ArgumentError
from proxyds.progress import OnProgress, Progress, StageEnded
from proxyds.text import describe_type, duration

if TYPE_CHECKING:
    from rich.console import Console

_Parameters = ParamSpec("_Parameters")
_Result = TypeVar("_Result")
LOG_EVERY_SECONDS = 30.0
NOTEBOOK_EVERY_SECONDS = 0.25
"""How often a notebook's bars are drawn anew."""
_NOTEBOOK_WIDTH = 100
_HTML = '<pre style="white-space:pre;overflow-x:auto;line-height:normal;font-family:monospace">{code}</pre>'
_INTERRUPTED = "interrupted. Finished work is kept: run it again, and it goes on where it stopped."


def showing_progress(function: Callable[_Parameters, _Result]) -> Callable[_Parameters, _Result]:
    """Lets a function that takes `on_progress` show its progress to whoever calls it, unless the caller gives that; it takes `quiet` too.

    `quiet` False shows it in any case, True never; None shows it where somebody looks on: on a terminal and in a notebook. Warnings are
    shown in any case.
    """

    @wraps(function)
    def call(*arguments: _Parameters.args, **named: _Parameters.kwargs) -> _Result:
        given: dict[str, Any] = named
        quiet = given.pop("quiet", None)
        if quiet is not None and not isinstance(quiet, bool):
            raise ArgumentError(f"quiet: must be True, False or None, got {describe_type(quiet)}")
        if is_notebook := _is_notebook():
            _import_tqdm_quietly()
        if "on_progress" in given:
            return function(*arguments, **given)
        quiet = not (is_notebook or sys.stderr.isatty()) if quiet is None else quiet
        with show_progress(quiet=quiet) as given["on_progress"]:
            try:
                return function(*arguments, **given)
            except KeyboardInterrupt:
                if not quiet:
                    print(_INTERRUPTED, file=sys.stderr, flush=True)
                raise

    return call


@contextmanager
def show_progress(*, quiet: bool) -> Iterator[OnProgress]:
    """Shows work under way: bars with the time left in a notebook or on a terminal, else a line now and then; `quiet` leaves warnings.

    All but a notebook's stands on standard error.
    """
    if quiet:
        yield _show_warning
    elif _is_notebook():
        notebook = _Notebook()
        try:
            yield notebook.show
        finally:
            notebook.end()
    elif sys.stderr.isatty():
        from rich.console import Console

        bars = _Bars(Console(stderr=True, highlight=False))
        with bars.display:
            yield bars.show
    else:
        yield _Lines().show


@contextmanager
def without_datasets_bars() -> Iterator[None]:
    """Keeps `datasets` from drawing its own progress bars over ours."""
    import datasets

    if datasets.are_progress_bars_disabled() or "HF_DATASETS_DISABLE_PROGRESS_BARS" in os.environ:
        yield
        return
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        datasets.enable_progress_bars()


def _is_notebook() -> bool:
    """Tells whether this process is a notebook's kernel; IPython on a terminal is none."""
    ipython = sys.modules.get("IPython")
    shell = None if ipython is None else ipython.get_ipython()
    return getattr(shell, "kernel", None) is not None


def _import_tqdm_quietly() -> None:
    """Imports what `datasets` draws its bars with, which complains in a notebook that lacks ipywidgets; no bar of it is shown here."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import tqdm.auto  # noqa: F401


class _Bars:
    """A bar for each task under way; finished stages stay as one line.

    Args:
        console: Where they are drawn.
    """

    def __init__(self, console: Console) -> None:
        from rich import progress

        self.display = progress.Progress(
            progress.SpinnerColumn(),
            progress.TextColumn("{task.description}", markup=False),
            progress.BarColumn(bar_width=24),
            progress.TextColumn("{task.percentage:3.0f} %"),
            progress.TextColumn("left"),
            progress.TimeRemainingColumn(compact=True),
            progress.TextColumn("{task.fields[note]}", markup=False),
            console=console,
            transient=True,
        )
        self._bars: dict[str, progress.TaskID] = {}
        self._stage_started = time.monotonic()

    def show(self, event: Progress | StageEnded) -> None:
        if isinstance(event, StageEnded):
            self.clear()
            self.print_line(_stage_line(event, time.monotonic() - self._stage_started))
            self._stage_started = time.monotonic()
            return
        if event.task not in self._bars:
            self._bars[event.task] = self.display.add_task(event.task, total=event.total, note="")
        self.display.update(self._bars[event.task], completed=event.done, total=event.total, note=event.note)

    def clear(self) -> None:
        """Takes the bars away."""
        for bar in self._bars.values():
            self.display.remove_task(bar)
        self._bars.clear()

    def print_line(self, line: str) -> None:
        """Writes a line that stays."""
        self.display.console.print(line, markup=False)


class _Notebook(_Bars):
    """The same in one output of a cell, which is drawn anew. rich's own way needs a package besides (ipywidgets) and shows nothing without."""

    def __init__(self) -> None:
        from rich.console import Console

        looks: Any = {"force_terminal": True, "force_jupyter": False, "color_system": "truecolor", "highlight": False}
        super().__init__(Console(file=io.StringIO(), record=True, width=_NOTEBOOK_WIDTH, **looks))
        self._lines: list[str] = []
        self._handle: Any = None
        self._drawn = 0.0
        self._lock = threading.Lock()  # workers report from a thread of their own

    def show(self, event: Progress | StageEnded) -> None:
        with self._lock:
            super().show(event)
            if isinstance(event, StageEnded) or time.monotonic() - self._drawn > NOTEBOOK_EVERY_SECONDS:
                self._draw()

    def end(self) -> None:
        """Leaves the lines alone."""
        with self._lock:
            self.clear()
            if self._handle is not None:
                self._draw()

    def print_line(self, line: str) -> None:
        self._lines.append(line)

    def _draw(self) -> None:
        from IPython import display
        from rich.console import Group
        from rich.text import Text

        console = self.display.console
        console.print(Group(*map(Text, self._lines), *([self.display] if self._bars else [])))
        shown = {
            "text/plain": console.export_text(clear=False),
            "text/html": console.export_html(inline_styles=True, code_format=_HTML),
        }
        if isinstance(console.file, io.StringIO):  # nobody reads what it prints
            console.file.seek(0)
            console.file.truncate()
        if self._handle is None:
            show: Any = display.display
            self._handle = show(shown, raw=True, display_id=True)
        else:
            self._handle.update(shown, raw=True)
        self._drawn = time.monotonic()


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
