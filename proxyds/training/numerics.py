"""How a network computes: memory format, precision, threads. Fixed rules on its shape and the kind of device.

What changes floating-point results never follows from timing or load, so that the same recipe gives the same bytes. The
rules are what timing said, once: `tests/benchmarks/` measures them again.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch import nn

from proxyds.space.architecture import Architecture
from proxyds.space.networks.build import sketch_network

THREADS = 1
"""Threads of one run; engines run several at once."""


@dataclass(frozen=True)
class Computation:
    """What a network's bits depend on besides weights, data and library.

    Attributes:
        device: `cpu` or a CUDA device.
        memory_format: Of activations and weights: `channels_last` or `contiguous`.
        precision: Of training's layers: `float32`, or `bfloat16` with weights, batch norm statistics and the loss in float32.
            Inference is in float32 everywhere.
    """

    device: str
    memory_format: str
    precision: str

    @property
    def torch_format(self) -> torch.memory_format:
        """The memory format as torch names it."""
        return torch.channels_last if self.memory_format == "channels_last" else torch.contiguous_format

    def arithmetic(self) -> AbstractContextManager[object]:
        """Returns what training's forward passes run in."""
        if self.precision == "float32":
            return nullcontext()
        return torch.autocast("cuda", dtype=torch.bfloat16, cache_enabled=False)  # a CUDA graph may not hold its cache

    def on_device(self) -> AbstractContextManager[object]:
        """Makes its device the one that torch takes where none is named, as streams and CUDA graphs do."""
        return torch.cuda.device(self.device) if self.device.startswith("cuda") else nullcontext()

    def __str__(self) -> str:
        return f"{self.memory_format}, {self.precision}, {THREADS} thread"


def choose_computation(network: nn.Module, device: str = "cpu") -> Computation:
    """Decides how a network computes, and keeps torch from choosing anything by itself.

    Channels-last is faster on both kinds of device, but oneDNN corrupts the heap in it where a convolution has 4 channels
    (seen with torch 2.13 to 2.15 on AVX2). So a CPU uses it only where every convolution has multiples of 8 channels, the
    input's own 1 or 3 aside. bfloat16 is 12 times slower than float32 on a CPU without instructions for it, and several times
    faster on GPUs that have them.
    """
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.benchmark = False
    convolutions = [module for module in network.modules() if isinstance(module, nn.Conv2d)]
    is_cuda = device.startswith("cuda")
    fits = is_cuda or all(
        c.out_channels % 8 == 0 and (c.in_channels % 8 == 0 or c.in_channels == 3) for c in convolutions
    )
    has_bfloat16 = is_cuda and torch.cuda.get_device_capability(device) >= (8, 0)
    return Computation(
        device,
        memory_format="channels_last" if convolutions and fits else "contiguous",
        precision="bfloat16" if has_bfloat16 else "float32",
    )


def describe_computations(
    architectures: Sequence[Architecture], n_labels: int, image_shape: tuple[int, int, int], device: str
) -> dict[str, str]:
    """Says how each network computes on a device, by its name, in words for people."""
    return {
        each.name: str(choose_computation(sketch_network(each.network, each.parameters, n_labels, image_shape), device))
        for each in architectures
    }
