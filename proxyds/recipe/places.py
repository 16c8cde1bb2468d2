"""Where the source of a proxy lies, of which the proxy's own recipe has the name alone."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

from proxyds.errors import SourceNotFoundError
from proxyds.recipe.source import Columns, FolderSource, Images
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
        f"source: must be at hand, {name!r} of which the proxy was made; {', '.join(looked)}. Say where it is: add "
        "--source FOLDER to the command (in Python source=...)"
    )


def place_source(own: Images, place: Path) -> Images:
    """Returns the section `source` that reads the same images elsewhere; how they are seen and split stays.

    Args:
        own: The section of the recipe that is at work.
        place: A folder that holds them, or a recipe whose own section `source` says where and how they are read.

    Raises:
        RecipeError: The place is a file, and no recipe.
    """
    if not place.is_dir():
        fixed = {name: getattr(own, name) for name in Images.model_fields}
        return read_recipe(place).source.model_copy(update=fixed)
    if "path" in type(own).model_fields:
        return own.model_copy(update={"path": str(place)})
    known = {name: getattr(own, name) for name in Columns.model_fields if name in type(own).model_fields}
    return FolderSource(**known, kind="folder", path=str(place))


def identify_source(own: Images, fingerprint: str) -> str:
    """Identifies what a recipe reads, wherever it lies: the sha256 of its section `source` and of the content that was found."""
    what = json.dumps([own.model_dump(mode="json", exclude={"path"}), fingerprint], sort_keys=True)
    return hashlib.sha256(what.encode()).hexdigest()
