"""The search space: every architecture in it, what each costs, and which serve as probes."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

import torch
import torch.nn.functional as F
from torch.utils.flop_counter import FlopCounterMode

from proxyds.errors import RecipeError
from proxyds.networks import build_network
from proxyds.recipe import Probes, Space
from proxyds.records import Architecture


def list_architectures(space: Space, n_labels: int, image_shape: tuple[int, int, int]) -> list[Architecture]:
    """Lists a space from the lightest to the heaviest architecture.

    Args:
        space: The recipe's section `space`.
        n_labels: Size of the networks' output.
        image_shape: (C, H, W).

    Returns:
        Every combination of the choices, by FLOPs, then parameters, then name.
    """
    choices: dict[str, Sequence[int]] = space.choices.model_dump()
    varied = [name for name, values in choices.items() if len(values) > 1] or list(choices)
    architectures = []
    for values in product(*choices.values()):
        parameters = dict(zip(choices, values, strict=True))
        name = " ".join([space.network, *(f"{key}={parameters[key]}" for key in varied)])
        architectures.append(measure_cost(name, space.network, parameters, n_labels, image_shape))
    return sorted(architectures, key=_by_cost)


def measure_cost(
    name: str, network: str, parameters: dict[str, int], n_labels: int, image_shape: tuple[int, int, int]
) -> Architecture:
    """Counts one architecture's FLOPs and weights on torch's meta device: nothing is computed."""
    n_images = 2  # batch norm refuses one image where its map is one pixel
    with torch.device("meta"):
        built = build_network(network, parameters, n_labels, image_shape)
        images = torch.zeros(n_images, *image_shape)
        targets = torch.zeros(n_images, dtype=torch.long)
        with FlopCounterMode(display=False) as forward:
            loss = F.cross_entropy(built(images), targets)
        with FlopCounterMode(display=False) as backward:
            torch.autograd.backward(loss)
    forward_flops = forward.get_total_flops() // n_images
    return Architecture(
        name=name,
        network=network,
        parameters=parameters,
        forward_flops=forward_flops,
        training_flops=forward_flops + backward.get_total_flops() // n_images,
        n_parameters=sum(weight.numel() for weight in built.parameters()),
    )


def choose_probes(architectures: Sequence[Architecture], probes: Probes) -> list[Architecture]:
    """Takes the bounds of a space by cost, and more evenly spread between them where more are asked for.

    Paper, section 3.1: two probes, «the upper boundary model is the most complex model we can make during search
    process, and the lower boundary model is the lightest one»; more where the space needs more.

    Args:
        architectures: From the lightest to the heaviest.
        probes: How many.

    Returns:
        From the lightest to the heaviest.

    Raises:
        RecipeError: The space holds fewer architectures than probes.
    """
    n, count = len(architectures), probes.count
    if n < count:
        raise RecipeError(
            f"space: must hold at least probes.count = {count} architectures, it holds {n}; add choices to space.choices"
        )
    return [architectures[round(i * (n - 1) / (count - 1))] for i in range(count)]


def _by_cost(architecture: Architecture) -> tuple[int, int, str]:
    return architecture.training_flops, architecture.n_parameters, architecture.name
