"""Tasks on a Ray cluster: one native Ray task for each, with its CPU and its share of a GPU.

Ray queues what has no room yet, and a task that kills its worker kills no other. What it does not do is done here: nothing is
started that can never run, what was lost is done again a bounded number of times and then named, and a node that would keep
its results to itself, or compute otherwise than the others, is refused before it does. Ray is imported with this module.
"""

from __future__ import annotations

import math
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Any, TypeVar, cast
from uuid import uuid4

# Ray reads both when it is imported
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is sent to anybody
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "1")  # a task without a GPU sees none, without a warning

import ray
from ray import cloudpickle
from ray.exceptions import RayError, RayTaskError

from proxyds.errors import (
    DeviceError,
    MissingExtraError,
    OutputError,
    RemoteError,
    SourceNotFoundError,
    TrainingError,
    WorkerDiedError,
)
from proxyds.progress import OnProgress, Progress
from proxyds.runtime.local import without_interrupts
from proxyds.runtime.ray_worker import (
    SHARED,
    Assignment,
    LostError,
    Mailbox,
    answer_question,
    describe_computing,
    work,
    work_together,
)
from proxyds.runtime.storage.store import LOCKS, Store
from proxyds.runtime.task import WORKER_ENVIRONMENT, Engine, Failure, Task
from proxyds.space.networks.plugins import list_code
from proxyds.text import first_line

_Answer = TypeVar("_Answer")

TRIES = 3
"""How often a task is begun before it is given up."""
LARGE_BYTES = 100_000
"""Arguments that are larger travel once to a node, however many of its tasks share them."""
POLL_SECONDS, LOOK_SECONDS = 0.2, 5.0
"""Between looks at what ended and what was said; and at the nodes."""
PATIENCE_SECONDS = 60.0
"""How long what cannot run any more waits for a node to come back; and a result on a shared disk to be seen from here."""


