"""Recipes as YAML 1.2 files: read strictly, every problem reported at once with its place; written in full."""

from __future__ import annotations

import difflib
import io
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.constructor import DuplicateKeyError as YamlDuplicateKeyError
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.events import AliasEvent, CollectionEndEvent, CollectionStartEvent, DocumentStartEvent

from proxyds.errors import DuplicateKeyError, RecipeError, RecipeNotFoundError, RecipeSyntaxError, UnknownNameError
from proxyds.recipe.methods import BY_IMPORTANCE
from proxyds.recipe.models import Recipe, recipe_json_schema
from proxyds.space.networks.families import FAMILIES

MAX_RECIPE_BYTES, MAX_LINES, MAX_VALUES, MAX_DEPTH = 1_000_000, 70_000, 70_000, 50
"""Of YAML that may be a stranger's: the parser takes some 50 microseconds a value or line, and longer the deeper they stand."""

IN_FULL = "# The recipe as run, with every default filled in."
"""How a recipe begins that a proxy holds."""

_PARSER_ERRORS = (ValueError, RecursionError, LookupError, ArithmeticError, TypeError, AttributeError, AssertionError)
"""What ruamel lets through over odd scalars and keys."""

TOLD_WHOLE = frozenset(
    ("too_few_architectures", "choices_or_list", "active_text", "unequal_parts", "too_few_seeds", "labels_of_method")
)
"""Kinds of the recipe's own errors whose messages say what was found."""

_ODD_BREAKS = re.compile("\r(?!\n)|[\x85\u2028\u2029]")
"""Line breaks of YAML that nobody types, over which the parser takes minutes."""
_Place = tuple[str | int, ...]


@dataclass(frozen=True)
class Problem:
    """One thing wrong with a recipe.

    Attributes:
        line: Of the value, from 1; 0 where it came from `--set`.
        column: Of the value, from 1.
        field: Dotted name of the field.
        message: Requirement, what was found, what to do.
        is_unknown_name: Whether a name that is not registered is the trouble.
    """

    line: int
    column: int
    field: str
    message: str
    is_unknown_name: bool


