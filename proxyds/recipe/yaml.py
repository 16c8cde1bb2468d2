"""Recipes as YAML 1.2 files: read strictly, every problem reported at once with its place; written in full."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.constructor import DuplicateKeyError as YamlDuplicateKeyError
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.events import AliasEvent, CollectionEndEvent, CollectionStartEvent, DocumentStartEvent

from proxyds.errors import DuplicateKeyError, RecipeError, RecipeNotFoundError, RecipeSyntaxError, UnknownNameError
from proxyds.recipe.methods import BY_IMPORTANCE
from proxyds.recipe.models import FORMER_PADDING, Recipe
from proxyds.recipe.problems import Fault, Place, explain
from proxyds.space.known_models import find_unknown_models

MAX_RECIPE_BYTES, MAX_LINES, MAX_VALUES, MAX_DEPTH = 1_000_000, 70_000, 70_000, 50
"""Limits for YAML that may be a stranger's: the parser takes some 50 microseconds a value or line, and longer the deeper they stand."""

IN_FULL = "# The recipe as run, with every default filled in."
"""First line of the recipe in a proxy."""

FORMER_DEFAULTS = {("selection", "method"): BY_IMPORTANCE, ("training", "crop_padding"): FORMER_PADDING}
"""What a recipe that was written in full, as proxies hold it, means where it lacks a setting whose default has changed since."""

_PARSER_ERRORS = (ValueError, RecursionError, LookupError, ArithmeticError, TypeError, AttributeError, AssertionError)
"""What ruamel lets through over odd scalars and keys."""

_ODD_BREAKS = re.compile("\r(?!\n)|[\x85\u2028\u2029]")
"""Line breaks of YAML that nobody types, over which the parser takes minutes."""


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
    path = Path(path)
    text = _read_text(path)
    tree = _parse(text, str(path))
    data, overridden = _plain(tree), {}
    for (section, key), value in FORMER_DEFAULTS.items() if text.startswith(IN_FULL) else ():
        if isinstance(data.setdefault(section, {}), dict):
            data[section].setdefault(key, value)
    for assignment in overrides:
        place, override = _parse_assignment(assignment)
        _assign(data, place, override, assignment)
        overridden[place] = assignment
    try:
        recipe = Recipe.model_validate_json(json.dumps(data, default=str), context=path.parent)
    except ValidationError as error:
        problems = [_locate(fault, tree, overridden) for fault in explain(error.errors(include_url=False))]
        raise _as_error(problems, str(path)) from None
    # a proxy's recipe may name what this torchvision does not have, and is read all the same
    unknown = () if text.startswith(IN_FULL) else find_unknown_models(recipe.space)
    if faults := [Fault(place, message, is_unknown_name=True) for place, message in unknown]:
        raise _as_error([_locate(fault, tree, overridden) for fault in faults], str(path))
    return recipe


def write_recipe(recipe: Recipe) -> str:
    """Writes a recipe as YAML with every default filled in (but for `Section.later`); reading it gives an equal `sha256`.

    A crop padding that is left to the images is null until a build has read them.
    """
    stream = io.StringIO()
    YAML(typ="rt", pure=True).dump(_with_lists_on_one_line(recipe.model_dump(mode="json")), stream)
    return f"{IN_FULL} Identity (sha256): {recipe.sha256}\n{stream.getvalue()}"


def parse_mapping(text: str, name: str) -> dict[str, Any]:
    """Parses a YAML 1.2 mapping into plain values, as strictly as a recipe: each key once, no aliases, no tags.

    Args:
        text: The YAML.
        name: Of its file, for messages.

    Raises:
        RecipeSyntaxError: It is none.
        DuplicateKeyError: A key stands twice in one mapping.
    """
    mapping: dict[str, Any] = _plain(_parse(text, name))
    return mapping


def _read_text(path: Path) -> str:
    try:
        size = path.stat().st_size
        if size > MAX_RECIPE_BYTES:
            raise RecipeSyntaxError(f"{path}: must be smaller than {MAX_RECIPE_BYTES:,} bytes, this has {size:,}")
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise RecipeNotFoundError(
            f"{path}: no such recipe; `proxyds init {path}` writes one, `proxyds list` names the presets"
        ) from None
    except UnicodeDecodeError as error:
        raise RecipeSyntaxError(f"{path}: a recipe must be UTF-8 text, byte {error.start} is not") from None
    except OSError as error:
        raise RecipeNotFoundError(f"{path}: the recipe cannot be read: {error.strerror}") from None


def _parse(text: str, name: str) -> CommentedMap:
    try:
        _check_plain(text, name)
        tree = YAML(typ="rt", pure=True).load(text)
    except YamlDuplicateKeyError as error:
        mark = error.problem_mark
        key = str(error.problem).split('"')[1]
        raise DuplicateKeyError(
            f"{name}:{mark.line + 1}:{mark.column + 1} {key}: a key must stand once in a mapping; remove one of the two"
        ) from None
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f":{mark.line + 1}:{mark.column + 1}" if mark else ""
        raise RecipeSyntaxError(f"{name}{place}: not valid YAML: {error.problem or error.context}") from None
    except (YAMLError, *_PARSER_ERRORS) as error:
        raise RecipeSyntaxError(f"{name}: not valid YAML: {error}") from None
    if not isinstance(tree, CommentedMap):
        kind = "nothing" if tree is None else f"a {type(tree).__name__.removeprefix('Commented').lower()}"
        raise RecipeSyntaxError(f"{name}:1:1: a recipe must be a mapping (`name: ...`), found {kind}")
    return tree


