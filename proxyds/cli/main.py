"""The command line: parse, call, print. What takes long to import is imported by the command that needs it."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from proxyds.cli.options import PATH, as_json, execution_options, overrides, plugins, quiet, workers
from proxyds.errors import (
    EXIT_INTERRUPTED,
    BelowThresholdError,
    OutputExistsError,
    ProxydsError,
    translate_os_errors,
)

if TYPE_CHECKING:
    from proxyds.artifact.manifest import Manifest
    from proxyds.pipeline.build import Built
    from proxyds.progress import OnProgress
    from proxyds.runtime.execution import Options


def main() -> None:
    """Runs the command line and turns every expected error into one message and an exit code."""
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # read when torch is imported: idle threads must not spin
    os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")  # read when datasets is: the bars here are our own
    os.environ.setdefault("HF_HUB_VERBOSITY", "error")  # the client logs every try, with an upload's signed address
    try:
        sys.exit(cli.main(standalone_mode=False) or 0)
    except ProxydsError as error:
        if "--json" in sys.argv:
            about = {"error": type(error).__name__, "exit_code": error.exit_code, "message": str(error)}
            _print_json({**about, "problems": getattr(error, "problems", [])})
        click.echo(f"proxyds: {error}", err=True)
        sys.exit(error.exit_code)
    except (KeyboardInterrupt, click.Abort):
        click.echo(
            "proxyds: interrupted. Finished work is kept: run the same command again, it goes on where it was.",
            err=True,
        )
        sys.exit(EXIT_INTERRUPTED)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name="proxyds")
def cli() -> None:
    """Small data sets that rank neural architectures as the whole data set does.

    A recipe names a data set, a search space and a size; `build` makes the proxy. Start with `proxyds init`.
    """


@cli.command()
@click.argument("path", type=PATH, default="recipe.yaml")
@click.option(
    "--preset", default="digits", show_default=True, help="A recipe to start from; `proxyds list` names them."
)
@click.option("--force", is_flag=True, help="Replace the file if it is there.")
def init(path: Path, preset: str, force: bool) -> None:
    """Write a commented recipe to PATH."""
    from proxyds.recipe.presets import preset_text
    from proxyds.runtime.storage.atomic import replace_file

    text = preset_text(preset)
    if path.exists() and not force:
        raise OutputExistsError(
            f"{path}: is there already and was not touched; choose another name, or replace it with --force"
        )
    with translate_os_errors(str(path), "choose another place"):
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_file(path, text.encode())
    click.echo(f"wrote {path}\nnext: proxyds validate {path}\n      proxyds build {path} -o my-proxy")


@cli.command()
@click.argument("recipe", type=PATH)
@plugins
@overrides
@as_json
def validate(recipe: Path, overrides: tuple[str, ...], as_json: bool) -> None:
    """Check a recipe and print its identity. Reads nothing but the recipe."""
    from proxyds.recipe.yaml import read_recipe

    read = read_recipe(recipe, overrides)
    if as_json:
        _print_json({"valid": True, "name": read.name, "version": read.version, "sha256": read.sha256, "problems": []})
    else:
        click.echo(f"{recipe}: valid, {read.name} {read.version}, sha256 {read.sha256}")


@cli.command()
@click.argument("recipe", type=PATH)
@click.option("-o", "--output", "out", help="The folder to make, or an address.  [default: the recipe's name]")
@click.option("--dry-run", is_flag=True, help="Say what would be done and how long it would take; train nothing.")
@click.option("--force", is_flag=True, help="Replace another proxy at the output folder.")
@plugins
@overrides
@execution_options
@as_json
def build(
    recipe: Path,
    out: str | None,
    dry_run: bool,
    force: bool,
    overrides: tuple[str, ...],
    execution: Options,
    quiet: bool,
    as_json: bool,
) -> int:
    """Build the proxy that RECIPE describes, and check its ranking where the recipe has a section check.

    Stopped builds go on where they were.
    """
    from proxyds.cli.progress import show_progress
    from proxyds.recipe.yaml import read_recipe

    read = read_recipe(recipe, overrides)
    if dry_run:
        with show_progress(quiet=quiet) as execution["on_progress"]:
            from proxyds.pipeline.plan import plan_build

            plan = plan_build(read, **execution)
        from proxyds.cli.output import print_plan, summarise_plan

        _print_json(summarise_plan(plan)) if as_json else print_plan(plan)
        return 0

    def make(folder: Path, on_progress: OnProgress) -> Built:
        from proxyds.pipeline.build import build

        execution["on_progress"] = on_progress
        return build(read, folder, force=force, **execution)

    built = _make_at(out or read.name, make, quiet=quiet, as_json=as_json)
    return 0 if read.check is None else _exit_code(built.manifest, strict=False)


def _make_at(out: str, make: Callable[[Path, OnProgress], Built], *, quiet: bool, as_json: bool) -> Built:
    """Makes a proxy in a folder or for an address, and prints it."""
    from proxyds.cli.progress import show_progress

    with show_progress(quiet=quiet) as on_progress:
        from proxyds.artifact.tables import read_summary
        from proxyds.pipeline.push import output_at

        with output_at(out, on_progress) as folder:
            built = make(folder, on_progress)
            manifest, shown = read_summary(built.folder)
    from proxyds.cli.output import print_built, summarise_proxy
    from proxyds.runtime.storage.address import show_address

    out = show_address(out)
    _print_json(summarise_proxy(out, manifest)) if as_json else print_built(manifest, shown, out, built.was_there)
    return built


@cli.command()
@click.argument("folder", type=PATH)
@click.option("--dry-run", is_flag=True, help="Say what would be trained and how long it would take; train nothing.")
@click.option("--ratios", metavar="R,R,...", help="Check these sizes too, and name the smallest that is large enough.")
@click.option("--target", type=click.FloatRange(-1, 1), help="What the lower end of Kendall tau must reach for that.")
@click.option(
    "--reference", type=PATH, help="Full-data accuracies known already: a CSV file, or another proxy's folder."
)
@click.option("--runs", type=PATH, help="A CSV file of runs made elsewhere; nothing is trained here.")
@click.option("--strict", is_flag=True, help="Exit with 3 unless the verdict is that the ranking is preserved.")
@plugins
@overrides
@execution_options
@as_json
def check(
    folder: Path,
    dry_run: bool,
    ratios: str | None,
    target: float | None,
    reference: Path | None,
    runs: Path | None,
    strict: bool,
    overrides: tuple[str, ...],
    execution: Options,
    quiet: bool,
    as_json: bool,
) -> int:
    """Measure how well the proxy at FOLDER ranks architectures, and write the evidence into it.

    Trains the search space's architectures on everything, on the proxy and on controls. Stopped checks go on where they
    were. Exits with 3 where the evidence is below the recipe's check.threshold.
    """
    from proxyds.cli.progress import show_progress

    if runs is not None and (dry_run or reference is not None):
        raise click.UsageError(
            "--runs trains nothing and brings its own full-data accuracies: neither --dry-run nor --reference"
        )
    settings = list(overrides)
    settings += [f"check.ratios=[{ratios}]"] if ratios is not None else []
    settings += [f"check.target={target}"] if target is not None else []
    settings += (
        [f"check.reference={json.dumps(str(reference.absolute()), ensure_ascii=False)}"]
        if reference is not None
        else []
    )
    with show_progress(quiet=quiet) as execution["on_progress"]:
        from proxyds.pipeline import build as pipeline
        from proxyds.pipeline.plan import plan_check

        if dry_run:
            plan = plan_check(folder, overrides=settings, **execution)
        else:
            checked = pipeline.check(folder, overrides=settings, runs=runs, **execution)
    from proxyds.cli.output import print_check_plan, print_evidence, summarise_check_plan, summarise_proxy

    if dry_run:
        _print_json(summarise_check_plan(plan)) if as_json else print_check_plan(plan)
        return 0
    if as_json:
        _print_json(summarise_proxy(checked.folder, checked.manifest)["evidence"])
    else:
        print_evidence(checked.manifest)
        click.echo(f"\nnext:\n  {folder / 'README.md'}        the card, with pictures in {folder / 'assets'}")
    return _exit_code(checked.manifest, strict=strict)


@cli.command()
@click.argument("what")
@plugins
@overrides
@as_json
def inspect(what: str, overrides: tuple[str, ...], as_json: bool) -> None:
    """Show a proxy's counts, cases, class balance, evidence and provenance; or the search space of a recipe.

    WHAT is a proxy: a folder, user/name@v1.0.0 on the Hub or an address, of which all but the images is fetched. Or it is a
    recipe's file: then its architectures, their cost, what each choice costs, the probes.
    """
    is_recipe = what.endswith((".yaml", ".yml")) and "://" not in what and not os.path.isdir(what)  # noqa: PTH112 - see below
    if is_recipe or os.path.isfile(what):  # noqa: PTH113 - a name that is too long is no error here
        _inspect_recipe(Path(what), overrides, as_json)
    elif overrides:
        raise click.UsageError(f"--set changes a recipe, and {what} is none: a proxy stays as it was built")
    else:
        _inspect_proxy(what, as_json)


def _inspect_recipe(path: Path, overrides: tuple[str, ...], as_json: bool) -> None:
    from proxyds.cli.progress import show_progress
    from proxyds.recipe.yaml import read_recipe

    read = read_recipe(path, overrides)
    with show_progress(quiet=False) as on_progress:
        from proxyds.pipeline.plan import survey_space

        found = survey_space(read, on_progress=on_progress)
    from proxyds.cli.output import print_space, summarise_space

    _print_json(summarise_space(found)) if as_json else print_space(found)


def _inspect_proxy(place: str, as_json: bool) -> None:
    from proxyds.artifact.summary import summarize_tables
    from proxyds.cli.output import print_inspection, summarise_proxy
    from proxyds.cli.progress import show_progress
    from proxyds.pipeline.audit import audit_tables
    from proxyds.pipeline.pull import open_tables

    with show_progress(quiet=False) as on_progress, open_tables(place, on_progress) as (folder, name):
        manifest, tables = audit_tables(folder)
    if as_json:
        _print_json(summarise_proxy(name, manifest))
    else:
        click.echo(f"{manifest.name} {manifest.version} at {name}, licence {manifest.licence}")
        print_inspection(manifest, summarize_tables(tables))


@cli.command()
@click.argument("folder", type=PATH)
@click.argument("place")
@click.option(
    "--tag", metavar="TAG", help="Of this version on the Hub: v and the proxy's version, as if left out, or a name."
)
@click.option("--private", is_flag=True, help="Make the repository private, if it is new.")
@click.option("--create-pr", is_flag=True, help="Ask the repository's owner for the change; no tag is put.")
@click.option("--below-threshold", is_flag=True, help="Publish it although its check fell below its threshold.")
@click.option("--dry-run", is_flag=True, help="List the files and what would become of them; change nothing.")
@quiet
@as_json
def push(
    folder: Path,
    place: str,
    tag: str | None,
    private: bool,
    create_pr: bool,
    below_threshold: bool,
    dry_run: bool,
    quiet: bool,
    as_json: bool,
) -> None:
    """Publish the proxy at FOLDER: at PLACE, user/name on the Hub or an address such as s3://bucket/folder.

    The tag is put last and never moved. A push that broke off can be repeated; one that changes nothing does nothing.
    """
    from proxyds.cli.progress import show_progress

    if create_pr and tag is not None:
        raise click.UsageError("--create-pr puts no tag: push again with --tag when the request was merged")
    with show_progress(quiet=quiet) as on_progress:
        from proxyds.pipeline import push as publish

        pushed = publish.push(
            folder,
            place,
            tag=tag,
            private=private,
            create_pr=create_pr,
            below_threshold=below_threshold,
            dry_run=dry_run,
            on_progress=on_progress,
        )
    from proxyds.cli.remote_output import print_pushed, summarise_push

    _print_json(summarise_push(pushed)) if as_json else print_pushed(pushed)


@cli.command()
@click.argument("place")
@click.option("-o", "--output", "out", help="The folder to make, or an address.  [default: the repository's name]")
@quiet
@as_json
def pull(place: str, out: str | None, quiet: bool, as_json: bool) -> None:
    """Fetch the proxy at PLACE, user/name@v1.0.0 on the Hub or an address, and verify all of it."""
    from proxyds.cli.progress import show_progress

    with show_progress(quiet=quiet) as on_progress:
        from proxyds.pipeline import pull as fetching
        from proxyds.pipeline.push import output_at

        out = out or fetching.default_folder(place)
        with output_at(out, on_progress) as folder:
            pulled = fetching.pull(place, folder, on_progress=on_progress)
    from proxyds.cli.remote_output import print_pulled, summarise_pull
    from proxyds.runtime.storage.address import show_address

    out = show_address(out)
    _print_json(summarise_pull(pulled, out)) if as_json else print_pulled(pulled, out)


@cli.command()
@click.argument("place")
@click.option("-o", "--output", "out", required=True, help="The folder to make, or an address.")
@click.option("--ratio", type=float, help="Size, as a share of the samples that may be drawn.")
@click.option("--seed", type=int, help="Of the draw.")
@click.option("--draw", help="The draw law; `proxyds list` names them.")
@click.option("--source", type=PATH, help="Where the source lies now, if not where the recipe says.")
@click.option("--force", is_flag=True, help="Replace another proxy at the output folder.")
@plugins
@overrides
@workers
@quiet
@as_json
def resample(
    place: str,
    out: str,
    ratio: float | None,
    seed: int | None,
    draw: str | None,
    source: Path | None,
    force: bool,
    overrides: tuple[str, ...],
    workers: int,
    quiet: bool,
    as_json: bool,
) -> None:
    """Draw another proxy from the importance table of the proxy at PLACE; trains nothing.

    PLACE is a folder, user/name@v1.0.0 on the Hub or an address. The source must be at hand: its samples are found by content.
    """
    given = {
        "selection.ratio": ratio,
        "selection.seed": seed,
        "selection.draw": draw,
        "source.path": None if source is None else str(source.absolute()),
    }
    settings = [f"{name}={json.dumps(value, ensure_ascii=False)}" for name, value in given.items() if value is not None]

    def make(folder: Path, on_progress: OnProgress) -> Built:
        from proxyds.pipeline import resample as resampling

        return resampling.resample(
            place, folder, overrides=[*overrides, *settings], workers=workers, force=force, on_progress=on_progress
        )

    _make_at(out, make, quiet=quiet, as_json=as_json)


@cli.command()
@click.argument("folder", type=PATH)
@as_json
def verify(folder: Path, as_json: bool) -> None:
    """Compare every byte of a proxy with its manifest, and what it holds with the format."""
    from proxyds.pipeline.audit import audit_proxy

    manifest, _ = audit_proxy(folder)
    n_bytes = sum(facts.bytes for facts in manifest.files.values())
    if as_json:
        _print_json({"whole": True, "n_files": len(manifest.files), "n_bytes": n_bytes})
    else:
        click.echo(
            f"{folder}: whole, {len(manifest.files)} files, {n_bytes:,} bytes, {manifest.name} {manifest.version}"
        )


@cli.command()
@click.argument("folder", type=PATH)
@click.option("--check", is_flag=True, help="Change nothing; exit with 50 where the card differs from its records.")
@as_json
def card(folder: Path, check: bool, as_json: bool) -> None:
    """Render a proxy's card and pictures again from its records."""
    from proxyds.pipeline.build import render

    changed = render(folder, check_only=check)
    if as_json:
        _print_json({"rendered": changed})
        return
    click.echo(
        f"{folder}: rendered {', '.join(changed)}" if changed else f"{folder}: the card is what its records render to"
    )


