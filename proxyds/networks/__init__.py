"""Registered families of network architectures: what parameters each takes, and where its torch code is.

Nothing here imports torch: a family's own file is imported when its first network is built. To add a family: write its
parameters in `parameters.py`, its `build` in a file beside, and one line in `FAMILIES`; the contract tests then cover it.
Families of other packages come in through `plugins.py`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

from proxyds.errors import UnknownNameError
from proxyds.networks.parameters import Parameters, ResNetParameters

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class Family:
    """A registered family.

    Attributes:
        parameters: The model of one network's parameters; every field has a default.
        module: Import path of the file whose `build(parameters, n_labels, image_shape)` makes the network.
        feature_layer: The layer that features are taken from unless the recipe names another; None: the last one that is
            computed before the last linear layer.
        summary: One line for `proxyds list`.
        library: The package that the networks come from, whose version then belongs to what a training depends on.
    """

    parameters: type[Parameters]
    module: str
    feature_layer: str | None
    summary: str
    library: str | None = None


FAMILIES: dict[str, Family] = {
    "resnet": Family(
        ResNetParameters,
        "proxyds.networks.resnet",
        "pool",
        "residual networks for small images (the paper's tables 1, 2)",
    ),
}


def find_family(network: str) -> Family:
    """Returns a registered family, or one that an installed package offers.

    Raises:
        UnknownNameError: There is none of that name.
        PluginError: What is offered cannot be used.
    """
    from proxyds.networks.plugins import offer_installed

    offer_installed(network)
    if network not in FAMILIES:
        raise UnknownNameError(
            f"network {network!r}: must be a family that is known ({', '.join(FAMILIES)}), or one of a plugin: --plugin MODULE, or "
            "install the package that offers it"
        )
    return FAMILIES[network]


def build_network(
    network: str, parameters: Mapping[str, Any], n_labels: int, image_shape: tuple[int, int, int]
) -> nn.Module:
    """Builds a registered network with initial weights from torch's current generator.

    Args:
        network: A key of `FAMILIES`.
        parameters: Values for the family's parameters, as JSON has them.
        n_labels: Number of labels, the size of the output.
        image_shape: (channels, height, width) of one image.

    Returns:
        A network from float images (n, channels, height, width) to logits (n, n_labels).

    Raises:
        UnknownNameError: There is no such family.
    """
    family = find_family(network)
    read = family.parameters.model_validate_json(json.dumps(dict(parameters)))
    built: nn.Module = import_module(family.module).build(read, n_labels, image_shape)
    return built
