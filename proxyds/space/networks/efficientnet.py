"""EfficientNet-B0 (Tan and Le 2019) with the paper's repeats, kernel sizes and filters (section 4), of torchvision's blocks.

Deviation from torchvision: widths are taken as they are written. Its `MBConvConfig` rounds them to multiples of 8, which would
change the paper's first two settings of filters. With the third setting every width is such a multiple, and the network is
torchvision's `efficientnet_b0` weight by weight.
"""

from __future__ import annotations

from typing import Any

from torch import nn
from torchvision.models.efficientnet import EfficientNet, MBConv, _MBConvConfig

from proxyds.space.networks.parameters import EfficientNetParameters

EXPANSIONS = (1, 6, 6, 6, 6, 6, 6)
STRIDES = (1, 2, 2, 2, 1, 2, 1)
LAST_WIDTH, HEAD_WIDTH = 320, 1280
"""Output of the last stage and of the head, which no setting of the paper changes."""


class ExactConfig(_MBConvConfig):  # type: ignore[misc] # torchvision has no types
    """A stage of blocks whose widths are what they are, not the next multiple of 8."""

    @staticmethod
    def adjust_channels(channels: int, width_mult: float, min_value: int | None = None) -> int:  # noqa: ARG004 - torchvision's
        """Scales a width and rounds it to a whole number, of one at least."""
        return max(1, round(channels * width_mult))


def build(parameters: EfficientNetParameters, n_labels: int, image_shape: tuple[int, int, int]) -> nn.Module:
    """Builds one network with torchvision's initial weights, drawn from torch's current generator.

    Layers that features can be taken from: `features.0` (stem) to `features.8` (head), `avgpool`. Arguments as of every `Family.module`.
    """
    *widths, head_width = (
        ExactConfig.adjust_channels(width, parameters.width) for width in (*parameters.filters, LAST_WIDTH, HEAD_WIDTH)
    )
    stages = [
        ExactConfig(expansion, kernel_size, stride, n_in, n_out, repeats, MBConv)
        for expansion, kernel_size, stride, n_in, n_out, repeats in zip(
            EXPANSIONS, parameters.kernel_sizes, STRIDES, widths[:-1], widths[1:], parameters.repeats, strict=True
        )
    ]
    network: Any = EfficientNet(
        stages,
        dropout=parameters.dropout,
        stochastic_depth_prob=parameters.stochastic_depth,
        num_classes=n_labels,
        last_channel=head_width,
    )
    if parameters.small_stem or image_shape[0] != 3:
        stride = 1 if parameters.small_stem else 2
        stem = nn.Conv2d(image_shape[0], widths[0], 3, stride, padding=1, bias=False)
        nn.init.kaiming_normal_(stem.weight, mode="fan_out")
        network.features[0][0] = stem
    built: nn.Module = network
    return built
