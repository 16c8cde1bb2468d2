"""Commands about recipes and what they may name: init, validate, list."""

from __future__ import annotations

import os
import re
from pathlib import Path

import click

from proxyds.cli.names import complete_preset
from proxyds.cli.options import PATH, as_json, overrides, plugins, repeat_plugins
from proxyds.cli.output import print_json, print_table, say, show_command
from proxyds.errors import ArtifactError, NoPermissionError, OutputExistsError, translate_os_errors


@click.command()
@click.argument("path", type=PATH, default="recipe.yaml")
@click.option(
    "--preset",
    metavar="NAME",
    shell_complete=complete_preset,
    help="The recipe to start from. `proxyds list` shows them.  [default: digits]",
)
@click.option(
    "--from", "folder", type=PATH, metavar="FOLDER", help="Look into FOLDER and write a recipe for the images there."
)
@click.option("--force", is_flag=True, help="Replace the file if it exists.")
def init(path: Path, preset: str | None, folder: Path | None, force: bool) -> None:
    """Write a recipe with comments to PATH, or to recipe.yaml."""
    from proxyds.recipe.presets import preset_text
    from proxyds.runtime.storage.atomic import replace_file

    if folder is not None and preset is not None:
        raise click.UsageError("--from writes the preset `folder` for what lies there: leave out --preset")
    if os.path.exists(path) and not force:  # noqa: PTH110 - unlike Path.exists it takes a name of any length
        raise OutputExistsError(
            "is there already and was not touched; choose another name, or replace it with --force", place=path
        )
    notes: list[str] = []
    if folder is None:
        text = preset_text(preset or "digits", str(path))
    else:
        from proxyds.pipeline.plan import propose_recipe

        proposed = propose_recipe(folder, path)
        text, notes = proposed.text, [f"found {proposed.found}", *(f"warning: {each}" for each in proposed.warnings)]
    with translate_os_errors(path, "choose another place"):
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_file(path, text.encode())
    named = re.search(r"^name: ([\w.-]+)", text, re.MULTILINE)
    out = named[1] if named else "my-proxy"
    steps = [
        show_command("proxyds", "validate", path),
        show_command("proxyds", "build", path, "--dry-run"),
        f"{show_command('proxyds', 'build', path, '-o', out)}      checks it too, if the recipe has a section check",
    ]
    say("\n".join([*notes, f"wrote {path}", "next: " + "\n      ".join(steps)]))


@click.command()
@click.argument("recipe", type=PATH)
@plugins
@overrides
@as_json
def validate(recipe: Path, overrides: tuple[str, ...], as_json: bool) -> None:
    """Check RECIPE and print its identity.

    Reads the recipe only: no data, no networks.
    """
    from proxyds.recipe.yaml import read_recipe
    from proxyds.space.known_models import list_unchecked

    read = read_recipe(recipe, overrides)
    unchecked = list_unchecked(read.space)
    if as_json:
        identity = {"name": read.name, "version": read.version, "sha256": read.sha256}
        print_json({"valid": True, **identity, "problems": [], "warnings": read.warnings, "unchecked": unchecked})
        return
    say(f"{recipe}: valid, {read.name} {read.version}, sha256 {read.sha256}")
    if unchecked:
        say(
            f"not checked here: {'; '.join(unchecked)}; `{show_command('proxyds', 'build', recipe)}{repeat_plugins()} --dry-run` does"
        )
    for warning in read.warnings:
        click.echo(f"warning: {warning}", err=True)


@click.command("list")
@plugins
@as_json
def list_(as_json: bool) -> None:
    """List what a recipe may name.

    Lists presets, sources, families of networks, selection methods and draw laws. Lists the proxies in this folder, too.
    """
    from proxyds.recipe.methods import METHODS
    from proxyds.recipe.presets import preset_names, preset_purpose
    from proxyds.recipe.sections.source import DigitsSource, FolderSource, HubSource, MemorySource, TorchvisionSource
    from proxyds.selection.sampling import DRAW_LAWS
    from proxyds.space.networks.families import FAMILIES
    from proxyds.space.networks.plugins import installed_offers

    kinds = (DigitsSource, HubSource, FolderSource, TorchvisionSource, MemorySource)
    listing = {
        "presets": {name: preset_purpose(name) for name in preset_names()},
        "sources": {kind.model_fields["kind"].annotation.__args__[0]: kind.__doc__ or "" for kind in kinds},  # type: ignore[union-attr]
        "networks": {name: f"of the installed package {package}" for name, package in installed_offers().items()}
        | {
            name: f"{family.summary}; choices: {', '.join(family.parameters.model_fields)}"
            for name, family in FAMILIES.items()
        },
        "selection methods": {
            name: f"{method.summary}{f' ({method.source})' if method.source else ''}"
            for name, method in METHODS.items()
        },
        "draw laws": {name: (law.__doc__ or "").partition("\n")[0] for name, law in DRAW_LAWS.items()},
        "proxies here": _find_proxies(),
    }
    if as_json:
        print_json(listing)
        return
    listing["proxies here"] = listing["proxies here"] or {"(none)": "`proxyds build RECIPE -o DIR` makes one"}
    for title, rows in listing.items():
        print_table(title, ("name", "what it is"), list(rows.items()))
        say("")


def _find_proxies() -> dict[str, str]:
    """Returns for each proxy in the current folder what it is."""
    from proxyds.artifact.reader import read_manifest

    proxies = {}
    for path in sorted(Path().glob("*/manifest.json")):
        try:
            manifest = read_manifest(path.parent)
        except (ArtifactError, NoPermissionError):
            continue  # somebody else's manifest.json
        size = f"{manifest.counts.proxy:,} samples of {manifest.source.name}"
        proxies[str(path.parent)] = f"{manifest.name} {manifest.version}, {size}"
    return proxies