@cli.command("list")
@plugins
@as_json
def list_(as_json: bool) -> None:
    """List presets, sources, network families, selection methods, draw laws, and the proxies in this folder."""
    from proxyds.artifact.reader import read_manifest
    from proxyds.cli.progress import print_table
    from proxyds.errors import ArtifactError
    from proxyds.recipe.methods import METHODS
    from proxyds.recipe.presets import preset_names, preset_purpose
    from proxyds.recipe.source import DigitsSource, FolderSource, HubSource, TorchvisionSource
    from proxyds.selection.sampling import DRAW_LAWS
    from proxyds.space.networks.families import FAMILIES
    from proxyds.space.networks.plugins import installed_offers

    kinds = (DigitsSource, HubSource, FolderSource, TorchvisionSource)
    proxies = {}
    for path in sorted(Path().glob("*/manifest.json")):
        try:
            manifest = read_manifest(path.parent)
        except ArtifactError:
            continue  # somebody else's manifest.json
        proxies[str(path.parent)] = (
            f"{manifest.name} {manifest.version}, {manifest.counts.proxy:,} samples of {manifest.source.name}"
        )
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
        "proxies here": proxies or {"(none)": "`proxyds build RECIPE -o DIR` makes one"},
    }
    if as_json:
        _print_json({**listing, "proxies here": proxies})
        return
    for title, rows in listing.items():
        print_table(title, ("name", "what it is"), list(rows.items()))
        click.echo()