class RayCluster(Engine):
    """Runs tasks on a Ray cluster. Connects at once, and disconnects at the end of the block.

    Args:
        device: `cpu`, `cuda`, or `auto` for CUDA where the cluster has a GPU.
        address: `host:port` or `ray://host:port`; None for `RAY_ADDRESS`, or the cluster that runs on this machine, or one
            that is started for the block. A program that has called `ray.init` is taken as it is.
        workers: Tasks at once; 0 for as many as there is room for.
        gpus_per_task: Of each task that computes on a GPU: a share, or a whole number.

    Attributes:
        device: What `auto` has become.
        n_workers: Tasks at once.

    Raises:
        RemoteError: There is no cluster at the address.
        DeviceError: It has no such device, or none that gives a task so much of it.
    """

    def __init__(
        self, device: str = "auto", address: str | None = None, workers: int = 0, gpus_per_task: float = 1.0
    ) -> None:
        if device not in ("auto", "cpu", "cuda"):
            raise DeviceError(
                f"device: must be auto, cpu or cuda on a cluster, which chooses among its GPUs, got {device!r}"
            )
        if not gpus_per_task > 0 or (gpus_per_task > 1 and gpus_per_task % 1):
            raise DeviceError(
                f"gpus_per_task: must be a share of a GPU such as 0.25, or a whole number of them, got {gpus_per_task:g}"
            )
        self._workers, self._gpus_per_task = workers, gpus_per_task
        self._mailbox: Any = None
        self._mail: Any = None  # what was asked of it last
        self._n_started = 0  # so that a task that is begun again is told apart from its first try
        self._computing: dict[str, dict[str, str]] = {}
        self._owns_connection = _connect(address)
        try:
            has_gpus = _count_room(self._needs("cuda")) > 0
            self.device = device if device != "auto" else "cuda" if has_gpus else "cpu"
            self._require_room(f"device {device}", self._needs(self.device))
        except BaseException:
            self.__exit__()
            raise
        room = _count_room(self._needs(self.device))
        self.n_workers = min(workers or room, room)

    def __exit__(self, *exception: object) -> None:
        with without_interrupts():
            self._mailbox = None
            if self._owns_connection:
                ray.shutdown()

    def ask(self, device: str, function: Callable[..., _Answer], *arguments: object) -> _Answer:
        """See `Engine.ask`."""
        needs = self._needs(device)
        require_room = partial(self._require_room, "a question to a node", needs)
        require_room()
        remote = _remote(answer_question, needs, max_retries=TRIES - 1)
        try:
            answer, stuck_since = remote.remote(list_code(), function, arguments), None
            while not ray.wait([answer], timeout=LOOK_SECONDS)[0]:
                stuck_since = self._look_for_room(stuck_since, require_room)
            return cast(_Answer, ray.get(answer))
        except RayError as error:
            if isinstance(error, RayTaskError) and not isinstance(error.cause, RayError):
                raise error.cause from error
            raise _died("a question to a node of the cluster", error) from error

    def run(
        self, tasks: Sequence[Task], store: Store, on_progress: OnProgress, *, keep_going: bool = False
    ) -> list[Failure]:
        """See `Engine.run`. What is lost with its worker or node is begun again, `TRIES` times in all.

        After an error nothing more can be run in the block: where this made the connection, it has ended it.

        Raises:
            WorkerDiedError: A task was lost each time, and not `keep_going`.
            DeviceError: A task can never run: the cluster has not what it needs.
            OutputError: A node does not see the store.
        """
        if not tasks:
            return []
        self._require_room_for(tasks)
        for device in sorted({task.device for task in tasks}):
            self._ask_computing(device)  # before tasks take all the room
        with _with_marker(store) as (store, marker):
            return self._run(tasks, store, marker, _Display(on_progress), keep_going)

    def _run(
        self, tasks: Sequence[Task], store: Store, marker: Path | None, display: _Display, keep_going: bool
    ) -> list[Failure]:
        packed = _Packed()
        waiting = list(range(len(tasks)))[::-1]  # positions of tasks, the next one last
        tries, running = [0] * len(tasks), dict[Any, tuple[int, int]]()
        failures: list[Failure] = []
        looked, stuck_since = time.monotonic(), None
        try:
            while waiting or running:
                # Ray is given some more than there is room for, so that nobody waits for this process
                window = self._workers or 2 * max(1, _count_room({"CPU": 1}))
                while waiting and len(running) < window:
                    i = waiting.pop()
                    tries[i] += 1
                    ref = self._start(tasks[i], store, marker, packed)
                    running[ref] = (i, self._n_started)
                ended, _ = ray.wait(list(running), timeout=POLL_SECONDS)
                display.show(self._read_mail(), {number for _, number in running.values()})
                for ref in ended:
                    i, number = running.pop(ref)
                    task, (last, error, lost) = tasks[i], _end_of(ref)
                    if lost is not None:
                        store.sweep()
                        if tries[i] < TRIES:
                            waiting.append(i)
                            continue
                        error = _died(task.name, lost)
                        error.__cause__ = lost
                    if error is None:
                        _await_entry(task, store)
                        display.end(number, last)
                    elif isinstance(error, TrainingError) and keep_going:
                        failures.append(Failure(task, error))
                    else:
                        raise error
                if time.monotonic() - looked > LOOK_SECONDS:
                    looked = time.monotonic()
                    left = [tasks[i] for i in (*waiting, *(i for i, _ in running.values()))]
                    stuck_since = self._look_for_room(stuck_since, partial(self._require_room_for, left))
        except BaseException:
            with without_interrupts():  # a second Ctrl-C must not stop the cleaning up
                self._stop(list(running))
                store.sweep()
            raise
        if display.error is not None:
            raise display.error
        return failures

    def _stop(self, refs: list[Any]) -> None:
        """Ends what runs, at once."""
        if self._owns_connection:
            ray.shutdown()  # ends all that was begun; `ray.cancel` may abort this process when a task ends meanwhile (ray#54738)
            return
        for ref in refs:
            with suppress(RayError, ValueError):
                ray.cancel(ref, force=True)
        if refs:
            ray.wait(refs, num_returns=len(refs), timeout=10)

    def _start(self, task: Task, store: Store, marker: Path | None, packed: _Packed) -> Any:
        """Hands a task to Ray; returns the reference to its end."""
        self._n_started += 1
        needs, computing = self._needs(task.device), self._ask_computing(task.device)
        small, large = packed.split(task.arguments)
        task, mailbox = replace(task, arguments=small), self._find_mailbox()
        assignment = Assignment(task, store, marker, computing, list_code(), mailbox, self._n_started)
        if task.n_processes == 1:
            return _remote(work, needs).remote(assignment, **large)
        return _remote(work_together, {"CPU": 0}).remote(assignment, needs, **large)

    def _needs(self, device: str) -> dict[str, float]:
        return {"CPU": 1, "GPU": self._gpus_per_task} if device.startswith("cuda") else {"CPU": 1}

    def _require_room(self, what: str, needs: Mapping[str, float], n_processes: int = 1) -> None:
        if _count_room(needs) < n_processes:
            wanted = f"{n_processes} times {_show(needs)}" if n_processes > 1 else f"a node with {_show(needs)}"
            nodes = "; ".join(_show(node) for node in _list_nodes()) or "none"
            raise DeviceError(
                f"{what}: needs {wanted}, the cluster's nodes have: {nodes}; add such a node"
                + (", or take a smaller gpus_per_task (--gpus-per-task), or the device cpu" if "GPU" in needs else "")
            )

    def _require_room_for(self, tasks: Sequence[Task]) -> None:
        kinds = {(task.device, task.n_processes): task.name for task in tasks}
        for (device, n_processes), name in kinds.items():
            self._require_room(name, self._needs(device), n_processes)

    def _look_for_room(self, stuck_since: float | None, require_room: Callable[[], None]) -> float | None:
        """Returns since when something could not run even if nothing else did; raises where that lasts."""
        try:
            require_room()
        except DeviceError:
            if stuck_since is not None and time.monotonic() - stuck_since > PATIENCE_SECONDS:
                raise
            return stuck_since or time.monotonic()
        return None

    def _ask_computing(self, device: str) -> dict[str, str]:
        if device not in self._computing:
            self._computing[device] = self.ask(device, describe_computing, device)
        return self._computing[device]

    def _find_mailbox(self) -> Any:
        if self._mailbox is None:
            # it loses what it holds when its node does, and nothing waits for it: reports are worth no more
            options = {"num_cpus": 0, "max_restarts": -1, "runtime_env": {"env_vars": WORKER_ENVIRONMENT}}
            self._mailbox = ray.remote(Mailbox).options(**options).remote()
            self._mail = self._mailbox.take.remote()
        return self._mailbox

    def _read_mail(self) -> list[tuple[int, Progress]]:
        """Reads what tasks have reported since, as far as it is here."""
        if not ray.wait([self._mail], timeout=0)[0]:
            return []
        try:
            return cast(list[tuple[int, Progress]], ray.get(self._mail))
        except RayError:
            return []  # on its way to another node
        finally:
            self._mail = self._mailbox.take.remote()


