"""How a network computes: memory format, precision, threads. Fixed rules on its shape, the kind of device and `training.precision`.

What changes floating-point results never follows from timing or load, so that the same recipe gives the same bytes. The
rules are what timing said, once: `tests/benchmarks/` measures them again.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch import nn

from proxyds.errors import DeviceError
from proxyds.space.architecture import Architecture
from proxyds.space.networks.build import sketch_network

THREADS = 1
"""Threads of one run; engines run several at once."""
CPU_BFLOAT16 = ("avx512_bf16", "amx_bf16", "bf16")
"""What a processor that computes in bfloat16 has one of, as `torch.cpu.get_capabilities` calls it; the last one on ARM."""


@dataclass(frozen=True)
class Computation:
    """What a network's bits depend on besides weights, data and library.

    Attributes:
        device: `cpu` or a CUDA device.
        memory_format: Of activations and weights: `channels_last` or `contiguous`.
        precision: Of the layers: `float32`, or `bfloat16` with weights, batch norm statistics and the loss in float32.
    """

    device: str
    memory_format: str
    precision: str

    @property
    def torch_format(self) -> torch.memory_format:
        """The memory format as torch names it."""
        return torch.channels_last if self.memory_format == "channels_last" else torch.contiguous_format

    def arithmetic(self) -> AbstractContextManager[object]:
        """Returns what forward passes run in."""
        if self.precision == "float32":
            return nullcontext()
        kind = torch.device(self.device).type
        return torch.autocast(kind, dtype=torch.bfloat16, cache_enabled=False)  # a CUDA graph may not hold its cache

    def on_device(self) -> AbstractContextManager[object]:
        """Makes its device the one that torch takes where none is named, as streams and CUDA graphs do."""
        return torch.cuda.device(self.device) if self.device.startswith("cuda") else nullcontext()

    def __str__(self) -> str:
        return f"{self.memory_format}, {self.precision}, {THREADS} thread"


def choose_computation(network: nn.Module, device: str = "cpu", precision: str = "auto") -> Computation:
    """Decides how a network computes, and keeps torch from choosing anything by itself.

    Channels-last is faster on both kinds of device, but oneDNN corrupts the heap in it where a convolution has 4 channels
    (seen with torch 2.13 to 2.15 on AVX2). So a CPU uses it only where every convolution has multiples of 8 channels, the
    input's own 3 aside. bfloat16 is 12 times slower than float32 on a CPU without instructions for it, and several times
    faster on GPUs that have them.

    Args:
        network: Its convolutions decide the memory format.
        device: `cpu` or a CUDA device.
        precision: `training.precision`; `auto` is float32 on CPUs, and bfloat16 on GPUs that have it.

    Raises:
        DeviceError: bfloat16 is asked for where it would be emulated.
    """
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.benchmark = False
    convolutions = [module for module in network.modules() if isinstance(module, nn.Conv2d)]
    is_cuda = device.startswith("cuda")
    fits = is_cuda or all(
        c.out_channels % 8 == 0 and (c.in_channels % 8 == 0 or c.in_channels == 3) for c in convolutions
    )
    if precision == "auto":
        precision = "bfloat16" if is_cuda and has_bfloat16(device) else "float32"
    elif precision == "bfloat16" and not has_bfloat16(device):
        raise DeviceError(
            f"training.precision: bfloat16 must be what the device computes in; {_tell_lack(device)}, so that it would be many times "
            "slower. Take auto or float32"
        )
    return Computation(device, "channels_last" if convolutions and fits else "contiguous", precision)


def has_bfloat16(device: str) -> bool:
    """Tells whether a device has instructions for bfloat16."""
    if device.startswith("cuda"):
        return torch.cuda.get_device_capability(device) >= (8, 0)
    # an older torch does not say what a processor has
    capabilities = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    return any(capabilities.get(name, False) for name in CPU_BFLOAT16)


def _tell_lack(device: str) -> str:
    """Says why a device does not compute in bfloat16, as far as torch knows."""
    if device.startswith("cuda"):
        return f"{torch.cuda.get_device_name(device)} has no instructions for it (compute capability 8.0 has)"
    if not hasattr(torch.cpu, "get_capabilities"):
        return f"torch {torch.__version__} is too old to say whether the processor has instructions for it"
    return f"the processor has no instructions for it (none of {', '.join(CPU_BFLOAT16)})"


def describe_computations(
    architectures: Sequence[Architecture], n_labels: int, image_shape: tuple[int, int, int], device: str, precision: str
) -> dict[str, str]:
    """Says how each network computes on a device in a precision of `choose_computation`, by its name, in words for people."""
    sketches = {
        each.name: sketch_network(each.network, each.parameters, n_labels, image_shape) for each in architectures
    }
    return {name: str(choose_computation(sketch, device, precision)) for name, sketch in sketches.items()}