def _check_plain(text: str, name: str) -> None:
    """Refuses what a recipe has no use for: aliases (which can blow up), tags, another version of YAML, more than it could hold."""
    if odd := _ODD_BREAKS.search(text):
        raise RecipeSyntaxError(f"{name}: must have line feeds between lines, found {odd[0]!a}")
    if text.count("\n") > MAX_LINES:
        raise RecipeSyntaxError(f"{name}: must have {MAX_LINES:,} lines at most")
    depth = 0
    for number, event in enumerate(YAML(typ="rt", pure=True).parse(text)):
        place = f"{name}:{event.start_mark.line + 1}:{event.start_mark.column + 1}"
        depth += isinstance(event, CollectionStartEvent) - isinstance(event, CollectionEndEvent)
        trouble = ""
        if depth > MAX_DEPTH:
            trouble = f"must be {MAX_DEPTH} levels deep at most"
        elif number > MAX_VALUES:
            trouble = f"must hold {MAX_VALUES:,} keys and values at most"
        elif isinstance(event, AliasEvent):
            trouble = f"a recipe must not use aliases, found *{event.anchor}; write the value out"
        elif getattr(event, "tag", None) is not None:
            trouble = f"a recipe must not use tags, found {event.tag}; write the plain value"
        elif isinstance(event, DocumentStartEvent) and event.version not in (None, (1, 2)):
            trouble = "a recipe must be YAML 1.2; remove the line %YAML"
        if trouble:
            raise RecipeSyntaxError(f"{place}: {trouble}")


def _with_lists_on_one_line(data: Any) -> Any:
    if isinstance(data, dict):
        return {key: _with_lists_on_one_line(value) for key, value in data.items()}
    if isinstance(data, list):
        sequence = CommentedSeq(data)
        sequence.fa.set_flow_style()
        return sequence
    return data


def _plain(node: Any) -> Any:
    """Strips ruamel's round-trip types; what is not JSON becomes text."""
    if isinstance(node, Mapping):
        return {str(key): _plain(value) for key, value in node.items()}
    if isinstance(node, list | tuple):
        return [_plain(value) for value in node]
    if isinstance(node, str):
        return node.encode(errors="replace").decode()  # half a surrogate pair is no text
    for kind in (bool, int, float):
        if isinstance(node, kind):
            return kind(node)
    return node if node is None else str(node)


def _parse_assignment(assignment: str) -> tuple[Place, Any]:
    name, equals, text = assignment.partition("=")
    if not equals or not all(part.isidentifier() for part in name.strip().split(".")):
        raise RecipeError(f"--set {assignment}: must read a.b=value, for example --set selection.ratio=0.1")
    try:
        _check_plain(text, f"--set {assignment}")
        value = YAML(typ="safe", pure=True).load(text)
    except (YAMLError, *_PARSER_ERRORS):
        raise RecipeError(f"--set {assignment}: the value is not valid YAML") from None
    return tuple(name.strip().split(".")), _plain(value)


def _assign(data: dict[str, Any], place: Place, value: Any, assignment: str) -> None:
    section: Any = data
    for part in place[:-1]:
        if section.get(part) is None:  # not there, or null: a section that is left out
            section[part] = {}
        section = section[part]
        if not isinstance(section, dict):
            raise RecipeError(f"--set {assignment}: `{part}` is a value, not a section")
    section[place[-1]] = value


def _locate(fault: Fault, tree: CommentedMap, overridden: Mapping[Place, str]) -> dict[str, Any]:
    """Says where in the file a fault stands: line and column from 1, or 0 where the value came from `--set`."""
    field = ".".join(f"[{part}]" if isinstance(part, int) else part for part in fault.place).replace(".[", "[")
    line, column, is_in_file = _position(tree, fault.place, at_key=fault.is_of_key)
    for place, assignment in overridden.items():
        is_below = fault.place[: len(place)] == place
        if is_below or (place[: len(fault.place)] == fault.place and not is_in_file):
            field, line, column = f"--set {assignment}: {field}", 0, 0
            break
    said = {"message": fault.message, "is_unknown_name": fault.is_unknown_name}
    return {"line": line, "column": column, "field": field, **said}


def _as_error(problems: list[dict[str, Any]], name: str) -> RecipeError:
    problems.sort(key=lambda problem: (problem["line"], problem["column"]))
    lines = [
        (f"{name}:{each['line']}:{each['column']} " if each["line"] else "") + f"{each['field']}: {each['message']}"
        for each in problems
    ]
    if len(lines) > 1:
        lines.append(f"{len(lines)} problems in {name}")
    error = (UnknownNameError if problems[0]["is_unknown_name"] else RecipeError)("\n".join(lines))
    error.problems = problems
    return error


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
