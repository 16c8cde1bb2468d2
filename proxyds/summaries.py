"""What a command prints of its result: plans, proxies, inspections."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import numpy as np

from proxyds.artifact import read_proxy
from proxyds.display import print_table
from proxyds.manifest import Manifest
from proxyds.quantities import duration, with_prefix
from proxyds.records import CASE_MEANINGS, Tables

if TYPE_CHECKING:
    from proxyds.pipeline import Built
    from proxyds.plans import BuildPlan


def summarise_proxy(folder: Path, manifest: Manifest) -> dict[str, Any]:
    """For programs: the manifest without its list of files."""
    return {"folder": str(folder), **manifest.model_dump(mode="json", exclude={"files"})}


def summarise_plan(plan: BuildPlan) -> dict[str, Any]:
    """For programs: what a build would do."""
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


def print_plan(plan: BuildPlan) -> None:
    """Prints what a build would do."""
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


def print_built(built: Built, out: Path) -> None:
    """Prints where a proxy is, what is in it and what to do next."""
    python, program = _programs()
    verb = "is there already, unchanged (--force builds it again)" if built.was_there else "built"
    click.echo(f"{built.manifest.name} {built.manifest.version} {verb}: {out}\n")
    print_inspection(*read_proxy(built.folder), whole=False)
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


def print_inspection(manifest: Manifest, tables: Tables, *, whole: bool = True) -> None:
    """Prints a proxy's counts, cases and probes; the whole with class balance, cost and provenance."""
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
