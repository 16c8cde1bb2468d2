"""What the commands that share and fetch print of their results."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from proxyds.artifact.manifest import MANIFEST
from proxyds.cli.output import name_programs, summarise_proxy
from proxyds.cli.progress import print_table

if TYPE_CHECKING:
    from proxyds.artifact.manifest import Manifest
    from proxyds.pipeline.pull import Pulled
    from proxyds.pipeline.push import Pushed


def summarise_push(pushed: Pushed) -> dict[str, Any]:
    """For programs: what a push did, or would do."""
    held = {name: value for name, value in vars(pushed).items() if name not in ("manifest", "files")}
    files = [asdict(each) for each in pushed.files]
    return {"name": pushed.manifest.name, "version": pushed.manifest.version, **held, "files": files}


def print_pushed(pushed: Pushed) -> None:
    """Prints what a push did, or would do."""
    manifest = pushed.manifest
    what = f"{manifest.name} {manifest.version}"
    at = f"{pushed.place}@{pushed.tag}" if pushed.tag else pushed.place
    if pushed.is_plan:
        _print_plan(pushed, what, at)
        return
    if pushed.was_there and pushed.pull_request:
        click.echo(f"{pushed.place}: was asked to take {what} before; nothing was changed")
    elif pushed.was_there:
        same = "has the very bytes of" if pushed.commit else "has the manifest of, and files of the same sizes as,"
        click.echo(f"{at}: {same} {what} already; nothing was changed")
    elif pushed.pull_request:
        click.echo(f"{pushed.place}: asked to take {what}")
    else:
        click.echo(f"{what} published: {at} ({len(manifest.files)} files and {MANIFEST})")
    if pushed.pull_request:
        click.echo(f"pull request: {pushed.pull_request}\nwhen it is merged, its owner pushes once more to put the tag")
    _print_replaced(pushed)
    if manifest.evidence is None:
        click.echo(
            "note: nothing on its card shows that it ranks better than a random subset; `proxyds check` adds the evidence"
        )
    _print_gate(manifest)
    if pushed.tag is not None:
        python, program = name_programs()
        load = f"load_dataset('{pushed.place}', revision='{pushed.tag}')"
        click.echo(f'\nnext:\n  {program} pull {at}\n  {python} -c "from datasets import load_dataset; print({load})"')


def _print_plan(pushed: Pushed, what: str, at: str) -> None:
    rows = [(each.name, f"{each.n_bytes:,}" if each.change != "removed" else "", each.change) for each in pushed.files]
    print_table(f"{what} to {at}", ("file", "bytes", "change"), rows)
    n_bytes = sum(each.n_bytes for each in pushed.files if each.is_sent)
    made = ", which would be made" if pushed.is_new_place else ""
    click.echo(f"\n{n_bytes:,} bytes would be sent to {pushed.place}{made}; nothing was done")
    _print_replaced(pushed)
    _print_gate(pushed.manifest)


def _print_replaced(pushed: Pushed) -> None:
    if pushed.replaced is not None:
        what = f"holds version {pushed.replaced} now" if pushed.is_plan else f"held version {pushed.replaced} until now"
        click.echo(f"note: main {what}")


def _print_gate(manifest: Manifest) -> None:
    evidence = manifest.evidence
    if evidence is not None and evidence.passed is False:
        click.echo(
            f"note: its check fell below its threshold, {evidence.check.threshold:g} for the lower end of Kendall tau"
        )


def summarise_pull(pulled: Pulled, out: str) -> dict[str, Any]:
    """For programs: what was fetched."""
    return {**summarise_proxy(out, pulled.manifest), "origin": asdict(pulled.origin), "was_there": pulled.was_there}


def print_pulled(pulled: Pulled, out: str) -> None:
    """Prints what was fetched, and whether to believe it."""
    manifest, origin = pulled.manifest, pulled.origin
    n_bytes = sum(facts.bytes for facts in manifest.files.values())
    verb = "is there already, unchanged" if pulled.was_there else "fetched and verified"
    click.echo(f"{manifest.name} {manifest.version} {verb}: {out}, {len(manifest.files)} files, {n_bytes:,} bytes")
    click.echo(f"from {origin.name}" + (f", commit {origin.commit}" if origin.commit else ""))
    if origin.is_from_cache:
        click.echo("HF_HUB_OFFLINE is set: the Hub was not asked, this is what was fetched before under that name")
    if origin.is_head:
        known = f"; its versions: {', '.join(origin.tags)}" if origin.tags else ""
        click.echo(f"no version was asked for, so this is the head of main, which can change{known}")
    click.echo(
        f"\n{manifest.counts.proxy:,} of {manifest.counts.train:,} training samples of {manifest.source.name}, "
        f"{len(manifest.proxy_label_names)} labels, licence {manifest.licence}"
    )
    if manifest.evidence is None:
        click.echo("evidence: none; nothing shows that it ranks better than a random subset")
    else:
        click.echo(f"verdict: {manifest.evidence.verdict}. {manifest.evidence.explanation}")
    _print_gate(manifest)
    if "://" not in out:
        click.echo(f"\nnext:\n  {name_programs()[1]} inspect {out}")
