"""Registered families of network architectures: what parameters each takes, and where its torch code is.

Nothing here imports torch: a family's own file is imported when its first network is built. To add a family: write its
parameters in `parameters.py`, its `build` in a file beside, and one line in `FAMILIES`; the contract tests then cover it.
Families of other packages come in through `plugins.py`.
"""

from __future__ import annotations

from dataclasses import dataclass

from proxyds.space.networks.parameters import (
    EfficientNetParameters,
    HandedOverParameters,
    LibraryParameters,
    NASBench201Parameters,
    Parameters,
    ResNetParameters,
)


@dataclass(frozen=True)
class Family:
    """A registered family.

    Attributes:
        parameters: The model of one network's parameters; every field has a default.
        module: Import path of the file whose `build(parameters, n_labels, image_shape)` makes the network, from float images
            (n, channels, height, width) to logits (n, n_labels); image_shape is (channels, height, width), and initial weights come
            from torch's current generator. `path:function` where another function makes it.
        feature_layer: The layer that features are taken from unless the recipe names another; None: the last one that is
            computed before the heads: linear layers, or convolutions of 1x1, that give the logits.
        summary: One line for `proxyds list`.
        library: The package that the networks come from, whose version then belongs to what a training depends on.
    """

    parameters: type[Parameters]
    module: str
    feature_layer: str | None
    summary: str
    library: str | None = None


HANDED_OVER = "python"
"""The family of networks that a program hands over."""

FAMILIES: dict[str, Family] = {
    "resnet": Family(
        ResNetParameters,
        "proxyds.space.networks.resnet",
        "pool",
        "residual networks for small images (the paper's tables 1, 2)",
    ),
    "efficientnet": Family(
        EfficientNetParameters,
        "proxyds.space.networks.efficientnet",
        "avgpool",
        "EfficientNet-B0 with its stages as choices (the paper's table 3)",
        "torchvision",
    ),
    "nasbench201": Family(
        NASBench201Parameters,
        "proxyds.space.networks.nasbench201",
        "pool",
        "the cells of NAS-Bench-201, by the field's strings",
    ),
    "torchvision": Family(
        LibraryParameters,
        "proxyds.space.networks.library:build_torchvision",
        None,
        "torchvision's classification models, by name",
        "torchvision",
    ),
    "timm": Family(
        LibraryParameters,
        "proxyds.space.networks.library:build_timm",
        None,
        "timm's models, by name (proxyds[timm])",
        "timm",
    ),
    HANDED_OVER: Family(
        HandedOverParameters,
        "proxyds.space.handed_over",
        None,
        "networks of a Python program, handed over with space=",
    ),
}
