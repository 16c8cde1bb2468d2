"""The machine at hand: which device, what its floating-point results depend on, what a card says of it."""

from __future__ import annotations

import os
import platform
from contextlib import suppress
from pathlib import Path

from proxyds.errors import DeviceError


def choose_device(device: str) -> str:
    """Resolves `auto` to CUDA where there is one, else the CPU.

    Raises:
        DeviceError: The device is not `auto`, `cpu`, `cuda` or `cuda:N`, or it is not there.
    """
    import torch

    n_cuda = torch.cuda.device_count()
    devices = ["cpu", *(["cuda"] if n_cuda else []), *(f"cuda:{index}" for index in range(n_cuda))]
    if device == "auto":
        return "cuda" if n_cuda else "cpu"
    if device not in devices:
        raise DeviceError(f"device: must be one of this machine, {', '.join(['auto', *devices])}, got {device!r}")
    return device


def describe_arithmetic(device: str) -> dict[str, str]:
    """Names what a trained network's bits depend on besides its inputs: torch's version and the kind of device."""
    import torch

    kind = torch.cuda.get_device_name(device) if device.startswith("cuda") else f"cpu {platform.machine()}"
    return {"torch": torch.__version__, "device": kind}


def measure_memory() -> int:
    """Measures the bytes of memory that this process may use: the machine's, or its container's where that has less."""
    n_bytes = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    for file in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        with suppress(OSError, ValueError):
            n_bytes = min(n_bytes, int(Path(file).read_text()))
    return n_bytes
