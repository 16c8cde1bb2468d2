"""What a Ray worker does with a task: prepares, checks that its result will be seen and fit in, runs it, reports.

The other side of `ray.py`, which sends these functions to nodes and runs none of them itself.
"""

from __future__ import annotations

import platform
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar

from ray import cloudpickle
from ray.exceptions import RayError

from proxyds.errors import DeviceError, OutputError, ProxydsError
from proxyds.progress import Progress
from proxyds.runtime.machine import describe_arithmetic
from proxyds.runtime.storage.atomic import temporary_folder
from proxyds.runtime.storage.store import Store
from proxyds.runtime.task import REPORT_SECONDS, WORKER_ENVIRONMENT, Task, run_task
from proxyds.space.networks.plugins import LoadedCode, load_code

_Answer = TypeVar("_Answer")

AGREE_SECONDS = 7 * 86_400.0
"""How long processes wait for each other: another build may be doing the work, and Ray tells when one of them is gone."""
SHARED = "the store must be on a disk that every node sees under the same path, or at an address (PROXYDS_STORE)"
"""What is wrong where a node does not see the store."""


@dataclass(frozen=True)
class Assignment:
    """A task as it is handed to the cluster, and what its worker must know and be like.

    Attributes:
        task: Without its large arguments, which Ray brings to a node once.
        store: Where its result goes.
        marker: A file in the store by which this node shows that it sees that; None where that is at an address.
        computing: What results depend on besides a task's inputs, as it is elsewhere.
        code: To load.
        mailbox: The actor that takes its reports, a `Mailbox`.
        number: Of this try, among all that the driver began.
    """

    task: Task
    store: Store
    marker: Path | None
    computing: dict[str, str]
    code: LoadedCode
    mailbox: Any
    number: int


class Mailbox:
    """Keeps what tasks report until the driver asks for it; an actor."""

    def __init__(self) -> None:
        self._reports: list[tuple[int, Progress]] = []

    def put(self, number: int, progress: Progress) -> None:
        """Takes a report of the try with this number."""
        self._reports.append((number, progress))

    def take(self) -> list[tuple[int, Progress]]:
        """Returns the reports that came since the last call."""
        reports, self._reports = self._reports, []
        return reports


def answer_question(code: LoadedCode, function: Callable[..., _Answer], arguments: Sequence[object]) -> _Answer:
    """Calls a function on this node, with code from elsewhere loaded."""
    _prepare(code)
    return function(*arguments)


def work(assignment: Assignment, **large: bytes) -> Progress | None:
    """Does a task as the one process of it; returns its last report."""
    task, report = _begin(assignment, large), _Reporter(assignment)
    run_task(task, assignment.store, report)
    return report.last


def work_together(assignment: Assignment, needs: dict[str, float], **large: bytes) -> None:
    """Does a task in several processes, which Ray Train starts and joins.

    Raises:
        LostError: They could not end it.
    """
    from ray.train import FailureConfig, RunConfig, ScalingConfig, TrainingFailedError
    from ray.train.torch import TorchConfig, TorchTrainer

    on_gpu = assignment.task.device.startswith("cuda")
    with temporary_folder() as folder:
        trainer = TorchTrainer(
            _work_as_one_of_several,
            train_loop_config={"assignment": assignment, "large": large},
            torch_config=TorchConfig(backend="nccl" if on_gpu else "gloo", timeout_s=int(AGREE_SECONDS)),
            scaling_config=ScalingConfig(
                num_workers=assignment.task.n_processes, use_gpu=on_gpu, resources_per_worker=needs
            ),
            run_config=RunConfig(
                storage_path=str(folder),
                failure_config=FailureConfig(max_failures=0),
                worker_runtime_env={"env_vars": WORKER_ENVIRONMENT},
            ),
        )
        try:
            trainer.fit()
        except TrainingFailedError as error:
            failures = [getattr(each, "_base_exc", each) for each in getattr(error, "worker_failures", {}).values()]
            for each in failures:
                if isinstance(each, ProxydsError):
                    raise each from error
            why = failures[0] if failures else error  # when one is gone, the others fail by what they miss
            raise LostError(f"{type(why).__name__}: {why}") from error


class LostError(Exception):
    """Several processes did not end a task, and not for a reason of its own."""


def _work_as_one_of_several(config: dict[str, Any]) -> None:
    """Does what each process does: the first fills the task's entry, the others help."""
    import torch
    import torch.distributed as dist
    from ray.train.torch import get_device

    assignment: Assignment = config["assignment"]
    task = _begin(assignment, config["large"])
    device = str(get_device()) if task.device.startswith("cuda") else task.device
    if "device" in task.arguments:
        task = replace(task, arguments={**task.arguments, "device": device})

    def agree(is_wanted: bool | None = None) -> bool:
        """Learns from the first process whether the work is to be done: it may be in the store by now."""
        answer = [is_wanted]
        dist.broadcast_object_list(answer, src=0, device=torch.device(device))
        return bool(answer[0])

    if dist.get_rank() != 0:
        if agree():
            with temporary_folder() as folder:
                task.function(folder=folder, report=_ignore_report, **task.arguments)
        return
    has_begun = False

    def begin(**arguments: Any) -> None:
        nonlocal has_begun
        has_begun = agree(True)
        task.function(**arguments)

    run_task(replace(task, function=begin), assignment.store, _Reporter(assignment))
    if not has_begun:
        agree(False)


def _ignore_report(done: float, total: float, note: str) -> None:
    """Does nothing: the first process alone reports."""


class _Reporter:
    """Takes a task's reports and passes them on to the driver, not too often."""

    def __init__(self, assignment: Assignment) -> None:
        self.last: Progress | None = None
        self._assignment, self._sent = assignment, 0.0

    def __call__(self, progress: Progress) -> None:
        self.last = progress
        if time.monotonic() - self._sent > REPORT_SECONDS:
            self._sent = time.monotonic()
            with suppress(RayError):
                self._assignment.mailbox.put.remote(self._assignment.number, progress)


def _prepare(code: LoadedCode) -> None:
    import torch

    torch.set_num_threads(1)
    load_code(code)


def _begin(assignment: Assignment, large: Mapping[str, bytes]) -> Task:
    """Makes this process fit for a task, or refuses it where results would differ or be lost; returns it with all arguments."""
    task, node = assignment.task, socket.gethostname()
    _prepare(assignment.code)
    if assignment.marker is not None and not assignment.marker.exists():
        raise OutputError(
            f"the store {assignment.store.name}: must be seen by every node of the cluster, {node} does not see it: {SHARED}"
        )
    here = describe_computing(task.device)
    if here != assignment.computing:
        raise DeviceError(
            f"{task.name}: must be computed as everything else, by {_show_pairs(assignment.computing)}; the node {node} has "
            f"{_show_pairs(here)}: use nodes of one kind, with the same versions"
        )
    return replace(
        task, arguments={**task.arguments, **{name: cloudpickle.loads(each) for name, each in large.items()}}
    )


def _show_pairs(pairs: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {value}" for name, value in pairs.items())


@cache
def describe_computing(device: str) -> dict[str, str]:
    """Names what results depend on besides a task's inputs: the kind of device, and versions."""
    return {**describe_arithmetic(device), "proxyds": version("proxyds"), "processor": platform.machine()}
