"""A trainer of the program's own in place of the shipped loop: how it is handed over, called, and held to what it must do.

It is a function `(network, train, *, seed, device) -> network`, or an object with a method `fit` that takes `after_epoch` besides and
calls `after_epoch(network, loss)` as it goes on. See docs/trainer.md.
"""

from __future__ import annotations

import copy
import inspect
import math
import random
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from proxyds.callables import hand_over, take_over
from proxyds.data.pixels import ImageArray
from proxyds.errors import CallableError, DivergedError, ProxydsError, RecipeError, TrainingError
from proxyds.recipe.methods import METHODS
from proxyds.recipe.models import Check, Recipe
from proxyds.recipe.sections.training import LEFT_TO_TRAINER, Training
from proxyds.section import CodeSpec
from proxyds.text import describe_type, first_line, make_plain
from proxyds.training.model import PixelNetwork
from proxyds.training.numerics import choose_computation
from proxyds.training.training_images import TrainingImages

N_COMPARED, TOLERANCE = 8, 1e-3
"""Images on which a returned network is compared with one that has its weights, and how far they may differ, as a share of their length."""
MAX_SEED = 2**32
"""Seeds are below it: numpy's old generator and Lightning take no larger ones."""

OnEpoch = Callable[[int, PixelNetwork, float | None], None]
"""Takes an epoch's index, a network with the weights after it, and the loss that the trainer tells, if any."""


def train_by(recipe: Recipe, trainer: object | None) -> Recipe:
    """Returns a recipe whose networks a trainer trains, which is handed over; without a trainer the recipe itself.

    Raises:
        CallableError: The recipe names a trainer, and this is another or none; or it is no trainer, or cannot be copied to workers.
        RecipeError: The recipe asks for what a trainer does not do.
    """
    own = recipe.training.trainer
    named_at = {"training.trainer": own, "check.trainer": recipe.check.trainer if recipe.check else None}
    if trainer is None:
        for place, named in named_at.items():
            if named is not None:
                raise CallableError(ask_for(named, place))
        return recipe
    code = hand_over_trainer(trainer)
    for place, named in named_at.items():
        if named is not None and named.sha256 != code.sha256:
            raise CallableError(
                f"{ask_for(named, place)}; this one is {show_code(code)}: its code, what it uses, or the version of Python has changed. Where that is meant, take {place} out of the recipe"
            )
    if own is None and named_at["check.trainer"] is not None:
        return recipe  # which names the trainer for its check alone
    if trouble := recipe.training.find_useless():
        raise RecipeError(f"training: {trouble}")
    if place := recipe.find_left_to_trainer():
        raise RecipeError(f"{place}: {LEFT_TO_TRAINER}")
    _refuse_silent(trainer, code, [recipe.selection.method, *(recipe.check.controls if recipe.check else ())])
    return recipe if own is not None else recipe.model_copy(update={"training": Training(trainer=code)})


def check_by(settings: Check, recipe: Recipe, trainer: object | None) -> Check:
    """Returns a check whose architectures a trainer trains, which may be another than the one of the proxy's probes.

    Raises:
        CallableError: A trainer is named, and none is given; or it is no trainer, or cannot be copied to workers.
        RecipeError: Controls need what it does not tell.
    """
    own = recipe.training.trainer
    if trainer is None:
        if settings.trainer is not None:
            way_out = "or check without it, overrides=['check.trainer=null'] (--set check.trainer=null)"
            raise CallableError(f"{ask_for(settings.trainer, 'check.trainer')}, {way_out}")
        if own is not None:
            raise CallableError(ask_for(own, "training.trainer"))
        return settings
    if settings.full_training is not None:
        raise RecipeError(f"check.full_training: {LEFT_TO_TRAINER}: overrides=['check.full_training=null']")
    code = hand_over_trainer(trainer)
    if own is None or own.sha256 != code.sha256:
        return settings.model_copy(update={"trainer": code})
    _refuse_silent(trainer, code, settings.controls)
    return settings.model_copy(update={"trainer": None})


def ask_for(code: CodeSpec, place: str) -> str:
    """Says that a trainer is needed which the recipe names at a place."""
    return f"{place}: must be passed as trainer=, it is {show_code(code)}"


def show_code(code: CodeSpec) -> str:
    """Names code for people: its name, and the beginning of its sha256."""
    return f"{code.name} (code {code.sha256[:12]})"


def show_name(code: CodeSpec) -> str:
    """Returns what stands for code in a call that a user copies; its name may be a stranger's text, and no name of Python's."""
    return code.name if code.name.isidentifier() else "..."


