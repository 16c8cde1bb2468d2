"""NAS-Bench-201 (Dong and Yang 2020, arXiv 2001.00326): one cell, repeated in three stages of a residual network.

A 3x3 stem, three stages of cells of widths C, 2C and 4C with a residual block of stride 2 between them, batch norm and ReLU,
global average pool, linear. Layers, their order and their biases follow the benchmark's published code, so that C=16 with five
cells a stage has the published numbers of parameters (1,531,546 for a cell of 3x3 convolutions alone, on ten labels). A `none`
edge is no module: it costs nothing.
"""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import Tensor, nn

from proxyds.space.networks.cells import EDGES, Cell, read_cell
from proxyds.space.networks.parameters import NASBench201Parameters


class SearchedCell(nn.Module):
    """Four nodes, each the sum of its edges.

    Args:
        cell: The operation of each edge.
        width: Channels of every node.
    """

    def __init__(self, cell: Cell, width: int) -> None:
        super().__init__()
        self.edges = nn.ModuleDict(
            {
                f"{start}-{end}": _operation(operation, width)
                for operation, (start, end) in zip(cell, EDGES, strict=True)
                if operation != "none"
            }
        )

    def forward(self, x: Tensor) -> Tensor:
        """Maps (n, width, h, w) to the same shape."""
        nodes = [x]
        for node in (1, 2, 3):
            terms = [
                self.edges[f"{start}-{end}"](nodes[start])
                for start, end in EDGES
                if end == node and f"{start}-{end}" in self.edges
            ]
            nodes.append(sum(terms[1:], terms[0]) if terms else torch.zeros_like(x))
        return nodes[3]


class ReductionBlock(nn.Module):
    """Halves the sides and doubles the channels: two 3x3 convolutions beside an averaged 1x1 shortcut."""

    def __init__(self, n_in: int, n_out: int) -> None:
        super().__init__()
        self.residual = nn.Sequential(_convolution(n_in, n_out, 3, 2), _convolution(n_out, n_out, 3, 1))
        # ceil_mode: as in the benchmark for even sides, and one pixel is not lost of odd ones
        self.shortcut = nn.Sequential(
            nn.AvgPool2d(2, 2, ceil_mode=True, count_include_pad=False), nn.Conv2d(n_in, n_out, 1, bias=False)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Maps (n, n_in, h, w) to (n, n_out, ceil(h / 2), ceil(w / 2))."""
        joined: Tensor = self.shortcut(x) + self.residual(x)
        return joined


def build(parameters: NASBench201Parameters, n_labels: int, image_shape: tuple[int, int, int]) -> nn.Module:
    """Builds one network with torch's own initial weights.

    Layers that features can be taken from: `stem`, `stages.0` to `stages.2`, `pool`. Arguments as of every `Family.module`.
    """
    cell, width = read_cell(parameters.cell), parameters.channels
    stem = nn.Sequential(nn.Conv2d(image_shape[0], width, 3, padding=1, bias=False), nn.BatchNorm2d(width))
    stages = nn.Sequential()
    for stage in range(3):
        blocks: list[nn.Module] = [ReductionBlock(width, 2 * width)] if stage else []
        width = 2 * width if stage else width
        stages.append(nn.Sequential(*blocks, *(SearchedCell(cell, width) for _ in range(parameters.cells))))
    layers = {
        "stem": stem,
        "stages": stages,
        "norm": nn.Sequential(nn.BatchNorm2d(width), nn.ReLU(inplace=True)),
        "pool": nn.AdaptiveAvgPool2d(1),
        "flatten": nn.Flatten(),
        "classifier": nn.Linear(width, n_labels),
    }
    return nn.Sequential(OrderedDict(layers))


def _operation(operation: str, width: int) -> nn.Module:
    if operation == "skip_connect":
        return nn.Identity()
    if operation == "avg_pool_3x3":
        return nn.AvgPool2d(3, 1, 1, count_include_pad=False)
    return _convolution(width, width, {"nor_conv_1x1": 1, "nor_conv_3x3": 3}[operation], 1)


def _convolution(n_in: int, n_out: int, kernel_size: int, stride: int) -> nn.Sequential:
    """ReLU, convolution, batch norm, as the benchmark calls `nor_conv`."""
    return nn.Sequential(
        nn.ReLU(),
        nn.Conv2d(n_in, n_out, kernel_size, stride, kernel_size // 2, bias=False),
        nn.BatchNorm2d(n_out),
    )
