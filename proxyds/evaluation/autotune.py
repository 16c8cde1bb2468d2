"""How many trainings run at once: decided by a few seconds of the networks at hand, and the one thing that timing may decide.

As many processes as cores is right on most machines. Where two cores share their arithmetic, or many share one memory, half
as many are faster; on a GPU a small network leaves room for others.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Sequence
from itertools import count
from pathlib import Path

import numpy as np

from proxyds.evaluation.runs import Run, named_without_memory
from proxyds.progress import ignore_progress
from proxyds.recipe.models import Training
from proxyds.runtime.local import LocalWorkers
from proxyds.runtime.storage.store import Store
from proxyds.runtime.task import Report, Task
from proxyds.space.architecture import Architecture
from proxyds.training.loop import TIMING_FLOPS, Epoch, train_network
from proxyds.training.model import make_network

STAGE = "pace"
MIN_FLOPS = 200_000_000_000_000
"""Work that repays the seconds of a choice: half an hour of one core."""
WARM_UP_SECONDS, SECONDS = 2.0, 2.0
"""Before images are counted, all processes having begun by then; and while they are."""
TURNS, GAIN = 2, 1.1
"""How often each number is tried, its best turn counting, since others may use the machine meanwhile; and how many times as fast
another number than the usual one must be."""


def choose_workers(engine: LocalWorkers, runs: Sequence[Run], device: str) -> dict[int, float]:
    """Trains a network of middling cost in several numbers of processes at once, and takes the number that sees most images.

    Usual are as many as there are cores, or one on a GPU: another number must be clearly better. On a GPU all share one memory: the number is halved until as many of the most expensive network fit in.

    Args:
        engine: Whose number is open; it runs as many from now on.
        runs: What is to be done.
        device: `cpu`: all cores and half of them are tried; a CUDA device: 1, 2, 4, ... up to `engine.up_to`.

    Returns:
        Images a second of all processes together, by their number; 0 where one of them failed.
    """
    by_cost = sorted((run for run in runs if run.task is not None), key=lambda run: run.architecture.training_flops)
    most, on_gpu = engine.up_to, device.startswith("cuda")
    usual = 1 if on_gpu else most
    numbers = {most, *(2**power for power in range(most.bit_length()))} if on_gpu else {max(1, most // 2), most}
    engine.resize(most)
    with tempfile.TemporaryDirectory() as folder:
        store, turns = Store(Path(folder)), count()
        _try(engine, by_cost[0], most, store, next(turns))  # starts the processes
        rates = dict.fromkeys(sorted(numbers), 0.0)
        for n in TURNS * list(rates):
            rates[n] = max(rates[n], _try(engine, by_cost[len(by_cost) // 2], n, store, next(turns)))
        best = max(rates, key=lambda n: rates[n] * (GAIN if n == usual else 1)) if any(rates.values()) else usual
        while on_gpu and best > 1 and not _try(engine, by_cost[-1], best, store, next(turns)):
            best //= 2
    engine.resize(best)
    return rates


def _try(engine: LocalWorkers, run: Run, n: int, store: Store, turn: int) -> float:
    """Images a second of n processes that train the same network; 0 where one of them failed."""
    assert run.task is not None
    given = {what: run.task.arguments[what] for what in ("n_labels", "image_shape", "settings", "device")}
    window = {"counted_from": time.time() + WARM_UP_SECONDS}
    tasks = [
        Task(
            STAGE, f"{n} at once", {"turn": turn, "process": i}, measure_pace,
            {"architecture": run.architecture, **given, **window},
        )
        for i in range(n)
    ]  # fmt: skip
    if engine.run(tasks, store, ignore_progress, keep_going=True):
        return 0.0
    found = [store.find(STAGE, task.key) for task in tasks]
    return float(sum(json.loads((entry.folder / "pace.json").read_text()) for entry in found if entry is not None))


def measure_pace(
    *,
    folder: Path,
    report: Report,
    architecture: Architecture,
    n_labels: int,
    image_shape: tuple[int, int, int],
    settings: Training,
    device: str,
    counted_from: float,
) -> None:
    """Trains on made-up images, in epochs of a step or a few, and writes `pace.json`: images a second.

    Counted are the epochs that end within `SECONDS` after `counted_from` (Unix time), in all processes the same.

    Raises:
        TrainingError: There is not memory enough.
    """
    batch_size, n_steps = settings.batch_size, 20
    if device == "cpu":
        batch_size, n_steps = int(np.clip(TIMING_FLOPS // architecture.training_flops, 2, batch_size)), 1
    rng, n = np.random.default_rng(0), n_steps * batch_size
    pixels, labels = rng.integers(0, 256, (n, *image_shape), np.uint8), rng.integers(0, n_labels, n)
    network = make_network(architecture.network, architecture.parameters, n_labels, image_shape, seed=0)
    ends: list[float] = []

    def note(index: int, epoch: Epoch) -> None:  # noqa: ARG001
        ends.append(time.time())
        if ends[-1] > counted_from + SECONDS:
            raise _EnoughError

    endless = settings.model_copy(update={"epochs": 10**9, "batch_size": batch_size, "learning_rate": 1e-6})
    try:
        with named_without_memory(architecture.name, settings, device):
            train_network(network, pixels, labels, endless, seed=0, device=device, on_epoch=note)
    except _EnoughError:
        pass
    within = [end for end in ends if end >= counted_from]
    epochs_a_second = (len(within) - 1) / (within[-1] - within[0]) if len(within) > 1 else 1 / SECONDS
    (folder / "pace.json").write_text(json.dumps(n * epochs_a_second))
    report(1, 1, "")


class _EnoughError(Exception):
    """The time is over."""
