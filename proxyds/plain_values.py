"""Plain values, as JSON has them: from YAML 1.2, read strictly since it may be a stranger's; from Python; and into YAML."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.constructor import DuplicateKeyError as YamlDuplicateKeyError
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.events import AliasEvent, CollectionEndEvent, CollectionStartEvent, DocumentStartEvent

from proxyds.errors import DuplicateKeyError, RecipeSyntaxError
from proxyds.text import describe_type

MAX_LINES, MAX_VALUES, MAX_DEPTH = 70_000, 70_000, 50
"""Limits for YAML that may be a stranger's: the parser takes some 50 microseconds a value or line, and longer the deeper they stand."""

MAX_WIDTH = 1_000_000
"""Letters of a line of YAML that is written, at most: nothing is broken."""

PARSER_ERRORS = (ValueError, RecursionError, LookupError, ArithmeticError, TypeError, AttributeError, AssertionError)
"""What ruamel lets through over odd scalars and keys."""

_MOST_BITS = 14_000
"""A whole number of more bits is replaced by words: Python writes none of more than 4,300 digits."""
_ODD_BREAKS = re.compile("\r(?!\n)|[\x85\u2028\u2029]")
"""Line breaks of YAML that nobody types, over which the parser takes minutes."""


def parse_mapping(text: str, name: str) -> dict[str, Any]:
    """Parses a YAML 1.2 mapping into plain values, as strictly as a recipe: each key once, no aliases, no tags.

    Args:
        text: The YAML.
        name: Of its file, for messages.

    Raises:
        RecipeSyntaxError: It is none.
        DuplicateKeyError: A key stands twice in one mapping.
    """
    mapping: dict[str, Any] = as_plain(parse_tree(text, name))
    return mapping


def parse_tree(text: str, name: str) -> CommentedMap:
    """Parses as `parse_mapping` does, and keeps each value's line and column."""
    try:
        check_plain(text, name)
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
    except (YAMLError, *PARSER_ERRORS) as error:
        raise RecipeSyntaxError(f"{name}: not valid YAML: {error}") from None
    if not isinstance(tree, CommentedMap):
        kind = "nothing" if tree is None else f"a {type(tree).__name__.removeprefix('Commented').lower()}"
        raise RecipeSyntaxError(f"{name}:1:1: a recipe must be a mapping (`name: ...`), found {kind}")
    return tree


def check_plain(text: str, name: str) -> None:
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


def as_plain(node: Any) -> Any:
    """Strips ruamel's round-trip types; what is not JSON becomes text."""
    if isinstance(node, Mapping):
        return {str(key): as_plain(value) for key, value in node.items()}
    if isinstance(node, list | tuple):
        return [as_plain(value) for value in node]
    if isinstance(node, str):
        return node.encode(errors="replace").decode()  # half a surrogate pair is no text
    if isinstance(node, int) and node.bit_length() > _MOST_BITS:
        return f"a number of {node.bit_length():,} bits"
    for kind in (bool, int, float):
        if isinstance(node, kind):
            return kind(node)
    return node if node is None else str(node)


def from_python(value: Any, faults: list[tuple[tuple[str | int, ...], str]], place: tuple[str | int, ...] = ()) -> Any:
    """Makes plain values of what a Python program passes: sections, mappings, lists, tuples, ranges, arrays, paths, numbers, texts.

    Args:
        value: The value.
        faults: Gets the place and a message for each value that is none of these; None takes its place.
        place: Of the value.
    """
    if isinstance(value, BaseModel):
        value = {name: getattr(value, name) for name in type(value).model_fields}
    elif isinstance(value, Path):
        value = str(value)
    elif callable(getattr(value, "tolist", None)):  # numpy's and torch's
        value = value.tolist()
    if isinstance(value, Mapping | list | tuple | range) and len(place) >= MAX_DEPTH:
        faults.append((place, f"must be {MAX_DEPTH} levels deep at most"))
        return None
    if isinstance(value, Mapping):
        return {str(key): from_python(below, faults, (*place, str(key))) for key, below in value.items()}
    if isinstance(value, list | tuple | range):
        return [from_python(below, faults, (*place, number)) for number, below in enumerate(value)]
    if value is None or isinstance(value, str | bool | int | float):
        return as_plain(value)
    faults.append((place, f"must be a text, a number, true or false, a list or a mapping, got {describe_type(value)}"))
    return None


def write_mapping(data: Mapping[str, Any]) -> str:
    """Writes plain values as YAML; a list stands on one line, one of mappings on a line for each."""
    stream, yaml = io.StringIO(), YAML(typ="rt", pure=True)
    yaml.width = MAX_WIDTH
    yaml.dump(_lay_out_lists(data), stream)
    return stream.getvalue()


def _lay_out_lists(data: Any) -> Any:
    if isinstance(data, dict):
        return {key: _lay_out_lists(value) for key, value in data.items()}
    if isinstance(data, list) and data and all(isinstance(each, dict) for each in data):
        return CommentedSeq([_on_one_line(CommentedMap(each)) for each in data])
    return _on_one_line(CommentedSeq(data)) if isinstance(data, list) else data


def _on_one_line(data: CommentedMap | CommentedSeq) -> CommentedMap | CommentedSeq:
    data.fa.set_flow_style()
    return data
