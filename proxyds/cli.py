"""The command line: parse, call, print. What takes long to import is imported by the command that needs it."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from proxyds.errors import EXIT_INTERRUPTED, OutputExistsError, ProxydsError, translate_os_errors

if TYPE_CHECKING:
    from proxyds.manifest import Manifest
    from proxyds.pipeline import Built, Plan
    from proxyds.records import Tables

_Command = TypeVar("_Command", bound=Callable[..., Any])

_PATH = click.Path(path_type=Path, readable=False)  # what cannot be read is told where it is read, with its exit code

as_json = click.option("--json", "as_json", is_flag=True, help="Print the result as JSON on standard output.")
overrides = click.option(
    "--set",
    "overrides",
    multiple=True,
    metavar="A.B=C",
    help="Change a value of the recipe; may be given several times.",
)


def main() -> None:
    """Runs the command line and turns every expected error into one message and an exit code."""
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # read when torch is imported: idle threads must not spin
    os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")  # read when datasets is: the bars here are our own
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
            "proxyds: interrupted. Finished work is kept and nothing half-written is left: run the same command again, it "
            "goes on where it was.",
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
@click.argument("path", type=_PATH, default="recipe.yaml")
@click.option(
    "--preset", default="digits", show_default=True, help="A recipe to start from; `proxyds list` names them."
)
@click.option("--force", is_flag=True, help="Replace the file if it is there.")
def init(path: Path, preset: str, force: bool) -> None:
    """Write a commented recipe to PATH."""
    from proxyds.folders import replace_file
    from proxyds.presets import preset_text

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
@click.argument("recipe", type=_PATH)
@overrides
@as_json
def validate(recipe: Path, overrides: tuple[str, ...], as_json: bool) -> None:
    """Check a recipe and print its identity. Reads nothing but the recipe."""
    from proxyds.recipe_yaml import read_recipe

    read = read_recipe(recipe, overrides)
    if as_json:
        _print_json({"valid": True, "name": read.name, "version": read.version, "sha256": read.sha256, "problems": []})
    else:
        click.echo(f"{recipe}: valid, {read.name} {read.version}, sha256 {read.sha256}")


@cli.command()
@click.argument("recipe", type=_PATH)
@click.option("-o", "--output", "out", type=_PATH, help="The folder to make.  [default: the recipe's name]")
@click.option("--dry-run", is_flag=True, help="Say what would be done and how long it would take; train nothing.")
@click.option("--force", is_flag=True, help="Replace another proxy at the output folder.")
@overrides
@click.option(
    "--workers", type=click.IntRange(0), default=0, help="Networks trained at once.  [default: one for each core]"
)
@click.option(
    "--device", default="auto", show_default=True, help="cpu, cuda, cuda:N, or auto for CUDA where there is one."
)
@click.option("-q", "--quiet", is_flag=True, help="No progress on standard error.")
@as_json
def build(
    recipe: Path,
    out: Path | None,
    dry_run: bool,
    force: bool,
    overrides: tuple[str, ...],
    workers: int,
    device: str,
    quiet: bool,
    as_json: bool,
) -> None:
    """Build the proxy that RECIPE describes. Stopped builds go on where they were."""
    from proxyds.display import show_progress
    from proxyds.recipe_yaml import read_recipe

    read = read_recipe(recipe, overrides)
    with show_progress(quiet=quiet) as on_progress:
        from proxyds import pipeline

        if dry_run:
            plan = pipeline.plan_build(read, workers=workers, device=device, on_progress=on_progress)
        else:
            built = pipeline.build(
                read, out or Path(read.name), workers=workers, device=device, force=force, on_progress=on_progress
            )
    if dry_run:
        _print_json(_plan_summary(plan)) if as_json else _print_plan(plan)
    else:
        _print_json(_summary(built.folder, built.manifest)) if as_json else _print_built(built, out or Path(read.name))


@cli.command()
@click.argument("folder", type=_PATH)
@as_json
def inspect(folder: Path, as_json: bool) -> None:
    """Show a proxy's counts, cases, class balance, evidence and provenance."""
    from proxyds.artifact import read_proxy

    manifest, tables = read_proxy(folder)
    if as_json:
        _print_json(_summary(folder, manifest))
    else:
        _print_inspection(manifest, tables)


@cli.command()
@click.argument("folder", type=_PATH)
@as_json
def verify(folder: Path, as_json: bool) -> None:
    """Compare every byte of a proxy with its manifest."""
    from proxyds.artifact import verify_proxy

    manifest = verify_proxy(folder)
    n_bytes = sum(facts.bytes for facts in manifest.files.values())
    if as_json:
        _print_json({"whole": True, "n_files": len(manifest.files), "n_bytes": n_bytes})
    else:
        click.echo(
            f"{folder}: whole, {len(manifest.files)} files, {n_bytes:,} bytes, {manifest.name} {manifest.version}"
        )


