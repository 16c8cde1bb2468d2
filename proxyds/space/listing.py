"""The architectures of a search space, from the lightest to the heaviest, each with its cost."""

from __future__ import annotations

import random
from collections.abc import Hashable, Iterator, Mapping, Sequence

import numpy as np

from proxyds.arguments import as_count, as_shape
from proxyds.errors import ArgumentError, CallableError, ProxydsError, RecipeError
from proxyds.seeding import derive_seed
from proxyds.space.architecture import Architecture, by_cost
from proxyds.space.candidates import hand_over_again
from proxyds.space.choices import Bounds, Space
from proxyds.space.cost import measure_cost, read_parameters
from proxyds.space.handed_over import check_initial_weights
from proxyds.space.networks.families import HANDED_OVER
from proxyds.text import describe_type

MAX_LISTED = 200_000
"""Architectures that are listed, at most."""
MAX_MEASURED = 5_000
"""Networks that are built to be measured, at most; so many take minutes."""

MAX_TOLD = 10
"""Networks that cannot be built which one message names."""


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
        ArgumentError: An argument is of another kind.
        RecipeError: Too many to be looked at one by one, none within the bounds, or a network cannot be built; of those of a program
            the message names all.
        CallableError: A program's networks were not handed over, or cannot be used.
    """
    if not isinstance(space, Space):
        raise ArgumentError(f"space: must be a recipe's section, recipe.space, got {describe_type(space)}")
    n_labels, image_shape = as_count(n_labels, "n_labels"), as_shape(image_shape, "image_shape")
    hand_over_again(space, None)
    measured = _Measured()
    listed: dict[str, Architecture] = {}
    outside: list[Architecture] = []
    faults: list[ProxydsError] = []
    for number in _numbers(space, seed):
        parameters = space.parameters_at(number)
        name = space.name_of(parameters)
        if name in listed:
            if listed[name].parameters == parameters:  # two settings that overlap
                continue
            raise RecipeError(f"space: architectures must be told apart by name, two are called {name!r}: {parameters}")
        parts = read_parameters(space.network, parameters).cost_parts()
        cost = None if parts is None else measured.add_up(parts)
        if cost is not None:
            architecture = Architecture(name, space.network, parameters, *cost)
        elif (parts is None and space.n_most > MAX_MEASURED) or (measured.n == MAX_MEASURED and space.sample is None):
            raise _too_many(space)
        elif measured.n == MAX_MEASURED:  # what bounds leave of a sample
            break
        else:
            try:
                architecture = measure_cost(name, space.network, parameters, n_labels, image_shape)
                if space.network == HANDED_OVER:
                    check_initial_weights(parameters, n_labels, image_shape)
            except (RecipeError, CallableError) as error:
                if space.network != HANDED_OVER:
                    raise
                faults.append(error)
                if len(faults) == MAX_TOLD:
                    break
                continue
            measured.add(parts, architecture)
        if _is_within(architecture, space.bounds):
            listed[name] = architecture
        else:
            outside.append(architecture)
        if len(listed) == space.sample:
            break
    if faults:
        raise type(faults[0])("\n".join(map(str, faults)))
    if not listed:
        raise _nothing_within(space, outside)
    return sorted(listed.values(), key=by_cost)


class _Measured:
    """Costs that were measured, and those that follow from them.

    The parts of each network, counted, are a vector; a network whose vector is a combination of earlier ones costs the same
    combination of what they cost.
    """

    def __init__(self) -> None:
        self.n = 0
        self._networks: list[tuple[Mapping[Hashable, int], tuple[int, int, int]]] = []
        self._sums: dict[tuple[tuple[Hashable, int], ...], tuple[int, int, int]] = {}

    def add(self, parts: Mapping[Hashable, int] | None, architecture: Architecture) -> None:
        """Adds a network that was measured."""
        self.n += 1
        if parts is not None:
            cost = architecture.forward_flops, architecture.training_flops, architecture.n_parameters
            self._networks.append((parts, cost))

    def add_up(self, parts: Mapping[Hashable, int]) -> tuple[int, int, int] | None:
        """Returns FLOPs forward, in training, and weights; None where they do not follow from what was measured."""
        key = tuple(parts.items())
        if key not in self._sums:
            all_parts = dict.fromkeys(part for counts, _ in self._networks for part in counts)
            if not self._networks or not parts.keys() <= all_parts.keys():
                return None
            measured = np.array([[float(counts.get(part, 0)) for counts, _ in self._networks] for part in all_parts])
            asked = np.array([float(parts.get(part, 0)) for part in all_parts])
            weights = np.linalg.lstsq(measured, asked)[0]
            if not np.allclose(measured @ weights, asked):
                return None
            costs = np.array([cost for _, cost in self._networks], np.float64)
            self._sums[key] = tuple(np.rint(weights @ costs).astype(int).tolist())
        return self._sums[key]


def _numbers(space: Space, seed: int) -> Iterator[int]:
    """Yields the numbers of the architectures to look at: in order, or for a sample in an order of the seed.

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
        draw = random.Random(derive_seed(seed, "space"))  # noqa: S311 - numpy's draws no whole numbers beyond 64 bits
        yield from dict.fromkeys(draw.randrange(n) for _ in range(MAX_LISTED))


def _too_many(space: Space) -> RecipeError:
    return RecipeError(
        f"space: must hold at most {MAX_MEASURED:,} architectures that are measured one by one ({MAX_LISTED:,} where a family "
        f"knows what costs the same), it holds {space.n_listed:,}; draw some of them, for example space.sample: 500, or give "
        "fewer choices"
    )


def _is_within(architecture: Architecture, bounds: Bounds | None) -> bool:
    if bounds is None:
        return True
    costs = (
        (bounds.forward_flops, architecture.forward_flops),
        (bounds.n_parameters, architecture.n_parameters),
    )
    return all(limits is None or limits[0] <= cost <= limits[1] for limits, cost in costs)


def _nothing_within(space: Space, outside: Sequence[Architecture]) -> RecipeError:
    flops = [each.forward_flops for each in outside]
    parameters = [each.n_parameters for each in outside]
    return RecipeError(
        f"space.bounds: must leave architectures, none of the {len(outside):,} looked at (of {space.n_listed:,}) lies within them; "
        f"their FLOPs of one image forward are {min(flops):.3g} to {max(flops):.3g}, their weights {min(parameters):,} to "
        f"{max(parameters):,}"
    )
