"""Tasks for the engine's tests; worker processes import this file."""

from __future__ import annotations

import errno
import os
import resource
import signal
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from proxyds.errors import DivergedError
from proxyds.recipe.models import Training
from proxyds.training.loop import train_network
from proxyds.training.model import make_network


def write_text(*, folder: Path, report: Callable[[float, float, str], None], text: str, ran: Path) -> None:
    report(1, 2, "half")
    (folder / "text").write_text(text)
    with ran.open("a") as log:
        log.write(f"{text}\n")
    report(2, 2, "done")


def count_threads(*, folder: Path, report: Callable[[float, float, str], None]) -> None:
    (folder / "threads").write_text(f"{torch.get_num_threads()} {os.environ.get('OMP_WAIT_POLICY')}")


def count_faults(*, folder: Path, report: Callable[[float, float, str], None]) -> None:
    """Trains a network with layers of megabytes and counts the pages that the system has to give in its last steps."""
    rng, counts = np.random.default_rng(0), []
    pixels, labels = rng.integers(0, 256, (256, 3, 32, 32), np.uint8), rng.integers(0, 10, 256)
    network = make_network("resnet", {"depth": 14, "base_filters": 8}, 10, (3, 32, 32), 0)

    def note(*_: object) -> None:
        counts.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt)

    train_network(network, pixels, labels, Training(epochs=6, batch_size=128, crop_padding=4), seed=0, on_epoch=note)
    (folder / "faults").write_text(str((counts[5] - counts[2]) / 6))


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


def write_device(
    *, folder: Path, report: Callable[[float, float, str], None], device: str, others: Path, n: int
) -> None:
    """Waits until `n` of its kind run at once, and says which GPU it was given."""
    (others / f"{os.getpid()}").touch()
    deadline = time.monotonic() + 60
    while len(list(others.iterdir())) < n:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    (folder / "device").write_text(f"{device} {os.environ['CUDA_VISIBLE_DEVICES']}")


def fail_at_first(*, folder: Path, report: Callable[[float, float, str], None], tries: Path, n_deaths: int) -> None:
    """Kills its process as often as is asked, then ends well."""
    with tries.open("a") as log:
        log.write("x")
    if len(tries.read_text()) <= n_deaths:
        os.kill(os.getpid(), signal.SIGKILL)
    (folder / "text").write_text("at last")


def add_up(
    *,
    folder: Path,
    report: Callable[[float, float, str], None],
    device: str,
    ran: Path,
    trouble: bool,
    weights: np.ndarray,
) -> None:
    """Adds the numbers of the processes that work on it, each having brought its own."""
    import torch.distributed as dist

    rank, n = dist.get_rank(), dist.get_world_size()
    with ran.open("a") as log:
        log.write(f"{rank}\n")
    dist.barrier()
    n_tries = len(ran.read_text().splitlines()) // n
    if trouble and n_tries == 1 and rank == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    if trouble and n_tries > 1 and rank == 0:
        raise DivergedError("probe x: the training loss must stay finite")
    total = torch.tensor([rank + 1])
    dist.all_reduce(total)
    report(1, 1, "added")
    (folder / "total").write_text(f"{int(total)} of {n} with {torch.get_num_threads()} on {device}")


def write_slowly(*, folder: Path, report: Callable[[float, float, str], None], seconds: float, ran: Path) -> None:
    """Leaves a line in `ran`, then takes its time."""
    with ran.open("a") as log:
        log.write(f"{os.getpid()}\n")
    time.sleep(seconds)
    (folder / "text").write_text("slow")
