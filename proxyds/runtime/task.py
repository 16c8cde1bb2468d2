"""Tasks, and what every engine does with them: in this process, in local workers (`local.py`) or on a cluster (`ray.py`).

A task is a function that fills a folder with files; the engine runs those whose folder the store does not hold yet, and
commits each as it ends. Workers run one torch thread each, as many as there are cores: for small networks that beats one
run on all cores, results do not depend on the number of cores, and a busy core slows one run, not all.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Self, TypeVar

from proxyds.errors import TrainingError, WorkerDiedError
from proxyds.progress import OnProgress, Progress
from proxyds.runtime.storage.store import Entry, Store, content_key

_Answer = TypeVar("_Answer")

Report = Callable[[float, float, str], None]
"""What a task calls to show how far it is: units done, units in all, a figure worth seeing."""
REPORT_SECONDS = 0.2
"""Between reports of a task that runs in another process."""


@dataclass(frozen=True)
class Task:
    """One piece of work that can be stored.

    Attributes:
        stage: The stage it belongs to.
        name: What it is, for people.
        inputs: Everything that its result depends on, as JSON can hold it.
        function: Called with `folder`, `report` and the arguments; importable by name.
        arguments: For the function; must pickle. `device`, if there is one, says what it computes on.
        n_processes: Processes that work on it together, each with a part of every batch. Where there is one machine, one
            process does the parts in turns, with the same result.
    """

    stage: str
    name: str
    inputs: dict[str, Any]
    function: Callable[..., None]
    arguments: dict[str, Any]
    n_processes: int = 1

    @property
    def key(self) -> str:
        """The key under which the store keeps its result."""
        return content_key(self.stage, self.inputs)

    @property
    def device(self) -> str:
        """The device that it computes on."""
        return str(self.arguments.get("device", "cpu"))


@dataclass(frozen=True)
class Done:
    """A task's result.

    Attributes:
        entry: Its files.
        was_stored: Whether it had been done before.
    """

    entry: Entry
    was_stored: bool


@dataclass(frozen=True)
class Failure:
    """A task that could not be done.

    Attributes:
        task: Which.
        error: Why.
    """

    task: Task
    error: TrainingError


class Engine(ABC):
    """Runs tasks, within a `with` block that ends what it started.

    Attributes:
        n_workers: Tasks at once.
    """

    n_workers: int

    @abstractmethod
    def run(
        self, tasks: Sequence[Task], store: Store, on_progress: OnProgress, *, keep_going: bool = False
    ) -> list[Failure]:
        """Runs and stores every task.

        The first that fails stops the rest and finished ones stay stored; with `keep_going`, a network that cannot be
        trained stops nothing, and is returned.
        """

    def ask(self, device: str, function: Callable[..., _Answer], *arguments: object) -> _Answer:  # noqa: ARG002
        """Calls a function where tasks that compute on a device run, within the block: here, unless they run elsewhere."""
        return function(*arguments)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:  # noqa: B027 - in this process nothing runs on
        """Ends whatever still runs."""


WORKER_ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "OMP_WAIT_POLICY": "passive",  # threads that spin for each other stand still where a core is busy
    # glibc gives large memory back to the system and asks for it again at every step: 7,000 page faults, a tenth of the time
    "MALLOC_MMAP_THRESHOLD_": str(2**25),  # the most that older ones take
    "MALLOC_TRIM_THRESHOLD_": str(2**32),
}
"""What worker processes start with."""

RunTasks = Callable[[Sequence[Task]], list[Done]]
"""Runs the tasks that the store does not hold and returns every task's result in the order given: `run_stored` with the
store, the engine and the display already chosen."""


def run_stored(tasks: Sequence[Task], store: Store, engine: Engine, on_progress: OnProgress) -> list[Done]:
    """Runs the tasks that the store does not hold; returns every task's result in the order given."""
    results, _ = run_each(tasks, store, engine, lambda _: on_progress, keep_going=False)
    done = [result for result in results if result is not None]
    if len(done) < len(tasks):
        name = tasks[results.index(None)].name
        raise WorkerDiedError(f"{name}: the engine ended it without a result in {store.name}")
    return done


def run_each(
    tasks: Sequence[Task],
    store: Store,
    engine: Engine,
    watch: Callable[[Sequence[Task]], OnProgress],
    *,
    keep_going: bool = True,
) -> tuple[list[Done | None], list[Failure]]:
    """Runs the tasks that the store does not hold, whichever of them fail.

    Args:
        tasks: To do.
        store: Where results are kept.
        engine: Where tasks run.
        watch: Told which tasks are to be run; returns whom to tell of their progress.
        keep_going: See `Engine.run`.

    Returns:
        Every task's result in the order given, None where it failed; and the failures.
    """
    stored = [store.find(task.stage, task.key) for task in tasks]
    missing = {task.key: task for task, entry in zip(tasks, stored, strict=True) if entry is None}  # equal ones once
    failures = engine.run(list(missing.values()), store, watch(list(missing.values())), keep_going=keep_going)
    order = list(missing)
    failures.sort(key=lambda failure: order.index(failure.task.key))  # not as they happened to end
    results: list[Done | None] = []
    for task, before in zip(tasks, stored, strict=True):
        entry = before or store.find(task.stage, task.key)
        results.append(None if entry is None else Done(entry, was_stored=before is not None))
    return results, failures


def run_task(task: Task, store: Store, on_progress: Callable[[Progress], None]) -> None:
    """Does a task in this process and stores its result, unless another build does it meanwhile."""

    def report(done: float, total: float, note: str) -> None:
        on_progress(Progress(task.stage, task.name, done, total, note))

    with store.locking(task.stage, task.key, lambda: report(0, 1, "waiting for another build")) as is_missing:
        if is_missing:
            with store.writing(task.stage, task.key, task.name) as folder:
                task.function(folder=folder, report=report, **task.arguments)
        else:
            report(1, 1, "done by another build")