def hand_over_trainer(trainer: object) -> CodeSpec:
    """Keeps a trainer for this process and its workers; returns its name and identity.

    Raises:
        CallableError: It is no trainer, or cannot be copied to workers.
    """
    if inspect.isclass(trainer):
        raise CallableError(
            f"trainer: must be a function or an object, got the class {trainer.__name__}; make one of it"
        )
    function, called = (trainer, "(network, train, *, seed, device)")
    arguments: dict[str, Any] = {"seed": 0, "device": "cpu"}
    if _reports(trainer):
        function, called = trainer.fit, "fit(network, train, *, seed, device, after_epoch)"  # type: ignore[attr-defined]
        arguments["after_epoch"] = None
    if not callable(function):
        raise CallableError(
            "trainer: must be a function (network, train, *, seed, device) that returns the trained network, or an object with a method "
            f"fit, got {describe_type(trainer)}"
        )
    name = _name(trainer)
    try:
        inspect.signature(function).bind(None, None, **arguments)
    except TypeError as error:
        raise CallableError(f"trainer {name}: must take {called}, but {error}; change its arguments") from None
    except ValueError:  # nobody knows what it takes
        pass
    return CodeSpec(name=name, sha256=hand_over(trainer, f"trainer {name}"))


def _reports(trainer: object) -> bool:
    """Says whether a trainer tells of its epochs."""
    return callable(getattr(trainer, "fit", None))


def _name(trainer: object) -> str:
    named = getattr(trainer, "func", trainer)  # of a `functools.partial`
    name = getattr(named, "__name__", type(named).__name__)
    return make_plain(str(name)).strip("<>")[:200] or "trainer"


def _refuse_silent(trainer: object, code: CodeSpec, methods: Sequence[str]) -> None:
    following = [name for name in methods if METHODS[name].follows_epochs]
    if following and not _reports(trainer):
        possible = ", ".join(name for name, method in METHODS.items() if not method.follows_epochs)
        raise RecipeError(
            f"selection.method or check.controls: {', '.join(following)} must look at the network after each epoch; the trainer "
            f"{code.name} is a function and does not report epochs; give it as an object with fit(network, train, *, seed, device, after_epoch), or "
            f"choose by {possible}"
        )


def train_with(
    code: CodeSpec,
    network: PixelNetwork,
    pixels: ImageArray,
    labels: NDArray[np.int64],
    *,
    seed: int,
    device: str,
    name: str,
    on_epoch: OnEpoch,
) -> tuple[PixelNetwork, list[float]]:
    """Lets a trainer train a network.

    Its random numbers come from torch's, numpy's and Python's generators, which start from its seed and are put back afterwards.

    Args:
        code: The trainer, which was handed over.
        network: With initial weights, on the CPU.
        pixels: (N, C, H, W) uint8.
        labels: (N,) in [0, n_labels).
        seed: Of this training.
        device: `cpu` or a CUDA device.
        name: Of the network, for messages.
        on_epoch: Called after each epoch that the trainer tells of; its network changes with the next.

    Returns:
        A network as it was given, with the trained weights, in evaluation mode on the CPU; the losses that the trainer told, none
        where it did not tell every one.

    Raises:
        CallableError: The trainer was not handed over, or returns what it must not.
        DivergedError: A loss or the network's outputs are infinite or not numbers.
        TrainingError: The trainer raised an error.
    """
    trainer = take_over(code.sha256, ask_for(code, "training.trainer"))
    who = f"trainer {code.name} on {name}"
    network.fit_normalisation(pixels)
    trained, train = copy.deepcopy(network), TrainingImages(pixels, labels, network)
    losses: list[float | None] = []
    own_errors: list[Exception] = []

    def after_epoch(reported: nn.Module, loss: float | None = None) -> None:
        """Looks at the network as it is now, and changes nothing of it."""
        losses.append(None if loss is None else float(loss))
        if loss is not None and not math.isfinite(loss):
            raise DivergedError(f"{who}: the training loss must stay finite, it is {loss} after epoch {len(losses)}")
        _take_weights(trained, reported, who)
        try:
            on_epoch(len(losses) - 1, trained.eval(), losses[-1])
        except Exception as error:  # such as of a full disk: not the trainer's
            own_errors.append(error)
            raise

    choose_computation(network, device)  # torch then computes the same way each time, whatever ran before
    arguments: dict[str, Any] = {"seed": seed % MAX_SEED, "device": device}
    with _own_generators(seed % MAX_SEED, device), _explaining(who, own_errors):
        if _reports(trainer):
            returned = trainer.fit(network.network, train, **arguments, after_epoch=after_epoch)
        else:
            returned = trainer(network.network, train, **arguments)
    if _reports(trainer) and not losses:
        raise CallableError(f"{who}: fit must call after_epoch(network) after each epoch, it never did")
    _take_weights(trained, returned, who)
    _compare(
        trained.eval(),
        returned,
        torch.stack([image for image, _ in train.__getitems__(range(len(train))[:N_COMPARED])]),
        who,
    )
    return trained, [] if None in losses else [loss for loss in losses if loss is not None]


