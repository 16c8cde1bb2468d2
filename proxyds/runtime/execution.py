"""How work is done: where finished work is kept, on what it runs, who sees how far it is. No selection depends on it."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypedDict

from proxyds.errors import ArgumentError, DeviceError, MissingExtraError
from proxyds.progress import OnProgress, ignore_progress
from proxyds.runtime.local import InProcess, LocalWorkers
from proxyds.runtime.machine import choose_device
from proxyds.runtime.storage.store import Store
from proxyds.text import describe_type, suggest_names

if TYPE_CHECKING:
    from proxyds.runtime.ray import RayCluster
    from proxyds.runtime.task import Engine


class Options(TypedDict, total=False):
    """Keyword arguments of `build`, `check` and the other functions that do work: the fields of `Execution`, and `quiet`.

    `quiet` True shows warnings alone, False shows progress in a log too; None shows it on a terminal and in a notebook.
    `progress_bars.showing_progress` makes `on_progress` of it.
    """

    store: Store
    workers: int
    device: str
    engine: str
    gpus_per_task: float
    streamed: bool | None
    on_progress: OnProgress
    quiet: bool | None


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
        on_progress: Called as work goes on, in place of showing it.
    """

    store: Store = field(default_factory=Store)
    workers: int = 0
    device: str = "auto"
    engine: str = "local"
    gpus_per_task: float = 1.0
    streamed: bool | None = None
    on_progress: OnProgress = ignore_progress

    def __post_init__(self) -> None:
        expected: dict[str, tuple[Any, str]] = {
            "store": (Store, "a proxyds.Store"),
            "workers": (int, "a whole number"),
            "device": (str, "a text"),
            "engine": (str, "a text"),
            "gpus_per_task": (int | float, "a number"),
            "streamed": (bool | None, "True, False or None"),
        }
        for name, (kind, words) in expected.items():
            if not isinstance(value := getattr(self, name), kind):
                raise ArgumentError(f"{name}: must be {words}, got {describe_type(value)}")
        if self.workers < 0:
            raise ArgumentError(f"workers: must be 0 or more, got {self.workers}")
        if not callable(self.on_progress):
            raise ArgumentError(f"on_progress: must be a function, got {describe_type(self.on_progress)}")

    @classmethod
    def take(cls, options: Mapping[str, Any], function: Callable[..., Any]) -> Execution:
        """Takes the `Options` that a public function was called with.

        Raises:
            ArgumentError: The function has no such argument, or a value is of another type.
        """
        if unknown := [name for name in options if name not in Options.__annotations__]:
            own = [each.name for each in inspect.signature(function).parameters.values() if each.name != "options"]
            near = "; ".join(f"{name}: {suggest_names(name, [*own, *Options.__annotations__])}" for name in unknown)
            raise ArgumentError(f"{function.__name__} has no such argument, {near}")
        return cls(**{name: value for name, value in options.items() if name != "quiet"})

    def choose_engine(self) -> tuple[str, Engine]:
        """Decides on which device and where tasks run: here, in as many processes as cores or one at a time on a GPU, or on Ray.

        Raises:
            DeviceError: There is no such device or engine.
            RemoteError: There is no cluster at the address.
            MissingExtraError: Ray is not installed.
        """
        if self.engine != "local":
            cluster = self._open_cluster()
            return cluster.device, cluster
        device = choose_device(self.device)
        if device.startswith("cuda"):
            return device, InProcess() if self.workers == 1 else LocalWorkers(self.workers or 1)
        return device, LocalWorkers(self.workers)

    def _open_cluster(self) -> RayCluster:
        name, _, address = self.engine.partition(":")
        if name != "ray" or self.engine == "ray:":
            raise DeviceError(f"engine: must be local, ray, ray:HOST:PORT or ray://HOST:PORT, got {self.engine!r}")
        try:
            from proxyds.runtime.ray import RayCluster
        except ModuleNotFoundError as error:
            if error.name != "ray":
                raise
            raise MissingExtraError(
                f"engine {self.engine}: must have Ray, which is not installed: pip install 'proxyds[ray]'"
            ) from error
        address = self.engine if address.startswith("//") else address
        return RayCluster(self.device, address or None, self.workers, self.gpus_per_task)
