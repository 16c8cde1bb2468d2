"""Registered families of network architectures: what parameters each takes, and where its torch code is.

This file imports no torch, so that a recipe can be validated in a moment; a family's own file is imported when its
first network is built. To add a family: write its parameters here, its `build` in a file beside, and one line in
`FAMILIES`; the contract tests then cover it.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

if TYPE_CHECKING:
    from torch import nn


def _is_odd(value: int) -> int:
    if value % 2 == 0:
        raise ValueError("must be odd, so that the output keeps the input's size")
    return value


def _is_residual_depth(value: int) -> int:
    if (value - 2) % 6:
        below = max(8, value - (value - 2) % 6)
        raise ValueError(f"must be 6 n + 2 (8, 14, 20, ...); the nearest are {below} and {below + 6}")
    return value


class Parameters(BaseModel):
    """What makes one network of a family; every field is a choice that a search space can vary."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class ResNetParameters(Parameters):
    """The paper's ResNet variations (section 4): base filters B, kernel size K, multiplier M."""

    depth: Annotated[int, Field(ge=8, le=110), AfterValidator(_is_residual_depth)] = Field(
        20, description="Layers with weights: 6 n + 2.", examples=[20]
    )
    base_filters: Annotated[int, Field(ge=1, le=1024)] = Field(
        16, description="B: channels of the first stage.", examples=[16]
    )
    kernel_size: Annotated[int, Field(ge=1, le=15), AfterValidator(_is_odd)] = Field(
        3, description="K: side of every kernel.", examples=[3]
    )
    multiplier: Annotated[int, Field(ge=1, le=16)] = Field(
        2, description="M: stage widths are B, B*M, B*M^2.", examples=[2]
    )


@dataclass(frozen=True)
class Family:
    """A registered family.

    Attributes:
        parameters: The model of one network's parameters; every field has a default.
        module: Import path of the file whose `build(parameters, n_labels, image_shape)` makes the network.
        feature_layer: The layer that features are taken from unless the recipe names another.
        summary: One line for `proxyds list`.
    """

    parameters: type[Parameters]
    module: str
    feature_layer: str
    summary: str


FAMILIES: dict[str, Family] = {
    "resnet": Family(
        ResNetParameters,
        "proxyds.networks.resnet",
        "pool",
        "residual networks for small images (the paper's tables 1, 2)",
    ),
}


def build_network(
    network: str, parameters: dict[str, int], n_labels: int, image_shape: tuple[int, int, int]
) -> nn.Module:
    """Builds a registered network with initial weights from torch's current generator.

    Args:
        network: A key of `FAMILIES`.
        parameters: Values for the family's parameters.
        n_labels: Number of labels, the size of the output.
        image_shape: (channels, height, width) of one image.

    Returns:
        A network from float images (n, channels, height, width) to logits (n, n_labels).
    """
    family = FAMILIES[network]
    built: nn.Module = import_module(family.module).build(family.parameters(**parameters), n_labels, image_shape)
    return built
