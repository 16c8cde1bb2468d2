"""The search space: every architecture in it, what each costs, and which serve as probes."""

from __future__ import annotations

import difflib
import json
import math
import random
from collections.abc import Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from pydantic import ValidationError
from torch.utils.flop_counter import FlopCounterMode

from proxyds.errors import ProxydsError, RecipeError, UnknownNameError
from proxyds.recipe.models import Probes
from proxyds.seeding import derive_seed
from proxyds.selection.records import Architecture
from proxyds.space.choices import Bounds, Space
from proxyds.space.networks import FAMILIES, sketch_network
from proxyds.space.networks.parameters import Parameters
from proxyds.text import first_line

MAX_LISTED = 200_000
"""Architectures that are listed, at most."""
MAX_MEASURED = 5_000
"""Networks that are built to be measured, at most: some ten to a hundred a second."""


def list_architectures(
    space: Space, n_labels: int, image_shape: tuple[int, int, int], *, seed: int = 0
) -> list[Architecture]:
    """Lists a space from the lightest to the heaviest architecture.

    Where the family says what a cost is the sum of (`Parameters.cost_parts`), few networks are measured and the others added up:
    of the 15,625 cells of NAS-Bench-201 fourteen.

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
    measured = _Measured()
    found: dict[str, Architecture] = {}
    outside: list[Architecture] = []
    for number in _numbers(space, seed):
        parameters = space.parameters_at(number)
        name = space.name_of(parameters)
        if name in found:
            if found[name].parameters == parameters:  # two settings that overlap
                continue
            raise RecipeError(f"space: architectures must be told apart by name, two are called {name!r}: {parameters}")
        parts = _read_parameters(space.network, parameters).cost_parts()
        cost = None if parts is None else measured.add_up(parts)
        if cost is not None:
            architecture = Architecture(name, space.network, parameters, *cost)
        elif (parts is None and space.n_most > MAX_MEASURED) or (measured.n == MAX_MEASURED and space.sample is None):
            raise _too_many(space)
        elif measured.n == MAX_MEASURED:  # what bounds leave of a sample
            break
        else:
            architecture = measure_cost(name, space.network, parameters, n_labels, image_shape)
            measured.add(parts, architecture)
        if not _is_within(architecture, space.bounds):
            outside.append(architecture)
            continue
        found[name] = architecture
        if space.sample is not None and len(found) == space.sample:
            break
    if not found:
        raise RecipeError(_nothing_within(space, outside))
    return sorted(found.values(), key=_by_cost)


class _Measured:
    """Costs that were measured, and those that follow from them.

    The parts of each network, counted, are a vector; a network whose vector is a combination of earlier ones costs the same
    combination of what they cost.
    """

    def __init__(self) -> None:
        self.n = 0
        self._places: dict[Hashable, int] = {}
        self._counts: list[NDArray[np.float64]] = []
        self._costs: list[tuple[int, int, int]] = []
        self._known: dict[tuple[tuple[Hashable, int], ...], tuple[int, int, int]] = {}

    def add(self, parts: Mapping[Hashable, int] | None, architecture: Architecture) -> None:
        """Takes in a network that was measured."""
        self.n += 1
        if parts is not None:
            for part in parts:
                self._places.setdefault(part, len(self._places))
            self._counts.append(self._as_vector(parts))
            self._costs.append((architecture.forward_flops, architecture.training_flops, architecture.n_parameters))

    def add_up(self, parts: Mapping[Hashable, int]) -> tuple[int, int, int] | None:
        """FLOPs forward, in training, and weights; None where they do not follow from what was measured."""
        key = tuple(parts.items())
        if key not in self._known:
            if not self._counts or not all(part in self._places for part in parts):
                return None
            n_places = len(self._places)
            held = np.stack([np.pad(counts, (0, n_places - len(counts))) for counts in self._counts], axis=1)
            wanted = self._as_vector(parts)
            weights = np.linalg.lstsq(held, wanted)[0]
            if not np.allclose(held @ weights, wanted):
                return None
            forward, training, n_parameters = np.rint(weights @ np.array(self._costs, np.float64)).astype(int).tolist()
            self._known[key] = forward, training, n_parameters
        return self._known[key]

    def _as_vector(self, parts: Mapping[Hashable, int]) -> NDArray[np.float64]:
        vector = np.zeros(len(self._places))
        for part, n in parts.items():
            vector[self._places[part]] = n
        return vector


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
        draw = random.Random(derive_seed(seed, "space"))  # noqa: S311 - numpy's draws no whole numbers beyond 64 bits
        for _ in range(MAX_LISTED):
            number = draw.randrange(n)
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
    """Counts one architecture's FLOPs and weights on torch's meta device: nothing is computed.

    Raises:
        RecipeError: It cannot be built, or not work on such images.
    """
    n_images = 2  # batch norm refuses one image where its map is one pixel
    with _said_of(f"{name} must be built of its parameters, got {parameters}"):
        built = sketch_network(network, parameters, n_labels, image_shape)
        if not isinstance(built, torch.nn.Module):
            raise TypeError(f"build gave {type(built).__name__}, no network")
    on_images = (
        f"{name} must work on images of {'x'.join(map(str, image_shape))} (channels, height, width); where their size is at fault, "
        "larger ones (source.image_size), a small_stem or smaller patches may help"
    )
    with torch.device("meta"):
        images = torch.zeros(n_images, *image_shape)
        targets = torch.zeros(n_images, dtype=torch.long)
        with FlopCounterMode(display=False) as forward, _said_of(on_images):
            logits = built(images)
        if not isinstance(logits, torch.Tensor) or logits.shape != (n_images, n_labels):
            raise RecipeError(
                f"space: {name} must map n images to one tensor (n, {n_labels}), it gives "
                f"{tuple(logits.shape) if isinstance(logits, torch.Tensor) else type(logits).__name__}; models with auxiliary outputs "
                "need aux_logits: false among their arguments"
            )
        loss = F.cross_entropy(logits, targets)
        with FlopCounterMode(display=False, custom_mapping=_BACKWARD) as backward:
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


@contextmanager
def _said_of(requirement: str) -> Iterator[None]:
    """Makes whatever a network complains of one message: it may be anybody's code."""
    try:
        yield
    except ProxydsError:
        raise
    except Exception as error:
        raise RecipeError(f"space: {requirement}; it says {type(error).__name__}: {first_line(error)}") from error