class _Display:
    """Passes reports on; one that fails stops nothing, and is kept."""

    def __init__(self, on_progress: OnProgress) -> None:
        self._on_progress = on_progress
        self._last: dict[int, Progress] = {}
        self.error: Exception | None = None

    def show(self, reports: Sequence[tuple[int, Progress]], running: set[int]) -> None:
        """Shows what tasks reported, but for those that have ended since: their last word was shown."""
        for number, progress in reports:
            if number in running:
                self._last[number] = progress
                self._pass_on(progress)

    def end(self, number: int, last: Progress | None) -> None:
        """Shows a task's last word, which may have got lost on its way."""
        before = self._last.pop(number, None)
        if last is None and before is not None:
            last = replace(before, done=before.total)
        if last is not None:
            self._pass_on(last)

    def _pass_on(self, progress: Progress) -> None:
        try:
            self._on_progress(progress)
        except Exception as error:  # noqa: BLE001 - raised again by `RayCluster.run`
            self.error = self.error or error


class _Packed:
    """Arguments that many tasks share, in Ray's object store once."""

    def __init__(self) -> None:
        # by identity; the argument is kept, or its number would be given away
        self._references: dict[int, tuple[object, Any]] = {}

    def split(self, arguments: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        """Splits arguments into small ones, which travel with a task, and references to the pickles of large ones."""
        small, large = dict[str, Any](), dict[str, Any]()
        for name, value in arguments.items():
            if id(value) not in self._references:
                # pickled here: Ray would give arrays that cannot be written to, which those of local workers can
                pickled = cloudpickle.dumps(value)
                self._references[id(value)] = (value, ray.put(pickled) if len(pickled) > LARGE_BYTES else None)
            _, ref = self._references[id(value)]
            (small if ref is None else large)[name] = value if ref is None else ref
        return small, large


@contextmanager
def _keeping_handlers() -> Iterator[None]:
    """Keeps who handles SIGTERM: Ray puts its own handler there, which ends the process without a word."""
    is_main = threading.current_thread() is threading.main_thread()
    before = signal.getsignal(signal.SIGTERM) if is_main else None
    try:
        yield
    finally:
        if before is not None:
            signal.signal(signal.SIGTERM, before)


def _connect(address: str | None) -> bool:
    """Connects this process to a cluster; returns whether it was not connected before."""
    if ray.is_initialized():
        return False
    where, quiet = address or os.environ.get("RAY_ADDRESS", ""), {"log_to_driver": False, "logging_level": "error"}
    try:
        _check_port(where)
        with _keeping_handlers():
            ray.init(address, **quiet, **({} if address and "://" in address else {"include_dashboard": False}))
    except Exception as error:
        if isinstance(error, ImportError) or "ray[client]" in str(error):
            raise MissingExtraError(
                f"engine {address}: must have Ray's client, which is not installed: pip install 'ray[client]=={ray.__version__}'"
            ) from error
        ray.shutdown()
        raise RemoteError(
            f"engine: must reach a Ray cluster, {where or 'on this machine'} is none that answers: {first_line(error)}; start one with "
            "`ray start --head`, or give its address as engine: ray:HOST:PORT, from elsewhere ray://HOST:10001 (with "
            "ray[client] installed there and here); where it asks for a token, set RAY_AUTH_MODE=token"
        ) from error
    return True


def _check_port(address: str) -> None:
    """Makes sure that somebody answers at an address: Ray itself waits for many minutes."""
    host, _, port = address.rpartition("://")[2].rpartition(":")
    if host and port.isdecimal():
        socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()


def _remote(function: Callable[..., Any], needs: Mapping[str, float], max_retries: int = 0) -> Any:
    """Makes a Ray task of a function, in a process with the environment of workers."""
    return _as_remote(function).options(
        num_cpus=needs["CPU"],
        num_gpus=needs.get("GPU", 0),
        max_retries=max_retries,
        runtime_env={"env_vars": WORKER_ENVIRONMENT},
    )


_as_remote = cache(ray.remote)  # it is sent to the cluster once


def _list_nodes() -> list[dict[str, float]]:
    """Lists the CPUs and GPUs of each node that is there."""
    return [{what: node["Resources"].get(what, 0) for what in ("CPU", "GPU")} for node in ray.nodes() if node["Alive"]]


def _count_room(needs: Mapping[str, float]) -> int:
    """Counts the tasks of such needs that the whole cluster can run at once."""
    return sum(min(math.floor(node[what] / amount + 1e-6) for what, amount in needs.items()) for node in _list_nodes())


def _show(resources: Mapping[str, float]) -> str:
    return ", ".join(f"{amount:g} {what}" for what, amount in resources.items())


def _end_of(ref: Any) -> tuple[Progress | None, BaseException | None, BaseException | None]:
    """Tells how a task ended: what it reported last; the error that it raised; why it was lost."""
    try:
        return ray.get(ref), None, None
    except RayTaskError as error:
        cause = error.cause
        if isinstance(cause, (RayError, LostError)):
            return None, None, cause
        if isinstance(cause, FileNotFoundError):
            cause = SourceNotFoundError(
                f"{cause.filename}: must be there on every node of the cluster, a node does not see it; keep the source and what else is "
                "read on a disk that all nodes share"
            )
        cause.__cause__ = RuntimeError(f"on a node of the cluster:\n{error}")  # the trace is of there
        return None, cause, None
    except RayError as error:
        return None, None, error


def _died(name: str, why: BaseException) -> WorkerDiedError:
    return WorkerDiedError(
        f"{name}: its worker process or node was lost, the last of {TRIES} times by {type(why).__name__} (killed, out of memory, or cut "
        "off); finished work is kept: give it more memory, or take fewer workers (--workers), and run it again"
    )


def _await_entry(task: Task, store: Store) -> None:
    """Makes sure that the driver sees what a task has left in the store; a network file system may take a while."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while store.find(task.stage, task.key) is None:
        if time.monotonic() > deadline:
            raise OutputError(
                f"{task.name}: its result must be seen in the store, it is not: {SHARED}, and nobody may clear it meanwhile"
            )
        for folder in () if store.is_remote else (store.root, store.root / task.stage):
            with suppress(FileNotFoundError):
                list(folder.iterdir())  # what was not there a while ago is then asked for again
        time.sleep(POLL_SECONDS)


@contextmanager
def _with_marker(store: Store) -> Iterator[tuple[Store, Path | None]]:
    """Yields the store, and a file in it for the time of the block, by which nodes know it."""
    if store.is_remote:
        yield store, None
        return
    key = uuid4().hex
    with store.locking("cluster", key, lambda: None):
        yield store, store.root / LOCKS / f"cluster-{key}"
