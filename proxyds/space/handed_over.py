"""Networks that a program hands over: functions that make one, and modules at hand, which are copied with new weights.

A factory may take the number of labels and the shape of the images, by these names; whatever else it takes has a default.
"""

from __future__ import annotations

import copy
import functools
import inspect
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from proxyds.callables import hand_over, take_over
from proxyds.errors import CallableError
from proxyds.space.networks.parameters import HandedOverParameters
from proxyds.text import describe_type, first_line

TOLD = ("n_labels", "image_shape")
"""What a factory is told, if it has parameters of these names."""


def build(parameters: HandedOverParameters, n_labels: int, image_shape: tuple[int, int, int]) -> nn.Module:
    """Calls a factory that was handed over; arguments as of every `Family.module`.

    Returns:
        The network, on the CPU or the device of a `with torch.device` around, its lazy layers filled in.

    Raises:
        CallableError: Nothing of that identity was handed over, or it is no factory of networks.
    """
    where = f"space: {parameters.name!r}"
    factory = take_over(parameters.sha256, f"{where} must be handed over with space=, it is not")
    return _make_by(factory, where, n_labels, image_shape)


def make_network(candidate: object, where: str, n_labels: int, image_shape: tuple[int, int, int]) -> nn.Module:
    """Makes a network of a candidate, and leaves torch's generator as it is; a module is the network itself.

    Args:
        candidate: What makes a network.
        where: What it is, for messages.
        n_labels: Size of its output.
        image_shape: (C, H, W).

    Raises:
        CallableError: It is no factory, fails, or makes no network.
    """
    if isinstance(candidate, nn.Module):
        return candidate
    factory = _as_factory(candidate, where)
    try:
        with torch.random.fork_rng(devices=[]):
            return _make_by(factory, where, n_labels, image_shape)
    except CallableError:
        raise
    except Exception as error:
        raise CallableError(
            f"{where}: must make a network, it says {type(error).__name__}: {first_line(error)}"
        ) from error


def _make_by(factory: Callable[..., Any], where: str, n_labels: int, image_shape: tuple[int, int, int]) -> nn.Module:
    network = factory(**_choose_arguments(factory, n_labels, image_shape))
    if not isinstance(network, nn.Module):
        raise CallableError(f"{where} must make a torch module, it makes {describe_type(network)}; return the network")
    here = torch.empty(0).device
    if any(weight.device != here for weight in network.parameters()):
        network = network.to(here)  # such as from a GPU, which workers need not have
    _fill_lazy_layers(network, image_shape)
    return network


@cache
def _draws_weights(name: str, sha256: str, n_labels: int, image_shape: tuple[int, int, int]) -> tuple[bool, bool]:
    """Says whether a network that was handed over has the same weights with the same seed, and others with another."""
    parameters, drawn = HandedOverParameters(sha256=sha256), []
    for seed in (1, 1, 2):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            built = build(parameters, n_labels, image_shape)
        try:
            drawn.append(list(copy.deepcopy(built).parameters()))
        except Exception as error:
            raise CallableError(
                f"space: {name!r} must make networks that can be copied, copying says {type(error).__name__}: {first_line(error)}; open "
                "files, locks and generators cannot: make them where they are used"
            ) from error
    first, again, other = drawn
    is_same, stays = (len(first) == len(each) and all(map(torch.equal, first, each)) for each in (again, other))
    return is_same, not stays


def check_initial_weights(parameters: Mapping[str, str], n_labels: int, image_shape: tuple[int, int, int]) -> None:
    """Refuses a network whose initial weights do not depend on torch's seed alone; arguments as of `build`, parameters as JSON has them.

    Raises:
        CallableError: They are the same whatever the seed, or others each time; or the network cannot be copied.
    """
    name, sha256 = parameters["name"], parameters["sha256"]
    repeats, varies = _draws_weights(name, sha256, n_labels, image_shape)
    if not repeats:
        raise CallableError(
            f"space: {parameters['name']!r} must draw its weights from torch's generator alone, they are others with the same seed; use "
            "torch's functions in place of numpy's and random's"
        )
    if not varies:
        raise CallableError(
            f"space: {parameters['name']!r} must draw new weights for each seed, they are the same; make the layers in the function, "
            "and set no seed there"
        )


