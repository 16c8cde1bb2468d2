"""Progress on standard error: bars on a terminal, lines in a log."""

from __future__ import annotations

import io
import re
import sys
from types import SimpleNamespace

import pytest

from proxyds.cli.progress import show_progress
from proxyds.progress import Progress, StageEnded


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_log_says_that_a_task_waits_and_tells_the_time_left_from_when_it_began(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    seconds = iter([0, 0, 40, 80, 90])
    monkeypatch.setattr("proxyds.cli.progress.time", SimpleNamespace(monotonic=lambda: next(seconds)))
    with show_progress(quiet=False) as show:
        for done, total, note in [(0, 1, "waiting for another build"), (0, 1, "waiting for another build"), (1, 3, "")]:
            show(Progress("t", "a task", done, total, note))
        show(StageEnded("t", was_stored=True))
    waiting, begun, ended = capsys.readouterr().err.splitlines()
    assert waiting == "  a task: waiting for another build"
    assert begun == "  a task: 33%, about 1 min 20 s left"
    assert ended.startswith("t ")
    assert ended.endswith("found done")


def test_a_terminal_has_a_bar_for_each_task_and_keeps_a_line_for_each_stage(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    with show_progress(quiet=False) as show:
        show(Progress("probes", "[odd] probe", 1, 4, "loss 0.5"))
        show(Progress("probes", "[odd] probe", 2, 4, "loss 0.4"))
        show(StageEnded("probes"))
    shown = terminal.getvalue()
    assert "[odd] probe" in shown
    assert re.search(r"probes +\d\.\d s\n", shown)


def test_quiet_shows_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with show_progress(quiet=True) as show:
        show(StageEnded("probes"))
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("quiet", [True, False])
def test_a_warning_is_shown_in_any_case(capsys: pytest.CaptureFixture[str], quiet: bool) -> None:
    with show_progress(quiet=quiet) as show:
        show(StageEnded("probes", warning="too close: 96.1 % and 96.2 %"))
    assert capsys.readouterr().err.splitlines()[-1] == "warning: probes: too close: 96.1 % and 96.2 %"
