"""The machine at hand: which device, what its floating-point results depend on, what a card says of it."""

from __future__ import annotations

import platform
from importlib.metadata import version
from pathlib import Path

import loky

from proxyds.errors import RecipeError
from proxyds.manifest import MachineRecord

LIBRARIES = ("proxyds", "torch", "numpy", "datasets", "pillow", "pyarrow", "webdataset", "scikit-learn", "matplotlib")


def choose_device(device: str) -> str:
    """Resolves `auto`; refuses a CUDA device that is not there."""
    import torch

    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise RecipeError(f"--device {device}: must be there, torch finds no CUDA device; use --device cpu")
    return device


def describe_arithmetic(device: str) -> dict[str, str]:
    """What a trained network's bits depend on besides its inputs: torch's version and the kind of device."""
    import torch

    kind = torch.cuda.get_device_name(device) if device.startswith("cuda") else f"cpu {platform.machine()}"
    return {"torch": torch.__version__, "device": kind}


def describe_machine(device: str) -> MachineRecord:
    """What the manifest says of the machine; no host name, no path."""
    return MachineRecord(
        device=describe_arithmetic(device)["device"],
        processor=_processor(),
        n_cores=loky.cpu_count(),
        python=platform.python_version(),
        libraries={name: version(name) for name in LIBRARIES},
    )


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
