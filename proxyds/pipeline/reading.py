"""What a program passes besides a recipe; and what a recipe's source is read from: where its section says, elsewhere, or data in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from proxyds.artifact.manifest import Manifest
from proxyds.callables import is_handed_over
from proxyds.data.images import ID_RULE
from proxyds.data.memory.given import InMemory, take_data
from proxyds.data.readers import find_folder, open_splits, read_some
from proxyds.data.samples import Source
from proxyds.data.source import load_source
from proxyds.data.survey.proposal import look_at
from proxyds.errors import CallableError, ChangedSourceError, PluginError, ProxydsError, SourceNotFoundError
from proxyds.recipe.models import Check, Recipe
from proxyds.recipe.places import ask_for_data, find_place, identify_source, place_source, read_from_memory
from proxyds.recipe.sections.source import Images, MemorySource
from proxyds.runtime.storage.places import recall_place, remember_place
from proxyds.runtime.storage.store import Store
from proxyds.runtime.task import RunTasks
from proxyds.section import CodeSpec
from proxyds.space.candidates import hand_over_again, list_identities
from proxyds.space.networks.build import describe_origin
from proxyds.space.networks.families import HANDED_OVER
from proxyds.text import make_plain
from proxyds.training.trainer import check_by, show_name, train_by

Place = Path | Recipe | InMemory
"""Where a source lies: a folder, the file of a recipe, a recipe that says where, or the data themselves."""
LOOKED_AT = 64
"""Images of data in memory by which it is told whether they are grey."""


@dataclass(frozen=True)
class HandedOver:
    """What a program passes besides a recipe, since no file holds it: the arguments of `build` and `check`; None where it passes none."""

    source: Any = None
    space: Any = None
    trainer: object | None = None


def hand_over_to_build(recipe: Recipe, given: HandedOver) -> Recipe:
    """Keeps the code that a program passes to build a recipe; returns the recipe whose networks are trained so.

    Raises:
        CallableError: Code that the recipe names is missing or another, or cannot be used; the message tells all that is missing.
        SourceNotFoundError: The recipe is of data in memory, and no data are passed.
        RecipeError: The recipe asks for what the trainer does not do.
    """
    named = recipe.training.trainer or (recipe.check.trainer if recipe.check else None)
    steps: list[Callable[[], Any]] = [
        partial(train_by, recipe, given.trainer),
        partial(hand_over_again, recipe.space, given.space),
        partial(_require_data, recipe, given.source),
    ]
    trained: Recipe = _try_all(steps, partial(_tell_call, "build(recipe, out", recipe, given, named))[0]
    return trained


def hand_over_to_check(recipe: Recipe, settings: Check, manifest: Manifest, given: HandedOver, store: Store) -> Check:
    """Keeps the code that a program passes to check a proxy; returns how the proxy is checked.

    Args:
        recipe: The proxy's.
        settings: How the proxy is to be checked, unless another trainer trains.
        manifest: The proxy's.
        given: What the program passes.
        store: Remembers where sources lay.

    Raises:
        CallableError: As in `hand_over_to_build`.
        PluginError: The networks are of a plugin whose code was another when the proxy was built.
        SourceNotFoundError: The source is nowhere.
    """
    _refuse_other_plugin(recipe, manifest)
    steps: list[Callable[[], Any]] = [
        partial(check_by, settings, recipe, given.trainer),
        partial(hand_over_again, recipe.space, given.space),
        partial(find_source, recipe.source, manifest, given.source, store),  # tried here, found again when it is read
    ]
    named = settings.trainer or recipe.training.trainer
    checked: Check = _try_all(steps, partial(_tell_call, "check(folder", recipe, given, named))[0]
    return checked


def _refuse_other_plugin(recipe: Recipe, manifest: Manifest) -> None:
    """Refuses to measure other networks under the names of those that a proxy's probes are of."""
    former, now = manifest.space.origin.get("plugin"), describe_origin(recipe.space.network).get("plugin")
    if former is not None and former != now:
        raise PluginError(
            f"plugin {make_plain(former.partition(' ')[0])}: must be the code that the proxy was built with, {make_plain(former[:100])}, found {now}; "
            "take that code again, or build the proxy anew"
        )


def _require_data(recipe: Recipe, source: Any) -> None:
    if source is None and isinstance(recipe.source, MemorySource):
        raise SourceNotFoundError(ask_for_data(recipe.source))


def _try_all(steps: Sequence[Callable[[], Any]], tell_call: Callable[[bool], str]) -> list[Any]:
    """Takes all steps and returns what they give; where some find that something is missing, one error tells all of it."""
    done: list[Any] = []
    faults: list[ProxydsError] = []
    for step in steps:
        try:
            done.append(step())
        except (CallableError, SourceNotFoundError) as error:
            faults.append(error)
    if not faults:
        return done
    advice = tell_call(any(isinstance(fault, SourceNotFoundError) for fault in faults))
    if len(faults) == 1 and not advice:
        raise faults[0]
    raise type(faults[0])("\n".join([*map(str, faults), *([advice] if advice else [])]))


