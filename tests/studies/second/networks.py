"""The family `stacked`: small networks of unlike shape, residual or not, with whole or separable convolutions. Loaded as a plugin."""

from __future__ import annotations

from typing import Annotated

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from proxyds.space.networks.families import Family
from proxyds.space.networks.parameters import OddSize, Parameters

ThreeCounts = Annotated[tuple[int, int, int], Field(strict=False)]


class StackedParameters(Parameters):
    """Three stages of blocks, the second and third at half and a quarter of the image's side."""

    widths: ThreeCounts = (8, 16, 32)
    blocks: ThreeCounts = (1, 1, 1)
    kernel_size: OddSize = 3
    residual: bool = True
    separable: bool = False


class Block(nn.Module):
    """One convolution with batch norm and ReLU; beside a shortcut where that keeps the shape."""

    def __init__(self, n_in: int, n_out: int, stride: int, parameters: StackedParameters) -> None:
        super().__init__()
        kernel_size = parameters.kernel_size
        options = {"stride": stride, "padding": kernel_size // 2, "bias": False}
        if parameters.separable:
            spatial = nn.Conv2d(n_in, n_in, kernel_size, groups=n_in, **options)
            self.convolution = nn.Sequential(spatial, nn.BatchNorm2d(n_in), nn.Conv2d(n_in, n_out, 1, bias=False))
        else:
            self.convolution = nn.Conv2d(n_in, n_out, kernel_size, **options)
        self.norm = nn.BatchNorm2d(n_out)
        self.has_shortcut = parameters.residual and stride == 1 and n_in == n_out

    def forward(self, x: Tensor) -> Tensor:
        """Maps (n, n_in, h, w) to (n, n_out, h / stride, w / stride)."""
        out = self.norm(self.convolution(x))
        return F.relu(out + x if self.has_shortcut else out)


class Stacked(nn.Module):
    """A stem, three stages, global average pool, linear classifier."""

    def __init__(self, parameters: StackedParameters, n_labels: int, n_channels: int) -> None:
        super().__init__()
        first = parameters.widths[0]
        self.stem = nn.Sequential(
            nn.Conv2d(n_channels, first, 3, padding=1, bias=False), nn.BatchNorm2d(first), nn.ReLU()
        )
        blocks, n_in = [], first
        for stage, (width, n_blocks) in enumerate(zip(parameters.widths, parameters.blocks, strict=True)):
            for number in range(n_blocks):
                blocks.append(Block(n_in, width, 2 if stage and number == 0 else 1, parameters))
                n_in = width
        self.blocks = nn.Sequential(*blocks)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(n_in, n_labels)

    def forward(self, x: Tensor) -> Tensor:
        """Maps images to logits."""
        logits: Tensor = self.classifier(torch.flatten(self.pool(self.blocks(self.stem(x))), 1))
        return logits


def build(parameters: StackedParameters, n_labels: int, image_shape: tuple[int, int, int]) -> Stacked:
    """Builds one network with He et al.'s initial weights."""
    network = Stacked(parameters, n_labels, image_shape[0])
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
    return network


FAMILIES = {"stacked": Family(StackedParameters, __name__, "pool", "small networks of the second study")}
