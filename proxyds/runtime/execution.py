"""How work is done: where finished work is kept, on what it runs, who sees how far it is. No selection depends on it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypedDict

from proxyds.progress import OnProgress, ignore_progress
from proxyds.runtime.engines import choose_engine
from proxyds.runtime.storage.store import Store

if TYPE_CHECKING:
    from proxyds.runtime.task import Engine


class Options(TypedDict, total=False):
    """Keyword arguments of `build`, `check` and the other functions that do work: the fields of `Execution`."""

    store: Store
    workers: int
    device: str
    engine: str
    gpus_per_task: float
    streamed: bool | None
    on_progress: OnProgress


@dataclass(frozen=True)
class Execution:
    """How work is done.

    Attributes:
        store: Where finished work is kept; the user's own unless another is given.
        workers: Trainings at once; 0 for one for each core, or one on a GPU.
        device: `cpu`, `cuda`, `cuda:N`, or `auto` for CUDA where there is one.
        engine: `local`; `ray` for the cluster that this machine is of, or one that is started on it; or a cluster's address,
            `ray:HOST:PORT` from a machine that is of it and `ray://HOST:PORT` from elsewhere.
        gpus_per_task: The part of a GPU that each training on a cluster has: a share, or a whole number.
        streamed: Whether the source's samples and pixels stay on disk and are read as they are needed; None to decide from their
            size. The proxy is the same.
        on_progress: Called as work goes on.
    """

    store: Store = field(default_factory=Store)
    workers: int = 0
    device: str = "auto"
    engine: str = "local"
    gpus_per_task: float = 1.0
    streamed: bool | None = None
    on_progress: OnProgress = ignore_progress

    def choose_engine(self) -> tuple[str, Engine]:
        """Decides on which device and where tasks run; see `engines.choose_engine`."""
        return choose_engine(self.device, self.workers, self.engine, self.gpus_per_task)