def read_recipe(path: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """Reads a recipe file. One that was written in full, and yet has no method, is of a time when there was one alone.

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
    if text.startswith(IN_FULL) and isinstance(data.setdefault("selection", {}), dict):
        data["selection"].setdefault("method", BY_IMPORTANCE)
    for assignment in overrides:
        place, value = _parse_assignment(assignment)
        _assign(data, place, value, assignment)
        overridden[place] = assignment
    try:
        recipe = Recipe.model_validate_json(json.dumps(data, default=str))
    except ValidationError as error:
        details = _without_echoes(error.errors(include_url=False))
        problems = sorted((_problem(d, tree, overridden) for d in details), key=lambda p: (p.line, p.column))
        raise _as_error(problems, str(path)) from None
    return _with_absolute_paths(recipe, path.parent)


def write_recipe(recipe: Recipe) -> str:
    """Writes a recipe as YAML with every default filled in (but for `Section.later`); reading it gives an equal `sha256`."""
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
    plain: dict[str, Any] = _plain(_parse(text, name))
    return plain


def nearest_name(name: str, known: Sequence[str]) -> str:
    """Words for a message: the known name nearest to a mistyped one, then all of them."""
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return (f"did you mean `{near[0]}`? " if near else "") + "known: " + ", ".join(known)


def _read_text(path: Path) -> str:
    try:
        size = path.stat().st_size
        if size > MAX_RECIPE_BYTES:
            raise RecipeSyntaxError(
                f"{path}: a recipe must be smaller than {MAX_RECIPE_BYTES:,} bytes, this has {size:,}"
            )
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
        found = "nothing" if tree is None else f"a {type(tree).__name__.removeprefix('Commented').lower()}"
        raise RecipeSyntaxError(f"{name}:1:1: a recipe must be a mapping (`name: ...`), found {found}")
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
        if depth > MAX_DEPTH:
            raise RecipeSyntaxError(f"{place}: must be {MAX_DEPTH} levels deep at most")
        if number > MAX_VALUES:
            raise RecipeSyntaxError(f"{place}: must hold {MAX_VALUES:,} keys and values at most")
        if isinstance(event, AliasEvent):
            raise RecipeSyntaxError(
                f"{place}: a recipe must not use aliases, found *{event.anchor}; write the value out"
            )
        if getattr(event, "tag", None) is not None:
            raise RecipeSyntaxError(f"{place}: a recipe must not use tags, found {event.tag}; write the plain value")
        if isinstance(event, DocumentStartEvent) and event.version not in (None, (1, 2)):
            raise RecipeSyntaxError(f"{place}: a recipe must be YAML 1.2; remove the line %YAML")


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


def _parse_assignment(assignment: str) -> tuple[_Place, Any]:
    name, equals, text = assignment.partition("=")
    if not equals or not all(part.isidentifier() for part in name.strip().split(".")):
        raise RecipeError(f"--set {assignment}: must read a.b=value, for example --set selection.ratio=0.1")
    try:
        _check_plain(text, f"--set {assignment}")
        value = YAML(typ="safe", pure=True).load(text)
    except (YAMLError, *_PARSER_ERRORS):
        raise RecipeError(f"--set {assignment}: the value is not valid YAML") from None
    return tuple(name.strip().split(".")), _plain(value)


def _assign(data: dict[str, Any], place: _Place, value: Any, assignment: str) -> None:
    section: Any = data
    for part in place[:-1]:
        if section.get(part) is None:  # not there, or null: a section that is left out
            section[part] = {}
        section = section[part]
        if not isinstance(section, dict):
            raise RecipeError(f"--set {assignment}: `{part}` is a value, not a section")
    section[place[-1]] = value


def _problem(detail: ErrorDetails, tree: CommentedMap, overridden: Mapping[_Place, str]) -> Problem:
    place = detail["loc"] or _read_place(detail.get("ctx", {}).get("place", ""))
    if detail["type"] in ("union_tag_invalid", "union_tag_not_found"):
        place = (*place, str(detail["ctx"]["discriminator"]).strip("'"))
    is_of_key = place[-1] == "[key]"  # so pydantic says that a mapping's key is at fault
    shown = _without_tags(place[:-1] if is_of_key else place)
    message, is_unknown_name = _explain(detail, place)
    field = ".".join(f"[{part}]" if isinstance(part, int) else part for part in shown).replace(".[", "[")
    for set_place, assignment in overridden.items():
        is_from_set = shown[: len(set_place)] == set_place or (
            shown == set_place[: len(shown)] and not _holds(tree, shown)
        )
        if is_from_set:
            return Problem(0, 0, f"--set {assignment}: {field}", message, is_unknown_name)
    line, column = _position(tree, shown, at_key=is_of_key or detail["type"] == "extra_forbidden")
    return Problem(line, column, field, message, is_unknown_name)


def _read_place(text: str) -> _Place:
    return tuple(int(part) if part.isdecimal() else part for part in text.split("."))


def _without_echoes(details: list[ErrorDetails]) -> list[ErrorDetails]:
    """Leaves one problem where pydantic tells several: items that a list lacks, or a list of bad items «too short»."""
    kept: list[ErrorDetails] = []
    for detail in details:
        is_told = _is_missing_item(detail) and any(
            _is_missing_item(k) and k["loc"][:-1] == detail["loc"][:-1] for k in kept
        )
        below = [d for d in details if d is not detail and d["loc"][: len(detail["loc"])] == detail["loc"]]
        if not is_told and not (detail["type"] == "too_short" and below):
            kept.append(detail)
    return kept


def _as_error(problems: Sequence[Problem], name: str) -> RecipeError:
    lines = [
        f"{name}:{p.line}:{p.column} {p.field}: {p.message}" if p.line else f"{p.field}: {p.message}" for p in problems
    ]
    if len(lines) > 1:
        lines.append(f"{len(lines)} problems in {name}")
    error = (UnknownNameError if problems[0].is_unknown_name else RecipeError)("\n".join(lines))
    error.problems = [asdict(problem) for problem in problems]
    return error


def _explain(detail: ErrorDetails, place: _Place) -> tuple[str, bool]:
    """Says requirement, found and advice for one of pydantic's errors, and whether it is an unknown name."""
    kind, found = detail["type"], _show(detail["input"])
    schema = _schema_at(place)
    if _is_missing_item(detail) or kind == "too_long":
        array = _schema_at(place[:-1] if isinstance(place[-1], int) else place)
        return f"must hold exactly {array['minItems']} values, got {_show(detail['input'])}", False
    if kind == "extra_forbidden":
        known = list(_schema_at(place[:-1]).get("properties", {}))
        return f"unknown key; {nearest_name(str(place[-1]), known)}", True
    if kind in ("missing", "union_tag_not_found"):
        example = schema.get("examples", [schema.get("const")])[0]
        names = schema.get("enum") or _tags(_schema_at(place[:-1]))
        advice = f"for example `{place[-1]}: {example}`" if example else ", ".join(names)
        advice = f" ({advice})" if advice else ""
        return f"must be given, it is missing; add it{advice}: {schema.get('description', 'see `proxyds list`')}", False
    if kind == "literal_error" or kind == "union_tag_invalid":
        tag = detail["ctx"].get("tag", detail["input"])
        known = schema.get("enum") or _tags(_schema_at(place[:-1])) or [schema.get("const", "")]
        elsewhere = " (a module's own need --plugin MODULE)" if place == ("space", "network") else ""
        return (
            f"must be a known name{elsewhere}, got {_show(tag)}; {nearest_name(str(tag), [str(k) for k in known])}",
            True,
        )
    if kind in TOLD_WHOLE:
        return detail["msg"], False
    if kind == "too_short":
        least, n = detail["ctx"]["min_length"], detail["ctx"]["actual_length"]
        return (
            f"must hold at least {'one value' if least == 1 else f'{least} values'}, it {f'holds {n}' if n else 'is empty'}",
            False,
        )
    requirement = _range(schema) if kind.startswith(("greater_than", "less_than")) else None
    if requirement is None:
        said = detail["msg"].removeprefix("Value error, ").removeprefix("Input should ").removeprefix("String should ")
        requirement = said if said.startswith("must") else f"must {said[0].lower()}{said[1:]}"
    advice = schema.get("advice") or (f"for example {_show(schema['examples'][0])}" if schema.get("examples") else "")
    return f"{requirement}, got {found}" + (f"; {advice}" if advice else ""), False


def _range(schema: Mapping[str, Any]) -> str | None:
    schema = next((s for s in schema.get("anyOf", []) if s.get("type") in ("integer", "number")), schema)
    low, high = schema.get("minimum"), schema.get("maximum")
    below, above = schema.get("exclusiveMinimum"), schema.get("exclusiveMaximum")
    if (low is None and below is None) or (high is None and above is None):
        return None
    left = f"[{low:g}" if below is None else f"({below:g}"
    right = f"{high:g}]" if above is None else f"{above:g})"
    return f"must be in {left}, {right}"


def _show(value: Any) -> str:
    text = json.dumps(value, default=str, ensure_ascii=False)
    return text if len(text) <= 60 else text[:57] + "..."


def _holds(tree: CommentedMap, place: _Place) -> bool:
    node: Any = tree
    for part in place:
        if not isinstance(node, CommentedMap) or part not in node:
            return False
        node = node[part]
    return True


def _position(tree: CommentedMap, place: _Place, *, at_key: bool) -> tuple[int, int]:
    """Finds line and column, from 1, of the deepest part of `place` that the file holds."""
    node: Any = tree
    line, column = 0, 0
    for depth, part in enumerate(place):
        key = next((key for key in node if str(key) == part), None) if isinstance(node, CommentedMap) else None
        if key is not None:
            is_last = depth == len(place) - 1
            has_no_place = node[key] is None  # an empty value would be found where the next token stands
            line, column = node.lc.key(key) if (at_key and is_last) or has_no_place else node.lc.value(key)
            node = node[key]
        elif isinstance(node, CommentedSeq) and isinstance(part, int) and part < len(node):
            line, column = node.lc.item(part)
            node = node[part]
        else:
            break
    return line + 1, column + 1


def _schema() -> dict[str, Any]:
    return _schema_for(tuple(FAMILIES))


@cache
def _schema_for(networks: tuple[str, ...]) -> dict[str, Any]:  # noqa: ARG001 - a plugin adds to it
    schema: dict[str, Any] = json.loads(recipe_json_schema())
    return schema


def _schema_at(place: _Place) -> dict[str, Any]:
    """The JSON Schema of one place of a recipe; empty where there is none."""
    return _walk(place)[-1]


def _without_tags(place: _Place) -> _Place:
    """Drops the names of alternatives (`hub` in `source.hub.name`) that pydantic puts into a place."""
    return tuple(part for part, schema in zip(place, _walk(place), strict=False) if part not in _tags(schema))


def _walk(place: _Place) -> list[dict[str, Any]]:
    """The schemas from the root down to `place`: one more than its parts."""
    schemas = [_resolve(_schema())]
    for part in place:
        node = schemas[-1]
        if part in _tags(node):
            below = {"$ref": node["discriminator"]["mapping"][part]}
        elif isinstance(part, int):
            arrays = [node, *node.get("anyOf", [])]
            below = next((_item(a, part) for a in arrays if "items" in a or "prefixItems" in a), {})
        else:
            below = node.get("properties", {}).get(part, {})
        resolved = _resolve(below)
        schemas.append({**resolved, **{k: v for k, v in below.items() if k != "$ref"}})
    return schemas


def _item(array: Mapping[str, Any], index: int) -> dict[str, Any]:
    fixed: Sequence[dict[str, Any]] = array.get("prefixItems", [])
    item: dict[str, Any] = fixed[index] if index < len(fixed) else array.get("items", {})
    return item if isinstance(item, dict) else {}


def _resolve(schema: dict[str, Any]) -> dict[str, Any]:
    """Follows references, also that of a section that may be null or written short."""
    while "$ref" in schema:
        schema = _schema()["$defs"][schema["$ref"].rsplit("/", 1)[1]]
    others = [_resolve(each) for each in schema.get("anyOf", ()) if each.get("type") != "null"]
    sections = others if len(others) == 1 else [each for each in others if "properties" in each]
    return {**sections[0], **schema} if len(sections) == 1 else schema


def _tags(schema: Mapping[str, Any]) -> list[str]:
    return list(schema.get("discriminator", {}).get("mapping", {}))


def _is_missing_item(detail: ErrorDetails) -> bool:
    return detail["type"] == "missing" and isinstance(detail["loc"][-1], int)


def _with_absolute_paths(recipe: Recipe, folder: Path) -> Recipe:
    def whole(path: str, field: str) -> str:
        try:
            return str((folder / Path(path).expanduser()).absolute())
        except RuntimeError as error:
            raise RecipeError(f"{field}: must be a path, got {path}: {error}") from None

    path = getattr(recipe.source, "path", None)
    if path is not None:
        source = recipe.source.model_copy(update={"path": whole(path, "source.path")})
        recipe = recipe.model_copy(update={"source": source})
    if recipe.check is not None and recipe.check.reference is not None:
        known = recipe.check.reference
        known = known.model_copy(update={"path": whole(known.path, "check.reference")})
        recipe = recipe.model_copy(update={"check": recipe.check.model_copy(update={"reference": known})})
    return recipe
