"""Residual networks for small images (He et al. 2016, section 4.2), with the paper's B, K and M as parameters.

Three stages of n blocks follow a stem; depth = 6 n + 2. Stage widths are B, B*M and B*M^2, so that B=16, K=3, M=2 at
depth 20 is He et al.'s ResNet-20 with its 269,722 parameters on ten classes. Shortcuts across stages subsample and pad
with zeros (He et al.'s option A): they cost nothing.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from proxyds.space.networks.parameters import ResNetParameters


class ResidualBlock(nn.Module):
    """Two convolutions beside a shortcut.

    Args:
        n_in: Channels of the input.
        n_out: Channels of the output.
        kernel_size: Odd side of both kernels.
        stride: Of the first convolution and of the shortcut.
    """

    def __init__(self, n_in: int, n_out: int, kernel_size: int, stride: int) -> None:
        super().__init__()
        self.conv1 = _convolution(n_in, n_out, kernel_size, stride)
        self.norm1 = nn.BatchNorm2d(n_out)
        self.conv2 = _convolution(n_out, n_out, kernel_size, 1)
        self.norm2 = nn.BatchNorm2d(n_out)
        self.stride = stride
        self.n_new_channels = n_out - n_in

    def forward(self, x: Tensor) -> Tensor:
        """Maps (n, n_in, h, w) to (n, n_out, ceil(h / stride), ceil(w / stride))."""
        residual = F.relu(self.norm1(self.conv1(x)), inplace=True)
        residual = self.norm2(self.conv2(residual))
        shortcut = x if self.stride == 1 else x[:, :, :: self.stride, :: self.stride]
        if self.n_new_channels:
            before = self.n_new_channels // 2
            shortcut = F.pad(shortcut, (0, 0, 0, 0, before, self.n_new_channels - before))
        return F.relu(residual + shortcut, inplace=True)


class ResNet(nn.Module):
    """Stem, three stages, global average pool, linear classifier.

    Layers that features can be taken from: `stem`, `stages.0`, `stages.1`, `stages.2`, `pool`.
    """

    def __init__(self, parameters: ResNetParameters, n_labels: int, n_channels: int) -> None:
        super().__init__()
        kernel_size = parameters.kernel_size
        widths = [parameters.base_filters * parameters.multiplier**stage for stage in range(3)]
        self.stem = nn.Sequential(
            _convolution(n_channels, widths[0], kernel_size, 1), nn.BatchNorm2d(widths[0]), nn.ReLU(inplace=True)
        )
        self.stages = nn.ModuleList()
        n_in = widths[0]
        for stage, width in enumerate(widths):
            blocks = [ResidualBlock(n_in, width, kernel_size, stride=2 if stage else 1)]
            blocks += [ResidualBlock(width, width, kernel_size, 1) for _ in range((parameters.depth - 2) // 6 - 1)]
            self.stages.append(nn.Sequential(*blocks))
            n_in = width
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(n_in, n_labels)

    def forward(self, x: Tensor) -> Tensor:
        """Maps images (n, n_channels, h, w) to logits (n, n_labels)."""
        x = self.stem(x)
        for stage in self.stages:
            x = stage(x)
        logits: Tensor = self.classifier(torch.flatten(self.pool(x), 1))
        return logits


def build(parameters: ResNetParameters, n_labels: int, image_shape: tuple[int, int, int]) -> ResNet:
    """Builds one network with He et al.'s initial weights, drawn from torch's current generator; arguments as of every `Family.module`."""
    network = ResNet(parameters, n_labels, image_shape[0])
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
    return network


def _convolution(n_in: int, n_out: int, kernel_size: int, stride: int) -> nn.Conv2d:
    return nn.Conv2d(n_in, n_out, kernel_size, stride, padding=kernel_size // 2, bias=False)
