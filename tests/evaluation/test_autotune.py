"""How many trainings run at once is tried, and decided by what was tried; nothing else follows from timing."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from proxyds.data.samples import Samples
from proxyds.errors import TrainingError
from proxyds.evaluation import autotune as pace
from proxyds.evaluation.runs import Run, TrainingSet, run_task
from proxyds.pipeline import check as checking
from proxyds.progress import Progress
from proxyds.recipe.models import Training
from proxyds.runtime.local import InProcess, LocalWorkers
from proxyds.runtime.storage.store import Store
from proxyds.runtime.task import Failure
from proxyds.space.cost import measure_cost

SHAPE = (1, 8, 8)


@pytest.fixture
def run() -> Run:
    architecture = measure_cost("small", "resnet", {"depth": 8, "base_filters": 4, "multiplier": 1}, 2, SHAPE)
    ids = np.array([f"{number:064x}" for number in range(8)])
    samples = Samples(ids, np.arange(8) % 2, np.arange(8), ids, "train", (), (), np.arange(8), "test")
    task = run_task(
        architecture, samples, samples, name="run", n_steps=3, n_labels=2, image_shape=SHAPE,
        settings=Training(batch_size=8), seed=1, device="cpu", arithmetic={},
    )  # fmt: skip
    return Run(architecture, TrainingSet("full", 1.0, None, 0, 8, samples, 3), 24, pace.MIN_FLOPS, task)


def test_every_number_is_tried_with_as_many_processes_at_once(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pace, "WARM_UP_SECONDS", 1.0)
    with LocalWorkers(1, up_to=2) as engine:
        rates = pace.choose_workers(engine, [run], "cpu")
        assert sorted(rates) == [1, 2]
        assert all(rate > 0 for rate in rates.values())
        assert engine.n_workers == (1 if rates[1] > pace.GAIN * rates[2] else 2)


PACES = {
    "half the cores": ("cpu", 8, {4: 90.0, 8: 80.0}, {}, 4),
    "all cores, since half are hardly better": ("cpu", 8, {4: 90.0, 8: 83.0}, {}, 8),
    "all cores": ("cpu", 8, {4: 90.0, 8: 95.0}, {}, 8),
    "all cores, since nothing worked": ("cpu", 8, {4: 0.0, 8: 0.0}, {}, 8),
    "four on a GPU": ("cuda", 8, {1: 10.0, 2: 19.0, 4: 25.0, 8: 24.0}, {4: 1.0}, 4),
    "of the largest only two fit": ("cuda", 8, {1: 10.0, 2: 19.0, 4: 25.0, 8: 0.0}, {4: 0.0, 2: 1.0}, 2),
    "of the largest only one fits": ("cuda:1", 3, {1: 10.0, 2: 19.0, 3: 9.0}, {2: 0.0}, 1),
    "one, since two are hardly better": ("cuda", 2, {1: 10.0, 2: 10.9}, {2: 1.0}, 1),
    "one, since nothing worked": ("cuda", 3, {1: 0.0, 2: 0.0, 3: 0.0}, {}, 1),
}


@pytest.mark.parametrize("case", PACES)
def test_the_number_that_sees_most_images_is_taken(case: str, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    device, up_to, rates, of_largest, chosen = PACES[case]
    small = replace(run, architecture=replace(run.architecture, training_flops=1))
    large = replace(run, architecture=replace(run.architecture, name="large", training_flops=9))

    def pretend(self: LocalWorkers, tasks: list, store: Store, on_progress: object, *, keep_going: bool) -> list:
        assert keep_going
        assert self.n_workers == up_to
        is_large = tasks[0].arguments["architecture"].name == "large"
        rate = (of_largest if is_large else rates).get(len(tasks), 1.0)
        for task in tasks if rate else ():
            with store.writing(task.stage, task.key, task.name) as folder:
                (folder / "pace.json").write_text(json.dumps(rate / len(tasks)))
        return [] if rate else [Failure(tasks[0], TrainingError("does not fit"))]

    monkeypatch.setattr(LocalWorkers, "run", pretend)
    engine = LocalWorkers(1, up_to)
    assert pace.choose_workers(engine, [large, small, small], device) == pytest.approx(rates)
    assert engine.n_workers == chosen


def test_a_choice_is_made_where_it_repays_itself_and_nobody_else_has_made_it(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[Progress] = []
    monkeypatch.setattr(pace, "choose_workers", lambda engine, runs, device: {1: 1234.4, 2: 2000.0})

    def choose(engine: LocalWorkers | InProcess, flops: int) -> int:
        told.clear()
        checking._choose_workers(engine, [replace(run, flops=flops)], Store(tmp_path), "cpu", told.append)
        return len(told)

    assert choose(LocalWorkers(2), pace.MIN_FLOPS) == 0
    assert choose(InProcess(), pace.MIN_FLOPS) == 0
    assert choose(LocalWorkers(2, up_to=2), pace.MIN_FLOPS - 1) == 0
    assert choose(LocalWorkers(2, up_to=2), pace.MIN_FLOPS) == 1
    assert told == [Progress("pace", "", 1, 1, "images a second: 1 at once 1,234, 2 at once 2,000; now 2 at once")]
