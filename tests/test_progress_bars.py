"""Progress: bars on a terminal and in a notebook, lines in a log; a cell that is interrupted leaves what can go on."""

from __future__ import annotations

import io
import os
import re
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from proxyds.errors import ArgumentError
from proxyds.progress import OnProgress, Progress, StageEnded, ignore_progress
from proxyds.progress_bars import show_progress, showing_progress, without_datasets_bars


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_log_says_that_a_task_waits_and_tells_the_time_left_from_when_it_began(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    seconds = iter([0, 0, 40, 80, 90])
    monkeypatch.setattr("proxyds.progress_bars.time", SimpleNamespace(monotonic=lambda: next(seconds)))
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


@showing_progress
def work(on_progress: OnProgress = ignore_progress, quiet: bool | None = None) -> None:
    on_progress(Progress("probes", "a probe", 1, 4))
    on_progress(StageEnded("probes", warning="odd"))


def test_python_callers_see_progress_on_a_terminal_unless_they_ask_for_quiet(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    work()
    assert capsys.readouterr().err == "warning: probes: odd\n"
    work(quiet=False)
    assert capsys.readouterr().err.startswith("probes ")
    heard: list[Any] = []
    work(on_progress=heard.append)
    assert len(heard) == 2
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(sys, "stderr", Terminal())
    monkeypatch.setenv("TERM", "xterm")
    work()
    assert "a probe" in sys.stderr.getvalue()  # type: ignore[attr-defined]
    monkeypatch.setattr(sys, "stderr", Terminal())
    work(quiet=True)
    assert sys.stderr.getvalue() == "warning: probes: odd\n"  # type: ignore[attr-defined]
    with pytest.raises(ArgumentError):
        work(quiet="yes")  # type: ignore[arg-type]


def test_the_bars_of_datasets_come_back_after_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    monkeypatch.delenv("HF_DATASETS_DISABLE_PROGRESS_BARS")
    own = sys.modules["datasets.utils.tqdm"]
    monkeypatch.setattr(own, "HF_DATASETS_DISABLE_PROGRESS_BARS", None)
    monkeypatch.setattr(own, "_hf_datasets_progress_bars_disabled", False)
    with without_datasets_bars():
        assert datasets.are_progress_bars_disabled()
    assert not datasets.are_progress_bars_disabled()


class Kernel:
    """A real kernel, as a notebook has it."""

    def __init__(self, folder: Path) -> None:
        from jupyter_client.manager import KernelManager

        self._manager = KernelManager(transport="ipc", ip=str(folder / "kernel"))
        environment = {**os.environ, "PROXYDS_STORE": str(folder / "store"), "PYTHONPATH": str(Path.cwd())}
        self._manager.start_kernel(cwd=str(folder), env=environment)
        self._client = self._manager.client()
        self._client.start_channels()
        self._client.wait_for_ready(timeout=300)

    def run(self, code: str, interrupt_at: str = "") -> list[tuple[str, str]]:
        """Runs a cell; returns its outputs: kind, and text. Interrupts it twice once an output holds a text."""
        asked, outputs = self._client.execute(code), []
        while True:
            message = self._client.get_iopub_msg(timeout=300)
            kind, content = message["msg_type"], message["content"]
            if message["parent_header"].get("msg_id") != asked:
                continue
            if kind == "status" and content["execution_state"] == "idle":
                return outputs
            if kind not in ("display_data", "update_display_data", "stream", "error"):
                continue
            text = content.get("text") or content.get("ename") or content.get("data", {}).get("text/plain", "")
            outputs.append((kind, text))
            if interrupt_at and interrupt_at in text:
                for _ in range(2):
                    self._manager.interrupt_kernel()
                    time.sleep(0.05)
                interrupt_at = ""

    def end(self) -> None:
        self._client.stop_channels()
        self._manager.shutdown_kernel(now=True)


@pytest.fixture
def kernel(tmp_path: Path) -> Iterator[Kernel]:
    pytest.importorskip("ipykernel")
    started = Kernel(tmp_path)
    yield started
    started.end()


@pytest.mark.e2e
def test_an_interrupted_cell_ends_its_workers_and_goes_on_when_it_is_run_again(kernel: Kernel, tmp_path: Path) -> None:
    kernel.run(
        "import proxyds, multiprocessing\n"
        "space = {'network': 'resnet', 'choices': {'depth': 8, 'base_filters': [4, 8]}}\n"
        "def build(epochs, **options):\n"
        "    training = {'epochs': epochs, 'batch_size': 32, 'learning_rate': 0.02}\n"
        "    recipe = proxyds.Recipe(name='tiny', source={'kind': 'digits'}, space=space, ratio=0.1, training=training)\n"
        "    return proxyds.build(recipe, 'proxy', device='cpu', workers=2, **options)\n"
    )
    outputs = kernel.run("build(1000)", interrupt_at="probe")
    assert ("error", "KeyboardInterrupt") in outputs
    assert any("Finished work is kept" in text for _, text in outputs)
    (_, workers), *_ = kernel.run("print(len(multiprocessing.active_children()))")
    assert workers == "0\n"
    assert not (tmp_path / "proxy").exists()
    outputs = kernel.run("built = build(2)")
    others = [each for each in outputs if each[0] != "update_display_data"]
    assert [kind for kind, _ in others] == ["display_data"], others  # one output, drawn anew
    assert (
        re.match(r"source .*found done.*\nspace .*\nprobes ", outputs[-1][1], re.DOTALL) or "source" in outputs[-1][1]
    )
    assert kernel.run("built = build(2, quiet=True)") == []
