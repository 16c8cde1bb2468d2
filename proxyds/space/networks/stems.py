"""What a library's model needs before it sees small or grey images: a first convolution that suits them."""

from __future__ import annotations

from typing import Any

from torch import nn

from proxyds.errors import RecipeError

STEM_CONVOLUTIONS = 3
"""Of a stem, at most («deep» stems of ResNet-C and -D): pooling after them is the stem's."""


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
