"""Tasks done here: in this process, or in worker processes of one torch thread each."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import as_completed
from contextlib import contextmanager, suppress
from multiprocessing import active_children
from typing import Any

import loky
from loky.backend.context import LokyContext
from threadpoolctl import threadpool_limits

from proxyds.errors import TrainingError, WorkerDiedError
from proxyds.progress import OnProgress, Progress
from proxyds.runtime.storage.store import Store
from proxyds.runtime.task import REPORT_SECONDS, WORKER_ENVIRONMENT, Engine, Failure, Task, run_task
from proxyds.space.networks.plugins import LoadedCode, list_code, load_code

STOPS = (signal.SIGINT, signal.SIGTERM)
"""Ctrl-C, and what `kill` and the schedulers of clusters send."""


class InProcess(Engine):
    """Runs tasks one after the other in this process."""

    n_workers = 1

    def run(
        self, tasks: Sequence[Task], store: Store, on_progress: OnProgress, *, keep_going: bool = False
    ) -> list[Failure]:
        """See `Engine.run`."""
        import torch

        failures = []
        n_threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            for task in tasks:
                try:
                    with threadpool_limits(1):  # numpy's products
                        run_task(task, store, on_progress)
                except TrainingError as error:
                    if not keep_going:
                        raise
                    failures.append(Failure(task, error))
        finally:
            torch.set_num_threads(n_threads)
        return failures


class LocalWorkers(Engine):
    """Runs tasks in processes of one torch thread each, which are started when first needed and kept for the block.

    Args:
        n_workers: Processes at once; 0 for one for each core.
    """

    def __init__(self, n_workers: int = 0) -> None:
        self.n_workers = n_workers or loky.cpu_count()
        self._executor: loky.ProcessPoolExecutor | None = None
        self._other_children: set[int] = set()  # those that are not workers
        self._messages = LokyContext().SimpleQueue()

    def __exit__(self, *exception: object) -> None:
        self._end(kill=any(exception))

    def _end(self, *, kill: bool) -> None:
        """Ends the workers: idle ones by asking, else at once, and also one that is just being started."""
        if self._executor is None:
            return
        with without_interrupts():  # a second Ctrl-C must not stop the cleaning up
            self._executor.shutdown(wait=True, kill_workers=kill)
            for pid in _list_children() - self._other_children if kill else ():
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        self._executor = None
        self._messages = LokyContext().SimpleQueue()  # a killed worker may hold the old one's lock for ever

    def run(
        self, tasks: Sequence[Task], store: Store, on_progress: OnProgress, *, keep_going: bool = False
    ) -> list[Failure]:
        """See `Engine.run`. What runs when a worker dies is done again, one task at a time, to find the one that kills it.

        Raises:
            WorkerDiedError: A worker was killed or ran out of memory, and not `keep_going`.
        """
        failures: list[Failure] = []
        waiting = list(tasks)
        while waiting:
            lost = self._run_batch(waiting, store, on_progress, failures if keep_going else None)
            for task in lost[: self.n_workers]:
                on_progress(
                    Progress(task.stage, task.name, 0, 1, "again, alone: a worker died (--workers takes fewer)")
                )
                if self._run_batch([task], store, on_progress, failures if keep_going else None):
                    if not keep_going:
                        raise _died(task)
                    failures.append(Failure(task, _died(task)))
            waiting = lost[self.n_workers :]
        return failures

    def _run_batch(
        self, tasks: Sequence[Task], store: Store, on_progress: OnProgress, failures: list[Failure] | None
    ) -> list[Task]:
        """Runs tasks side by side; returns those that were lost because a worker died.

        Networks that cannot be trained are appended to `failures`; where that is None, the first failure of any kind is raised.
        """
        lost: set[int] = set()  # positions
        errors: list[Exception] = []
        listener = threading.Thread(target=_listen, args=(self._messages, on_progress, errors), daemon=True)
        listener.start()
        try:
            with without_interrupts():  # workers inherit it: Ctrl-C is the parent's alone
                executor = self._start()
                futures = {executor.submit(_run_in_worker, task, store): i for i, task in enumerate(tasks)}
            for future in as_completed(futures):
                task, error = tasks[futures[future]], future.exception()
                if isinstance(error, loky.process_executor.BrokenProcessPool):
                    lost.add(futures[future])
                elif isinstance(error, TrainingError) and failures is not None:
                    failures.append(Failure(task, error))
                elif error is not None:
                    raise error
        except BaseException:
            self._end(kill=True)
            store.sweep()
            raise
        if lost:  # the worker that died may hold the lock of the queue: the listener is left to itself
            self._end(kill=True)
            store.sweep()
            return [tasks[i] for i in sorted(lost)]
        self._messages.put(None)
        listener.join()
        if errors:
            raise errors[0]
        return []

    def _start(self) -> loky.ProcessPoolExecutor:
        if self._executor is None:
            self._other_children = _list_children()
            self._executor = loky.ProcessPoolExecutor(
                max_workers=self.n_workers,
                context=LokyContext(),
                initializer=_start_worker,
                initargs=(os.getpid(), self._messages, list_code()),
                env=WORKER_ENVIRONMENT,
            )
        return self._executor


_messages: Any = None  # in a worker: the queue of its reports


def _run_in_worker(task: Task, store: Store) -> None:
    sent = 0.0

    def send(progress: Progress) -> None:
        nonlocal sent
        if progress.done >= progress.total or time.monotonic() - sent > REPORT_SECONDS:
            sent = time.monotonic()
            _messages.put(progress)

    run_task(task, store, send)


def _start_worker(parent: int, messages: Any, code: LoadedCode) -> None:
    for number in STOPS:  # they are the parent's alone, and loky may have let signals through
        signal.signal(number, signal.SIG_IGN)
    import torch

    global _messages
    _messages = messages
    torch.set_num_threads(1)
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    load_code(code)


def _end_with(parent: int) -> None:
    """Ends this worker when the process that started it is gone, killed or not."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)


def _listen(messages: Any, on_progress: OnProgress, errors: list[Exception]) -> None:
    """Passes reports on until None comes; keeps reading whatever happens, or workers would wait for ever."""
    while (progress := messages.get()) is not None:
        try:
            on_progress(progress)
        except Exception as error:  # noqa: BLE001 - raised again by `LocalWorkers.run`
            errors.append(error)


def _died(task: Task) -> WorkerDiedError:
    return WorkerDiedError(
        f"{task.name}: a worker process ended without a result (killed, or out of memory); finished work is kept: "
        "give it more memory, or take fewer workers (--workers), and run it again"
    )


def _list_children() -> set[int]:
    return {process.pid for process in active_children() if process.pid is not None}


@contextmanager
def without_interrupts() -> Iterator[None]:
    """Puts Ctrl-C and `kill` off until the end of the block; processes started in it never get them."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOPS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