def _tell_call(call: str, recipe: Recipe, given: HandedOver, trainer: CodeSpec | None, lacks_source: bool) -> str:
    """Shows the call that passes all that a recipe needs of a program and was not passed; nothing where nothing is missing."""
    knows_space = recipe.space.network != HANDED_OVER or all(
        map(is_handed_over, list_identities(recipe.space).values())
    )
    lacking = {
        "source": given.source is None and lacks_source,
        "space": given.space is None and not knows_space,
        "trainer": given.trainer is None and trainer is not None and not is_handed_over(trainer.sha256),
    }
    if not any(lacking.values()):
        return ""
    told = {"source": "...", "space": "...", "trainer": show_name(trainer) if trainer else "..."}
    arguments = [f"{name}={told[name]}" for name in told if lacking[name] or getattr(given, name) is not None]
    return f"from Python: proxyds.{', '.join([call, *arguments])})"


def choose_source(recipe: Recipe, source: Any) -> tuple[Recipe, InMemory | None]:
    """Lets a recipe that is to be built read something else; what it says itself of images and splits stays.

    Args:
        recipe: The recipe.
        source: A folder; a recipe or its file, whose section `source` is taken; data in memory; None for what the recipe says.

    Returns:
        The recipe with the section `source` that it is built by, and the data where they are in memory.

    Raises:
        SourceError: It is none of these.
    """
    own = recipe.source
    if source is None:
        return recipe, None
    kept = own.model_fields_set
    if isinstance(source, str | Path | Recipe):
        place = source if isinstance(source, Recipe) else find_place(own, source, None)
        assert place is not None
        return recipe.model_copy(update={"source": place_source(own, place, kept)}), None
    data = take_data(source)
    section = read_from_memory(own, kept)
    if "image_mode" not in kept:
        section = section.model_copy(update={"image_mode": _find_mode(section, data)})
    return recipe.model_copy(update={"source": section}), data


def find_source(own: Images, manifest: Manifest, source: Any, store: Store) -> Place | None:
    """Finds where the source of a proxy lies.

    Args:
        own: The section `source` of the proxy's recipe.
        manifest: The proxy's.
        source: Where the user says that it lies: a folder; a recipe or its file, whose section `source` says so; data in memory; None
            to find it by what the store remembers.
        store: Remembers where sources lay.

    Returns:
        The place; None where the section needs none.

    Raises:
        SourceError: It is nowhere, or what was passed cannot be a source.
    """
    if source is None or isinstance(source, str | Path):
        return find_place(own, source, recall_place(store, identify_source(own, manifest.source.fingerprint)))
    return source if isinstance(source, Recipe) else take_data(source)


def read_source(
    recipe: Recipe, place: Place | None, run: RunTasks, streamed: bool | None = None, id_rule: int = ID_RULE
) -> Source:
    """Reads a recipe's source at a place, None for where the recipe says; see `load_source`."""
    if isinstance(place, InMemory):
        section: Images = read_from_memory(recipe.source)
    else:
        section = recipe.source if place is None else place_source(recipe.source, place)
    data = place if isinstance(place, InMemory) else None
    return load_source(recipe.model_copy(update={"source": section}), run, streamed, id_rule, data)


def remember_source(recipe: Recipe, data: Source, place: Place | None, store: Store) -> None:
    """Lets a store remember where a source was read: at a place on disk, or where the recipe says; else there is nothing to remember."""
    if place is None and (path := getattr(recipe.source, "path", None)) is not None:
        place = find_folder(path).absolute()
    if isinstance(place, Path):
        remember_place(store, identify_source(recipe.source, data.facts.fingerprint), place)


def name_data(recipe: Recipe, data: Source) -> Recipe:
    """Writes into a recipe of data in memory which they are.

    Raises:
        ChangedSourceError: The recipe names others.
    """
    own, found = recipe.source, data.facts.fingerprint
    if not isinstance(own, MemorySource):
        return recipe
    if own.fingerprint not in (None, found):
        raise ChangedSourceError(
            f"source.fingerprint: must be that of the data that are passed, the recipe has {own.fingerprint}, they have {found}; pass "
            "the data that the recipe is of, or leave the line out"
        )
    named = own.model_copy(update={"fingerprint": found, "name": data.facts.name})
    return recipe.model_copy(update={"source": named})


@contextmanager
def naming_place(place: Place | None) -> Iterator[None]:
    """Lets the error of a source that is another say where that was read, if it lies somewhere."""
    try:
        yield
    except ChangedSourceError as error:
        error.place = place if isinstance(place, Path) else None
        raise


def _find_mode(spec: MemorySource, data: InMemory) -> str:
    """Tells whether networks see grey or colour, by some of the training images."""
    look = look_at(read_some(open_splits(spec, None, 0, data).splits["train"], LOOKED_AT))
    return "L" if look.n_grey == look.sides.total() > 0 else "RGB"