@cli.group()
def store() -> None:
    """Look at or clear the store of finished work (PROXYDS_STORE, a folder or an address; or the user's cache folder)."""


@store.command("list")
@as_json
def store_list(as_json: bool) -> None:
    """List finished work, oldest first."""
    from datetime import datetime

    from proxyds.cli.progress import print_table
    from proxyds.runtime.storage.store import Store
    from proxyds.text import duration, with_prefix

    held = Store()
    entries = held.entries()
    if as_json:
        _print_json(
            [
                {"stage": e.stage, "name": e.name, "key": e.key, "n_bytes": e.n_bytes, "seconds": e.seconds}
                for e in entries
            ]
        )
        return
    sizes = [e.n_bytes for e in entries]
    rows = [
        (
            f"{datetime.fromtimestamp(e.created):%Y-%m-%d %H:%M}",
            e.stage,
            e.name,
            duration(e.seconds),
            with_prefix(n_bytes, "B"),
        )
        for e, n_bytes in zip(entries, sizes, strict=True)
    ]
    print_table(f"finished work in {held.name}", ("when", "stage", "what", "took", "size"), rows)
    seconds = sum(e.seconds for e in entries)
    click.echo(f"entries: {len(entries)}, {duration(seconds)} of work, {with_prefix(sum(sizes), 'B')}")


