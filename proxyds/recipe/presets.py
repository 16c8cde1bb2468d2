"""The recipes that come with the package: what `proxyds init` starts from."""

from __future__ import annotations

import re
from pathlib import Path

from proxyds.errors import UnknownNameError
from proxyds.text import suggest_names

_ROOM = Path(__file__).parent
SCHEMA_FILE = _ROOM / "recipe.schema.json"


def preset_folder() -> Path:
    """Finds the recipes: inside an installed package, beside it in a checkout."""
    installed = _ROOM / "presets"
    return installed if installed.is_dir() else _ROOM.parent.parent / "recipes"


def preset_names() -> list[str]:
    """Lists the names for `proxyds init --preset`."""
    return sorted(path.stem for path in preset_folder().glob("*.yaml"))


def preset_purpose(name: str) -> str:
    """Reads the first comment line of a preset."""
    lines = (preset_folder() / f"{name}.yaml").read_text(encoding="utf-8").splitlines()
    comments = (line.removeprefix("#").strip() for line in lines if line.startswith("#") and "$schema=" not in line)
    return next(comments, "")


def preset_text(name: str, recipe: str | None = None) -> str:
    """Reads a preset as a recipe to start from, with a schema line that points at the installed schema.

    Args:
        name: Of the preset.
        recipe: Name of the file that it is written to; its comments name that. None leaves the preset's own.

    Raises:
        UnknownNameError: There is no such preset.
    """
    names = preset_names()
    if name not in names:
        raise UnknownNameError(f"preset {name}: must be a known preset; {suggest_names(name, names)}")
    text = (preset_folder() / f"{name}.yaml").read_text(encoding="utf-8")
    text = text.replace("$schema=../proxyds/recipe/recipe.schema.json", f"$schema={SCHEMA_FILE}", 1)
    text = re.sub(r"\b(cards/[\w-]+|docs/[\w-]+\.md)", r"\1 in the repository of proxyds", text)  # not installed
    return text if recipe is None else text.replace(f"recipes/{name}.yaml", recipe)


def fill_folder_preset(purpose: str, recipe: str, name: str, source: str, ratio: float) -> str:
    """Fills in the preset `folder`.

    Args:
        purpose: Its first line.
        recipe: Name of its file.
        name: Of the data set, as a proxy's name may begin.
        source: The section `source`.
        ratio: Size of the proxy.
    """
    text = preset_text("folder").replace("my-recipe.yaml", recipe)
    for pattern, new in (
        (r"\A# .*\n", f"# {purpose}\n"),
        ("my-proxy", f"{name}-proxy"),
        (r"^source:.*\n(?:  .*\n)+", source),
        (r"^  ratio: [\d.]+", f"  ratio: {ratio:g}"),
    ):
        text = re.sub(pattern, new.replace("\\", "\\\\"), text, flags=re.MULTILINE)
    return text
