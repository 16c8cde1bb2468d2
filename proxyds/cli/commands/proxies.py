"""Commands that make proxies and look at them: build, check, resample, index, apply, inspect, verify, card."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import click

from proxyds.cli.names import complete_draw_law, complete_path
from proxyds.cli.options import (
    PATH,
    as_json,
    check_overrides,
    execution_options,
    overrides,
    plugins,
    quiet,
    repeat_plugins,
    workers,
)
from proxyds.cli.options import source as source_option
from proxyds.cli.output import print_json, say, show_command
from proxyds.errors import BelowThresholdError
from proxyds.progress_bars import show_progress
from proxyds.runtime.storage.address import show_address

if TYPE_CHECKING:
    from proxyds.artifact.manifest import Manifest
    from proxyds.artifact.reader import Built
    from proxyds.progress import OnProgress
    from proxyds.runtime.execution import Options

_output_option = click.option(
    "-o",
    "--output",
    "out",
    required=True,
    metavar="PLACE",
    shell_complete=complete_path,
    help="Folder or address of the new proxy.",
)


@click.command()
@click.argument("recipe", type=PATH)
@click.option(
    "-o",
    "--output",
    "out",
    metavar="PLACE",
    shell_complete=complete_path,
    help="Folder or address of the new proxy.  [default: the recipe's name]",
)
@click.option("--dry-run", is_flag=True, help="Say what would be done and how long it would take. Trains nothing.")
@click.option("--no-check", is_flag=True, help="Leave the recipe's check for later. `proxyds check` does it.")
@click.option("--force", is_flag=True, help="Replace another proxy in the output folder.")
@plugins
@overrides
@execution_options
@as_json
def build(
    recipe: Path,
    out: str | None,
    dry_run: bool,
    no_check: bool,
    force: bool,
    overrides: tuple[str, ...],
    execution: Options,
    quiet: bool,
    as_json: bool,
) -> int:
    """Build the proxy that RECIPE describes.

    If the recipe has a section `check`, it checks the ranking too. A build that was stopped goes on where it stopped.
    """
    from proxyds.recipe.yaml import read_recipe

    read = read_recipe(recipe, overrides)
    if dry_run:
        with show_progress(quiet=quiet) as execution["on_progress"]:
            from proxyds.pipeline.plan import plan_build

            plan = plan_build(read, check=not no_check, **execution)
        from proxyds.cli.results import print_build_plan

        print_build_plan(plan, as_json=as_json)
        return 0

    def make(folder: Path, on_progress: OnProgress) -> Built:
        from proxyds.pipeline.build import build

        execution["on_progress"] = on_progress
        return build(read, folder, force=force, check=not no_check, **execution)

    built = _make_at(out or read.name, make, quiet=quiet, as_json=as_json)
    return 0 if read.check is None or no_check else _judge(built.manifest, strict=False)


@click.command()
@click.argument("folder", type=PATH)
@click.option("--dry-run", is_flag=True, help="Say what would be trained and how long it would take. Trains nothing.")
@click.option("--ratios", metavar="R,R,...", help="Check these sizes too, and name the smallest that is good enough.")
@click.option(
    "--target",
    type=click.FloatRange(-1, 1),
    metavar="TAU",
    help="A size is good enough if the lower end of its Kendall tau reaches this.",
)
@click.option(
    "--reference", type=PATH, help="Take accuracies on everything from a CSV file, or from another proxy's folder."
)
@click.option("--runs", type=PATH, help="Take runs made elsewhere from a CSV file. Trains nothing.")
@click.option("--strict", is_flag=True, help="Exit with 3 unless the verdict is «preserves the ranking».")
@source_option
@plugins
@check_overrides
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
    source: Path | None,
    overrides: tuple[str, ...],
    execution: Options,
    quiet: bool,
    as_json: bool,
) -> int:
    """Measure how well the proxy in FOLDER ranks.

    Trains the architectures of the search space on everything, on the proxy and on controls such as random subsets. Writes the
    evidence into the proxy. A check that was stopped goes on where it stopped.

    Exits with 3 if the evidence is below the recipe's check.threshold.
    """
    if runs is not None and dry_run:
        raise click.UsageError("--runs trains nothing, so there is nothing to plan. Leave out --dry-run.")
    settings = [*overrides, *_assign({"check.target": target, "check.reference": reference})]
    settings += [f"check.ratios=[{ratios}]"] if ratios is not None else []
    with show_progress(quiet=quiet) as execution["on_progress"]:
        from proxyds.pipeline.check import check
        from proxyds.pipeline.plan import plan_check

        if dry_run:
            plan = plan_check(folder, overrides=settings, source=source, **execution)
        else:
            checked = check(folder, overrides=settings, runs=runs, source=source, **execution)
    from proxyds.cli.results import print_check_plan, print_evidence

    if dry_run:
        print_check_plan(plan, as_json=as_json)
        return 0
    print_evidence(checked.manifest, folder, as_json=as_json)
    return _judge(checked.manifest, strict=strict)


@click.command()
@click.argument("place", shell_complete=complete_path)
@_output_option
@click.option("--ratio", type=float, metavar="SHARE", help="Size, as a share of the samples that may be drawn.")
@click.option("--seed", type=int, metavar="N", help="Seed of the draw.")
@click.option("--draw", metavar="LAW", shell_complete=complete_draw_law, help="Draw law. `proxyds list` shows them.")
@source_option
@click.option("--force", is_flag=True, help="Replace another proxy in the output folder.")
@plugins
@overrides
@workers
@quiet
@as_json
def resample(
    place: str,
    out: str,
    source: Path | None,
    force: bool,
    overrides: tuple[str, ...],
    workers: int,
    quiet: bool,
    as_json: bool,
    **selection: float | str | None,
) -> None:
    """Draw another proxy from the one at PLACE.

    Draws from its importance table and trains nothing. PLACE is a folder, user/name@v1.0.0 on the Hub or an address. The
    source must be at hand. Samples are found in it by their content.
    """
    changes = [*overrides, *_assign({f"selection.{name}": value for name, value in selection.items()})]

    def make(folder: Path, on_progress: OnProgress) -> Built:
        from proxyds.pipeline.resample import resample

        options: Options = {"workers": workers, "on_progress": on_progress}
        return resample(place, folder, overrides=changes, source=source, force=force, **options)

    _make_at(out, make, quiet=quiet, as_json=as_json)


@click.command()
@click.argument("place", shell_complete=complete_path)
@click.option("-o", "--output", "out", required=True, type=PATH, metavar="FOLDER", help="The new folder.")
@plugins
@quiet
@as_json
def index(place: str, out: Path, quiet: bool, as_json: bool) -> None:
    """Write the list of samples of the proxy at PLACE.

    PLACE is a folder, user/name@v1.0.0 on the Hub or an address. No images are fetched. The new folder holds indices.csv with the
    samples, validation.csv with those to rank on, the recipe and the manifest. `proxyds apply` makes the proxy from it.
    """
    with show_progress(quiet=quiet) as on_progress:
        from proxyds.artifact.manifest import INDEXES
        from proxyds.artifact.reader import read_manifest
        from proxyds.pipeline.resample import index

        file = index(place, out, on_progress=on_progress)
        manifest = read_manifest(out)
    n_samples, name = manifest.counts.proxy, f"{manifest.name} {manifest.version}"
    validation = str(out / INDEXES["validation"]) if INDEXES["validation"] in manifest.files else None
    n_validation = manifest.counts.validation
    if as_json:
        of = {"name": manifest.name, "version": manifest.version, "source": manifest.source.model_dump(mode="json")}
        lists = {
            "index": str(out / file.name),
            "n_samples": n_samples,
            "validation": validation,
            "n_validation": n_validation,
        }
        print_json({**lists, **of})
    else:
        say(f"{out / file.name}: {n_samples:,} samples of {manifest.source.name}, those of {name}")
        if validation is not None:
            say(f"{validation}: {n_validation:,} samples to rank on")
        say(f"next: {show_command('proxyds', 'apply', out)} [SOURCE] -o DIR{repeat_plugins()}")


@click.command()
@click.argument("index", shell_complete=complete_path)
@click.argument("given", metavar="[SOURCE]", type=PATH, required=False)
@_output_option
@source_option
@click.option("--force", is_flag=True, help="Replace another proxy in the output folder.")
@plugins
@workers
@quiet
@as_json
def apply(
    index: str,
    given: Path | None,
    out: str,
    source: Path | None,
    force: bool,
    workers: int,
    quiet: bool,
    as_json: bool,
) -> None:
    """Make a proxy from its list of samples.

    Trains and draws nothing. INDEX is a folder that `proxyds index` wrote, a proxy or a card. It may also be user/name@v1.0.0 on the
    Hub or an address, and no images are fetched from there. SOURCE means the same as --source.

    Samples are found in the source by their content. Their order and a lossless re-encoding do not matter, but grey must stay grey.
    """
    if given is not None and source is not None:
        raise click.UsageError(f"SOURCE and --source mean the same, got {given} and {source}: give one of them")

    def make(folder: Path, on_progress: OnProgress) -> Built:
        from proxyds.pipeline.resample import apply

        return apply(index, folder, source=given or source, workers=workers, force=force, on_progress=on_progress)

    _make_at(out, make, quiet=quiet, as_json=as_json)


def _assign(settings: Mapping[str, object]) -> list[str]:
    """Spells out as assignments to the recipe the settings that were given; paths as seen from anywhere."""
    values = {name: str(value.absolute()) if isinstance(value, Path) else value for name, value in settings.items()}
    return [f"{name}={json.dumps(value, ensure_ascii=False)}" for name, value in values.items() if value is not None]


def _make_at(out: str, make: Callable[[Path, OnProgress], Built], *, quiet: bool, as_json: bool) -> Built:
    """Makes a proxy in a folder or for an address, and prints it."""
    with show_progress(quiet=quiet) as on_progress:
        from proxyds.artifact.tables import read_summary
        from proxyds.pipeline.sharing.push import output_at

        with output_at(out, on_progress) as folder:
            built = make(folder, on_progress)
            manifest, summary = read_summary(built.folder)
    from proxyds.cli.results import print_built

    print_built(manifest, summary, show_address(out), was_there=built.was_there, as_json=as_json)
    return built


def _judge(manifest: Manifest, *, strict: bool) -> int:
    """Says what a checked proxy falls short of: its threshold, or what `strict` asks for; returns the exit code."""
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


@click.command()
@click.argument("what", shell_complete=complete_path)
@plugins
@overrides
@as_json
def inspect(what: str, overrides: tuple[str, ...], as_json: bool) -> None:
    """Show what a proxy or a search space holds.

    WHAT is a proxy: a folder, user/name@v1.0.0 on the Hub or an address. No images are fetched. Shows its counts, evidence, cases,
    class balance, cost and provenance.

    Or WHAT is a recipe. Shows the architectures of its search space, what each choice costs, and the probes.
    """
    is_recipe = what.endswith((".yaml", ".yml")) and "://" not in what and not os.path.isdir(what)  # noqa: PTH112 - see below
    if is_recipe or os.path.isfile(what):  # noqa: PTH113 - a name that is too long is no error here
        _inspect_recipe(Path(what), overrides, as_json)
    elif overrides:
        raise click.UsageError(f"--set changes a recipe, and {what} is none: a proxy stays as it was built")
    else:
        _inspect_proxy(what, as_json)


def _inspect_recipe(path: Path, overrides: tuple[str, ...], as_json: bool) -> None:
    from proxyds.recipe.yaml import read_recipe

    read = read_recipe(path, overrides)
    with show_progress(quiet=False) as on_progress:
        from proxyds.pipeline.plan import survey_space

        surveyed = survey_space(read, on_progress=on_progress)
    from proxyds.cli.results import print_space

    print_space(read.space, *surveyed, as_json=as_json)


def _inspect_proxy(place: str, as_json: bool) -> None:
    with show_progress(quiet=False) as on_progress:
        from proxyds.pipeline.audit import audit_tables
        from proxyds.pipeline.sharing.pull import open_tables

        with open_tables(place, on_progress) as (folder, name):
            manifest, tables = audit_tables(folder)
    from proxyds.cli.results import print_inspection

    print_inspection(manifest, tables, name, as_json=as_json)


@click.command()
@click.argument("folder", type=PATH)
@as_json
def verify(folder: Path, as_json: bool) -> None:
    """Compare the proxy in FOLDER with its manifest.

    Reads every byte, and checks that all files follow the format.
    """
    from proxyds.pipeline.audit import audit_proxy

    manifest, _ = audit_proxy(folder)
    n_files, n_bytes = len(manifest.files), sum(facts.bytes for facts in manifest.files.values())
    if as_json:
        print_json({"whole": True, "n_files": n_files, "n_bytes": n_bytes})
    else:
        say(f"{folder}: whole, {n_files} files, {n_bytes:,} bytes, {manifest.name} {manifest.version}")


@click.command()
@click.argument("folder", type=PATH)
@click.option("--check", is_flag=True, help="Change nothing. Exit with 50 if the card differs from its records.")
@as_json
def card(folder: Path, check: bool, as_json: bool) -> None:
    """Render the card of the proxy in FOLDER again from its records."""
    from proxyds.pipeline.build import render

    changed = render(folder, check_only=check)
    if as_json:
        print_json({"rendered": changed})
    elif changed:
        say(f"{folder}: rendered {', '.join(changed)}")
        say("note: the proxy has other bytes now; if it was published, it needs another version to be published again")
    else:
        say(f"{folder}: the card is what its records render to")
