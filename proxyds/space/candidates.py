"""Candidates as a program has them, from which a recipe's section `space` is made: factories of networks, and modules."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from proxyds.errors import CallableError
from proxyds.space.networks.families import HANDED_OVER

if TYPE_CHECKING:
    from torch import nn


def make_space(
    candidates: Mapping[str, Callable[..., nn.Module] | nn.Module] | Sequence[Callable[..., nn.Module] | nn.Module],
) -> dict[str, Any]:
    """Makes a recipe's section `space` of networks at hand, and keeps them for this process and its workers.

    Args:
        candidates: Functions, classes or `functools.partial`s that make a network, and torch modules; by name, or as a list, where
            a network is named by its class or function, with a number where several are. A factory takes no argument, or
            `n_labels` (how many) and `image_shape` (channels, height, width). A module stays as it is: copies of it are trained,
            whose weights `reset_parameters` of its layers draws.

    Returns:
        The section, as JSON has it: the name of each network with the sha256 of its code. Anybody can read it; who runs it hands the
        same networks over.

    Raises:
        CallableError: Some cannot be used; the message names each of them.
    """
    from proxyds.space.networks.handed_over import hand_over_network  # with torch

    architectures, problems = [], []
    for name, candidate in _name(candidates).items():
        try:
            architectures.append({"name": name, "sha256": hand_over_network(candidate, f"space: {name!r}")})
        except CallableError as error:
            problems.append(str(error))
    if problems:
        raise CallableError("\n".join(problems))
    return {"network": HANDED_OVER, "architectures": architectures}


def is_candidates(space: object) -> bool:
    """Tells whether what is given for a space is networks at hand, and not a recipe's section."""
    return isinstance(space, list | tuple) or (isinstance(space, Mapping) and any(map(callable, space.values())))


def _name(candidates: Any) -> dict[str, Any]:
    if isinstance(candidates, Mapping):
        if odd := [name for name in candidates if not isinstance(name, str)]:
            raise CallableError(f"space: must name networks by texts, got {odd[0]!r} of type {type(odd[0]).__name__}")
        named = dict(candidates)
    elif isinstance(candidates, Sequence) and not isinstance(candidates, str | bytes):
        own = [_find_name(each) for each in candidates]
        n_of, n_before, named = Counter(own), Counter[str](), {}
        for name, candidate in zip(own, candidates, strict=True):
            n_before[name] += 1
            named[name if n_of[name] == 1 else f"{name}-{n_before[name]}"] = candidate
    else:
        raise CallableError(
            f"space: must be a mapping of names to networks, or a list of networks, got {type(candidates).__name__}"
        )
    if not named:
        raise CallableError("space: must hold networks, it is empty")
    return named


def _find_name(candidate: Any) -> str:
    """Finds what a network is called: its function or class, of a module its class."""
    while isinstance(candidate, functools.partial):
        candidate = candidate.func
    name = getattr(candidate, "__name__", None)
    name = name if isinstance(name, str) else type(candidate).__name__
    return "network" if name == "<lambda>" else name
