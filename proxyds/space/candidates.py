"""Candidates as a program has them: factories of networks, and modules. A recipe's section `space` is made from them, and names them."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from proxyds.callables import is_handed_over
from proxyds.errors import CallableError
from proxyds.space.choices import Space
from proxyds.space.networks.families import HANDED_OVER
from proxyds.space.networks.parameters import MAX_NAME
from proxyds.text import describe_type, find_active_text, short_json

if TYPE_CHECKING:
    from torch import nn

    Candidate = Callable[..., nn.Module] | nn.Module
    Candidates = Mapping[str, Candidate] | Sequence[Candidate]


def make_space(candidates: Candidates) -> dict[str, Any]:
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
    from proxyds.space.handed_over import hand_over_network  # with torch

    architectures, problems = [], []
    for name, candidate in name_candidates(candidates).items():
        if not 0 < len(name) <= MAX_NAME or name != name.strip() or not name.isprintable() or find_active_text(name):
            problems.append(
                f"space: {short_json(name)} must be a name of {MAX_NAME} letters at most, of plain text on one line, without blanks around it"
            )
            continue
        try:
            architectures.append({"name": name, "sha256": hand_over_network(candidate, f"space: {name!r}")})
        except CallableError as error:
            problems.append(str(error))
    first: dict[str, str] = {}
    problems += [
        f"space: {each['name']!r} must be another network than {other!r}, both are the same code with the same values; a lambda in a loop "
        "sees the last value: use functools.partial(Net, width)"
        for each in architectures
        if (other := first.setdefault(each["sha256"], each["name"])) != each["name"]
    ]
    if problems:
        raise CallableError("\n".join(problems))
    return {"network": HANDED_OVER, "architectures": architectures}


def is_candidates(space: object) -> bool:
    """Tells whether what is given for a space is networks at hand, and not a recipe's section."""
    return (
        isinstance(space, list | tuple)
        or callable(space)
        or (isinstance(space, Mapping) and any(map(callable, space.values())))
    )


def hand_over_again(space: Space, candidates: Candidates | None) -> None:
    """Keeps the networks that a recipe's section `space` names; where it is of another family there is nothing to do.

    Args:
        space: The section.
        candidates: What `make_space` takes; None where this program made the recipe, or has handed the networks over before.

    Raises:
        CallableError: The section names networks that were never handed over, or candidates are given that it does not name.
    """
    if space.network != HANDED_OVER:
        if candidates is not None:
            raise CallableError(
                f"space: must be left out, the recipe's own is of the family {space.network}; a recipe for networks at hand is made with "
                "proxyds.Recipe(space=...)"
            )
        return
    wanted = list_identities(space)
    if candidates is not None:
        given = {each["name"]: each["sha256"] for each in make_space(candidates)["architectures"]}
        problems = [
            f"space: {name!r} must be the network that the recipe names, of the sha256 {sha256[:16]}; "
            + (
                f"the one given has {given[name][:16]}: its code, what it uses, or the version of Python has changed"
                if name in given
                else "none is given"
            )
            for name, sha256 in wanted.items()
            if given.get(name) != sha256
        ]
        problems += [
            f"space: {name!r} must be left out, the recipe names no such network"
            for name in given
            if name not in wanted
        ]
        if problems:
            raise CallableError(
                "\n".join([*problems, "a recipe for these networks is made with proxyds.Recipe(space=...)"])
            )
    if missing := [name for name, sha256 in wanted.items() if not is_handed_over(sha256)]:
        shown = ", ".join(map(repr, missing[:5])) + (", ..." if len(missing) > 5 else "")
        raise CallableError(
            f"space: must be passed, the recipe names {len(wanted):,} networks by their code, and {shown} were not passed; pass as space= those "
            "that the recipe was made with, since code is never read from files"
        )


def count_costs(
    candidates: Mapping[str, Candidate], n_labels: int, image_shape: tuple[int, int, int]
) -> dict[str, tuple[int, int]]:
    """Counts weights, and FLOPs forward on one image, of networks at hand, by name.

    Raises:
        CallableError: One is no network, and makes none.
        RecipeError: One has no parameters, or does not work on such images.
    """
    from proxyds.space.cost import measure_network  # with torch
    from proxyds.space.handed_over import make_network

    return {
        name: measure_network(name, make_network(each, f"space: {name!r}", n_labels, image_shape), image_shape)
        for name, each in candidates.items()
    }


def list_identities(space: Space) -> dict[str, str]:
    """Lists the sha256 of each network that a section `space` of handed-over networks names, by name."""
    listed = map(space.parameters_at, range(space.n_listed))
    return {each["name"]: each["sha256"] for each in listed}


def name_candidates(candidates: Any) -> dict[str, Any]:
    """Names networks at hand, see `make_space`; raises `CallableError` where they are neither a mapping nor a list."""
    if isinstance(candidates, Mapping):
        if odd := [name for name in candidates if not isinstance(name, str)]:
            raise CallableError(
                f"space: must name networks by texts, got {short_json(odd[0])}, {describe_type(odd[0])}"
            )
        named = dict(candidates)
    elif isinstance(candidates, Sequence) and not isinstance(candidates, str | bytes):
        own = [_find_name(each) for each in candidates]
        n_of, n_before, named = Counter(own), Counter[str](), {}
        for name, candidate in zip(own, candidates, strict=True):
            n_before[name] += 1
            named[name if n_of[name] == 1 else f"{name}-{n_before[name]}"] = candidate
    else:
        raise CallableError(
            f"space: must be a mapping of names to networks, or a list of networks, got {describe_type(candidates)}"
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
