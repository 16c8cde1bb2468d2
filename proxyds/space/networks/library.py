"""Classification models of torchvision and timm by name, with their builders' arguments as choices. Weights are never downloaded."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

from torch import nn

from proxyds.errors import MissingExtraError, UnknownNameError
from proxyds.space.networks.parameters import LibraryParameters
from proxyds.space.networks.stems import shrink_stem, take_channels
from proxyds.text import suggest_names


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
