"""Recipes as YAML 1.2 files: read strictly, every problem reported at once with its place; written in full."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from uuid import uuid4

from pydantic import ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.error import YAMLError

from proxyds.arguments import as_path
from proxyds.errors import ArgumentError, RecipeError, RecipeNotFoundError, RecipeSyntaxError, translate_os_errors
from proxyds.plain_values import PARSER_ERRORS, as_plain, check_plain, parse_tree
from proxyds.recipe.methods import BY_IMPORTANCE
from proxyds.recipe.models import IN_FULL, Recipe
from proxyds.recipe.problems import Fault, Place, as_error, explain, name_field
from proxyds.recipe.sections.training import FORMER_SETTINGS
from proxyds.space.known_models import find_unknown_models
from proxyds.text import describe_type

MAX_RECIPE_BYTES = 1_000_000

FORMER_DEFAULTS: dict[tuple[str, str], object] = {
    ("selection", "method"): BY_IMPORTANCE,
    **{("training", name): value for name, value in FORMER_SETTINGS.items()},
}
"""What a recipe that was written in full, as proxies hold it, means where it lacks a setting whose default has changed since."""


def read_recipe(path: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """Reads a recipe file. What one that was written in full lacks has its former default, see `FORMER_DEFAULTS`.

    Args:
        path: A YAML 1.2 file; relative folders in it are taken from its own folder.
        overrides: `a.b=c` assignments, the values as YAML, applied before validation.

    Raises:
        RecipeNotFoundError: There is no such file, or it cannot be read.
        RecipeSyntaxError: It is not a YAML mapping.
        DuplicateKeyError: A key stands twice in one mapping.
        UnknownNameError: The first problem is a name that is not registered.
        RecipeError: Anything else is wrong; the message lists every problem.
    """
    path = as_path(path, "path")
    text = _read_text(path)
    tree = parse_tree(text, str(path))
    data, overridden = as_plain(tree), {}
    for (section, key), value in FORMER_DEFAULTS.items() if text.startswith(IN_FULL) else ():
        if isinstance(data.setdefault(section, {}), dict) and not data[section].get("trainer"):
            data[section].setdefault(key, value)
    for assignment in overrides:
        place, override = _parse_assignment(assignment)
        _assign(data, place, override, assignment)
        overridden[place] = assignment
    try:
        recipe = Recipe.model_validate_json(json.dumps(data, default=str), context=path.parent)
    except ValidationError as error:
        problems = [_locate(fault, tree, overridden) for fault in explain(error.errors(include_url=False), Recipe)]
        raise as_error(problems, str(path)) from None
    # a proxy's recipe may name what this torchvision does not have, and is read all the same
    unknown = () if text.startswith(IN_FULL) else find_unknown_models(recipe.space)
    if faults := [Fault(place, message, is_unknown_name=True) for place, message in unknown]:
        raise as_error([_locate(fault, tree, overridden) for fault in faults], str(path))
    return recipe


def take_recipe(recipe: Recipe | str | Path) -> Recipe:
    """Returns a recipe that a program passes: itself, or what its file says.

    Raises:
        ArgumentError: It is neither.
        RecipeError: The file cannot be used; see `read_recipe`.
    """
    if isinstance(recipe, Recipe):
        return recipe
    if not isinstance(recipe, str | Path):
        raise ArgumentError(f"recipe: must be a proxyds.Recipe or the path of a file, got {describe_type(recipe)}")
    return read_recipe(recipe)


def write_recipe(recipe: Recipe, path: str | Path | None = None) -> str:
    """Writes a recipe as YAML, which `read_recipe` reads; see `Recipe.to_yaml`.

    Args:
        recipe: The recipe.
        path: A file to write it to, which is replaced; None for no file.

    Returns:
        The YAML.

    Raises:
        OutputError: The file cannot be written; see the subclasses.
    """
    if not isinstance(recipe, Recipe):
        raise ArgumentError(f"recipe: must be a proxyds.Recipe, got {describe_type(recipe)}")
    text = recipe.to_yaml()
    if path is not None:
        path = as_path(path, "path")
        with translate_os_errors(path, "choose another place"):
            path.parent.mkdir(parents=True, exist_ok=True)
            unfinished = path.with_name(f".{path.name}.{uuid4().hex[:12]}.new")  # of this writer alone
            try:
                unfinished.write_text(text, encoding="utf-8")
                unfinished.replace(path)  # a full disk leaves the former file as it is
            finally:
                unfinished.unlink(missing_ok=True)
    return text


def _read_text(path: Path) -> str:
    try:
        if path.is_dir():
            raise RecipeNotFoundError(_advise_on_folder(path))
        size = path.stat().st_size
        if size > MAX_RECIPE_BYTES:
            raise RecipeSyntaxError(f"{path}: must be smaller than {MAX_RECIPE_BYTES:,} bytes, this has {size:,}")
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise RecipeNotFoundError(
            f"{path}: no such recipe; `proxyds init {shlex.quote(str(path))}` writes one, `proxyds list` names the presets"
        ) from None
    except UnicodeDecodeError as error:
        raise RecipeSyntaxError(f"{path}: a recipe must be UTF-8 text, byte {error.start} is not") from None
    except OSError as error:
        raise RecipeNotFoundError(f"{path}: the recipe cannot be read: {error.strerror}") from None


def _advise_on_folder(path: Path) -> str:
    """Says what to name in place of a folder."""
    if (path / "manifest.json").is_file() and (path / "recipe.yaml").is_file():
        return f"{path}: must be a recipe's file, it is a proxy's folder; its recipe is {path / 'recipe.yaml'}"
    if (path / "recipe.yaml").is_file():
        return f"{path}: must be a recipe's file, it is a folder; did you mean {path / 'recipe.yaml'}?"
    return f"{path}: must be a recipe's file, it is a folder; `proxyds init --from {shlex.quote(str(path))}` writes a recipe for the images in it"


def _parse_assignment(assignment: str) -> tuple[Place, Any]:
    name, equals, text = assignment.partition("=")
    if not equals or not all(part.isidentifier() for part in name.strip().split(".")):
        underscored = name.strip().replace("-", "_")
        is_close = equals and all(part.isidentifier() for part in underscored.split("."))
        advice = f"did you mean {underscored}?" if is_close else "for example selection.ratio=0.1"
        raise RecipeError(f"override (--set) {assignment}: must read a.b=value, {advice}")
    try:
        check_plain(text, f"override (--set) {assignment}")
        value = YAML(typ="safe", pure=True).load(text)
    except (YAMLError, *PARSER_ERRORS):
        raise RecipeError(f"override (--set) {assignment}: the value is not valid YAML") from None
    return tuple(name.strip().split(".")), as_plain(value)


def _assign(data: dict[str, Any], place: Place, value: Any, assignment: str) -> None:
    section: Any = data
    for part in place[:-1]:
        if section.get(part) is None:  # not there, or null: a section that is left out
            section[part] = {}
        section = section[part]
        if not isinstance(section, dict):
            raise RecipeError(f"override (--set) {assignment}: `{part}` is a value, not a section")
    section[place[-1]] = value


def _locate(fault: Fault, tree: CommentedMap, overridden: Mapping[Place, str]) -> dict[str, Any]:
    """Says where in the file a fault stands: line and column from 1, or 0 where the value came from `--set`."""
    field = name_field(fault.place)
    line, column, is_in_file = _position(tree, fault.place, at_key=fault.is_of_key)
    for place, assignment in overridden.items():
        is_below = fault.place[: len(place)] == place
        if is_below or (place[: len(fault.place)] == fault.place and not is_in_file):
            field, line, column = f"override (--set) {assignment}: {field}", 0, 0
            break
    said = {"message": fault.message, "is_unknown_name": fault.is_unknown_name}
    return {"line": line, "column": column, "field": field, **said}


def _position(tree: CommentedMap, place: Place, *, at_key: bool) -> tuple[int, int, bool]:
    """Finds line and column, from 1, of the deepest part of `place` that the file holds, and whether it holds the whole."""
    node: Any = tree
    line, column = 0, 0
    for depth, part in enumerate(place):
        key = next((key for key in node if str(key) == part), None) if isinstance(node, CommentedMap) else None
        if key is not None:
            is_last = depth == len(place) - 1
            is_empty = node[key] is None  # ruamel places an empty value where the next token stands
            line, column = node.lc.key(key) if (at_key and is_last) or is_empty else node.lc.value(key)
            node = node[key]
        elif isinstance(node, CommentedSeq) and isinstance(part, int) and part < len(node):
            line, column = node.lc.item(part)
            node = node[part]
        else:
            return line + 1, column + 1, False
    return line + 1, column + 1, True
