"""How many trainings run at once: decided by a few seconds of the network at hand, and the one thing that timing may decide.

As many processes as cores is right on most machines. Where two cores share their arithmetic, or many share one memory, half
as many are faster; on a GPU a small network leaves room for others.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

from proxyds.engine import LocalWorkers, Report, Task
from proxyds.records import Architecture, ignore_progress
from proxyds.store import Store
from proxyds.verification import Run, expect_image_seconds

STAGE = "pace"
MIN_FLOPS = 30_000_000_000_000
"""Work that repays the seconds of a choice: some minutes of one core."""


def choose_workers(engine: LocalWorkers, run: Run, device: str) -> dict[int, float]:
    """Trains one network in several numbers of processes at once, and limits the engine to the number that sees most images.

    Args:
        engine: With as many processes as there may be.
        run: Whose network is trained, for a few steps on made-up images.
        device: `cpu`: all cores and half of them are tried; a CUDA device: 1, 2, 4, ...

    Returns:
        Images a second of all processes together, by their number.
    """
    assert run.task is not None
    most, rates = engine.n_workers, {}
    numbers = sorted(
        {most, *(2**power for power in range(most.bit_length()))} if device != "cpu" else {max(1, most // 2), most}
    )
    with tempfile.TemporaryDirectory() as folder:
        store = Store(Path(folder))
        for turn, n_workers in enumerate([most, *numbers]):  # the first turn only starts the processes
            tasks = [_pace_task(run, f"turn {turn}, process {number}") for number in range(n_workers)]
            engine.run(tasks, store, ignore_progress)
            rates[n_workers] = sum(_read_pace(store, task) for task in tasks)
    engine.limit(max(rates, key=lambda n_workers: rates[n_workers]))
    return rates


def _pace_task(run: Run, name: str) -> Task:
    assert run.task is not None
    given = {what: run.task.arguments[what] for what in ("n_labels", "image_shape", "settings", "device")}
    return Task(STAGE, name, {"name": name}, measure_pace, {"architecture": run.architecture, **given})


def measure_pace(*, folder: Path, report: Report, architecture: Architecture, **given: Any) -> None:
    """Times a few steps; writes `pace.json`, images a second."""
    (folder / "pace.json").write_text(json.dumps(1 / expect_image_seconds(architecture, **given)))
    report(1, 1, "")


def _read_pace(store: Store, task: Task) -> float:
    entry = store.find(STAGE, task.key)
    assert entry is not None
    pace: float = json.loads((entry.folder / "pace.json").read_text())
    return pace