@cli.command()
@click.argument("folder", type=_PATH)
@click.option("--check", is_flag=True, help="Change nothing; exit with 52 where the card differs from its records.")
@as_json
def card(folder: Path, check: bool, as_json: bool) -> None:
    """Render a proxy's card and pictures again from its records."""
    from proxyds.pipeline import render

    changed = render(folder, check_only=check)
    if as_json:
        _print_json({"rendered": changed})
        return
    click.echo(
        f"{folder}: rendered {', '.join(changed)}" if changed else f"{folder}: the card is what its records render to"
    )


@cli.command("list")
@as_json
def list_(as_json: bool) -> None:
    """List presets, sources, network families, draw laws, and the proxies in this folder."""
    from proxyds.artifact import read_manifest
    from proxyds.display import print_table
    from proxyds.errors import ArtifactError
    from proxyds.networks import FAMILIES
    from proxyds.presets import preset_names, preset_purpose
    from proxyds.recipe import DigitsSource, FolderSource, HubSource, TorchvisionSource
    from proxyds.selection import DRAW_LAWS

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
        "networks": {
            name: f"{family.summary}; choices: {', '.join(family.parameters.model_fields)}"
            for name, family in FAMILIES.items()
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
    """Look at or clear the store of finished work (PROXYDS_STORE, or the user's cache folder)."""


@store.command("list")
@as_json
def store_list(as_json: bool) -> None:
    """List finished work, oldest first."""
    from datetime import datetime

    from proxyds.display import print_table
    from proxyds.quantities import duration, with_prefix
    from proxyds.store import Store

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
    rows = [
        (
            f"{datetime.fromtimestamp(e.created):%Y-%m-%d %H:%M}",
            e.stage,
            e.name,
            duration(e.seconds),
            with_prefix(e.n_bytes, "B"),
        )
        for e in entries
    ]
    print_table(f"finished work in {held.root}", ("when", "stage", "what", "took", "size"), rows)


@store.command("clean")
@click.option(
    "--older-than", "days", type=click.FloatRange(0), default=0.0, metavar="DAYS", help="Keep what is younger."
)
@click.option("--yes", is_flag=True, help="Do not ask.")
def store_clean(days: float, yes: bool) -> None:
    """Remove finished work; builds that need it do it again."""
    from proxyds.quantities import with_prefix
    from proxyds.store import Store

    held = Store()
    if not yes and not click.confirm(f"Remove finished work from {held.root}?"):
        click.echo("nothing was removed")
        return
    n_entries, n_bytes = held.clean(days)
    click.echo(f"removed {n_entries} entries, {with_prefix(n_bytes, 'B')}, from {held.root}")


def _print_json(held: object) -> None:
    click.echo(json.dumps(held, indent=1, default=str))


def _summary(folder: Path, manifest: Manifest) -> dict[str, Any]:
    return {"folder": str(folder), **manifest.model_dump(mode="json", exclude={"files"})}


def _plan_summary(plan: Plan) -> dict[str, Any]:
    return {
        "n_train": len(plan.source.train),
        "n_evaluation": len(plan.source.evaluation),
        "n_selected": plan.n_selected,
        "n_architectures": len(plan.architectures),
        "expected_seconds": plan.expected_seconds,
        "probes": [
            {
                "name": p.architecture.name,
                "is_stored": p.is_stored,
                "flops": p.flops,
                "expected_seconds": p.expected_seconds,
            }
            for p in plan.probes
        ],
    }


def _print_plan(plan: Plan) -> None:
    from proxyds.display import print_table
    from proxyds.quantities import duration, with_prefix

    facts = plan.source.facts
    copy = " (a local copy)" if facts.is_local_copy else ""
    click.echo(f"source: {facts.name}{copy}, {len(plan.source.train):,} training samples may be drawn, ", nl=False)
    click.echo(f"{len(plan.source.evaluation):,} evaluation samples ({facts.evaluation_from})")
    click.echo(f"space: {len(plan.architectures)} architectures; proxy: {plan.n_selected:,} samples\n")
    rows = [
        (
            p.architecture.name,
            with_prefix(p.architecture.training_flops, "FLOP"),
            with_prefix(p.flops, "FLOP"),
            "in the store" if p.is_stored else duration(p.expected_seconds),
        )
        for p in plan.probes
    ]
    print_table("probes to train", ("architecture", "one image", "training", "expected"), rows)
    click.echo(
        f"\nexpected: about {duration(plan.expected_seconds)} with {plan.n_workers} at once on this machine, measured just now "
        "over a few steps; nothing was trained"
    )


def _print_built(built: Built, out: Path) -> None:
    from proxyds.artifact import read_proxy

    python, program = _programs()
    verb = "is there already, unchanged (--force builds it again)" if built.was_there else "built"
    click.echo(f"{built.manifest.name} {built.manifest.version} {verb}: {out}\n")
    _print_inspection(*read_proxy(built.folder), whole=False)
    click.echo(
        f"\nnext:\n  {python} -c \"from datasets import load_dataset; print(load_dataset('{out}'))\"\n"
        f"  {program} inspect {out}      class balance, provenance, cost\n"
        f"  {out / 'README.md'}        the card, with pictures in {out / 'assets'}"
    )


def _programs() -> tuple[str, str]:
    """What to type for Python and for this program: short where the shell finds them."""
    if shutil.which("proxyds") == sys.argv[0] or shutil.which("proxyds") == shutil.which(sys.argv[0]):
        return "python", "proxyds"
    here = Path.cwd()
    python, program = Path(sys.executable), Path(sys.argv[0]).absolute()
    if program.name == "__main__.py":
        return str(python), f"{python} -m proxyds"
    names = [str(path.relative_to(here)) if path.is_relative_to(here) else str(path) for path in (python, program)]
    return names[0], names[1]


def _print_inspection(manifest: Manifest, tables: Tables, *, whole: bool = True) -> None:
    import numpy as np

    from proxyds.display import print_table
    from proxyds.quantities import duration, with_prefix
    from proxyds.records import CASE_MEANINGS

    counts, source = manifest.counts, manifest.source
    click.echo(
        f"{counts.proxy:,} of {counts.train:,} training samples of {source.name} ({manifest.draw.ratio:.3g} of them, drawn "
        f"{manifest.draw.law}), {len(manifest.label_names)} labels"
    )
    if manifest.protocol == "paper":
        click.echo("the paper's protocol: importance from the TEST set; a ranking measured there is circular")
    click.echo("evidence: none yet; nothing shows that it ranks better than a random subset\n")

    def shares(case: int) -> list[str]:
        columns = [table["case"].to_numpy() == case for table in (tables.evaluation, tables.importance, tables.data)]
        return [f"{int(column.sum()):,} ({column.mean():.1%})" for column in columns]

    rows = [
        (f"{case}: {meaning}", f"{manifest.draw.constants[case - 1]:g}", *shares(case))
        for case, meaning in CASE_MEANINGS.items()
    ]
    print_table("", ("case", "importance", "evaluation", "training", "proxy"), rows)
    click.echo()
    probes = [
        (
            p.name,
            with_prefix(p.training_flops_per_sample, "FLOP"),
            f"{p.n_parameters:,}",
            f"{p.accuracy:.1%}",
            duration(p.training_seconds),
        )
        for p in manifest.probes
    ]
    print_table("", ("probe", "one image", "weights", "right", "trained in"), probes)
    if manifest.has_lighter_winner:
        click.echo("note: the heaviest probe is not the most accurate; case 3 favours what lighter ones get right")
    if not whole:
        return
    click.echo()
    n = len(manifest.label_names)
    before = np.bincount(tables.importance["label"].to_numpy(), minlength=n)
    after = np.bincount(tables.data["label"].to_numpy(), minlength=n)
    balance = [
        (name, f"{b:,} ({b / before.sum():.1%})", f"{a:,} ({a / after.sum():.1%})")
        for name, b, a in zip(manifest.label_names, before, after, strict=True)
    ]
    print_table("", ("label", "training", "proxy"), balance)
    click.echo()
    stages = [(s.stage, f"{s.work_seconds:.1f}", f"{s.elapsed_seconds:.1f}") for s in manifest.stages]
    print_table("", ("stage", "work (s)", "this build (s)"), stages)
    revision = f" at {source.revision}" if source.revision else ""
    copy = ", from a local copy whose revision was not checked" if source.is_local_copy else ""
    duplicates = ", ".join(f"{n:,} in {split}" for split, n in source.n_duplicates.items())
    libraries = ", ".join(f"{name} {version}" for name, version in manifest.machine.libraries.items())
    click.echo(
        f"\nsource: {source.name}{revision}{copy}\n  content {source.fingerprint}\n  evaluation samples: {source.evaluation_from}"
        f"\n  test samples: {source.test_from}\n  exact duplicates: {duplicates}; images left out: {len(source.bad_images)}"
        f"\nrecipe: {manifest.recipe_sha256} (recipe.yaml)\nbuilt: {manifest.created}, {manifest.machine.processor}, "
        f"{manifest.machine.n_cores} cores, {manifest.machine.device}; {libraries}"
    )


if __name__ == "__main__":
    main()
