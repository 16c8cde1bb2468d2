"""What pages of the reference take from the code when the site is built: each `<!-- generated: NAME -->` becomes the Markdown that NAME makes."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import proxyds
from proxyds import errors
from proxyds.artifact.ranking_table import STATISTICS
from proxyds.recipe.methods import METHODS
from proxyds.recipe.models import Recipe

MARK = re.compile(r"^<!-- generated: (?P<name>[a-z-]+) -->$(?:\n\n\*`make docs`.*\*$)?", re.MULTILINE)
"""A marker, and what a page says in its place where nothing was built, as in a checkout."""
Schema = dict[str, Any]


def fill_in(text: str) -> str:
    """Returns a page with what its markers name.

    Raises:
        KeyError: A marker names nothing that is known here.
    """
    return MARK.sub(lambda mark: GENERATORS[mark["name"]](), text)


def tabulate(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Writes a table in Markdown."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


# Recipes


def describe_recipe() -> str:
    """Describes every key of a recipe, section by section, from the JSON Schema."""
    schema = Recipe.model_json_schema()
    definitions = schema["$defs"]
    parts = ["## At the top", _tabulate_keys(schema, definitions)]
    for name, field in schema["properties"].items():
        if name == "space":
            parts += _describe_space(field, definitions)
        elif kinds := field.get("discriminator", {}).get("mapping"):
            parts += [f"## {name}", field["description"]]
            for kind, reference in kinds.items():
                parts += _describe_section(f"### {name}: {kind}", name, definitions[_name_of(reference)], definitions)
        elif (section := _find_section(field, definitions)) is not None:
            parts += _describe_section(f"## {name}", name, section, definitions)
    return "\n\n".join(parts)


def _describe_section(heading: str, place: str, section: Schema, definitions: Schema) -> list[str]:
    """Describes the keys of a section, and the sections within it."""
    parts = [heading, _first_paragraph(section.get("description", "")), _tabulate_keys(section, definitions)]
    for key, field in section["properties"].items():
        if (inner := _find_section(field, definitions)) is not None:
            parts += _describe_section(f"### {place}.{key}", f"{place}.{key}", inner, definitions)
    return parts


def _describe_space(field: Schema, definitions: Schema) -> list[str]:
    """Describes the section `space`, whose keys are the same for all families, and then what each family may vary."""
    kinds = field["discriminator"]["mapping"]
    spaces = {network: definitions[_name_of(reference)] for network, reference in kinds.items()}
    keys = dict(next(iter(spaces.values())), properties=dict(next(iter(spaces.values()))["properties"]))
    keys["properties"]["network"] = {"enum": list(spaces), "description": "The family of networks."}
    mapping = {"type": "object"}
    for name, held in (("choices", mapping), ("architectures", {"type": "array", "items": mapping})):
        keys["properties"][name] = {**keys["properties"][name], "anyOf": [held]}
    parts = _describe_section("## space", "space", keys, definitions)
    for network, space in spaces.items():
        told = space["properties"]["network"].get("description", "")
        parts.append(f"### network: {network}\n\n{told[:1].upper()}{told[1:]}")
        choices = [
            definitions[_name_of(place)] for place in _find_references(space["properties"].get("architectures", {}))
        ]
        parts += [_tabulate_keys(each, definitions) for each in choices[:1]]
    return parts


def _tabulate_keys(section: Schema, definitions: Schema) -> str:
    required = section.get("required", ())
    rows = [
        [f"`{key}`", _name_type(field, definitions), _show_default(key, field, required), field.get("description", "")]
        for key, field in section["properties"].items()
        if set(field) != {"$ref"}  # a second spelling
    ]
    return tabulate(["key", "type", "default", "meaning"], rows)


def _show_default(key: str, field: Schema, required: Sequence[str]) -> str:
    if key in required:
        return "**needed**"
    return f"`{json.dumps(field['default'])}`" if "default" in field else ""


def _name_type(field: Schema, definitions: Schema) -> str:
    """Names the type that a field's schema allows, with its bounds."""
    if "$ref" in field:
        name = _name_of(field["$ref"])
        return "section" if "properties" in definitions[name] else _name_type(definitions[name], definitions)
    if "const" in field:
        return f"`{field['const']}`"
    if set(field.get("enum", ())) == set(METHODS):
        return "[a method](methods.md)"
    if "enum" in field:
        return ", ".join(f"`{each}`" for each in field["enum"])
    for choice in ("anyOf", "oneOf"):
        if choice in field:
            named = [_name_type(each, definitions) for each in field[choice]]
            named = ["section"] if named[0] == "section" and "null" not in named else named
            return " or ".join(dict.fromkeys(named))
    kind = field.get("type", "any")
    if kind == "array":
        if "prefixItems" in field:
            return f"list of {len(field['prefixItems'])}"
        return f"list of {_name_type(field.get('items', {}), definitions)}"
    names = {
        "integer": "whole number",
        "number": "number",
        "string": "text",
        "boolean": "`true` or `false`",
        "object": "mapping",
    }
    return names.get(kind, kind) + _name_bounds(field)


def _name_bounds(field: Schema) -> str:
    words = {"minimum": "from", "exclusiveMinimum": "above", "maximum": "to", "exclusiveMaximum": "below"}
    told = " ".join(f"{word} {field[key]:,}" for key, word in words.items() if key in field)
    return f" {told}" if told else ""


