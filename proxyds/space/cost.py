"""What one architecture costs: FLOPs and weights, counted on torch's meta device."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import replace
from functools import lru_cache
from typing import Any

import torch
import torch.nn.functional as F
from pydantic import ValidationError
from torch.overrides import TorchFunctionMode
from torch.utils.flop_counter import FlopCounterMode

from proxyds.errors import ProxydsError, RecipeError
from proxyds.space.architecture import Architecture
from proxyds.space.networks.build import ask_network
from proxyds.space.networks.families import FAMILIES, HANDED_OVER
from proxyds.space.networks.parameters import LibraryParameters, Parameters
from proxyds.space.networks.plugins import find_family
from proxyds.text import describe_type, first_line

MAX_KEPT = 5_000
"""Costs that a process keeps, at most."""


def measure_cost(
    name: str, network: str, parameters: dict[str, Any], n_labels: int, image_shape: tuple[int, int, int]
) -> Architecture:
    """Counts one architecture's FLOPs and weights on torch's meta device: nothing is computed, unless its code needs values.

    A process counts a network of this package once: a build, its check and its plan ask for the same ones.

    Raises:
        RecipeError: It cannot be built, or not work on such images.
        CallableError: It is of a program that did not hand it over.
    """
    if network in FAMILIES and network != HANDED_OVER and FAMILIES[network].module.startswith("proxyds."):
        counted = _measure_own(name, network, json.dumps(parameters), n_labels, image_shape)
        return replace(counted, parameters=parameters)
    return _measure(name, network, parameters, n_labels, image_shape)


@lru_cache(maxsize=MAX_KEPT)
def _measure_own(
    name: str, network: str, parameters: str, n_labels: int, image_shape: tuple[int, int, int]
) -> Architecture:
    return _measure(name, network, json.loads(parameters), n_labels, image_shape)


def _measure(
    name: str, network: str, parameters: dict[str, Any], n_labels: int, image_shape: tuple[int, int, int]
) -> Architecture:
    shape, who = "x".join(map(str, image_shape)), repr(name) if network == HANDED_OVER else name
    is_of_library = find_family(network).parameters is LibraryParameters
    others = ", a small_stem or smaller patches" if is_of_library else ""
    advice = (
        "models with auxiliary outputs need aux_logits: false among their arguments"
        if is_of_library
        else "let its forward return the logits alone"
    )
    on_images = (
        f"{who} must work on images of {shape} (channels, height, width); where their size is at fault, larger ones "
        f"(source.image_size){others} may help"
    )

    def ask(built: torch.nn.Module, images: torch.Tensor) -> Architecture:
        if images.is_meta:
            with suppress(Exception):  # such as of code that writes into what was left out; anything else fails again
                return count(built, images, _OnlyCounted())
        return count(built, images, nullcontext())

    def count(built: torch.nn.Module, images: torch.Tensor, mode: AbstractContextManager[object]) -> Architecture:
        if not isinstance(built, torch.nn.Module):
            raise TypeError(f"build gave {describe_type(built)}, no network")
        n_images = len(images)
        targets = torch.zeros(n_images, dtype=torch.long)
        with mode, FlopCounterMode(display=False) as forward, _as_recipe_error(on_images):
            logits = built(images)
        if not isinstance(logits, torch.Tensor) or logits.shape != (n_images, n_labels):
            raise RecipeError(
                f"space: {who} must map n images to one tensor (n, {n_labels}), it gives "
                f"{tuple(logits.shape) if isinstance(logits, torch.Tensor) else describe_type(logits)}; {advice}"
            )
        with (
            FlopCounterMode(display=False, custom_mapping=_BACKWARD_FLOPS) as backward,
            _as_recipe_error(f"{who} must have weights that can be trained"),
        ):
            torch.autograd.backward(F.cross_entropy(logits, targets))
        forward_flops = forward.get_total_flops() // n_images
        if not forward_flops:
            raise RecipeError(
                f"space: {who} must have a layer whose FLOPs are counted, such as a convolution or a linear layer, it has none"
            )
        return Architecture(
            name=name,
            network=network,
            parameters=parameters,
            forward_flops=forward_flops,
            training_flops=forward_flops + backward.get_total_flops() // n_images,
            n_parameters=sum(weight.numel() for weight in built.parameters()),
        )

    of_what = "make a network" if network == HANDED_OVER else f"be built of its parameters, got {parameters}"
    with _as_recipe_error(f"{who} must {of_what}"):
        return ask_network(network, parameters, n_labels, image_shape, ask)


class _OnlyCounted(TorchFunctionMode):
    """Leaves out what costs no FLOPs and keeps shapes: torch works it out in Python on the meta device, which takes most of the time."""

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if args and (function in _ELEMENTWISE or (function is F.batch_norm and _fits(*args[:2]))):
            return args[0]  # where gradients go through it anyway: what comes after counts the same
        return function(*args, **(kwargs or {}))


_ELEMENTWISE = {F.dropout, F.gelu, F.hardswish, F.relu, F.relu6, F.silu}


def _fits(x: torch.Tensor, mean: torch.Tensor | None = None) -> bool:
    return x.requires_grad and mean is not None and x.ndim > 1 and len(mean) == x.shape[1]


def measure_network(name: str, network: torch.nn.Module, image_shape: tuple[int, int, int]) -> tuple[int, int]:
    """Counts the weights and the FLOPs of a network that is at hand, by asking it about two images; it stays as it is.

    Returns:
        How many parameters it has, and its FLOPs forward on one image.

    Raises:
        RecipeError: It is no network, has no parameters, or does not work on such images.
    """
    first = next(network.parameters(), None) if isinstance(network, torch.nn.Module) else None
    if first is None:
        raise RecipeError(f"space: {name} must be a torch module with parameters, got {describe_type(network)}")
    images = torch.zeros(2, *image_shape, device=first.device, dtype=first.dtype)
    modes = [(module, module.training) for module in network.modules()]
    shape = "x".join(map(str, image_shape))
    on_images = f"{name} must work on images of {shape} (channels, height, width)"
    try:
        network.eval()
        with FlopCounterMode(display=False) as forward, _as_recipe_error(on_images), torch.no_grad():
            network(images)
    finally:
        for module, mode in modes:
            module.training = mode
    return sum(weight.numel() for weight in network.parameters()), forward.get_total_flops() // 2


@contextmanager
def _as_recipe_error(requirement: str) -> Iterator[None]:
    """Makes whatever a network complains of one message: it may be anybody's code."""
    try:
        yield
    except ProxydsError:
        raise
    except Exception as error:
        raise RecipeError(f"space: {requirement}; it says {type(error).__name__}: {first_line(error)}") from error