def _take_weights(trained: PixelNetwork, returned: object, who: str) -> None:
    """Copies the weights of what a trainer gave back.

    Raises:
        CallableError: It is no network, or has other weights than it was given.
    """
    if not isinstance(returned, nn.Module):
        raise CallableError(
            f"{who}: must return the trained network, it returned {describe_type(returned)}; end it with "
            "`return network`"
        )
    own, other = trained.network.state_dict(), returned.state_dict()
    shapes = [{name: tuple(getattr(value, "shape", ())) for name, value in of.items()} for of in (own, other)]
    if shapes[0] != shapes[1]:
        raise CallableError(f"{who}: must return the network that it was given, {_tell_difference(*shapes)}")
    with torch.no_grad():
        trained.network.load_state_dict(other)


def _tell_difference(own: dict[str, tuple[int, ...]], other: dict[str, tuple[int, ...]]) -> str:
    """Says in which weights two networks differ, and whether one is the other in a wrapper."""
    first = next(iter(own))
    for name in other:
        wrapper = name.removesuffix(first)
        if wrapper.endswith(".") and all(other.get(wrapper + each) == shape for each, shape in own.items()):
            return f"it returned that in a wrapper; return its attribute `{wrapper[:-1]}`"
    differing = [name for name in own if other.get(name) != own[name]] or [name for name in other if name not in own]
    found = "is missing" if (name := differing[0]) not in other else f"has the shape {other[name]}"
    needed = (
        f" instead of {own[name]}"
        if name in own and name in other
        else ""
        if name in own
        else ", which it was not given"
    )
    return f"found another whose weights {name!r} {found}{needed}; change weights in place and add or remove none"


def _compare(trained: PixelNetwork, returned: object, images: Tensor, who: str) -> None:
    """Makes sure that a network with the returned weights computes what the returned network does.

    Raises:
        CallableError: It does not, since the trainer changed more than weights.
        DivergedError: Its outputs are infinite or not numbers.
    """
    assert isinstance(returned, nn.Module)
    with torch.no_grad(), torch.random.fork_rng(devices=[]), _explaining(who):
        outputs = trained.network(images)
        if not torch.isfinite(outputs).all():
            raise DivergedError(f"{who}: the network's outputs must be finite, they are not; lower the learning rate")
        plain = returned.to(device="cpu", dtype=torch.float32, memory_format=torch.contiguous_format)  # type: ignore[call-overload]
        others = plain.eval()(images)
        if others.shape != outputs.shape or (others - outputs).norm() > TOLERANCE * outputs.norm():
            raise CallableError(
                f"{who}: must return the network that it was given, found one with the same weights that computes something else; "
                "change nothing but weights"
            )


@contextmanager
def _own_generators(seed: int, device: str) -> Iterator[None]:
    """Lets random numbers in the block come from a seed, and gradients be computed; all is as before after it, threads too."""
    of_python, of_numpy, n_threads = random.getstate(), np.random.get_state(), torch.get_num_threads()  # noqa: NPY002
    precision, dtype = torch.get_float32_matmul_precision(), torch.get_default_dtype()
    is_deterministic = torch.are_deterministic_algorithms_enabled()
    devices = [torch.device(device)] if device.startswith("cuda") else []
    try:
        with torch.random.fork_rng(devices=devices), torch.enable_grad():
            random.seed(seed)
            np.random.seed(seed)  # noqa: NPY002 - which trainers draw from
            torch.manual_seed(seed)
            yield
    finally:
        random.setstate(of_python)
        np.random.set_state(of_numpy)  # noqa: NPY002
        torch.set_num_threads(n_threads)
        torch.set_float32_matmul_precision(precision)
        torch.set_default_dtype(dtype)
        torch.use_deterministic_algorithms(is_deterministic)


def is_out_of_memory(error: BaseException) -> bool:
    """Tells whether memory is not enough; of a CPU's torch says so in words alone."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or "DefaultCPUAllocator" in str(error)


@contextmanager
def _explaining(who: str, own_errors: Sequence[Exception] = ()) -> Iterator[None]:
    """Makes an error of a trainer one of ours, which says where in its code it arose; the own ones go through, however the trainer ended."""
    try:
        yield
    except ProxydsError:
        raise
    except (Exception, SystemExit) as error:
        if is_out_of_memory(error):
            raise
        if not own_errors:
            raise TrainingError(
                f"{who}: must train the network, it says {type(error).__name__}: {first_line(error)}{_find_line(error)}; finished work is kept"
            ) from error
    if own_errors:
        raise own_errors[0]


def _find_line(error: BaseException) -> str:
    """Says where in the file of the trainer an error arose: no path, since it may be published."""
    frames = traceback.extract_tb(error.__traceback__)[2:]  # without those of this file
    of_trainer = [frame for frame in frames if frame.filename == frames[0].filename]
    return f" (line {of_trainer[-1].lineno}, in {of_trainer[-1].name.strip('<>')})" if of_trainer else ""
