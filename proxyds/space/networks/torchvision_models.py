"""torchvision's classification models by name, with their builders' arguments as choices. Weights are never downloaded."""

from __future__ import annotations

import warnings
from typing import Any

from torch import nn
from torchvision import models

from proxyds.space.networks.parameters import LibraryParameters
from proxyds.space.networks.stems import shrink_stem, take_channels, unknown_model


def build(parameters: LibraryParameters, n_labels: int, image_shape: tuple[int, int, int]) -> nn.Module:
    """Builds one model with torchvision's initial weights, drawn from torch's current generator.

    Models of a fixed size of image are made for this one (`image_size`), unless the arguments say otherwise.

    Args:
        parameters: The model's name, its builder's arguments, whether its stem is to suit small images.
        n_labels: Size of the output.
        image_shape: (channels, height, width) of one image.

    Raises:
        UnknownNameError: There is no such model.
        RecipeError: It does not take such a stem.
        Exception: torchvision's own, where it does not take such arguments; `cost.measure_cost` makes a message of it.
    """
    known = models.list_models(module=models)
    if parameters.model not in known:
        raise unknown_model("torchvision", parameters.model, known)
    given: dict[str, Any] = {"weights": None, "num_classes": n_labels, **parameters.arguments}
    if parameters.model.startswith("vit_"):
        given.setdefault("image_size", image_shape[1])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # on the initial weights of two old models
        network: nn.Module = models.get_model(parameters.model, **given)
    take_channels(network, image_shape[0])
    if parameters.small_stem:
        shrink_stem(network, parameters.model)
    return network
