"""Which engine: local workers, one process, or a Ray cluster; and on which device."""

from __future__ import annotations

from typing import TYPE_CHECKING

from proxyds.errors import DeviceError, MissingExtraError
from proxyds.runtime import machine
from proxyds.runtime.local import InProcess, LocalWorkers

if TYPE_CHECKING:
    from proxyds.runtime.ray import RayCluster


def choose_engine(
    device: str, workers: int, engine: str = "local", gpus_per_task: float = 1.0
) -> tuple[str, LocalWorkers | InProcess | RayCluster]:
    """Decides where tasks run: here, in as many processes as cores or one at a time on a GPU, or on Ray.

    Args:
        device: `cpu`, `cuda`, `cuda:N`, or `auto`, which is CUDA where this machine, or the cluster, has a GPU.
        workers: Tasks at once; 0 for as many as there is room for.
        engine: `local`; `ray` for the cluster that this machine is of, or one that is started on it; or a cluster's address,
            `ray:HOST:PORT` from a machine that is of it and `ray://HOST:PORT` from elsewhere.
        gpus_per_task: Of each task that computes on a GPU, on a cluster.

    Raises:
        DeviceError: There is no such device or engine.
        RemoteError: There is no cluster at the address.
        MissingExtraError: Ray is not installed.
    """
    if engine != "local":
        cluster = _open_cluster(engine, device, workers, gpus_per_task)
        return cluster.device, cluster
    device = machine.choose_device(device)
    if device.startswith("cuda"):
        return device, InProcess() if workers == 1 else LocalWorkers(workers or 1)
    return device, LocalWorkers(workers)


def _open_cluster(engine: str, device: str, workers: int, gpus_per_task: float) -> RayCluster:
    name, _, address = engine.partition(":")
    if name != "ray" or engine == "ray:":
        raise DeviceError(f"--engine {engine}: must be local, ray, ray:HOST:PORT or ray://HOST:PORT")
    try:
        from proxyds.runtime.ray import RayCluster
    except ModuleNotFoundError as error:
        if error.name != "ray":
            raise
        raise MissingExtraError(
            f"--engine {engine}: must have Ray, which is not installed: pip install 'proxyds[ray]'"
        ) from error
    return RayCluster(device, (engine if address.startswith("//") else address) or None, workers, gpus_per_task)
