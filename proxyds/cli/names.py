"""Names that a shell completes: of presets, draw laws, devices, settings of recipes with their values, and files."""

from __future__ import annotations

import json
from typing import Any

import click
from click.shell_completion import CompletionItem


def complete_path(context: click.Context, parameter: click.Parameter, begun: str) -> list[CompletionItem[str]]:  # noqa: ARG001
    """Completes a place by the files and folders here: what names a place on the network is typed in full."""
    return [CompletionItem(begun, type="file")]


def complete_preset(context: click.Context, parameter: click.Parameter, begun: str) -> list[str]:  # noqa: ARG001
    """Completes the name of a preset."""
    from proxyds.recipe.presets import preset_names

    return [name for name in preset_names() if name.startswith(begun)]


def complete_draw_law(context: click.Context, parameter: click.Parameter, begun: str) -> list[str]:  # noqa: ARG001
    """Completes the name of a draw law."""
    from proxyds.selection.sampling import DRAW_LAWS

    return [name for name in DRAW_LAWS if name.startswith(begun)]


def complete_setting(context: click.Context, parameter: click.Parameter, begun: str) -> list[str]:  # noqa: ARG001
    """Completes `section.key=value`: first the key, then, where a recipe may name some values only, the value."""
    settings = _list_settings()
    keys = [key for key in settings if key.startswith(begun.partition("=")[0])]
    if "=" in begun or len(keys) == 1:
        keys = [key for key in keys if begun.startswith(f"{key}=") or len(keys) == 1]
        return [
            f"{key}={value}" for key in keys for value in settings[key] or [""] if f"{key}={value}".startswith(begun)
        ]
    return [f"{key}=" for key in keys]


def _list_settings() -> dict[str, list[str]]:
    """Lists every setting of a recipe with the values that it may have, where its schema names them all."""
    from proxyds.recipe.presets import SCHEMA_FILE

    schema = json.loads(SCHEMA_FILE.read_text(encoding="utf-8"))
    settings: dict[str, list[str]] = {}

    def follow(node: dict[str, Any], place: str) -> None:
        node = {**schema["$defs"].get(node.get("$ref", "").removeprefix("#/$defs/"), {}), **node}
        for name, below in node.get("properties", {}).items():
            follow(below, f"{place}.{name}" if place else name)
        for each in (*node.get("anyOf", ()), *node.get("oneOf", ())):
            follow(each, place)
        if place and "properties" not in node:
            names = [*node.get("enum", ()), *([node["const"]] if "const" in node else ())]
            names += ["true", "false"] if node.get("type") == "boolean" else []
            settings.setdefault(place, []).extend(str(name) for name in names)

    follow(schema, "")
    return settings
