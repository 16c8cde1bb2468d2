"""Tasks for the engine's tests; worker processes import this file."""

from __future__ import annotations

import errno
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import torch

from proxyds.errors import DivergedError


def write_text(*, folder: Path, report: Callable[[float, float, str], None], text: str, ran: Path) -> None:
    report(1, 2, "half")
    (folder / "text").write_text(text)
    with ran.open("a") as log:
        log.write(f"{text}\n")
    report(2, 2, "done")


def count_threads(*, folder: Path, report: Callable[[float, float, str], None]) -> None:
    (folder / "threads").write_text(f"{torch.get_num_threads()} {os.environ.get('OMP_WAIT_POLICY')}")


def say_pid(*, folder: Path, report: Callable[[float, float, str], None]) -> None:
    (folder / "pid").write_text(str(os.getpid()))


def diverge(*, folder: Path, report: Callable[[float, float, str], None]) -> None:
    raise DivergedError("probe x: the training loss must stay finite")


def fill_the_disk(*, folder: Path, report: Callable[[float, float, str], None]) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def die(*, folder: Path, report: Callable[[float, float, str], None]) -> None:
    (folder / "half").write_text("1")
    os.kill(os.getpid(), signal.SIGKILL)


def sleep(*, folder: Path, report: Callable[[float, float, str], None], started: Path) -> None:
    started.write_text(str(os.getpid()))
    time.sleep(60)