def _read_parameters(network: str, parameters: dict[str, Any]) -> Parameters:
    """A family's parameters, which may refuse a combination of values."""
    try:
        return FAMILIES[network].parameters.model_validate_json(json.dumps(parameters))
    except ValidationError as error:
        said = "; ".join(detail["msg"].removeprefix("Value error, ") for detail in error.errors(include_url=False))
        raise RecipeError(f"space: {network} must take its parameters together, got {parameters}: {said}") from None


def _count_convolution_backward(
    grad_shape: Sequence[int],
    x_shape: Sequence[int],  # noqa: ARG001 - torch's
    w_shape: Sequence[int],
    *rest: Any,
    **named: Any,  # noqa: ARG001
) -> int:
    """FLOPs of a convolution's gradients: as many for the input's and for the weights' as forward.

    torch (2.14) counts the weights' gradient of a convolution in groups as if it had one group: 16 times too much for a depthwise
    one of 16 channels.

    Args:
        grad_shape: (n, c_out, h, w) of the output's gradient.
        x_shape: (n, c_in, ...).
        w_shape: (c_out, c_in / groups, k, k).
        rest: Of `aten.convolution_backward`; the last says which gradients are asked for.
        named: `out_shape`.
    """
    n_gradients: int = sum(rest[-1][:2])  # the bias's costs next to nothing
    return 2 * grad_shape[0] * math.prod(grad_shape[2:]) * math.prod(w_shape) * n_gradients


_BACKWARD = {torch.ops.aten.convolution_backward: _count_convolution_backward}


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
            + "; give more choices, wider bounds or a larger sample"
        )
    return [connected[round(i * (n - 1) / (count - 1))] for i in range(count)]


def _is_connected(architecture: Architecture) -> bool:
    return _read_parameters(architecture.network, architecture.parameters).is_connected()


def _by_cost(architecture: Architecture) -> tuple[int, int, str]:
    return architecture.training_flops, architecture.n_parameters, architecture.name
