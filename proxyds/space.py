"""The search space: every architecture in it, what each costs, and which serve as probes."""

from __future__ import annotations

import difflib
import json
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch.utils.flop_counter import FlopCounterMode

from proxyds.choices import Bounds, Space
from proxyds.errors import RecipeError, UnknownNameError
from proxyds.networks import FAMILIES, build_network
from proxyds.recipe import Probes
from proxyds.records import Architecture
from proxyds.seeding import derive_seed

MAX_LISTED = 200_000
"""Architectures that are listed, at most."""
MAX_MEASURED = 5_000
"""Networks that are built to be measured, at most: some ten to a hundred a second."""


def list_architectures(
    space: Space, n_labels: int, image_shape: tuple[int, int, int], *, seed: int = 0
) -> list[Architecture]:
    """Lists a space from the lightest to the heaviest architecture.

    Networks whose family says that they cost the same (`Parameters.cost_class`) are measured once: the 15,625 cells of
    NAS-Bench-201 take some ten networks.

    Args:
        space: The recipe's section `space`.
        n_labels: Size of the networks' output.
        image_shape: (C, H, W).
        seed: The recipe's; of the sample, where the section asks for one.

    Returns:
        Every architecture, or the sample, within the bounds; by FLOPs, then parameters, then name.

    Raises:
        RecipeError: Too many to be looked at one by one, none within the bounds, or a network cannot be built.
    """
    measured: dict[tuple[str, Hashable], Architecture] = {}
    found: dict[str, Architecture] = {}
    outside: list[Architecture] = []
    parameters_of = FAMILIES[space.network].parameters
    for number in _numbers(space, seed):
        parameters = space.parameters_at(number)
        name = space.name_of(parameters)
        if name in found:  # two settings that overlap
            continue
        cost_class = parameters_of.model_validate_json(json.dumps(parameters)).cost_class()
        like = measured.get((space.network, cost_class)) if cost_class is not None else None
        if like is None:
            if len(found) + len(outside) >= MAX_MEASURED and cost_class is None:
                raise _too_many(space)
            like = measure_cost(name, space.network, parameters, n_labels, image_shape)
            measured[space.network, cost_class] = like
        architecture = replace(like, name=name, parameters=parameters)
        if not _is_within(architecture, space.bounds):
            outside.append(architecture)
            continue
        found[name] = architecture
        if space.sample is not None and len(found) == space.sample:
            break
    if not found:
        raise RecipeError(_nothing_within(space, sorted(outside, key=_by_cost)))
    return sorted(found.values(), key=_by_cost)


def _numbers(space: Space, seed: int) -> Iterator[int]:
    """The numbers of the architectures to look at: in order, or for a sample in an order of the seed.

    Raises:
        RecipeError: There are too many.
    """
    n = space.n_listed
    if space.sample is None or space.sample >= n:
        if n > MAX_LISTED:
            raise _too_many(space)
        yield from range(n)
    elif n <= MAX_LISTED:
        yield from np.random.default_rng(derive_seed(seed, "space")).permutation(n).tolist()
    else:  # so many that few are met twice
        seen: set[int] = set()
        for i in range(MAX_LISTED):
            number = derive_seed(seed, "space", i) % n
            if number not in seen:
                seen.add(number)
                yield number


def _too_many(space: Space) -> RecipeError:
    return RecipeError(
        f"space: must hold at most {MAX_MEASURED:,} architectures that are measured one by one ({MAX_LISTED:,} where a family "
        f"knows what costs the same), it holds {space.n_listed:,}; draw some of them, for example space.sample: 500, or give "
        "fewer choices"
    )


def _is_within(architecture: Architecture, bounds: Bounds | None) -> bool:
    if bounds is None:
        return True
    flops, parameters = bounds.forward_flops, bounds.n_parameters
    return (flops is None or flops[0] <= architecture.forward_flops <= flops[1]) and (
        parameters is None or parameters[0] <= architecture.n_parameters <= parameters[1]
    )


def _nothing_within(space: Space, outside: Sequence[Architecture]) -> str:
    flops = [each.forward_flops for each in outside]
    parameters = [each.n_parameters for each in outside]
    return (
        f"space.bounds: must leave architectures, none of the {len(outside):,} looked at (of {space.n_listed:,}) lies within them; "
        f"their FLOPs of one image forward are {min(flops):.3g} to {max(flops):.3g}, their weights {min(parameters):,} to "
        f"{max(parameters):,}"
    )


def measure_cost(
    name: str, network: str, parameters: dict[str, Any], n_labels: int, image_shape: tuple[int, int, int]
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
    """Takes the bounds of a space by cost, and more evenly spread between them where more are asked for; or by name.

    Paper, section 3.1: two probes, «the upper boundary model is the most complex model we can make during search
    process, and the lower boundary model is the lightest one»; more where the space needs more. Architectures whose output
    the image does not reach (`Parameters.is_connected`) are none, unless named.

    Args:
        architectures: From the lightest to the heaviest.
        probes: How many, or which.

    Returns:
        From the lightest to the heaviest.

    Raises:
        RecipeError: The space holds fewer architectures than probes.
        UnknownNameError: It holds none of that name.
    """
    if probes.architectures is not None:
        by_name = {each.name: each for each in architectures}
        for name in probes.architectures:
            if name not in by_name:
                near = difflib.get_close_matches(name, by_name, n=3, cutoff=0.3) or list(by_name)[:3]
                raise UnknownNameError(
                    f"probes.architectures: must be architectures of the space, got {name!r}; near: "
                    f"{', '.join(map(repr, near))}; `proxyds inspect RECIPE` lists all {len(by_name):,}"
                )
        return sorted((by_name[name] for name in probes.architectures), key=_by_cost)
    connected = [each for each in architectures if _is_connected(each)]
    n, count = len(connected), probes.count
    if n < count:
        raise RecipeError(
            f"space: must hold at least probes.count = {count} architectures, it holds {n}"
            + ("" if n == len(architectures) else f" whose output the image reaches (of {len(architectures)})")
            + "; add choices to space.choices"
        )
    return [connected[round(i * (n - 1) / (count - 1))] for i in range(count)]


def _is_connected(architecture: Architecture) -> bool:
    parameters = FAMILIES[architecture.network].parameters
    return parameters.model_validate_json(json.dumps(architecture.parameters)).is_connected()


def _by_cost(architecture: Architecture) -> tuple[int, int, str]:
    return architecture.training_flops, architecture.n_parameters, architecture.name