def _name_of(reference: str) -> str:
    return reference.rpartition("/")[2]


def _first_paragraph(text: str) -> str:
    return text.strip().split("\n\n")[0].replace("\n", " ")


def _find_section(field: Schema, definitions: Schema) -> Schema | None:
    """Finds the section that a key holds, if it holds one: a mapping with keys of its own."""
    places = [name for name in map(_name_of, _find_references(field)) if "properties" in definitions.get(name, {})]
    return definitions[places[0]] if places else None


def _find_references(schema: Any) -> Iterator[str]:
    """Finds what a schema refers to, at any depth."""
    if isinstance(schema, dict):
        if isinstance(schema.get("$ref"), str):
            yield schema["$ref"]
        for each in schema.values():
            yield from _find_references(each)
    elif isinstance(schema, list):
        for each in schema:
            yield from _find_references(each)


# Errors


def list_exit_codes() -> str:
    """Tabulates exit codes with what each means, and the classes of errors behind it."""
    sorted_ = _sort_errors()
    told = {code: _first_paragraph(classes[0].__doc__ or "") for code, classes in sorted_.items()}
    told |= {
        0: "The command did what was asked.",
        2: "The command line was used wrongly.",
        errors.EXIT_INTERRUPTED: "The command was interrupted. Run it again: it goes on.",
        errors.EXIT_READER_GONE: "The reader of the output ended first, as `head` does.",
    }
    rows = [
        [str(code), told[code], ", ".join(f"`{each.__name__}`" for each in sorted_.get(code, []))]
        for code in sorted(told)
    ]
    return tabulate(["code", "what happened", "classes in `proxyds.errors`"], rows)


def list_errors() -> str:
    """Tabulates every class of error with its meaning."""
    classes = [each for of_code in _sort_errors().values() for each in of_code]
    rows = [[f"`{each.__name__}`", str(each.exit_code), _first_paragraph(each.__doc__ or "")] for each in classes]
    return tabulate(["class", "exit code", "what it says"], rows)


def _sort_errors() -> dict[int, list[type[errors.ProxydsError]]]:
    """Sorts classes of errors by exit code, the widest first."""
    classes = [
        each
        for each in vars(errors).values()
        if isinstance(each, type) and issubclass(each, errors.ProxydsError) and each is not errors.ProxydsError
    ]
    sorted_: dict[int, list[type[errors.ProxydsError]]] = {}
    for each in classes:
        sorted_.setdefault(each.exit_code, []).append(each)
    return sorted_


# Methods and statistics


def list_methods() -> str:
    """Tabulates selection methods: what each takes, what it needs, whose it is."""
    needs = {
        "cases": "cases of the evaluation samples",
        "features": "features of the heaviest probe",
        "answers": "answers after each epoch",
    }
    rows = [
        [
            f"`{name}`",
            method.summary,
            "; ".join(told for need, told in needs.items() if need in method.needs) or "nothing",
            "the same samples" if method.is_fixed else "other samples",
            method.source,
        ]
        for name, method in METHODS.items()
    ]
    return tabulate(["method", "takes", "needs", "another draw takes", "from"], rows)


def list_statistics() -> str:
    """Tabulates the statistics of a check by their names in the manifest."""
    rows = [[each.heading, f"`{name}`", each.explanation] for name, each in STATISTICS.items()]
    return tabulate(["statistic", "name in the manifest", "meaning"], rows)


# Python

GROUPS = {
    "Make a proxy": ("read_recipe", "write_recipe", "Recipe", "plan_build", "build", "Built", "BuildPlan"),
    "Check it and decide": ("plan_check", "check", "CheckPlan", "rank", "Ranking"),
    "Read it": ("open", "Proxy", "read_manifest", "read_tables", "torch_dataset", "verify_proxy", "render"),
    "Share it and draw it again": ("push", "Pushed", "pull", "Pulled", "index", "apply", "resample"),
    "Networks": ("list_architectures", "build_network", "Family", "Parameters", "load_plugins"),
    "Work that is kept, and what goes wrong": ("Store", "ProxydsError"),
}
"""Public names by what they are for; names that stand in none of these come last."""


def list_python() -> str:
    """Lists every public name by what it is for, with its signature and docstring."""
    public = [name for name in proxyds.__all__ if name != "__version__"]
    grouped = {name for names in GROUPS.values() for name in names}
    others = tuple(name for name in public if name not in grouped)
    groups = {**GROUPS, **({"More": others} if others else {})}
    return "\n\n".join(
        f"## {title}\n\n" + "\n\n".join(_document(name) for name in names if name in public)
        for title, names in groups.items()
    )


def _document(name: str) -> str:
    kind = "autoclass" if isinstance(getattr(proxyds, name), type) else "autofunction"
    return f"```{{eval-rst}}\n.. {kind}:: proxyds.{name}\n```"


GENERATORS: dict[str, Callable[[], str]] = {
    "recipe": describe_recipe,
    "exit-codes": list_exit_codes,
    "errors": list_errors,
    "methods": list_methods,
    "statistics": list_statistics,
    "python": list_python,
}
"""What a page may ask for."""
