"""timm's models by name, with their arguments as choices (extra `proxyds[timm]`). Weights are never downloaded."""

from __future__ import annotations

from typing import Any

from torch import nn

from proxyds.errors import MissingExtraError
from proxyds.space.networks.parameters import LibraryParameters
from proxyds.space.networks.stems import shrink_stem, unknown_model

try:
    import timm
except ModuleNotFoundError as error:
    raise MissingExtraError(
        "network 'timm': must have timm installed, it is not; pip install 'proxyds[timm]'"
    ) from error


def build(parameters: LibraryParameters, n_labels: int, image_shape: tuple[int, int, int]) -> nn.Module:
    """Builds one model with timm's initial weights, drawn from torch's current generator.

    Models of a fixed size of image are made for this one (`img_size`), unless the arguments say otherwise.

    Args:
        parameters: The model's name, its arguments, whether its stem is to suit small images.
        n_labels: Size of the output.
        image_shape: (channels, height, width) of one image.

    Raises:
        UnknownNameError: There is no such model.
        RecipeError: It does not take such a stem.
        Exception: timm's own, where it does not take such arguments; `cost.measure_cost` makes a message of it.
    """
    known = timm.list_models()
    if parameters.model not in known:
        raise unknown_model("timm", parameters.model, known)
    given: dict[str, Any] = {"num_classes": n_labels, "in_chans": image_shape[0], **parameters.arguments}
    about = timm.models.get_pretrained_cfg(parameters.model)
    if about is not None and about.fixed_input_size:
        given.setdefault("img_size", image_shape[1:])
    network: nn.Module = timm.create_model(parameters.model, pretrained=False, **given)
    if parameters.small_stem:
        shrink_stem(network, parameters.model)
    return network
