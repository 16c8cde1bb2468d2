"""The machine at hand: which device, what its floating-point results depend on, what a card says of it."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path

import loky

from proxyds.artifact.manifest import MachineRecord
from proxyds.errors import DeviceError

LIBRARIES = ("proxyds", "torch", "numpy", "datasets", "pillow", "pyarrow", "webdataset", "scikit-learn", "matplotlib")


def choose_device(device: str) -> str:
    """Resolves `auto` to CUDA where there is one, else the CPU.

    Raises:
        DeviceError: The device is not `auto`, `cpu`, `cuda` or `cuda:N`, or it is not there.
    """
    import torch

    n_cuda = torch.cuda.device_count()
    there = ["cpu", *(["cuda"] if n_cuda else []), *(f"cuda:{index}" for index in range(n_cuda))]
    if device == "auto":
        return "cuda" if n_cuda else "cpu"
    if device not in there:
        raise DeviceError(f"--device {device}: must be a device of this machine; it has: auto, {', '.join(there)}")
    return device


def describe_arithmetic(device: str) -> dict[str, str]:
    """What a trained network's bits depend on besides its inputs: torch's version and the kind of device."""
    import torch

    kind = torch.cuda.get_device_name(device) if device.startswith("cuda") else f"cpu {platform.machine()}"
    return {"torch": torch.__version__, "device": kind}


def describe_machine(
    device: str, n_workers: int | None = None, computations: Mapping[str, str] | None = None
) -> MachineRecord:
    """What the manifest says of the machine; no host name, no path.

    Args:
        device: Where networks were trained.
        n_workers: How many at once; None where none was.
        computations: How each of them computed, by its name.
    """
    return MachineRecord(
        device=describe_arithmetic(device)["device"],
        processor=_processor(),
        n_cores=loky.cpu_count(),
        python=platform.python_version(),
        libraries={name: version(name) for name in LIBRARIES},
        n_workers=n_workers,
        computations=dict(computations or {}),
    )


def measure_memory() -> int:
    """Bytes of memory that this process may use: the machine's, or its container's where that has less."""
    n_bytes = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    for file in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        with suppress(OSError, ValueError):
            n_bytes = min(n_bytes, int(Path(file).read_text()))
    return n_bytes


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