def read_parameters(network: str, parameters: dict[str, Any]) -> Parameters:
    """Reads a family's parameters.

    Raises:
        RecipeError: The family refuses the combination of values.
    """
    try:
        return FAMILIES[network].parameters.model_validate_json(json.dumps(parameters))
    except ValidationError as error:
        said = "; ".join(str(each.get("ctx", {}).get("error", each["msg"])) for each in error.errors(include_url=False))
        raise RecipeError(f"space: {network} must take its parameters together, got {parameters}: {said}") from None


def _count_convolution_backward(
    grad_shape: Sequence[int],
    x_shape: Sequence[int],  # noqa: ARG001 - torch's
    w_shape: Sequence[int],
    *rest: Any,
    **named: Any,  # noqa: ARG001
) -> int:
    """Counts the FLOPs of a convolution's gradients: as many for the input's and for the weights' as forward.

    torch (2.14) counts the weights' gradient of a convolution in groups as if it had one group: 16 times too much for a depthwise
    one of 16 channels. Arguments are those of `aten.convolution_backward`: shapes of the output's gradient (n, c_out, h, w), of the input,
    of the weights (c_out, c_in / groups, k, k); the last of `rest` says which gradients are asked for.
    """
    n_gradients: int = sum(rest[-1][:2])  # the bias's costs next to nothing
    return 2 * grad_shape[0] * math.prod(grad_shape[2:]) * math.prod(w_shape) * n_gradients


_BACKWARD_FLOPS = {torch.ops.aten.convolution_backward: _count_convolution_backward}
