"""A network of any family, built from its parameters; and what its training depends on besides."""

from __future__ import annotations

import json
import platform
from collections.abc import Callable, Mapping
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import ValidationError

from proxyds.arguments import as_count, as_shape
from proxyds.code_identity import hash_files
from proxyds.errors import ArgumentError, MissingExtraError, RecipeError
from proxyds.space.networks.families import HANDED_OVER
from proxyds.space.networks.plugins import find_family
from proxyds.text import describe_type, short_json

if TYPE_CHECKING:
    from torch import Tensor, nn

_Answer = TypeVar("_Answer")


def describe_origin(network: str) -> dict[str, str]:
    """Describes what a training depends on besides recipe and torch: the version of the library, or the code, that makes the network.

    Args:
        network: A registered family.

    Returns:
        Nothing for the families of this package; `library` with its version; `plugin` with the sha256 of the module that
        holds `build`, or of all modules of its package; `code` where the recipe has the sha256 of each network's code, which is that of
        one version of Python.

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
    if network == HANDED_OVER:
        major, minor, _ = platform.python_version_tuple()
        return {"code": f"of a program, identified by the sha256 of each network's code in Python {major}.{minor}"}
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
        RecipeError: A parameter cannot be used.
    """
    if not isinstance(network, str) or not isinstance(parameters, Mapping):
        raise ArgumentError(
            "network, parameters: must be a family's name and a mapping, got "
            f"{describe_type(network)} and {describe_type(parameters)}"
        )
    n_labels, image_shape = as_count(n_labels, "n_labels"), as_shape(image_shape, "image_shape")
    family = find_family(network)
    try:
        read = family.parameters.model_validate_json(json.dumps(dict(parameters), default=describe_type))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(map(str, ("parameters", *first["loc"])))
        raise RecipeError(
            f"{place}: {first['msg'].removeprefix('Value error, ')}, got {short_json(first['input'])}"
        ) from None
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
        except (RuntimeError, TypeError):  # for want of values; any other mistake is one on the CPU too
            return build_network(network, parameters, n_labels, image_shape).to("meta")


def ask_network(
    network: str,
    parameters: Mapping[str, Any],
    n_labels: int,
    image_shape: tuple[int, int, int],
    ask: Callable[[nn.Module, Tensor], _Answer],
) -> _Answer:
    """Builds a network and asks it something, on torch's meta device; where its code needs values, which that has not, on the CPU.

    Args:
        network: See `build_network`.
        parameters: See `build_network`.
        n_labels: See `build_network`.
        image_shape: See `build_network`.
        ask: Called with the network and two images (2, channels, height, width).

    Returns:
        What `ask` returns.

    Raises:
        Exception: Whatever building or asking raises on the CPU.
    """
    import torch

    try:
        built = sketch_network(network, parameters, n_labels, image_shape)
        with torch.device("meta"):
            return ask(built, torch.zeros(2, *image_shape))  # batch norm refuses a single image whose map is one pixel
    except Exception:  # noqa: BLE001 - whatever is wrong besides is wrong on the CPU too
        with torch.random.fork_rng(devices=[]):
            built = build_network(network, parameters, n_labels, image_shape)
            return ask(built, torch.zeros(2, *image_shape))
