"""How many trainings run at once is tried, and decided by what was tried; nothing else follows from timing."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from proxyds import checking, pace
from proxyds.engine import Here, LocalWorkers
from proxyds.recipe import Training
from proxyds.records import Progress, Samples
from proxyds.space import measure_cost
from proxyds.store import Store
from proxyds.verification import Run, TrainingSet, run_task

SHAPE = (1, 8, 8)


@pytest.fixture
def run() -> Run:
    architecture = measure_cost("small", "resnet", {"depth": 8, "base_filters": 4, "multiplier": 1}, 2, SHAPE)
    ids = np.array([f"{number:064x}" for number in range(8)])
    samples = Samples(ids, np.arange(8) % 2, np.arange(8), ids, "train", Path("none.npy"), np.arange(8), "test")
    task = run_task(
        architecture, samples, samples, name="run", n_steps=3, n_labels=2, image_shape=SHAPE,
        settings=Training(batch_size=8), seed=1, device="cpu", arithmetic={},
    )  # fmt: skip
    return Run(architecture, TrainingSet("full", 1.0, None, 0, 8, samples, 3), 24, pace.MIN_FLOPS, task)


def test_every_number_is_tried_with_as_many_processes_at_once(run: Run) -> None:
    with LocalWorkers(0, at_most=2) as engine:
        assert engine.is_open == (engine.n_workers > 1)
        rates = pace.choose_workers(engine, run, "cpu")
        assert sorted(rates) == sorted({1, engine.n_workers} if engine.n_workers == 1 else {1, 2})
        assert all(rate > 0 for rate in rates.values())
        assert rates[engine.n_workers] == max(rates.values())
        assert not engine.is_open


@pytest.mark.parametrize(
    ("device", "at_most", "rates", "tried", "chosen"),
    [
        ("cpu", 8, {4: 90.0, 8: 80.0}, [8, 4, 8], 4),
        ("cpu", 8, {4: 90.0, 8: 95.0}, [8, 4, 8], 8),
        ("cuda", 8, {1: 10.0, 2: 19.0, 4: 25.0, 8: 24.0}, [8, 1, 2, 4, 8], 4),
        ("cuda", 3, {1: 10.0, 2: 9.0, 3: 11.0}, [3, 1, 2, 3], 3),
    ],
)
def test_the_number_that_sees_most_images_is_taken(
    device: str,
    at_most: int,
    rates: dict[int, float],
    tried: list[int],
    chosen: int,
    run: Run,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: list[int] = []

    def pretend(self: LocalWorkers, tasks: list, store: Store, on_progress: object) -> list:
        seen.append(len(tasks))
        for task in tasks:
            with store.writing(task.stage, task.key, task.name) as folder:
                (folder / "pace.json").write_text(json.dumps(rates[len(tasks)] / len(tasks)))
        return []

    monkeypatch.setattr(LocalWorkers, "run", pretend)
    engine = LocalWorkers(at_most)
    assert pace.choose_workers(engine, run, device)[chosen] == pytest.approx(rates[chosen])
    assert seen == tried
    assert engine.n_workers == chosen


def test_a_choice_is_made_where_it_repays_itself_and_nobody_else_has_made_it(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[Progress] = []
    monkeypatch.setattr(pace, "choose_workers", lambda engine, run, device: {1: 1234.4, 2: 2000.0})

    def choose(engine: LocalWorkers | Here, flops: int) -> int:
        told.clear()
        short = Run(run.architecture, run.training_set, run.n_seen, flops, run.task)
        checking._choose_workers(engine, [short], Store(tmp_path), "cpu", told.append)
        return len(told)

    assert choose(LocalWorkers(2), pace.MIN_FLOPS) == 0
    assert choose(Here(), pace.MIN_FLOPS) == 0
    engine = LocalWorkers()
    engine.is_open = True  # whatever this machine has
    assert choose(engine, pace.MIN_FLOPS - 1) == 0
    assert choose(engine, pace.MIN_FLOPS) == 1
    assert told == [Progress("pace", "", 1, 1, "images a second: 1 at once 1,234, 2 at once 2,000")]