def hand_over_network(candidate: object, where: str) -> str:
    """Keeps a factory or a module for this process and its workers; a module stays as it is, a copy is kept.

    Args:
        candidate: What makes a network.
        where: What it is, for messages.

    Returns:
        Its identity: of a factory that of its code; of a module that of its classes' code, its structure and settings, and of values that
        training does not draw anew, such as constants in buffers.

    Raises:
        CallableError: It is no factory, takes arguments that nobody gives, or cannot be copied; or a module's weights cannot be drawn anew.
    """
    if isinstance(candidate, nn.Module):
        return hand_over(_Redrawn(_empty_copy(candidate, where)), where)
    return hand_over(_as_factory(candidate, where), where)


def _as_factory(candidate: object, where: str) -> Callable[..., Any]:
    """Returns what makes a network, if it can be called with what is told; raises `CallableError` else."""
    if not callable(candidate):
        raise CallableError(
            f"{where}: must be a function or class that makes a network, or a torch module, got {describe_type(candidate)}"
        )
    if asked := _list_untold(candidate):
        raise CallableError(
            f"{where}: must take no argument without a default but {' and '.join(TOLD)}, it takes {', '.join(asked)}; "
            "functools.partial gives them values"
        )
    return candidate


def _list_parameters(factory: Callable[..., Any]) -> list[inspect.Parameter]:
    try:
        return list(inspect.signature(factory).parameters.values())
    except (ValueError, TypeError):  # code in C, which does not tell
        return []


def _list_untold(factory: Callable[..., Any]) -> list[str]:
    """Lists the arguments that a factory needs and is not told."""
    open_kinds = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return [
        each.name
        for each in _list_parameters(factory)
        if each.default is inspect.Parameter.empty
        and each.kind not in open_kinds
        and (each.name not in TOLD or each.kind is inspect.Parameter.POSITIONAL_ONLY)
    ]


def _choose_arguments(factory: Callable[..., Any], n_labels: int, image_shape: tuple[int, int, int]) -> dict[str, Any]:
    given = factory.keywords if isinstance(factory, functools.partial) else {}
    told = dict(zip(TOLD, (n_labels, image_shape), strict=True))
    named = {
        each.name for each in _list_parameters(factory) if each.kind is not inspect.Parameter.POSITIONAL_ONLY
    } - given.keys()
    return {name: value for name, value in told.items() if name in named}


class _Redrawn:
    """A factory that copies a module and draws its weights anew."""

    def __init__(self, module: nn.Module) -> None:
        self.module = module

    def __call__(self) -> nn.Module:
        copied = copy.deepcopy(self.module)
        for weight in _list_weights(copied):
            weight.data = torch.empty(weight.shape, dtype=weight.dtype)
        redraw_weights(copied)
        return copied


def _empty_copy(module: nn.Module, where: str) -> nn.Module:
    """Copies a module to the CPU, without its weights; checks that they can be drawn anew."""
    try:
        copied = copy.deepcopy(module).cpu().train()
    except Exception as error:
        raise CallableError(
            f"{where}: must be a module that can be copied, copying says {type(error).__name__}: {first_line(error)}; "
            "pass a function that makes it"
        ) from error
    weights = _list_weights(copied)
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)  # what resetting puts into buffers is of no weights that were there
        for weight in weights:
            weight.grad = None
            weight.fill_(torch.nan)
        redraw_weights(copied)
    kept = [name for name, weight in copied.named_parameters() if not is_lazy(weight) and weight.isnan().any()]
    if kept:
        raise CallableError(
            f"{where}: must have weights that reset_parameters of its layers draws anew, it has others: {', '.join(kept[:3])}"
            f"{', ...' if len(kept) > 3 else ''}; pass a function that makes the module"
        )
    for weight in weights:
        weight.data = torch.zeros((), dtype=weight.dtype).expand(weight.shape)  # takes no room in a pickle
    return copied


def _list_weights(module: nn.Module) -> list[nn.Parameter]:
    return [weight for weight in module.parameters() if not is_lazy(weight) and weight.dtype.is_floating_point]


def redraw_weights(module: nn.Module) -> None:
    """Calls `reset_parameters` of every layer, those within others first; `_reset_parameters` of those that have no other."""
    for layer in reversed(list(module.modules())):
        reset = getattr(layer, "reset_parameters", None) or getattr(layer, "_reset_parameters", None)
        if callable(reset):
            reset()


def _fill_lazy_layers(network: nn.Module, image_shape: tuple[int, int, int]) -> None:
    """Lets lazy layers see images, from which they know their sizes; in evaluation mode, so that nothing else changes."""
    if any(map(is_lazy, [*network.parameters(), *network.buffers()])):
        was_training = network.training
        with torch.no_grad():
            network.eval()(torch.zeros(2, *image_shape))
        network.train(was_training)
