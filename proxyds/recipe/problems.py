"""What is wrong with a recipe, in words: place, requirement, what was found, what to do.

Validators of recipes write their messages themselves; those stand here as they are. This file has the words for what pydantic
checks by itself (types, ranges, keys), with what a model says of its field.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from inspect import isclass
from pathlib import Path
from typing import Any, get_args

from pydantic import AliasChoices, BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from proxyds.errors import RecipeError, UnknownNameError
from proxyds.plain_values import from_python
from proxyds.space.choices import Space, space_sections
from proxyds.text import short_json, show_value, suggest_names

Place = tuple[str | int, ...]
"""Keys and, in lists, numbers from 0 that lead to a value of a recipe."""

_KEY = "[key]"
"""Ends a location of pydantic's where a mapping's key is at fault."""

_REQUIREMENTS = {
    "int_type": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "string_type": "a text (in quotes where it looks like a number)",
    "string_pattern_mismatch": "a text that matches {pattern}",
    "string_too_short": "a text of {min_length} or more letters",
    "string_too_long": "a text of {max_length} letters at most",
    "tuple_type": "a list",
    "dict_type": "a section of keys and values",
    "model_type": "a section of keys and values",
    "greater_than_equal": "at least {ge}",
    "less_than_equal": "at most {le}",
}
"""What a value must be, by the kind of pydantic's error, where pydantic says it in Python's words («a valid tuple»)."""


@dataclass(frozen=True)
class Fault:
    """One thing wrong with a recipe.

    Attributes:
        place: Of the value.
        message: Requirement, what was found, what to do.
        is_of_key: Whether the key is at fault, not its value.
        is_unknown_name: Whether a name that is not registered is the trouble.
    """

    place: Place
    message: str
    is_of_key: bool = False
    is_unknown_name: bool = False


def explain(errors: Sequence[ErrorDetails], root: type[BaseModel]) -> list[Fault]:
    """Explains everything that pydantic found in a recipe, whose model is the root, each fault once."""
    locations = {error["loc"] for error in errors}
    return [_explain(error, root) for error in errors if not _is_echo(error, locations)]


def name_field(place: Place) -> str:
    """Names a place for people: `space.choices.depth[0]`."""
    return ".".join(f"[{part}]" if isinstance(part, int) else part for part in place).replace(".[", "[")


def as_error(problems: list[dict[str, Any]], name: str) -> RecipeError:
    """Makes one error of every problem, in the order of the file.

    Args:
        problems: Each with `line` and `column`, 0 where it stands in no file, `field`, `message` and `is_unknown_name`.
        name: Of the file, or what else the recipe is.
    """
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


def validate_words(recipe: BaseModel, words: Mapping[str, Any], shorthands: Mapping[str, tuple[str, str]]) -> None:
    """Fills in a recipe that a program makes, from what it passes; a path is taken from the working folder.

    Args:
        recipe: Without values yet.
        words: Sections and values by name; None where a shorthand is not given.
        shorthands: Section and key that a word stands for.

    Raises:
        UnknownNameError: The first problem is a name that is not registered.
        RecipeError: Anything else is wrong; the message lists every problem.
    """
    not_plain: list[tuple[Place, str]] = []
    known = sorted({*_list_keys(type(recipe)), *shorthands})
    unknown = [name for name in words if name not in known]
    data = from_python({name: value for name, value in words.items() if name in known}, not_plain)
    faults = [Fault(place, message) for place, message in not_plain]
    called: dict[Place, str] = {}
    for name, (section, key) in shorthands.items():
        if (value := data.pop(name, None)) is None:
            continue
        within = data.setdefault(section, {})
        if isinstance(within, dict) and key in within:
            faults.append(Fault((name,), f"must be left out where `{section}.{key}` is given, which means the same"))
        elif isinstance(within, dict):
            within[key] = value
            called[section, key] = name
    if not faults:
        try:
            validate = type(recipe).__pydantic_validator__.validate_json
            validate(json.dumps(data), self_instance=recipe, context=Path())
        except ValidationError as error:
            errors = error.errors(include_url=False)
            meant = {(near,) for name in unknown for near in get_close_matches(name, known, n=1)}
            lacking = meant - {(name,) for name in words}  # told by the key that is mistyped
            faults = [each for each in explain(errors, type(recipe)) if each.place not in lacking]
    refuse_faults([*(_explain_unknown((name,), known) for name in unknown), *faults], called)


def _list_keys(model: type[BaseModel]) -> set[str]:
    """Lists the keys that a section takes."""
    aliases = [field.validation_alias for field in model.model_fields.values()]
    others = {str(choice) for alias in aliases if isinstance(alias, AliasChoices) for choice in alias.choices}
    return {*model.model_fields, *others}


def refuse_faults(faults: Sequence[Fault], called: Mapping[Place, str]) -> None:
    """Raises what is wrong with a recipe that stands in no file, if anything is; some places may be `called` otherwise."""
    problems = [
        {
            "line": 0,
            "column": 0,
            "field": called.get(each.place, name_field(each.place)),
            "message": each.message,
            "is_unknown_name": each.is_unknown_name,
        }
        for each in faults
    ]
    if problems:
        raise as_error(problems, "the recipe")


def _is_echo(error: ErrorDetails, locations: set[Place]) -> bool:
    """Says whether another error means the same: every item that a list lacks is one; a list of bad items is «too short» besides."""
    location = error["loc"]
    if error["type"] == "too_short":
        return any(other != location and other[: len(location)] == location for other in locations)
    return (
        error["type"] == "missing" and isinstance(location[-1], int) and (*location[:-1], location[-1] + 1) in locations
    )


def _explain(error: ErrorDetails, root: type[BaseModel]) -> Fault:
    place, model, field, is_of_field = _follow(error["loc"], root)
    value, details = error["input"], error.get("ctx", {})
    is_of_key = error["loc"][-1:] == (_KEY,)
    match error["type"]:
        case "fault":
            return Fault(_read_place(details["place"]) or place, details["message"])
        case "unknown_name":
            return Fault(place, details["message"], is_unknown_name=True)
        case "value_error" | "assertion_error":
            return Fault(place, str(details["error"]), is_of_key)
        case "extra_forbidden":
            return _explain_key(place, model)
        case "missing" if isinstance(place[-1], int):
            return Fault(place[:-1], f"must hold {place[-1] + 1} values, it holds {len(value)}")
        case "missing":
            example = f" (for example `{place[-1]}: {field.examples[0]}`)" if field.examples else ""
            return Fault(place, f"must be given, it is missing; add it{example}: {field.description}")
        case "union_tag_not_found":
            place = (*place, details["discriminator"].strip("'"))
            return Fault(place, f"must be given, it is missing; add it ({', '.join(_alternatives(field))})")
        case "union_tag_invalid":
            place = (*place, details["discriminator"].strip("'"))
            return _explain_name(place, details["tag"], list(_alternatives(field)))
        case "literal_error":
            return _explain_name(place, value, details["expected"].replace(" or ", ", ").replace("'", "").split(", "))
        case "too_short":
            least, n = details["min_length"], details["actual_length"]
            values = "one value" if least == 1 else f"{least} values"
            return Fault(place, f"must hold at least {values}, it {f'holds {n}' if n else 'is empty'}")
        case "too_long":
            return Fault(
                place, f"must hold at most {details['max_length']} values, it holds {details['actual_length']}"
            )
        case kind:
            limits = {name: show_value(limit) for name, limit in details.items()}
            said = error["msg"].removeprefix("Input should be ")
            requirement = _REQUIREMENTS[kind].format(**limits) if kind in _REQUIREMENTS else said
            example = f"; for example {short_json(field.examples[0])}" if is_of_field and field.examples else ""
            return Fault(place, f"must be {requirement}, got {short_json(value)}{example}", is_of_key)


def _read_place(text: str) -> Place:
    return tuple(int(part) if part.isdecimal() else part for part in text.split(".") if part)


def _explain_name(place: Place, name: Any, names: Sequence[str]) -> Fault:
    elsewhere = " (of a module of yours after load_plugins, --plugin)" if place == ("space", "network") else ""
    message = f"must be a known name{elsewhere}, got {short_json(name)}; {suggest_names(str(name), names)}"
    return Fault(place, message, is_unknown_name=True)


def _explain_key(place: Place, model: type[BaseModel] | None) -> Fault:
    key, fields = str(place[-1]), {} if model is None else model.model_fields
    for name, field in fields.items():
        if isinstance(field.validation_alias, AliasChoices) and key in field.validation_alias.choices:
            return Fault(place, f"must be left out where `{name}` is given, which means the same", is_of_key=True)
    if len(place) == 1 and (homes := _find_homes(key, fields)):
        return Fault(place, f"unknown key; did you mean {' or '.join(homes)}?", is_of_key=True, is_unknown_name=True)
    return _explain_unknown(place, sorted(fields))


def _find_homes(key: str, fields: Mapping[str, FieldInfo]) -> list[str]:
    """Finds the sections of a recipe that have a key, as `training.epochs`."""
    sections = [(name, section) for name, field in fields.items() for section in _alternatives(field).values()]
    return list(dict.fromkeys(f"`{name}.{key}`" for name, section in sections if key in section.model_fields))


def _explain_unknown(place: Place, keys: Sequence[str]) -> Fault:
    message = f"unknown key; {suggest_names(str(place[-1]), keys)}"
    return Fault(place, message, is_of_key=True, is_unknown_name=True)


def _follow(location: Place, root: type[BaseModel]) -> tuple[Place, type[BaseModel] | None, FieldInfo, bool]:
    """Follows a location of pydantic's through the models of a recipe.

    Returns:
        The location as the file has it, without names of alternatives (`hub` in `source.hub.name`); the innermost model and
        field on the way; whether the location ends at that field.
    """
    place: list[str | int] = []
    model: type[BaseModel] | None = root
    field, is_of_field = FieldInfo(), False
    alternatives: Mapping[str, type[BaseModel]] = {}
    for part in location:
        if isinstance(part, str) and part in alternatives:
            model, alternatives = alternatives[part], {}
            continue
        if part == _KEY:
            break
        place.append(part)
        fields = {} if model is None else model.model_fields
        is_of_field = part in fields
        if is_of_field:
            field = fields[str(part)]
            alternatives = _alternatives(field)
            model = next(iter(alternatives.values())) if len(alternatives) == 1 else None
    return tuple(place), model, field, is_of_field


def _alternatives(field: FieldInfo) -> dict[str, type[BaseModel]]:
    """Lists the models that a field may hold, by the value that tells them apart."""
    if field.annotation is Space:
        return dict(space_sections())
    key = field.discriminator
    models = _models_in(field.annotation)
    return {get_args(each.model_fields[key].annotation)[0] if isinstance(key, str) else "": each for each in models}


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isclass(annotation) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for part in get_args(annotation) for model in _models_in(part)]
