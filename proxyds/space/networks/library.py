"""Classification models of torchvision and timm by name, with their builders' arguments as choices. Weights are never downloaded."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

from torch import nn

from proxyds.errors import MissingExtraError, RecipeError, UnknownNameError
from proxyds.space.networks.parameters import LibraryParameters
from proxyds.text import suggest_names

STEM_CONVOLUTIONS = 3
"""A stem has so many convolutions at most («deep» stems of ResNet-C and -D); pooling after them belongs to the stem."""


def build_torchvision(parameters: LibraryParameters, n_labels: int, image_shape: tuple[int, int, int]) -> nn.Module:
    """Builds one model with torchvision's initial weights, drawn from torch's current generator.

    Models of a fixed size of image are made for this one (`image_size`), unless the recipe's `arguments` say otherwise. Arguments of
    this function as of every `Family.module`.

    Raises:
        UnknownNameError: There is no such model.
        RecipeError: It does not take such a stem.
        Exception: torchvision's own, where it does not take such arguments; `cost.measure_cost` makes a message of it.
    """
    from torchvision import models

    _check_model("torchvision", parameters.model, models.list_models(module=models))
    arguments: dict[str, Any] = {"weights": None, "num_classes": n_labels, **parameters.arguments}
    if parameters.model.startswith("vit_"):
        arguments.setdefault("image_size", image_shape[1])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # on the initial weights of two old models
        network: nn.Module = models.get_model(parameters.model, **arguments)
    take_channels(network, image_shape[0])
    if parameters.small_stem:
        shrink_stem(network, parameters.model)
    return network


def build_timm(parameters: LibraryParameters, n_labels: int, image_shape: tuple[int, int, int]) -> nn.Module:
    """Builds one model with timm's initial weights, as `build_torchvision` does; `img_size` is timm's argument for the size.

    Raises:
        MissingExtraError: timm is not installed.
    """
    try:
        import timm
    except ModuleNotFoundError as error:
        raise MissingExtraError(
            "network 'timm': must have timm installed, it is not; pip install 'proxyds[timm]'"
        ) from error
    _check_model("timm", parameters.model, timm.list_models())
    arguments: dict[str, Any] = {"num_classes": n_labels, "in_chans": image_shape[0], **parameters.arguments}
    config = timm.models.get_pretrained_cfg(parameters.model)
    if config is not None and config.fixed_input_size:
        arguments.setdefault("img_size", image_shape[1:])
    network: nn.Module = timm.create_model(parameters.model, pretrained=False, **arguments)
    if parameters.small_stem:
        shrink_stem(network, parameters.model)
    return network


def _check_model(library: str, model: str, names: Sequence[str]) -> None:
    if model not in names:
        raise UnknownNameError(
            f"space: model must be one of the {len(names):,} models of {library}, got {model!r}; {suggest_names(model, names)}"
        )


def take_channels(network: nn.Module, n_channels: int) -> None:
    """Replaces the first convolution where images have another number of channels than it takes."""
    name, first = _first_convolution(network)
    if first.in_channels != n_channels:
        _replace(network, name, _like(first, n_channels))


def shrink_stem(network: nn.Module, model: str) -> None:
    """Makes the first convolution 3x3 at most and of stride 1, and takes out the pooling that follows it.

    Raises:
        RecipeError: The model begins with patches, with a convolution of its own kind, or has nothing to shrink.
    """
    name, first = _first_convolution(network)
    trouble = ""
    if set(first.stride) == {1}:
        trouble = "its stem is of stride 1 already; leave small_stem out"
    elif type(first) is not nn.Conv2d:
        trouble = f"its stem is a {type(first).__name__} of its own kind; leave small_stem out"
    elif first.stride == first.kernel_size:
        trouble = (
            f"it begins with patches of {first.kernel_size[0]}x{first.kernel_size[1]} pixels; give their size among the "
            "arguments instead (patch_size), where the model takes it"
        )
    if trouble:
        raise RecipeError(f"space: {model} cannot have a small_stem, {trouble}")
    side = min(3, *first.kernel_size)
    _replace(network, name, _like(first, first.in_channels, kernel_size=side, stride=1, padding=side // 2))
    layers = [each for each, module in network.named_modules() if isinstance(module, nn.Conv2d | nn.MaxPool2d)]
    for layer in layers[layers.index(name) + 1 :][:STEM_CONVOLUTIONS]:
        if isinstance(network.get_submodule(layer), nn.MaxPool2d):
            _replace(network, layer, nn.Identity())
            break


def _first_convolution(network: nn.Module) -> tuple[str, nn.Conv2d]:
    for name, module in network.named_modules():
        if isinstance(module, nn.Conv2d):
            return name, module
    raise RecipeError("space: a model must begin with a convolution to be given another stem, it has none")


def _like(convolution: nn.Conv2d, n_in: int, **settings: Any) -> nn.Conv2d:
    """Makes a convolution for `n_in` channels like another one, with other settings of size, stride and padding."""
    settings = {name: getattr(convolution, name) for name in ("kernel_size", "stride", "padding")} | settings
    new = nn.Conv2d(n_in, convolution.out_channels, bias=convolution.bias is not None, **settings)
    nn.init.kaiming_normal_(new.weight, mode="fan_out", nonlinearity="relu")
    return new


def _replace(network: nn.Module, name: str, new: nn.Module) -> None:
    above, _, own = name.rpartition(".")
    setattr(network.get_submodule(above), own, new)
