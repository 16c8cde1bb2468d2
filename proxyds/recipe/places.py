"""Where the source of a proxy lies, of which the proxy's own recipe has the name alone."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Collection
from pathlib import Path
from typing import Any

from proxyds.errors import SourceNotFoundError
from proxyds.recipe.models import Recipe
from proxyds.recipe.sections.source import Columns, FolderSource, Images, MemorySource
from proxyds.recipe.yaml import read_recipe


def find_place(own: Images, given: str | Path | None, lay: Path | None) -> Path | None:
    """Finds where a source lies.

    Args:
        own: The section `source` of the proxy's recipe; its path is a name.
        given: A folder, or a recipe whose section `source` says where it lies; None to look at `lay`, and in `PROXYDS_DATA`.
        lay: Where it lay when this machine last read it; None where nothing remembers.

    Returns:
        The place, for `place_source`; None where the section needs none, as the Hub's, and none is given or remembered.

    Raises:
        SourceNotFoundError: It is at none of these places; says which.
    """
    if given is not None:
        place = Path(os.path.expanduser(given)).absolute()  # noqa: PTH111 - nobody's home is no error here
        if not os.path.exists(place):  # noqa: PTH110 - a name that is too long is none either
            why = (
                "must be a folder that holds the source, or a recipe whose section `source` names it; there is neither"
            )
            raise SourceNotFoundError(why, place=Path(given))
        return place
    if getattr(own, "kind", None) == "digits":
        return None  # they come with scikit-learn, whatever else was read as them
    if lay is not None and os.path.exists(lay):  # noqa: PTH110 - one that may not be looked at is none
        return lay
    if isinstance(own, MemorySource):
        raise SourceNotFoundError(ask_for_data(own))
    if (path := getattr(own, "path", None)) is None:
        return None
    name, copies = Path(path).name, os.environ.get("PROXYDS_DATA")
    looked = [f"it lies no longer at {lay}" if lay else "this machine remembers no place of it"]
    if copies:
        copy = Path(copies).absolute() / name
        if copy.is_dir():
            return copy
        looked.append(f"nor does it lie at {copy} (PROXYDS_DATA)")
    raise SourceNotFoundError(
        f"source: must be at hand, {name!r} of which the proxy was made; {', '.join(looked)}. Say where it is: "
        "source=FOLDER (--source FOLDER)"
    )


def place_source(own: Images, place: Path | Recipe, kept: Collection[str] = tuple(Columns.model_fields)) -> Images:
    """Returns the section `source` that reads images elsewhere; how they are seen and split stays.

    Args:
        own: The section of the recipe that is at work.
        place: A folder that holds the images, or a recipe (or its file) whose own section `source` says where and how they are read.
        kept: Names of the fields that stay as they are in `own`; all, where the very images of a proxy are read again.

    Raises:
        RecipeError: The place is a file, and no recipe.
    """
    if isinstance(place, Recipe) or not place.is_dir():
        section = (place if isinstance(place, Recipe) else read_recipe(place)).source
        return section.model_copy(update=_take_fields(own, Images, kept))
    if "path" in type(own).model_fields:
        return own.model_copy(update={"path": str(place)})
    return FolderSource(**_take_fields(own, Columns, kept), kind="folder", path=str(place))


def read_from_memory(own: Images, kept: Collection[str] = tuple(Columns.model_fields)) -> MemorySource:
    """Returns the section `source` that reads what a program passes instead; see `place_source`."""
    if isinstance(own, MemorySource):
        return own
    return MemorySource(**_take_fields(own, Columns, kept), kind="memory")


def ask_for_data(own: MemorySource) -> str:
    """Says what to pass where a recipe is of data in memory and none are there."""
    about = [repr(own.name)] if own.name else []
    about += [] if own.fingerprint is None else [f"fingerprint {own.fingerprint[:16]}"]
    which = f" ({', '.join(about)})" if about else ""
    return (
        f"source: the recipe was made from data in memory{which}, which no file holds; a Python program must pass the same data as "
        "source=..., or a folder or a recipe with the same images, source=PATH (--source PATH of check, resample and apply)"
    )


def _take_fields(own: Images, kind: type[Images], kept: Collection[str]) -> dict[str, Any]:
    """Takes the fields of a kind of section, as far as a section has them and they are to be kept."""
    return {name: getattr(own, name) for name in kind.model_fields if name in kept and name in type(own).model_fields}


def identify_source(own: Images, fingerprint: str) -> str:
    """Identifies what a recipe reads, wherever it lies: the sha256 of its section `source` and of the content that was found."""
    what = json.dumps([own.model_dump(mode="json", exclude={"path"}), fingerprint], sort_keys=True)
    return hashlib.sha256(what.encode()).hexdigest()
