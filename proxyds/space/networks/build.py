"""A network of any family, built from its parameters; and what its training depends on besides."""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

from proxyds.code_identity import hash_files
from proxyds.errors import MissingExtraError
from proxyds.space.networks.plugins import find_family

if TYPE_CHECKING:
    from torch import nn


def describe_origin(network: str) -> dict[str, str]:
    """Describes what a training depends on besides recipe and torch: the version of the library, or the code, that makes the network.

    Args:
        network: A registered family.

    Returns:
        Nothing for the families of this package; `library` with its version; `plugin` with the sha256 of the module that
        holds `build`, or of all modules of its package.

    Raises:
        MissingExtraError: The library is not installed.
    """
    family = find_family(network)
    if family.library is not None:
        try:
            return {"library": f"{family.library} {version(family.library)}"}
        except PackageNotFoundError:
            raise MissingExtraError(
                f"network {network!r}: must have {family.library} installed, it is not; pip install 'proxyds[{family.library}]'"
            ) from None
    if family.module.startswith("proxyds."):
        return {}
    module = family.module.partition(":")[0]
    import_module(module)
    return {"plugin": f"{family.module} {hash_files(module)}"}


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
    module, _, function = family.module.partition(":")
    built: nn.Module = getattr(import_module(module), function or "build")(read, n_labels, image_shape)
    return built


def sketch_network(
    network: str, parameters: Mapping[str, Any], n_labels: int, image_shape: tuple[int, int, int]
) -> nn.Module:
    """Builds a network on torch's meta device: shapes without values, in next to no time and memory; see `build_network`.

    Builders that compute with tensors (RegNet's find their widths so) cannot: their networks are built and then moved there.
    """
    import torch

    with torch.random.fork_rng(devices=[]):
        try:
            with torch.device("meta"):
                return build_network(network, parameters, n_labels, image_shape)
        except RuntimeError:  # for want of values; any other mistake is one on the CPU too
            return build_network(network, parameters, n_labels, image_shape).to("meta")