@store.command("clean")
@click.option(
    "--older-than", "days", type=click.FloatRange(0), default=0.0, metavar="DAYS", help="Keep what is younger."
)
@click.option("--yes", is_flag=True, help="Do not ask.")
def store_clean(days: float, yes: bool) -> None:
    """Remove finished work; builds that need it do it again."""
    from proxyds.runtime.storage.store import Store
    from proxyds.text import with_prefix

    held = Store()
    if not yes and not click.confirm(f"Remove finished work from {held.name}?"):
        click.echo("nothing was removed")
        return
    n_entries, n_bytes = held.clean(days)
    click.echo(f"removed {n_entries} entries, {with_prefix(n_bytes, 'B')}, from {held.name}")


def _exit_code(manifest: Manifest, *, strict: bool) -> int:
    """Returns the exit code of a proxy that was checked: whether it is below its threshold, or `strict` asks for more."""
    evidence = manifest.evidence
    if evidence is not None and evidence.passed is False:
        threshold = evidence.check.threshold
        complaint = f"the lower end of Kendall tau's interval is below check.threshold = {threshold}"
    elif strict and evidence is not None and evidence.verdict != "preserves the ranking":
        complaint = f"the verdict is «{evidence.verdict}», and --strict asks for «preserves the ranking»"
    else:
        return 0
    click.echo(f"proxyds: {complaint}", err=True)
    return BelowThresholdError.exit_code


def _print_json(held: object) -> None:
    click.echo(json.dumps(held, indent=1, default=str))


if __name__ == "__main__":
    main()
